"""How hypothesis draws: the same examples at every run, fresh ones with `make fuzz`."""

import os

from hypothesis import settings

# The same ones at every run find nothing new: so many for a change, the rest is for the search.
settings.register_profile("gate", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("TIDEGATE_HYPOTHESIS", "gate"))
