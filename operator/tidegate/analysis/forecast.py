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
    alpha = max(1.0 - objective.confidence, 1e-9)
    carried: list[int | None] = []
    proven: list[int | None] = []
    for result in judgement.results:
        if result.test is Test.ERRORS:
            limit = objective.max_error_rate
        elif result.test is Test.LATENCY:
            limit = objective.slow_share
        else:
            continue
        # Not every request has a latency that counts.
        each = max(judgement.requests / max(result.canary_requests, 1), 1.0)
        if weight < 1.0:
            carried.append(_scaled(_until_carried(result, limit, weight, alpha), each))
        proven.append(_scaled(_until_proven(result, limit, objective.margin, alpha), each))
    waits = [
        max([1, *known])
        for needed in (carried, proven)
        if needed and len(known := [wait for wait in needed if wait is not None]) == len(needed)
    ]
    return min(waits, default=None)


def _scaled(wait: int | None, each: float) -> int | None:
    return None if wait is None else ceil(wait * each)


def _until_carried(result: Result, limit: float, weight: float, alpha: float) -> int | None:
    counts = _going_on(result)
    return _first(lambda more: bound.upper(*counts(more), alpha) * weight <= limit)


def _until_proven(result: Result, limit: float, margin: float, alpha: float) -> int | None:
    """The earlier of two proofs: below the limit, and not worse than stable."""
    needed = -log(alpha)
    counts = _going_on(result)
    waits: list[int | None] = []
    if result.canary_count < limit * result.canary_requests or not result.canary_requests:
        waits.append(_first(lambda more: bound.log_evidence(*counts(more), limit)[1] >= needed))
    if result.stable_requests and result.canary_requests and margin > 0.0:
        log_ratios = _growth(result, margin * limit)

        def not_worse(more: int) -> bool:
            grown = 1.0 + more / result.canary_requests
            values = [value * grown for value in log_ratios]
            return comparison.log_mean(values, result.tempering) >= needed

        waits.append(_first(not_worse))
    return min((wait for wait in waits if wait is not None), default=None)


def _going_on(result: Result) -> Callable[[int], tuple[float, float]]:
    """Failures and requests after so many more, at the share observed."""
    failed, requests, exponent = result.canary_count, result.canary_requests, result.tempering
    share = failed / requests if requests else 0.0
    return lambda more: ((failed + share * more) / exponent, (requests + more) / exponent)


def _growth(result: Result, margin: float) -> list[float]:
    """Log-evidence of "not worse than stable" that requests like those so far are worth."""
    log_ratios = [0.0] * len(comparison.NON_INFERIOR_SHIFTS)
    comparison.add_non_inferiority(
        log_ratios,
        margin,
        (result.stable_count + 0.5) / (result.stable_requests + 1.0),
        (result.canary_count, result.canary_requests),
        (result.stable_count, result.stable_requests),
    )
    return log_ratios


def _first(allowed: Callable[[int], bool]) -> int | None:
    """The least number of requests that is enough, within half a per cent; None: none is."""
    high = 1
    while not allowed(high):
        high *= 4
        if high > _MOST:
            return None
    low = high // 4
    while high - low > max(1, high // 256):
        middle = (low + high) // 2
        if allowed(middle):
            high = middle
        else:
            low = middle
    return high
