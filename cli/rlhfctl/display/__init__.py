"""What a person sees in a terminal, and how a terminal shows it."""
