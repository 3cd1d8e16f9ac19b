"""How many more requests until the evidence allows a weight, if they go on as observed. Pure."""

from collections.abc import Callable
from math import ceil, log
from typing import Final

from tidegate.analysis import bound, comparison
from tidegate.analysis.judgement import Judgement, Objective, Result, Test

_MOST: Final = 1_000_000_000
"""More requests than this is never."""


def requests_for(judgement: Judgement, objective: Objective, weight: float) -> int | None:
    """Canary requests still missing until `weight` is allowed; 0: it is; None: never, as it goes.

    Args:
        judgement: what the tests say now.
        objective: what they test.
        weight: 0 to 1; 1 is promotion, which asks for proof.
    """
    if judgement.proven or (weight < 1.0 and judgement.carries >= weight):
        return 0
    results = {result.test: result for result in judgement.results}
    alpha = max(1.0 - objective.confidence, 1e-9)
    waits = [
        _wait(
            results[Test.ERRORS],
            results.get(Test.ERRORS_AGAINST_STABLE),
            objective.max_error_rate,
            objective.margin,
            weight,
            alpha,
        )
    ]
    latency = results.get(Test.LATENCY)
    if latency is not None:
        wait = _wait(latency, None, objective.slow_share, objective.margin, weight, alpha)
        if wait is not None and latency.canary_requests:
            # Not every request has a latency that counts.
            wait = ceil(wait * max(judgement.requests / latency.canary_requests, 1.0))
        waits.append(wait)
    known = [wait for wait in waits if wait is not None]
    return max(1, *known) if len(known) == len(waits) else None


def _wait(
    result: Result,
    against: Result | None,
    limit: float,
    margin: float,
    weight: float,
    alpha: float,
) -> int | None:
    """For one objective: the earlier of being carried, if `weight` is below 1, and proof."""
    failed, requests = result.canary_count, result.canary_requests
    share = failed / requests if requests else 0.0
    exponent = result.tempering

    def counts(more: int) -> tuple[float, float]:
        return (failed + share * more) / exponent, (requests + more) / exponent

    waits: list[int] = []
    if weight < 1.0 and share * weight < limit:
        waits += _first(lambda more: bound.upper(*counts(more), alpha) * weight <= limit)
    if share < limit:
        waits += _first(lambda more: bound.log_evidence(*counts(more), limit)[1] >= -log(alpha))
    if against is not None and against.stable_requests and requests and margin > 0.0:
        waits += _first(_not_worse(against, margin * limit, alpha))
    return min(waits, default=None)


def _not_worse(against: Result, margin: float, alpha: float) -> Callable[[int], bool]:
    """Whether so many more requests would show that the canary is not worse than stable."""
    log_ratios = [0.0] * len(comparison.NON_INFERIOR_SHIFTS)
    guess = (against.stable_count + 0.5) / (against.stable_requests + 1.0)
    comparison.add_non_inferiority(
        log_ratios,
        margin,
        guess,
        (against.canary_count, against.canary_requests),
        (against.stable_count, against.stable_requests),
    )

    def proven(more: int) -> bool:
        grown = 1.0 + more / against.canary_requests
        values = [value * grown for value in log_ratios]
        return comparison.log_mean(values, against.tempering) >= -log(alpha)

    return proven


def _first(allowed: Callable[[int], bool]) -> list[int]:
    """The least number of requests that is enough, by bisection; empty: none is."""
    high = 1
    while not allowed(high):
        high *= 4
        if high > _MOST:
            return []
    low = 0 if high == 1 else high // 4
    while high - low > max(1, high // 256):
        middle = (low + high) // 2
        if allowed(middle):
            high = middle
        else:
            low = middle
    return [high]
