"""The weighted steps: which share the canary gets, and what lets it have the next."""

from dataclasses import replace
from datetime import timedelta

from tidegate.analysis.forecast import requests_for
from tidegate.analysis.judgement import Objective
from tidegate.api.spec import OnInconclusive
from tidegate.api.units import duration_s
from tidegate.observed import Measured
from tidegate.record import Phase
from tidegate.rollout.holds import held_by_verdict, short, unavailable, unsupported
from tidegate.rollout.promotion import switch
from tidegate.rollout.sight import is_stale, measurable, share_problem
from tidegate.rollout.state import (
    REFRESH_S,
    Course,
    Situation,
    carries,
    elapsed_s,
    enter,
    hold,
    percent,
    rolled_back,
    stamp,
    weights,
)


def to_step(
    s: Situation,
    step: int,
    told: tuple[tuple[str, str, str], ...] = (),
    *,
    refused: bool = False,
) -> Course:
    """To that step of ``rollout.steps``, if the canary can carry it.

    Args:
        s: what is known.
        step: its index.
        told: events to tell besides.
        refused: the route as it is now is refused, which this step mends.
    """
    weight = weights(s.spec)[step]
    if not carries(s, weight):
        return short(s, weight)
    waits = s.gateway is not None and not s.gateway.accepted and bool(s.gateway.message)
    if s.gateway is not None and waits and not refused:
        return hold(s, "WaitingForRoute", s.gateway.message)
    record = replace(s.record, phase=Phase.CANARY, step=step, weight=weight, mirror=0.0)
    count = len(s.spec.rollout.steps)
    found = enter(s, record, f"step {step + 1} of {count}: {percent(weight)} of the traffic")
    return replace(found, told=(*told, *found.told))


def at_step(s: Situation) -> Course:
    """The canary has the share of a step: to the next, to the last, or on as it is."""
    record, rollout = s.record, s.spec.rollout
    steps = weights(s.spec)
    index = min(record.step or 0, len(steps) - 2)
    if record.weight != steps[index]:
        # The steps were edited: the weight never rises by that.
        if steps[index] < record.weight:
            return to_step(s, index)
        index = max((i for i, w in enumerate(steps[:-1]) if w <= record.weight), default=0)
    following = steps[index + 1]
    hold_left_s = duration_s(rollout.steps[index].hold) - elapsed_s(record.since, s.now)
    if not measurable(s):
        return hold(
            s, "NotMeasured", 'runtime.sidecar is "Off": nothing is measured; promote it by hand'
        )
    measured = s.measured
    if measured is None or is_stale(measured, s.now):
        # That an operator has just begun to look, or a pod is silent for a moment, decides nothing.
        blind_s = measured.blind_s if measured is not None else 0.0
        if blind_s >= duration_s(rollout.on_inconclusive.deadline):
            return inconclusive(s, "its counters cannot be read") or unavailable(s)
        return unavailable(s)
    uncounted = unsupported(measured, s)
    if uncounted is not None:
        return uncounted
    held = held_by_verdict(s)
    if held is not None:
        return inconclusive(s, held.message) or held
    odd = share_problem(s, measured)
    if odd:
        return inconclusive(s, odd) or hold(s, "WeightNotObserved", odd)
    judged = measured.judgement
    enough = judged.proven if following >= 1.0 else judged.carries >= following
    if not enough:
        needed = requests_for(judged, Objective.of(s.spec), following)
        text = _needs(needed, following, measured, record.weight)
        return inconclusive(s, text) or hold(
            s, "NeedsMoreRequests", text, needed=needed, again_after_s=REFRESH_S
        )
    if hold_left_s > 0:
        at = stamp(s.now + timedelta(seconds=hold_left_s))
        return hold(
            s,
            "",
            f"{percent(following)} at {at}, if it goes on like this",
            again_after_s=hold_left_s,
            next_decision=at,
        )
    if not carries(s, following):
        return short(s, following)
    if following < 1.0:
        return to_step(s, index + 1)
    return switch(s)


def inconclusive(s: Situation, why: str) -> Course | None:
    """What ``rollout.onInconclusive`` says, once its deadline has passed."""
    policy = s.spec.rollout.on_inconclusive
    if elapsed_s(s.record.since, s.now) < duration_s(policy.deadline):
        return None
    if policy.action is OnInconclusive.ROLL_BACK:
        return rolled_back(s, "Inconclusive", f"not decided within onInconclusive.deadline: {why}")
    if policy.action is OnInconclusive.PROMOTE and s.record.phase is Phase.CANARY:
        following = (s.record.step or 0) + 1
        if following < len(weights(s.spec)) - 1:
            return to_step(s, following)
        return switch(s)
    return None


def _needs(needed: int | None, following: float, measured: Measured, weight: float) -> str:
    goal = "promotion" if following >= 1.0 else percent(following)
    if needed is None:
        return f"at the rate of errors seen so far {goal} is out of reach"
    rate = measured.arrivals_per_s
    if not rate or rate * weight <= 0:
        return f"{needed} more requests to the canary before {goal}; none arrive at present"
    seconds = needed / (rate * weight)
    return f"{needed} more requests to the canary before {goal}, about {seconds:.0f} s at this rate"
