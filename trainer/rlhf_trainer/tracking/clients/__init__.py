"""Trackers of others, a file each: their own clients, imported only where their variables are set."""
