"""`rlhfctl --help`, section Steer."""
