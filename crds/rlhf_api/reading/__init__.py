"""A manifest as text, and the tree of fields that it may have."""
