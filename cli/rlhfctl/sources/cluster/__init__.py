"""The runs of a cluster."""
