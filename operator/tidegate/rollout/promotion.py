"""All traffic to the canary, by evidence or by hand, and the bake that follows."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tidegate.api.spec import Strategy
from tidegate.api.units import duration_s
from tidegate.record import Phase
from tidegate.rollout.holds import held_by_verdict, short, unavailable
from tidegate.rollout.sight import out_of_sight
from tidegate.rollout.state import (
    REFRESH_S,
    Course,
    Golden,
    Situation,
    by_steps,
    carries,
    elapsed_s,
    ended,
    enter,
    evidence_of,
    hold,
    stamp,
)


def switch(s: Situation) -> Course:
    """All traffic to the canary, the old pods stay."""
    if not carries(s, 1.0):
        return short(s, 1.0)
    recreated = s.spec.rollout.strategy is Strategy.RECREATE
    if s.waiting_gates and not recreated:  # Recreate asks before it begins
        return hold(s, "WaitingForGates", f"rollout.gates: {', '.join(s.waiting_gates)}")
    message = "promoted"
    judged = s.measured.judgement if s.measured is not None else None
    evidence: dict[str, Any] = {}
    if judged is not None and judged.results and (judged.requests or by_steps(s)):
        first = judged.results[0]
        message = f"promoted: {first.explanation}"
        evidence = evidence_of(first, s.measured)
    elif not by_steps(s):
        message = "switched at once, its pods are ready"
        if s.golden is Golden.PASSED:
            message += " and its golden answers right"
        if s.spec.rollout.strategy is Strategy.CANARY:
            message += "; without traffic.gateway no step can be kept"
    record = replace(
        s.record, phase=Phase.BAKING, weight=1.0, mirror=0.0, step=None, evidence=evidence
    )
    return enter(s, record, message, event="Promoted")


def forced(s: Situation) -> Course:
    """Promoted by hand: as soon as its pods can carry it, past evidence, gates and pause."""
    if not s.pinned or not carries(s, 1.0):
        return short(s, 1.0)
    record = replace(s.record, phase=Phase.BAKING, weight=1.0, mirror=0.0, step=None, evidence={})
    return enter(s, record, s.record.forced, event="Promoted")


def baking(s: Situation) -> Course:
    """It has all of the traffic, and the old pods are there to go back to."""
    left_s = duration_s(s.spec.rollout.bake) - elapsed_s(s.record.since, s.now)
    if s.measured is not None:
        held = held_by_verdict(s, promoted=True)
        if held is not None:
            return held
    if left_s > 0:
        at = stamp(s.now + timedelta(seconds=left_s))
        return hold(
            s,
            "",
            f"{s.record.message}; the old pods stay until {at}",
            again_after_s=min(left_s, REFRESH_S) if s.measured is not None else left_s,
            next_decision=at,
        )
    if not carries(s, 1.0):
        return hold(s, "CanaryShort", "not all of its pods are ready, so the old ones stay")
    if out_of_sight(s) and not s.record.forced:
        found = unavailable(s)
        return replace(found, message=f"{found.message}. The old pods stay until then")
    return ended(s, s.record.message)
