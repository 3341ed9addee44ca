"""What a stage tells of its metrics while it works: a copy in the store, and points for trackers."""
