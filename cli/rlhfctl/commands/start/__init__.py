"""`rlhfctl --help`, section Start."""
