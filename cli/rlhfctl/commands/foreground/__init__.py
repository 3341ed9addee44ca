"""A run that this process drives: from its manifest to its report."""
