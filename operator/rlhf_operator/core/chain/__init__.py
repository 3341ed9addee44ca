"""What the run has done so far: its iterates, its gates, and what Latest, Previous and Best mean now."""
