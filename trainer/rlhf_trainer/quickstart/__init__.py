"""The quickstart's world: a task that a program can grade, a tiny model, and data, all made on the spot from a seed."""
