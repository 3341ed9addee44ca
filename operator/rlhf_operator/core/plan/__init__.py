"""Which stage comes next, and what it works on."""
