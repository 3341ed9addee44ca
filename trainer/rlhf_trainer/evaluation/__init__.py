"""From answers to metrics with their intervals, and to what the report shows."""
