"""Before any live request: pods, golden requests, and whether there can be copies."""

from dataclasses import replace

from tidegate.api.spec import MirrorMode, Strategy
from tidegate.api.units import duration_s, fraction
from tidegate.diagnosis import Severity
from tidegate.record import Phase
from tidegate.rollout.mirroring import past_mirror
from tidegate.rollout.state import (
    Course,
    Golden,
    Situation,
    by_steps,
    carries,
    elapsed_s,
    ended,
    enter,
    hold,
    next_weight,
)


def preparing(s: Situation) -> Course:
    """Its pods are made; nothing is asked of them yet."""
    canary = s.canary
    if s.wanted == 0:
        return ended(s, "replicas is 0, so nothing serves and nothing can be tried")
    share = next_weight(s.spec, s.record, stepwise=by_steps(s))
    if s.spec.rollout.strategy is Strategy.BLUE_GREEN:
        share = 1.0
    if canary is None or not s.pinned or not carries(s, share):
        why = ""
        message = "the new revision's pods are being made"
        if canary is not None and canary.finding.severity >= Severity.WAITING:
            why, message = canary.finding.reason, canary.finding.message
        left_s = duration_s(s.spec.rollout.progress_deadline) - elapsed_s(s.record.started, s.now)
        return hold(s, why, message, again_after_s=max(1.0, left_s + 0.1))
    preview = s.spec.rollout.strategy is Strategy.BLUE_GREEN
    if s.golden is not Golden.NOT_ASKED or preview:
        return enter(s, replace(s.record, phase=Phase.VERIFYING), "its pods are ready")
    return _verified(s)


def verifying(s: Situation) -> Course:
    """Golden requests are sent to its pods."""
    if s.golden is Golden.PENDING:
        return hold(s, "GoldenRequests", s.golden_message or "golden requests are being sent")
    return _verified(s)


def _verified(s: Situation) -> Course:
    """Ready, and its golden answers are right: on to live requests."""
    mirror = s.spec.rollout.mirror
    if mirror.mode is MirrorMode.OFF or s.spec.rollout.strategy is Strategy.RECREATE:
        return past_mirror(s)
    why = _no_copies(s)
    if not why:
        canary = s.canary
        share = min(fraction(mirror.percent), canary.ready / max(1, s.full_canary) if canary else 0)
        record = replace(s.record, phase=Phase.MIRRORING, mirror=share)
        return enter(s, record, f"{share:.3g} of the requests are copied to it")
    if mirror.mode is MirrorMode.REQUIRED:
        text = f"rollout.mirror.mode is Required, and {why}; mend that, or set mirror.mode to Auto"
        return hold(s, "MirrorUnavailable", text)
    return past_mirror(s)


def _no_copies(s: Situation) -> str:
    """Why no live requests can be copied to the canary; empty: they can."""
    if s.gateway is None:
        return "there is no traffic.gateway that could copy requests"
    if s.canary is not None and not s.canary.sidecar:
        return 'runtime.sidecar is "Off", so nobody counts copies'
    if not s.gateway.can_mirror:
        known = "is not known to mirror" if s.gateway.can_mirror is None else "does not mirror"
        return f"the gateway {known}"
    if s.canary is None or not s.canary.takes_copies:
        return "the Service of this revision, made by an older operator, takes no copies"
    return ""
