"""Live requests are copied to the canary, whose answers no client sees."""

from dataclasses import replace

from tidegate.analysis.forecast import requests_for
from tidegate.analysis.judgement import Objective
from tidegate.api.spec import MirrorMode
from tidegate.api.units import duration_s
from tidegate.rollout.holds import held_by_verdict, unavailable, unsupported
from tidegate.rollout.promotion import switch
from tidegate.rollout.sight import is_stale, measurable
from tidegate.rollout.state import (
    MIRROR_PATIENCE_S,
    SHARE_LEAST_EXPECTED,
    Course,
    Situation,
    by_steps,
    elapsed_s,
    hold,
    weights,
)
from tidegate.rollout.steps import inconclusive, to_step


def mirroring(s: Situation) -> Course:
    """Copies until they are enough, or until nobody can say that they will be."""
    mirror, measured = s.spec.rollout.mirror, s.measured
    spent_s = elapsed_s(s.record.since, s.now)
    left_s = duration_s(mirror.deadline) - spent_s
    required = mirror.mode is MirrorMode.REQUIRED
    gateway = s.gateway
    if s.record.mirror == 0.0 or (gateway is not None and gateway.refused):
        # A route whose mirror is refused may answer nobody: it goes before anything is looked at.
        text = f"the gateway refuses to mirror: {gateway.message if gateway is not None else ''}"
        without = replace(s, record=replace(s.record, mirror=0.0))
        if required:
            return hold(without, "MirrorUnavailable", text)
        told = (("Warning", "MirrorUnavailable", f"{text}; going on without"),)
        return past_mirror(without, told, refused=True)
    if measured is None or is_stale(measured, s.now):
        return unavailable(s)
    held = unsupported(measured, s) or held_by_verdict(s)
    if held is not None:
        return held
    seen = measured.mirrored
    first = weights(s.spec)[0] if by_steps(s) else 0.0
    if seen >= mirror.min_requests and measured.judgement.carries >= first:
        return past_mirror(s)
    silent = seen == 0 and measured.stable_arrivals >= SHARE_LEAST_EXPECTED / max(
        s.record.mirror, 1e-3
    )
    if silent and spent_s > MIRROR_PATIENCE_S:
        text = "no copy arrives at the canary, though clients send requests"
        if required:
            return hold(s, "MirrorUnavailable", text)
        return past_mirror(s, (("Warning", "MirrorUnavailable", f"{text}; going on"),))
    if left_s <= 0:
        text = f"{seen} of {mirror.min_requests} copies within mirror.deadline ({mirror.deadline})"
        if not required:
            return past_mirror(s)
        decided = inconclusive(s, text)
        return decided or hold(s, "NeedsMoreRequests", text)
    needed = max(0, mirror.min_requests - seen)
    goal = "the first step" if first else "all traffic moves"
    if first:
        more = requests_for(measured.judgement, Objective.of(s.spec), first)
        needed = max(needed, more or 0)
    return hold(
        s,
        "NeedsMoreRequests",
        f"{needed} more copied requests before {goal}",
        needed=needed,
        again_after_s=left_s + 0.1,
    )


def past_mirror(
    s: Situation, told: tuple[tuple[str, str, str], ...] = (), *, refused: bool = False
) -> Course:
    """To the first step or, where there are none, all at once; arguments as of `to_step`."""
    if not by_steps(s):
        found = switch(s)
        return found if found.record == s.record else replace(found, told=(*told, *found.told))
    if measurable(s) and (s.measured is None or is_stale(s.measured, s.now)):
        return unavailable(s)  # No client is sent to what nobody watches.
    return to_step(s, 0, told, refused=refused)
