"""What must fit together between fields, a file a subject."""
