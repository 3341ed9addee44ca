"""The checks of stage preflight, a file a subject."""
