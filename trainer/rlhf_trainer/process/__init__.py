"""A stage as a process: how it starts, what becomes of its log, its signals and its scratch."""
