"""Which of what was read of a load is worth a look of the reconciler. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.server import Law
from tidegate.observed import Attained

REFRESH_S: Final = 60.0
"""Between two looks for figures alone."""
FIGURE_STEP: Final = 0.1
"""A figure that changed by this share is news, at that pace."""

Scaled = Mapping[str, tuple[Demand | None, Law]]
"""By revision hash, what is known of the load of those that scale, and by which law."""


class _Signal(NamedTuple):
    """What matters to a decision, or to a condition."""

    demands: tuple[tuple[Any, ...], ...]
    latency_met: bool | None
    errors_met: bool | None


class News:
    """What the reconciler was last told of one ModelDeployment. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._told: _Signal | None = None
        self._figures: tuple[float | None, ...] = ()
        self._told_at: float | None = None

    def has_come(self, attained: Attained | None, scaled: Scaled, now: float) -> bool:
        """Whether it is to be told; from then on it counts as told.

        Args:
            attained: what clients got lately.
            scaled: the loads.
            now: when that was read.
        """
        signal = _Signal(
            tuple(_of_demand(hash_, *scaled[hash_]) for hash_ in sorted(scaled)),
            None if attained is None else attained.latency_met,
            None if attained is None else attained.errors_met,
        )
        figures = _shown(attained, scaled)
        if signal == self._told and (
            (self._told_at is not None and now - self._told_at < REFRESH_S)
            or not _moved(self._figures, figures)
        ):
            return False
        self._told, self._figures, self._told_at = signal, figures, now
        return True


def _of_demand(hash_: str, demand: Demand | None, law: Law) -> tuple[Any, ...]:
    """What of a demand may change the replicas or a condition."""
    if demand is None:
        return (hash_,)
    return (
        hash_,
        demand.required_replicas,
        demand.required_max,
        demand.infeasible,
        demand.capacity_per_pod is not None,
        demand.coverage >= law.least_coverage,
        demand.age_s <= law.stale_intervals * law.interval_s,
    )


def _shown(attained: Attained | None, scaled: Scaled) -> tuple[float | None, ...]:
    """The figures that status shows."""
    shown: list[float | None] = []
    if attained is not None and attained.answered:
        shown += [attained.quantile_ms, attained.failed / attained.answered]
    else:
        shown += [None, None]
    for hash_ in sorted(scaled):
        demand, _ = scaled[hash_]
        shown += [
            None if demand is None else demand.arrivals_per_s,
            None if demand is None else demand.capacity_per_pod,
        ]
    return tuple(shown)


def _moved(before: Sequence[float | None], now: Sequence[float | None]) -> bool:
    if len(before) != len(now):
        return True
    for old, new in zip(before, now, strict=True):
        if (old is None) != (new is None):
            return True
        if old is not None and new is not None and abs(new - old) > FIGURE_STEP * max(old, new):
            return True
    return False
