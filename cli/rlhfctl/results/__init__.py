"""What a run has produced, read from its status and its store, for whoever shows it. Nothing here prints."""
