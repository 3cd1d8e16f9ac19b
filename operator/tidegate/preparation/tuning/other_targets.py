"""What another target would cost: the capacity model's pick, then what was seen of it.

Measured from the rate that is expected, as the search does it for the target that was asked for.
Pure: measuring is given.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from tidegate.preparation.tuning.grid import Setting
from tidegate.preparation.tuning.learning import Predicted
from tidegate.preparation.tuning.search import (
    FIRST_RATE_PER_S,
    SATURATED,
    Held,
    Measure,
    Objective,
    Tuned,
    highest,
    ranked,
)

FACTORS: Final = (0.5, 2.0)
"""Of the target that was asked for."""
MOST_RUNS: Final = 4
"""Stretches of load for one setting."""
MOST_TRIED: Final = 2
"""Settings, where the first does not hold it."""


@dataclass(frozen=True)
class Other:
    """What another target would cost.

    Attributes:
        objective: with that target.
        setting: the cheapest; None: none holds it, as far as is known.
        rate_per_s: that it holds.
        cost_s: processor seconds for a million requests there.
        measured: it was seen; else the capacity model says so.
        tried: what was measured for it.
    """

    objective: Objective
    setting: Setting | None
    rate_per_s: float
    cost_s: float
    measured: bool
    tried: tuple[Held, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        held = self.setting is not None
        return {
            "objective": str(self.objective),
            "setting": str(self.setting) if held else None,
            "ratePerSecond": self.rate_per_s if held else None,
            "cpuSecondsPerMillion": self.cost_s if held else None,
            "measured": self.measured,
            "tried": [one.document() for one in self.tried],
        }


def modelled(tuned: Tuned, factor: float) -> Other:
    """What the capacity model says of a target, corrected by what was seen of the one asked for.

    Args:
        tuned: the search for the target that was asked for.
        factor: of that target.
    """
    objective = tuned.objective.times(factor)
    for setting, found in _expected(tuned, objective):
        return Other(objective, setting, found.rate_per_s, found.cost_s, measured=False)
    return Other(objective, None, 0.0, 0.0, measured=False)


def measured(
    tuned: Tuned,
    factor: float,
    measure: Callable[[Objective], Measure],
    *,
    most_runs: int = MOST_RUNS,
    tell: Callable[[str], None] = lambda text: None,
) -> Other:
    """What a target costs as it was seen.

    Args:
        tuned: the search for the target that was asked for.
        factor: of that target.
        measure: what measures settings for an objective.
        most_runs: stretches of a setting at most.
        tell: is told what goes on.
    """
    objective = tuned.objective.times(factor)
    found = list(_expected(tuned, objective))
    if not found and tuned.best is not None:
        # Nothing is expected to hold it; a real server has the last word.
        found = [(tuned.best.setting, Predicted(0.0, 0.0))]
    tried: list[Held] = []
    for setting, expected in found[:MOST_TRIED]:
        most_per_s = SATURATED * tuned.learned[setting.workers].saturated_per_s
        guess = min(expected.rate_per_s or FIRST_RATE_PER_S, most_per_s)
        tell(f"{objective} instead: measuring {setting}, {guess:.0f} requests a second expected")
        tried.append(highest(measure(objective), setting, objective, guess, most_runs=most_runs))
        if tried[-1].rate_per_s:
            break
    holding = [one for one in tried if one.rate_per_s]
    if factor >= 1.0 and tuned.best is not None:
        holding.append(tuned.best)  # what holds the tighter target holds this one
    if not holding:
        return Other(objective, None, 0.0, 0.0, measured=bool(tried), tried=tuple(tried))
    best = min(holding, key=lambda one: one.cost_s)
    return Other(
        objective, best.setting, best.rate_per_s, best.cost_s, measured=True, tried=tuple(tried)
    )


def _expected(tuned: Tuned, objective: Objective) -> list[tuple[Setting, Predicted]]:
    """Settings that the model expects to hold a target, cheapest first."""
    rate_off, cost_off = _off(tuned)
    return [
        (setting, replace(p, rate_per_s=p.rate_per_s * rate_off, cost_s=p.cost_s * cost_off))
        for setting, p in ranked(tuned.predicted, tuned.learned, objective).items()
        if p.rate_per_s > 0.0
    ]


def _off(tuned: Tuned) -> tuple[float, float]:
    """By which factors what was seen differed from what was expected: rate and cost."""
    best = tuned.best
    expected = tuned.predicted.get(best.setting) if best is not None else None
    if best is None or expected is None or not (expected.rate_per_s and expected.cost_s):
        return 1.0, 1.0
    return best.rate_per_s / expected.rate_per_s, best.cost_s / expected.cost_s
