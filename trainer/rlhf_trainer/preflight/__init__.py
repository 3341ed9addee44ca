"""The checks of stage preflight, a file a subject.

They raise ConfigurationProblem; what is only doubtful they return, or put into `warnings`. `stages/preflight.py` lists them.
"""
