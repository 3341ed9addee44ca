"""Models as they lie in a folder: weights, heads, vocabulary and template, the sampling engine."""
