"""The runs of a state folder of this machine."""
