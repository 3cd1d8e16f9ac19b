"""A canary on trial: phase by phase, what lets it go on, what holds it, what takes it back."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from tidegate.analysis.forecast import requests_for
from tidegate.analysis.judgement import Judgement, Objective, Test
from tidegate.api.spec import MirrorMode, OnInconclusive, Strategy
from tidegate.api.units import duration_s, fraction
from tidegate.diagnosis import Severity
from tidegate.observed import Measured
from tidegate.record import Phase
from tidegate.rollout.state import (
    FAILS_AT_ONCE,
    MEASURED,
    METRICS_PATIENCE_S,
    MIRROR_PATIENCE_S,
    REFRESH_S,
    REFUSALS_LEAST,
    REFUSALS_MARGIN,
    SHARE_LEAST_EXPECTED,
    SHARE_PATIENCE_S,
    TEST_REASONS,
    Course,
    Golden,
    Situation,
    by_steps,
    carries,
    elapsed_s,
    ended,
    enter,
    evidence_of,
    held_back,
    hold,
    next_weight,
    percent,
    rolled_back,
    stamp,
    weights,
)


def trial(s: Situation) -> Course:
    """Go on with a canary, hold it, or take it back."""
    held = held_back(s)
    if held is None and s.record.reason and s.record.phase in (Phase.PREPARING, Phase.VERIFYING):
        # Recreate begins only now, and so do its deadlines.
        at = stamp(s.now)
        begun = replace(s.record, reason="", phase=Phase.PREPARING, started=at, since=at)
        return Course(begun, again_after_s=0.0)
    against = _against(s)
    if against is not None:
        return against
    if not s.record.stable:
        return _first(s)
    if s.gateway is None and s.record.phase in (Phase.MIRRORING, Phase.CANARY):
        return _gateway_gone(s)
    if held is not None:
        return replace(hold(s, *held), record=replace(s.record, reason=held[0]))
    if s.record.forced and s.record.phase is not Phase.BAKING:
        return _forced(s)
    if (s.spec.rollout.paused or s.record.paused) and not _in_gap(s):
        how = "rollout.paused is true" if s.spec.rollout.paused else "a request paused it"
        return hold(s, "Paused", f"{how}; it is still rolled back if it turns out to be bad")
    step = {
        Phase.PREPARING: _preparing,
        Phase.VERIFYING: _verifying,
        Phase.MIRRORING: _mirroring,
        Phase.CANARY: _step,
        Phase.BAKING: _baking,
    }[s.record.phase]
    return step(s)


def _in_gap(s: Situation) -> bool:
    """Whether Recreate has taken the old pods away, so that a pause would only make it longer."""
    gone = s.stable is None or not s.stable.pods
    return s.spec.rollout.strategy is Strategy.RECREATE and gone and s.record.weight < 1.0


def _against(s: Situation) -> Course | None:
    """Whatever says that the canary is bad. First of all, and whatever else holds."""
    record, canary = s.record, s.canary
    if not record.stable:
        # Nothing to go back to: it goes on trying, and status says what to mend.
        return None
    answers = record.phase in MEASURED
    judged = s.measured.judgement if s.measured is not None and answers else None
    if judged is not None and judged.bad is not None:
        bad = judged.bad
        return rolled_back(s, TEST_REASONS[bad.test], bad.explanation, evidence_of(bad, s.measured))
    if s.measured is not None and answers and s.measured.hanging:
        names = ", ".join(s.measured.hanging)
        return rolled_back(s, "Hanging", f"{names}: took requests and gives no answer any more")
    if s.golden is Golden.FAILED:
        return rolled_back(s, "GoldenRequestsFailed", s.golden_message)
    if canary is not None and canary.finding.reason in FAILS_AT_ONCE:
        return rolled_back(s, canary.finding.reason, canary.finding.message)
    deadline_s = duration_s(s.spec.rollout.progress_deadline)
    waits = canary is None or canary.ready == 0
    late = elapsed_s(record.started, s.now) > deadline_s and not record.reason
    if waits and record.phase is Phase.PREPARING and late:
        found = canary.finding if canary is not None else None
        if found is not None and found.reason == "WaitingForGPU":
            return None  # not its fault; status says what would free one
        why = found.message if found is not None and found.message else "no pod became ready"
        limit = s.spec.rollout.progress_deadline
        return rolled_back(
            s, "NeverReady", f"not ready within rollout.progressDeadline ({limit}): {why}"
        )
    if (
        canary is not None
        and record.phase is not Phase.PREPARING
        and canary.ready == 0
        and canary.finding.severity is Severity.FAILING
    ):
        return rolled_back(s, canary.finding.reason, canary.finding.message)
    return None


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


def _preparing(s: Situation) -> Course:
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


def _verifying(s: Situation) -> Course:
    if s.golden is Golden.PENDING:
        return hold(s, "GoldenRequests", s.golden_message or "golden requests are being sent")
    return _verified(s)


def _verified(s: Situation) -> Course:
    """Ready, and its golden answers are right: on to live requests."""
    mirror = s.spec.rollout.mirror
    if mirror.mode is MirrorMode.OFF or s.spec.rollout.strategy is Strategy.RECREATE:
        return _past_mirror(s)
    why = _no_copies(s)
    if not why:
        canary = s.canary
        share = min(fraction(mirror.percent), canary.ready / max(1, s.full_canary) if canary else 0)
        record = replace(s.record, phase=Phase.MIRRORING, mirror=share)
        return enter(s, record, f"{share:.3g} of the requests are copied to it")
    if mirror.mode is MirrorMode.REQUIRED:
        text = f"rollout.mirror.mode is Required, and {why}; mend that, or set mirror.mode to Auto"
        return hold(s, "MirrorUnavailable", text)
    return _past_mirror(s)


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


def _past_mirror(
    s: Situation, told: tuple[tuple[str, str, str], ...] = (), *, refused: bool = False
) -> Course:
    """To the first step or, where there are none, all at once; arguments as of `to_step`."""
    if not by_steps(s):
        found = switch(s)
        return found if found.record == s.record else replace(found, told=(*told, *found.told))
    if _measurable(s) and (s.measured is None or _stale(s.measured, s.now)):
        return _unavailable(s)  # No client is sent to what nobody watches.
    return to_step(s, 0, told, refused=refused)


def _gateway_gone(s: Situation) -> Course:
    """``traffic.gateway`` was taken out of the spec: no share of the requests can be sent to it."""
    without = replace(s, record=replace(s.record, weight=0.0, mirror=0.0))
    if s.record.forced:
        return _forced(without)
    if s.record.phase is Phase.MIRRORING and s.spec.rollout.mirror.mode is not MirrorMode.REQUIRED:
        return _past_mirror(without)
    return hold(
        without,
        "WaitingForRoute",
        "traffic.gateway is gone, and without one no share of the requests can be sent to it: name "
        "one again, or promote by hand",
    )


def _mirroring(s: Situation) -> Course:
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
        return _past_mirror(without, told, refused=True)
    if measured is None or _stale(measured, s.now):
        return _unavailable(s)
    held = _unsupported(measured, s) or _judged(s)
    if held is not None:
        return held
    seen = measured.mirrored
    first = weights(s.spec)[0] if by_steps(s) else 0.0
    if seen >= mirror.min_requests and measured.judgement.carries >= first:
        return _past_mirror(s)
    silent = seen == 0 and measured.stable_arrivals >= SHARE_LEAST_EXPECTED / max(
        s.record.mirror, 1e-3
    )
    if silent and spent_s > MIRROR_PATIENCE_S:
        text = "no copy arrives at the canary, though clients send requests"
        if required:
            return hold(s, "MirrorUnavailable", text)
        return _past_mirror(s, (("Warning", "MirrorUnavailable", f"{text}; going on"),))
    if left_s <= 0:
        text = f"{seen} of {mirror.min_requests} copies within mirror.deadline ({mirror.deadline})"
        if not required:
            return _past_mirror(s)
        decided = _inconclusive(s, text)
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
        return _short(s, weight)
    waits = s.gateway is not None and not s.gateway.accepted and bool(s.gateway.message)
    if s.gateway is not None and waits and not refused:
        return hold(s, "WaitingForRoute", s.gateway.message)
    record = replace(s.record, phase=Phase.CANARY, step=step, weight=weight, mirror=0.0)
    count = len(s.spec.rollout.steps)
    found = enter(s, record, f"step {step + 1} of {count}: {percent(weight)} of the traffic")
    return replace(found, told=(*told, *found.told))


def _step(s: Situation) -> Course:
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
    if not _measurable(s):
        return hold(
            s, "NotMeasured", 'runtime.sidecar is "Off": nothing is measured; promote it by hand'
        )
    measured = s.measured
    if measured is None or _stale(measured, s.now):
        # That an operator has just begun to look, or a pod is silent for a moment, decides nothing.
        blind_s = measured.blind_s if measured is not None else 0.0
        if blind_s >= duration_s(rollout.on_inconclusive.deadline):
            return _inconclusive(s, "its counters cannot be read") or _unavailable(s)
        return _unavailable(s)
    unsupported = _unsupported(measured, s)
    if unsupported is not None:
        return unsupported
    held = _judged(s)
    if held is not None:
        return _inconclusive(s, held.message) or held
    odd = _share_problem(s, measured)
    if odd:
        return _inconclusive(s, odd) or hold(s, "WeightNotObserved", odd)
    judged = measured.judgement
    enough = judged.proven if following >= 1.0 else judged.carries >= following
    if not enough:
        needed = requests_for(judged, Objective.of(s.spec), following)
        text = _needs(needed, following, measured, record.weight)
        return _inconclusive(s, text) or hold(
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
        return _short(s, following)
    if following < 1.0:
        return to_step(s, index + 1)
    return switch(s)


def switch(s: Situation) -> Course:
    """All traffic to the canary, the old pods stay."""
    if not carries(s, 1.0):
        return _short(s, 1.0)
    recreated = s.spec.rollout.strategy is Strategy.RECREATE
    if s.waiting_gates and not recreated:  # Recreate asks before it begins
        return hold(s, "WaitingForGates", f"rollout.gates: {', '.join(s.waiting_gates)}")
    message = "promoted"
    judged = s.measured.judgement if s.measured is not None else None
    evidence: dict[str, Any] = {}
    if judged is not None and judged.results:
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


def _forced(s: Situation) -> Course:
    """Promoted by hand: as soon as its pods can carry it, past evidence, gates and pause."""
    if not s.pinned or not carries(s, 1.0):
        return _short(s, 1.0)
    record = replace(s.record, phase=Phase.BAKING, weight=1.0, mirror=0.0, step=None, evidence={})
    return enter(s, record, s.record.forced, event="Promoted")


def _baking(s: Situation) -> Course:
    left_s = duration_s(s.spec.rollout.bake) - elapsed_s(s.record.since, s.now)
    if s.measured is not None:
        held = _judged(s, promoted=True)
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
        found = _unavailable(s)
        return replace(found, message=f"{found.message}. The old pods stay until then")
    return ended(s, s.record.message)


# Holds.


def _unsupported(measured: Measured, s: Situation) -> Course | None:
    """What cannot be judged is not judged: a stream is many requests, whose answers nobody counts.

    What speaks against a canary (requests one by one that fail, golden answers, crashes) is heard
    before this; only going on by itself is not for it.
    """
    if measured.streams <= measured.requests:
        return None
    return hold(
        s,
        "Unsupported",
        f"clients opened {measured.streams} streams and sent {measured.requests} requests one by "
        "one; what is answered inside a stream is not counted, so there is no evidence to go on "
        "by. Judge it by other means, and promote or skip the step by hand",
    )


def _judged(s: Situation, *, promoted: bool = False) -> Course | None:
    """What the verdict holds up."""
    assert s.measured is not None
    judged = s.measured.judgement
    doubt = "" if promoted else _refuses(judged)
    if doubt:
        return hold(s, "WorseThanStable", doubt)
    if judged.stable_failing and not promoted and not judged.proven:
        return hold(
            s,
            "StableFailing",
            f"the stable revision {s.record.stable} breaks the objective itself, so this one is "
            "not to blame; mend stable, or promote by hand",
        )
    if judged.worse is not None and not promoted:
        return hold(
            s,
            "WorseThanStable",
            f"{judged.worse.explanation}; not surely beyond the objective, so it is not rolled "
            "back. Promote or abort it by hand",
        )
    return None


def _refuses(judged: Judgement) -> str:
    """Why the canary's refusals forbid more weight, though no test is sure yet; empty: nothing.

    An answer that blames the request is no error by the objective, so a canary that refuses
    everything can look proven.
    """
    for result in judged.results:
        if result.test is not Test.CLIENT_ERRORS or result.canary_count < REFUSALS_LEAST:
            continue
        stable = result.stable_count / result.stable_requests if result.stable_requests else 0.0
        if result.observed is not None and result.observed > stable + REFUSALS_MARGIN:
            return f"{result.explanation}; it gets no more weight before that is known better"
    return ""


def _inconclusive(s: Situation, why: str) -> Course | None:
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


def _unavailable(s: Situation) -> Course:
    unread = ", ".join(s.measured.unread) if s.measured is not None else ""
    if s.measured is None and elapsed_s(s.record.since, s.now) < METRICS_PATIENCE_S:
        return hold(s, "NeedsMoreRequests", "its counters are read for the first time")
    return hold(
        s,
        "MetricsUnavailable",
        "the canary's counters cannot be read"
        + (f" ({unread})" if unread else "")
        + "; its weight stays where it is. Check that the operator reaches port 9091 of the pods",
    )


def _short(s: Situation, weight: float) -> Course:
    found = s.canary.finding if s.canary is not None else None
    ready = s.canary.ready if s.canary is not None else 0
    if found is not None and found.severity >= Severity.WAITING:
        return hold(s, found.reason, found.message)
    return hold(
        s,
        "CanaryShort",
        f"{ready} ready pods cannot carry {percent(weight)} of the traffic of {s.full_canary}",
    )


def _share_problem(s: Situation, measured: Measured) -> str:
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


def _measurable(s: Situation) -> bool:
    return s.canary is not None and s.canary.sidecar


def out_of_sight(s: Situation) -> bool:
    """Whether its counters were read and cannot be any more: nobody knows how it does."""
    measured = s.measured
    return measured is not None and measured.read_at is not None and _stale(measured, s.now)


def _stale(measured: Measured, now: datetime) -> bool:
    if measured.read_at is None:
        return True
    return (now - measured.read_at).total_seconds() > METRICS_PATIENCE_S


def _needs(needed: int | None, following: float, measured: Measured, weight: float) -> str:
    goal = "promotion" if following >= 1.0 else percent(following)
    if needed is None:
        return f"at the rate of errors seen so far {goal} is out of reach"
    rate = measured.arrivals_per_s
    if not rate or rate * weight <= 0:
        return f"{needed} more requests to the canary before {goal}; none arrive at present"
    seconds = needed / (rate * weight)
    return f"{needed} more requests to the canary before {goal}, about {seconds:.0f} s at this rate"
