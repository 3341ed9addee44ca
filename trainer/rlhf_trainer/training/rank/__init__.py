"""What one rank does: the loop, its schedule, its checkpoints, the export."""
