"""Rules that a manifest states itself: a pattern, an answer, a number, a JSON Schema (ADR 0032)."""
