"""Ways to make a model smaller or faster: each takes a candidate and gives another.

What they do to the answers is for the gate to say (`tidegate.preparation.gate`), what they do to
the speed for a measurement.
"""
