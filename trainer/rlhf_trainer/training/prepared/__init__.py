"""What sft and reward are trained on: from rows of data sets to ids, once, and kept as an artifact (ADR 0022)."""
