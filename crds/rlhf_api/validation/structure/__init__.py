"""What the models refuse, in words that help: wrong names, wrong places, wrong types."""
