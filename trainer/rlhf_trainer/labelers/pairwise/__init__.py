"""Pairwise preference models: which of two responses is better, asked in both orders."""
