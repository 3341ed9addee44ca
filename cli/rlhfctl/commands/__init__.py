"""A command a file, in the sections of the help; each is imported when it is called. Heavy imports are inside the functions.

Beside them what several commands share: options, completion, following a run.
"""
