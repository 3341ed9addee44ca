"""`rlhfctl --help`, section More."""
