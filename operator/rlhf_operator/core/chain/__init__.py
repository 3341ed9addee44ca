"""The run as a chain: what it has done, its iterates and gates, what Latest, Previous and Best are, what comes from outside."""
