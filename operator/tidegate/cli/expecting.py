"""How long a rollout takes if all goes well: no request fails, none is slow. Pure."""

import math
from dataclasses import dataclass

from tidegate.analysis.forecast import requests_for
from tidegate.analysis.judgement import Consequence, Judgement, Objective, Result, Test
from tidegate.api.spec import Spec
from tidegate.api.units import duration_s, fraction


@dataclass(frozen=True)
class Stage:
    """A part of a rollout.

    Attributes:
        name: such as ``step 2 of 4``.
        weight: the canary's share there, 0 to 1.
        requests: of the canary that this stage must see; None: never enough.
        seconds: how long it lasts; None: without traffic, or without end.
    """

    name: str
    weight: float
    requests: int | None
    seconds: float | None


def stages(spec: Spec, rate_per_s: float | None) -> list[Stage]:
    """The stages of a rollout of this spec, evidence of a mirror left out.

    Args:
        spec: what is asked for.
        rate_per_s: requests a second, of all clients together; None: not known.
    """
    objective = Objective.of(spec)
    rollout = spec.rollout
    bake = Stage("bake", 1.0, 0, duration_s(rollout.bake))
    if rollout.strategy != "Canary":
        return [bake]
    found: list[Stage] = []
    seen = 0
    steps = rollout.steps
    for i, step in enumerate(steps):
        weight = fraction(step.weight)
        following = fraction(steps[i + 1].weight) if i + 1 < len(steps) else 1.0
        more = requests_for(_good(objective, seen), objective, following)
        seconds: float | None = None
        if more == 0:
            seconds = duration_s(step.hold)
        elif more is not None and rate_per_s and weight:
            seconds = max(duration_s(step.hold), more / (rate_per_s * weight))
        found.append(Stage(f"step {i + 1} of {len(steps)}", weight, more, seconds))
        if seconds is not None and rate_per_s:
            seen += max(more or 0, math.floor(seconds * rate_per_s * weight))
        else:
            seen += more or 0
    return [*found, bake]


def total_s(found: list[Stage]) -> float | None:
    """How long all of it takes; None: not known."""
    known = [s.seconds for s in found]
    return None if any(s is None for s in known) else sum(s for s in known if s is not None)


def _good(objective: Objective, requests: int) -> Judgement:
    """What the tests say after so many requests of which none failed or was slow."""
    tests = [(Test.ERRORS, objective.max_error_rate)]
    if objective.latency_target_ms is not None:
        tests.append((Test.LATENCY, objective.slow_share))
    results = tuple(
        Result(
            test=test,
            observed=0.0 if requests else None,
            bound=bound,
            canary_count=0,
            canary_requests=requests,
            stable_count=0,
            stable_requests=0,
            evidence=1.0,
            needed=math.inf,
            fired=False,
            consequence=Consequence.ROLL_BACK,
            explanation="",
        )
        for test, bound in tests
    )
    return Judgement(
        results=results,
        bad=None,
        worse=None,
        stable_failing=False,
        carries=0.0,
        proven=False,
        requests=requests,
    )
