"""Which configuration of Triton meets the objective at the least cost, found by measuring.

`grid`, `learning` and `search` are pure: what can be set, what a probe teaches, what to measure
next. `serving` starts a real Triton, `driving` sends it load in an open loop, `measuring` puts the
two together, `picture` draws what was seen.
"""
