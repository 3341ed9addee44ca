"""The checks of stage preflight, a file a subject.

Each is a function that raises ConfigurationProblem, and puts what is only doubtful into `warnings`.
"""
