"""Models from a folder, as we use them: weights with heads of ours, vocabulary and chat template, the sampling engine."""
