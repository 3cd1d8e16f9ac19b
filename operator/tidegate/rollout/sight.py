"""What is seen of a canary: whether it is measured, when it was last read, which share it gets."""

from datetime import datetime

from tidegate.observed import Measured
from tidegate.rollout.state import (
    METRICS_PATIENCE_S,
    SHARE_LEAST_EXPECTED,
    SHARE_PATIENCE_S,
    Situation,
    elapsed_s,
    percent,
)


def measurable(s: Situation) -> bool:
    """Whether anybody counts what its clients get."""
    return s.canary is not None and s.canary.sidecar


def out_of_sight(s: Situation) -> bool:
    """Whether its counters were read and cannot be any more: nobody knows how it does."""
    measured = s.measured
    return measured is not None and measured.read_at is not None and is_stale(measured, s.now)


def is_stale(measured: Measured, now: datetime) -> bool:
    """Whether its counters were read too long ago to go on by."""
    if measured.read_at is None:
        return True
    return (now - measured.read_at).total_seconds() > METRICS_PATIENCE_S


def share_problem(s: Situation, measured: Measured) -> str:
    """Whether the weight asked for arrives, judged by what the sidecars count."""
    if measured.since != s.record.since:
        return ""
    if elapsed_s(s.record.since, s.now) < SHARE_PATIENCE_S:
        return ""
    total = measured.canary_arrivals + measured.stable_arrivals
    weight = s.record.weight
    if total * weight < SHARE_LEAST_EXPECTED:
        return ""
    share = measured.canary_arrivals / total
    # Five standard deviations for chance, and as much again for keep-alive connections. Callers
    # inside the cluster go past the gateway to stable, so a small share is normal; none is not.
    spread = 10 * (weight * (1 - weight) / total) ** 0.5
    if measured.canary_arrivals == 0 or share > 1.5 * weight + spread:
        return (
            f"{percent(share)} of {total} requests reach the canary where {percent(weight)} was "
            "asked for; look at the gateway and at other routes to its Service"
        )
    return ""
