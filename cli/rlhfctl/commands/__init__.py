"""A command a file; each is imported when it is called. Heavy imports are inside the functions."""
