"""What every stage is given, and how it ends."""
