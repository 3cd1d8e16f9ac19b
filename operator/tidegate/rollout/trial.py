"""A canary on trial: what is heard first, and which phase goes on."""

from dataclasses import replace

from tidegate.api.spec import MirrorMode, Strategy
from tidegate.record import Phase
from tidegate.rollout.mirroring import mirroring, past_mirror
from tidegate.rollout.preparing import preparing, verifying
from tidegate.rollout.promotion import baking, forced
from tidegate.rollout.rollback import against
from tidegate.rollout.state import Course, Golden, Situation, ended, enter, held_back, hold, stamp
from tidegate.rollout.steps import at_step


def trial(s: Situation) -> Course:
    """Go on with a canary, hold it, or take it back."""
    held = held_back(s)
    if held is None and s.record.reason and s.record.phase in (Phase.PREPARING, Phase.VERIFYING):
        # Recreate begins only now, and so do its deadlines.
        at = stamp(s.now)
        begun = replace(s.record, reason="", phase=Phase.PREPARING, started=at, since=at)
        return Course(begun, again_after_s=0.0)
    bad = against(s)
    if bad is not None:
        return bad
    if not s.record.stable:
        return _first(s)
    if s.gateway is None and s.record.phase in (Phase.MIRRORING, Phase.CANARY):
        return _gateway_gone(s)
    if held is not None:
        return replace(hold(s, *held), record=replace(s.record, reason=held[0]))
    if s.record.forced and s.record.phase is not Phase.BAKING:
        return forced(s)
    if (s.spec.rollout.paused or s.record.paused) and not _in_gap(s):
        how = "rollout.paused is true" if s.spec.rollout.paused else "a request paused it"
        return hold(s, "Paused", f"{how}; it is still rolled back if it turns out to be bad")
    step = {
        Phase.PREPARING: preparing,
        Phase.VERIFYING: verifying,
        Phase.MIRRORING: mirroring,
        Phase.CANARY: at_step,
        Phase.BAKING: baking,
    }[s.record.phase]
    return step(s)


def _in_gap(s: Situation) -> bool:
    """Whether Recreate has taken the old pods away, so that a pause would only make it longer."""
    gone = s.stable is None or not s.stable.pods
    return s.spec.rollout.strategy is Strategy.RECREATE and gone and s.record.weight < 1.0


def _first(s: Situation) -> Course:
    """The first revision: golden requests stand between it and the traffic, nothing else."""
    if s.golden in (Golden.FAILED, Golden.PENDING):
        why = "GoldenRequestsFailed" if s.golden is Golden.FAILED else "GoldenRequests"
        return hold(s, why, s.golden_message or "golden requests are being sent")
    ready = s.canary is not None and s.canary.ready > 0
    if not ready and s.wanted > 0:
        return hold(s, "", "")
    if s.record.weight < 1.0:
        return enter(s, replace(s.record, weight=1.0), "golden requests passed")
    if not s.pinned or s.canary is None or s.canary.ready < s.wanted:
        return hold(s, "", "")
    return ended(s, "it is the first")


def _gateway_gone(s: Situation) -> Course:
    """``traffic.gateway`` was taken out of the spec: no share of the requests can be sent to it."""
    without = replace(s, record=replace(s.record, weight=0.0, mirror=0.0))
    if s.record.forced:
        return forced(without)
    if s.record.phase is Phase.MIRRORING and s.spec.rollout.mirror.mode is not MirrorMode.REQUIRED:
        return past_mirror(without)
    return hold(
        without,
        "WaitingForRoute",
        "traffic.gateway is gone, and without one no share of the requests can be sent to it: name "
        "one again, or promote by hand",
    )
