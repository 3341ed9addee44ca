"""How an attempt ended, what that costs, and whether there is another."""
