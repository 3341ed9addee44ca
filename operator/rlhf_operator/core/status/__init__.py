"""What the status, its conditions and the Events say."""
