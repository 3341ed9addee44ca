"""What the operator tells of itself: health, metrics, logs."""
