"""The state folder: runs, their records, logs and locks."""
