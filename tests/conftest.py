"""How hypothesis draws: the same examples at every run, fresh ones with `make fuzz`."""

import os

from hypothesis import settings

settings.register_profile("gate", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("TIDEGATE_HYPOTHESIS", "gate"))
