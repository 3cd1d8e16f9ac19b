"""Random requests for the tests of this package; the same at every run."""

import random
from collections.abc import Callable


def binomial(source: random.Random, trials: int, share: float) -> int:
    """How many of `trials` independent requests fail."""
    draw = source.random
    return [draw() < share for _ in range(trials)].count(True)


def run_lengths(run: Callable[[Callable[[int, float], int]], int], runs: int) -> list[int]:
    """What `run` returns, each time with other random failures."""
    lengths = []
    for seed in range(runs):
        source = random.Random(seed)
        lengths.append(run(lambda trials, share, s=source: binomial(s, trials, share)))  # type: ignore[misc]
    return lengths


def quantiles(values: list[int]) -> tuple[int, int]:
    """Median and 95th percentile."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100]
