"""People as the labeler: what they are asked about, and pairs of what they answered (ADR 0038)."""
