"""`rlhfctl --help`, section Look."""
