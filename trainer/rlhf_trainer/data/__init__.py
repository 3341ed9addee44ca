"""Rows and files: sources, conversations, prompts and preferences, the examples that are trained on."""
