"""The pure core: what a run does next, from what is observed of it. No clock, no network, no random source.

`decide` is the one entry point of the operator and the local backend; `plan.planner.Planner.next_step` is the one of preflight,
which walks the same chain through the store.
"""
