"""The state machine of a rollout: from what is known, which revision gets which traffic.

Level-triggered: the record in force (`tidegate.record`) and what is observed decide, never an
event. Whatever speaks against a canary is looked at first, before pause, readiness and scaling:
a bad revision loses its traffic in the one write that says why. What is not known never counts as
success: without fresh counters, without requests, the weight stays where it is.

Phases: Preparing, Verifying, Mirroring, Canary (step by step), Baking, Promoted; out of each of
the first five to RolledBack (it failed) or Superseded (no longer asked for).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from tidegate.analysis.forecast import requests_for
from tidegate.analysis.judgement import Objective, Result, Test
from tidegate.api.spec import MirrorMode, OnInconclusive, Spec, Strategy
from tidegate.api.units import duration_s, fraction
from tidegate.diagnosis import Finding, Severity
from tidegate.observed import Measured
from tidegate.placement import can_carry
from tidegate.record import Phase, Record
from tidegate.verbs import Request, Verb

LIVE: Final = frozenset(
    {Phase.PREPARING, Phase.VERIFYING, Phase.MIRRORING, Phase.CANARY, Phase.BAKING}
)
"""Phases in which a canary is on trial."""
MEASURED: Final = frozenset({Phase.MIRRORING, Phase.CANARY, Phase.BAKING})
"""Phases in which it answers live requests."""

METRICS_PATIENCE_S: Final = 5.0
"""Without a complete look at the canary's counters for so long, its metrics are unavailable."""
MIRROR_PATIENCE_S: Final = 15.0
"""So long without one copy although clients send requests: the gateway does not mirror."""
SHARE_PATIENCE_S: Final = 5.0
"""A new weight gets so long to arrive before the observed share is compared with it."""
SHARE_LEAST_EXPECTED: Final = 20.0
"""Requests expected on the canary before its observed share says anything."""
YOUNG_S: Final = 10.0
YOUNG_INTERVAL_S: Final = 0.25
INTERVAL_S: Final = 1.0
"""Between two looks at the counters; the shorter one while a phase or step is young."""
REFRESH_S: Final = 10.0
"""So often status is brought up to date while a canary is live."""

FAILS_AT_ONCE: Final = frozenset({"Crashing", "OutOfMemory", "ModelNotLoaded"})
"""Findings about a canary's pod that no patience mends."""

TEST_REASONS: Final = {
    Test.ERRORS: "ErrorRate",
    Test.ERRORS_AGAINST_STABLE: "ErrorRateAgainstStable",
    Test.LATENCY: "Latency",
    Test.LATENCY_AGAINST_STABLE: "LatencyAgainstStable",
    Test.CLIENT_ERRORS: "ClientErrors",
}


class Golden(StrEnum):
    """How the golden requests stand, over all of a revision's pods."""

    NOT_ASKED = "NotAsked"
    PENDING = "Pending"
    PASSED = "Passed"
    FAILED = "Failed"


@dataclass(frozen=True)
class Side:
    """A revision and its pods, as far as a decision needs them.

    Attributes:
        hash: the revision's.
        pods: that exist.
        ready: that can take traffic.
        finding: what holds it.
        sidecar: whether its requests are measured.
        served: whether it was ever promoted.
    """

    hash: str
    pods: int = 0
    ready: int = 0
    finding: Finding = field(
        default_factory=lambda: Finding(Severity.PROGRESSING, "Pending", "Creating", "")
    )
    sidecar: bool = True
    served: bool = False


@dataclass(frozen=True)
class Gateway:
    """How the route stands.

    Attributes:
        accepted: its gateways took it as it is now.
        message: why not.
        can_mirror: whether they mirror requests; None: nobody knows.
    """

    accepted: bool
    message: str = ""
    can_mirror: bool | None = None


@dataclass(frozen=True)
class Situation:
    """All that a decision about traffic depends on.

    Attributes:
        spec: what the user asks for.
        record: the decision in force.
        target: hash of the revision that is asked for.
        target_for: identity of the spec that asks for it.
        stable: the revision of `record.stable`; None: there is none.
        canary: the target's revision, where it is not stable.
        failed: why the target gets no traffic again by itself; None: it has not failed.
        wanted: replicas of the revision that serves.
        pinned: the canary's bytes are pinned, so that all of its pods load the same.
        golden: of the canary.
        golden_message: which answer was wrong; why nothing could be sent.
        measured: of this rollout; None: not yet.
        gateway: None: there is none.
        waiting_gates: names in ``rollout.gates`` whose condition is not True.
        request: a verb that was not handled yet.
        undo_to: hash of the revision that `undo` would lead to; empty: none.
        now: UTC.
    """

    spec: Spec
    record: Record
    target: str
    stable: Side | None
    canary: Side | None
    wanted: int
    now: datetime
    target_for: str = ""
    failed: str | None = None
    pinned: bool = True
    golden: Golden = Golden.NOT_ASKED
    golden_message: str = ""
    measured: Measured | None = None
    gateway: Gateway | None = None
    waiting_gates: tuple[str, ...] = ()
    request: Request | None = None
    undo_to: str = ""


@dataclass(frozen=True)
class Course:
    """What a rollout comes to now.

    Attributes:
        record: the decision from now on.
        hold: why it does not go on, CamelCase; empty: it does.
        message: the same for people.
        next_decision: when, or what it waits for.
        told: events, as (type, reason, message).
        again_after_s: look again after so long; None: on events only.
        requests_needed: canary requests until the next decision; None: unknown.
        forgive: the target's failure is forgotten.
    """

    record: Record
    hold: str = ""
    message: str = ""
    next_decision: str = ""
    told: tuple[tuple[str, str, str], ...] = ()
    again_after_s: float | None = None
    requests_needed: int | None = None
    forgive: bool = False


def serving(record: Record) -> str:
    """Hash of the revision that in-cluster callers reach; empty: none."""
    if record.phase in LIVE and record.weight >= 1.0:
        return record.canary
    return record.stable


def course(s: Situation) -> Course:
    """Decide. Planning again for the record that comes out changes nothing at the same `now`."""
    asked = _asked(s) if s.request is not None and s.request.id != s.record.request else None
    if asked is not None:
        return asked
    record = s.record
    if record.phase in LIVE and record.canary != s.target:
        return _superseded(s)
    if record.phase in LIVE:
        return _trial(s)
    if s.target == record.stable:
        return Course(record, message=record.message)
    if s.failed is not None:
        return Course(record, hold="RolledBack", message=s.failed)
    return _start(s)


def measure_interval_s(record: Record, now: datetime) -> float:
    """Time between two looks at the counters."""
    young = _elapsed_s(record.since, now) < YOUNG_S
    return YOUNG_INTERVAL_S if young else INTERVAL_S


def weights(spec: Spec) -> tuple[float, ...]:
    """The steps' weights and, last, promotion: 1."""
    return (*(fraction(step.weight) for step in spec.rollout.steps), 1.0)


def by_steps(s: Situation) -> bool:
    """Whether the weight rises step by step; otherwise the traffic is switched at once."""
    return s.spec.rollout.strategy is Strategy.CANARY and s.gateway is not None


def next_weight(spec: Spec, record: Record, *, stepwise: bool) -> float:
    """The weight that the canary is to carry next."""
    if not stepwise or record.phase is Phase.BAKING:
        return 1.0
    steps = weights(spec)
    return steps[0] if record.step is None else steps[min(record.step + 1, len(steps) - 1)]


def stamp(now: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: two steps within a second are told apart."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# Beginning and ending.


def _start(s: Situation) -> Course:
    """A new canary."""
    first = s.stable is None or not (s.stable.served or s.stable.ready)
    at = stamp(s.now)
    record = Record(
        stable="" if first else s.record.stable,
        canary=s.target,
        phase=Phase.PREPARING,
        # Nobody is served worse: nothing else serves, and pods that are not Ready get no traffic.
        weight=1.0 if first and s.golden is Golden.NOT_ASKED else 0.0,
        started=at,
        since=at,
        paused=s.record.paused,
        target=s.record.target,
        target_for=s.record.target_for,
        request=s.record.request,
        past=s.record.outcome(),
    )
    told: tuple[tuple[str, str, str], ...] = ()
    if not first:
        told = (
            (
                "Normal",
                "RolloutStarted",
                f"revision {s.target} is tried against {s.record.stable}",
            ),
        )
    return Course(record, told=told, again_after_s=0.0)


def _superseded(s: Situation) -> Course:
    """The canary is no longer asked for: by a newer spec, or because the old one came back."""
    record = s.record
    if not record.stable:
        # The first revision was changed before it ever served: nothing is given back.
        return _start(replace(s, record=replace(record, phase=Phase.SUPERSEDED)))
    if record.phase is Phase.BAKING and s.target != record.stable:
        # It was promoted already: the newer one is tried against it.
        return _ended(s, "a newer spec ends the bake")
    back = "the spec asks for the stable revision again"
    reason = "Reverted" if s.target == record.stable else "Superseded"
    message = back if reason == "Reverted" else f"the spec asks for revision {s.target} now"
    return Course(
        _stopped(s, Phase.SUPERSEDED, reason, message),
        message=message,
        told=(("Normal", reason, f"revision {record.canary} gets no more traffic: {message}"),),
        again_after_s=0.0,
    )


def _rolled_back(
    s: Situation, reason: str, message: str, evidence: Mapping[str, Any] | None = None
) -> Course:
    """The canary failed: all traffic goes to stable, in one write."""
    record = s.record
    mend = "Mend the model and change the spec, or ask for `retry`."
    text = f"{message}. {mend}" if not message.endswith(".") else f"{message} {mend}"
    return Course(
        replace(_stopped(s, Phase.ROLLED_BACK, reason, text), evidence=dict(evidence or {})),
        hold="RolledBack",
        message=text,
        told=(
            (
                "Warning",
                "RolledBack",
                f"revision {record.canary} ({reason}): {message}. "
                + (f"Revision {record.stable} serves." if record.stable else "Nothing serves."),
            ),
        ),
        again_after_s=0.0,
    )


def _stopped(s: Situation, phase: Phase, reason: str, message: str) -> Record:
    return replace(
        s.record,
        phase=phase,
        weight=0.0,
        mirror=0.0,
        step=None,
        since=stamp(s.now),
        reason=reason,
        message=message,
        evidence={},
        past={},
        # What a verb asked for came to its end with this.
        target="",
        target_for="",
    )


def _ended(s: Situation, message: str) -> Course:
    """The canary is stable now."""
    record = s.record
    told: tuple[tuple[str, str, str], ...] = ()
    if record.stable:
        told = (("Normal", "RolloutComplete", f"revision {record.canary} is stable: {message}"),)
    return Course(
        replace(
            record,
            stable=record.canary,
            canary="",
            phase=Phase.PROMOTED,
            weight=0.0,
            mirror=0.0,
            step=None,
            since=stamp(s.now),
        ),
        message=record.message,
        told=told,
        again_after_s=0.0,
    )


# On trial.


def _trial(s: Situation) -> Course:
    against = _against(s)
    if against is not None:
        return against
    if not s.record.stable:
        return _first(s)
    if s.spec.rollout.paused or s.record.paused:
        how = "rollout.paused is true" if s.spec.rollout.paused else "a request paused it"
        return _hold(s, "Paused", f"{how}; it is still rolled back if it turns out to be bad")
    step = {
        Phase.PREPARING: _preparing,
        Phase.VERIFYING: _verifying,
        Phase.MIRRORING: _mirroring,
        Phase.CANARY: _step,
        Phase.BAKING: _baking,
    }[s.record.phase]
    return step(s)


def _against(s: Situation) -> Course | None:
    """Whatever says that the canary is bad. First of all, and whatever else holds."""
    record, canary = s.record, s.canary
    if not record.stable:
        # Nothing to go back to: it goes on trying, and status says what to mend.
        return None
    judged = s.measured.judgement if s.measured is not None else None
    if judged is not None and judged.bad is not None:
        bad = judged.bad
        return _rolled_back(s, TEST_REASONS[bad.test], bad.explanation, evidence_of(bad))
    if s.measured is not None and s.measured.hanging:
        names = ", ".join(s.measured.hanging)
        return _rolled_back(s, "Hanging", f"{names}: took requests and gives no answer any more")
    if s.golden is Golden.FAILED:
        return _rolled_back(s, "GoldenRequestsFailed", s.golden_message)
    if canary is not None and canary.finding.reason in FAILS_AT_ONCE:
        return _rolled_back(s, canary.finding.reason, canary.finding.message)
    deadline_s = duration_s(s.spec.rollout.progress_deadline)
    waits = canary is None or canary.ready == 0
    if waits and record.phase is Phase.PREPARING and _elapsed_s(record.started, s.now) > deadline_s:
        found = canary.finding if canary is not None else None
        if found is not None and found.reason == "WaitingForGPU":
            return None  # not its fault; status says what would free one
        why = found.message if found is not None and found.message else "no pod became ready"
        limit = s.spec.rollout.progress_deadline
        return _rolled_back(
            s, "NeverReady", f"not ready within rollout.progressDeadline ({limit}): {why}"
        )
    if (
        canary is not None
        and record.phase is not Phase.PREPARING
        and canary.ready == 0
        and canary.finding.severity is Severity.FAILING
    ):
        return _rolled_back(s, canary.finding.reason, canary.finding.message)
    return None


def _first(s: Situation) -> Course:
    """The first revision: golden requests stand between it and the traffic, nothing else."""
    if s.golden in (Golden.FAILED, Golden.PENDING):
        hold = "GoldenRequestsFailed" if s.golden is Golden.FAILED else "GoldenRequests"
        return _hold(s, hold, s.golden_message or "golden requests are being sent")
    ready = s.canary is not None and s.canary.ready > 0
    if not ready and s.wanted > 0:
        return _hold(s, "", "")
    if s.record.weight < 1.0:
        return _enter(s, replace(s.record, weight=1.0), "golden requests passed")
    if not s.pinned or s.canary is None or s.canary.ready < s.wanted:
        return _hold(s, "", "")
    return _ended(s, "it is the first")


def _preparing(s: Situation) -> Course:
    canary = s.canary
    if s.wanted == 0:
        return _ended(s, "replicas is 0, so nothing serves and nothing can be tried")
    share = next_weight(s.spec, s.record, stepwise=by_steps(s))
    if s.spec.rollout.strategy is Strategy.BLUE_GREEN:
        share = 1.0
    if canary is None or not s.pinned or not _carries(s, share):
        hold = ""
        message = "the new revision's pods are being made"
        if canary is not None and canary.finding.severity >= Severity.WAITING:
            hold, message = canary.finding.reason, canary.finding.message
        left_s = duration_s(s.spec.rollout.progress_deadline) - _elapsed_s(s.record.started, s.now)
        return _hold(s, hold, message, again_after_s=max(1.0, left_s + 0.1))
    if s.golden is not Golden.NOT_ASKED:
        return _enter(s, replace(s.record, phase=Phase.VERIFYING), "its pods are ready")
    return _verified(s)


def _verifying(s: Situation) -> Course:
    if s.golden is Golden.PENDING:
        return _hold(s, "GoldenRequests", s.golden_message or "golden requests are being sent")
    return _verified(s)


def _verified(s: Situation) -> Course:
    """Ready, and its golden answers are right: on to live requests."""
    if not by_steps(s):
        return _switch(s)
    mirror = s.spec.rollout.mirror
    can = s.gateway is not None and s.gateway.can_mirror
    if mirror.mode is MirrorMode.REQUIRED and not can:
        why = "is not known to mirror" if s.gateway is None or s.gateway.can_mirror is None else ""
        return _hold(
            s,
            "MirrorUnavailable",
            f"rollout.mirror.mode is Required and the gateway {why or 'does not mirror'}; use one "
            "that does, or set mirror.mode to Auto",
        )
    if mirror.mode is not MirrorMode.OFF and can and _measurable(s):
        share = min(fraction(mirror.percent), s.canary.ready / max(1, s.wanted) if s.canary else 0)
        record = replace(s.record, phase=Phase.MIRRORING, mirror=share)
        return _enter(s, record, f"{share:.3g} of the requests are copied to it")
    return _to_step(s, 0)


def _mirroring(s: Situation) -> Course:
    mirror, measured = s.spec.rollout.mirror, s.measured
    elapsed_s = _elapsed_s(s.record.since, s.now)
    left_s = duration_s(mirror.deadline) - elapsed_s
    required = mirror.mode is MirrorMode.REQUIRED
    if measured is None or _stale(measured, s.now):
        if left_s <= 0 and not required:
            return _to_step(s, 0)
        return _unavailable(s)
    held = _judged(s)
    if held is not None:
        return held
    seen = measured.mirrored
    if seen >= mirror.min_requests and measured.judgement.carries >= weights(s.spec)[0]:
        return _to_step(s, 0)
    silent = seen == 0 and measured.stable_arrivals >= SHARE_LEAST_EXPECTED / max(
        s.record.mirror, 1e-3
    )
    if silent and elapsed_s > MIRROR_PATIENCE_S:
        text = "no copy arrives at the canary, though clients send requests"
        if required:
            return _hold(s, "MirrorUnavailable", text)
        return _to_step(s, 0, told=(("Warning", "MirrorUnavailable", f"{text}; going on"),))
    if left_s <= 0:
        text = f"{seen} of {mirror.min_requests} copies within mirror.deadline ({mirror.deadline})"
        if not required:
            return _to_step(s, 0)
        decided = _inconclusive(s, text)
        return decided or _hold(s, "NeedsMoreRequests", text)
    needed = max(0, mirror.min_requests - seen)
    more = requests_for(measured.judgement, Objective.of(s.spec), weights(s.spec)[0])
    needed = max(needed, more or 0)
    return _hold(
        s,
        "NeedsMoreRequests",
        f"{needed} more copied requests before the first step",
        needed=needed,
        again_after_s=left_s + 0.1,
    )


def _to_step(s: Situation, step: int, told: tuple[tuple[str, str, str], ...] = ()) -> Course:
    weight = weights(s.spec)[step]
    if not _carries(s, weight):
        return _short(s, weight)
    if s.gateway is not None and not s.gateway.accepted and s.gateway.message:
        return _hold(s, "WaitingForRoute", s.gateway.message)
    record = replace(s.record, phase=Phase.CANARY, step=step, weight=weight, mirror=0.0)
    count = len(s.spec.rollout.steps)
    found = _enter(s, record, f"step {step + 1} of {count}: {_percent(weight)} of the traffic")
    return replace(found, told=(*told, *found.told))


def _step(s: Situation) -> Course:
    record, rollout = s.record, s.spec.rollout
    steps = weights(s.spec)
    index = min(record.step or 0, len(steps) - 2)
    if record.weight != steps[index]:
        # The steps were edited: the weight never rises by that.
        if steps[index] < record.weight:
            return _to_step(s, index)
        index = max((i for i, w in enumerate(steps[:-1]) if w <= record.weight), default=0)
    following = steps[index + 1]
    hold_left_s = duration_s(rollout.steps[index].hold) - _elapsed_s(record.since, s.now)
    if not _measurable(s):
        return _hold(
            s, "NotMeasured", 'runtime.sidecar is "Off": nothing is measured; promote it by hand'
        )
    measured = s.measured
    if measured is None or _stale(measured, s.now):
        return _inconclusive(s, "its counters cannot be read") or _unavailable(s)
    held = _judged(s)
    if held is not None:
        return _inconclusive(s, held.message) or held
    odd = _share_problem(s, measured)
    if odd:
        return _inconclusive(s, odd) or _hold(s, "WeightNotObserved", odd)
    judged = measured.judgement
    enough = judged.proven if following >= 1.0 else judged.carries >= following
    if not enough:
        needed = requests_for(judged, Objective.of(s.spec), following)
        text = _needs(needed, following, measured, record.weight)
        return _inconclusive(s, text) or _hold(
            s, "NeedsMoreRequests", text, needed=needed, again_after_s=REFRESH_S
        )
    if hold_left_s > 0:
        at = stamp(s.now + timedelta(seconds=hold_left_s))
        return _hold(
            s,
            "",
            f"{_percent(following)} at {at}, if it goes on like this",
            again_after_s=hold_left_s,
            next_decision=at,
        )
    if not _carries(s, following):
        return _short(s, following)
    if following < 1.0:
        return _to_step(s, index + 1)
    if s.waiting_gates:
        names = ", ".join(s.waiting_gates)
        return _hold(s, "WaitingForGates", f"rollout.gates: {names} not True")
    return _switch(s)


def _switch(s: Situation) -> Course:
    """All traffic to the canary, the old pods stay."""
    if not _carries(s, 1.0):
        return _short(s, 1.0)
    if not by_steps(s) and s.waiting_gates:
        names = ", ".join(s.waiting_gates)
        return _hold(s, "WaitingForGates", f"rollout.gates: {names} not True")
    message = "promoted"
    judged = s.measured.judgement if s.measured is not None else None
    evidence: dict[str, Any] = {}
    if judged is not None and judged.results:
        first = judged.results[0]
        message = f"promoted: {first.explanation}"
        evidence = evidence_of(first)
    elif not by_steps(s):
        message = "switched at once, its pods are ready"
        if s.golden is Golden.PASSED:
            message += " and its golden answers right"
        if s.spec.rollout.strategy is Strategy.CANARY:
            message += "; without traffic.gateway no step can be kept"
    record = replace(
        s.record, phase=Phase.BAKING, weight=1.0, mirror=0.0, step=None, evidence=evidence
    )
    return _enter(s, record, message, event="Promoted")


def _baking(s: Situation) -> Course:
    left_s = duration_s(s.spec.rollout.bake) - _elapsed_s(s.record.since, s.now)
    if s.measured is not None:
        held = _judged(s, promoted=True)
        if held is not None:
            return held
    if left_s > 0:
        at = stamp(s.now + timedelta(seconds=left_s))
        return _hold(
            s,
            "",
            f"{s.record.message}; the old pods stay until {at}",
            again_after_s=min(left_s, REFRESH_S) if s.measured is not None else left_s,
            next_decision=at,
        )
    if not _carries(s, 1.0):
        return _hold(s, "CanaryShort", "not all of its pods are ready, so the old ones stay")
    return _ended(s, s.record.message)


# Holds.


def _judged(s: Situation, *, promoted: bool = False) -> Course | None:
    """What the verdict holds up."""
    assert s.measured is not None
    judged = s.measured.judgement
    if judged.stable_failing and not promoted and not judged.proven:
        return _hold(
            s,
            "StableFailing",
            f"the stable revision {s.record.stable} breaks the objective itself, so this one is "
            "not to blame; mend stable, or promote by hand",
        )
    if judged.worse is not None and not promoted:
        return _hold(
            s,
            "WorseThanStable",
            f"{judged.worse.explanation}; within the objective, so it is not rolled back. Promote "
            "or abort it by hand",
        )
    return None


def _inconclusive(s: Situation, why: str) -> Course | None:
    """What ``rollout.onInconclusive`` says, once its deadline has passed."""
    policy = s.spec.rollout.on_inconclusive
    if _elapsed_s(s.record.since, s.now) < duration_s(policy.deadline):
        return None
    if policy.action is OnInconclusive.ROLL_BACK:
        return _rolled_back(s, "Inconclusive", f"not decided within onInconclusive.deadline: {why}")
    if policy.action is OnInconclusive.PROMOTE and s.record.phase is Phase.CANARY:
        following = (s.record.step or 0) + 1
        if following < len(weights(s.spec)) - 1:
            return _to_step(s, following)
        return _switch(s)
    return None


def _unavailable(s: Situation) -> Course:
    unread = ", ".join(s.measured.unread) if s.measured is not None else ""
    if s.measured is None and _elapsed_s(s.record.since, s.now) < METRICS_PATIENCE_S:
        return _hold(s, "NeedsMoreRequests", "its counters are read for the first time")
    return _hold(
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
        return _hold(s, found.reason, found.message)
    return _hold(
        s,
        "CanaryShort",
        f"{ready} ready pods cannot carry {_percent(weight)} of the traffic of {s.wanted}",
    )


def _share_problem(s: Situation, measured: Measured) -> str:
    """Whether the weight asked for arrives, judged by what the sidecars count."""
    if measured.since != s.record.since:
        return ""
    if _elapsed_s(s.record.since, s.now) < SHARE_PATIENCE_S:
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
            f"{_percent(share)} of {total} requests reach the canary where {_percent(weight)} was "
            "asked for; look at the gateway and at other routes to its Service"
        )
    return ""


def _hold(
    s: Situation,
    hold: str,
    message: str,
    *,
    needed: int | None = None,
    again_after_s: float | None = None,
    next_decision: str = "",
) -> Course:
    """The record stays."""
    if s.record.phase in MEASURED:
        again_after_s = min(again_after_s or REFRESH_S, REFRESH_S)
    return Course(
        s.record,
        hold=hold,
        message=message,
        next_decision=next_decision or (f"{needed} more requests" if needed else ""),
        again_after_s=again_after_s,
        requests_needed=needed,
    )


def _enter(s: Situation, record: Record, message: str, event: str = "") -> Course:
    """On to another phase or step."""
    entered = replace(record, since=stamp(s.now), reason="", message=message)
    told: tuple[tuple[str, str, str], ...] = ()
    if event or (entered.phase is Phase.CANARY and s.record.stable):
        told = (("Normal", event or "StepTaken", f"revision {record.canary}: {message}"),)
    return Course(entered, message=message, told=told, again_after_s=0.0)


# Verbs.


def _asked(s: Situation) -> Course:
    """Handle a request, once: its id stands in the record from then on."""
    assert s.request is not None
    request = s.request
    record = replace(s.record, request=request.id)
    handled = replace(s, record=record)
    live = record.phase in LIVE and record.canary == s.target
    meant = request.revision
    by = f"{request.verb} by {request.user}"
    if meant and request.verb not in (Verb.UNDO, Verb.RESTART) and meant != s.target:
        return _refused(record, f"{by}: revision {meant} is not the one on trial ({s.target})")
    match request.verb:
        case Verb.PAUSE | Verb.RESUME:
            paused = request.verb is Verb.PAUSE
            return _granted(replace(record, paused=paused), by)
        case Verb.ABORT if live and record.stable:
            return _rolled_back(handled, "Aborted", by)
        case Verb.PROMOTE if live and record.stable and record.phase is not Phase.BAKING:
            if not _carries(s, 1.0):
                return _refused(record, f"{by}: its pods cannot carry all of the traffic yet")
            record = replace(
                record, phase=Phase.BAKING, weight=1.0, mirror=0.0, step=None, evidence={}
            )
            return _enter(handled, record, by, event="Promoted")
        case Verb.SKIP_STEP if live and record.stable and by_steps(s):
            following = -1 if record.step is None else record.step
            if record.phase not in (Phase.MIRRORING, Phase.CANARY):
                return _refused(record, f"{by}: it is {record.phase}, not at a step")
            if following + 1 < len(s.spec.rollout.steps):
                return _moved(record, by, _to_step(handled, following + 1))
            return _moved(record, by, _switch(handled))
        case Verb.RETRY if s.failed is not None and not live:
            started = _start(handled)
            granted = ("Normal", "RequestGranted", by)
            return replace(started, forgive=True, told=(granted, *started.told))
        case Verb.UNDO if s.undo_to:
            return _granted(replace(record, target=s.undo_to, target_for=s.target_for), by)
        case Verb.RESTART:
            # The plan has made the new revision, which is the target already.
            return _granted(record, by)
    why = {
        Verb.RETRY: f"revision {s.target} has not failed",
        Verb.UNDO: "there is no such kept revision to go back to",
    }.get(request.verb, f"no rollout is under way ({record.phase})")
    return _refused(record, f"{by}: {why}")


def _granted(record: Record, by: str) -> Course:
    return Course(record, told=(("Normal", "RequestGranted", by),), again_after_s=0.0)


def _refused(record: Record, message: str) -> Course:
    return Course(record, told=(("Warning", "RequestRefused", message),), again_after_s=0.0)


def _moved(before: Record, by: str, found: Course) -> Course:
    if replace(found.record, since=before.since) == before:
        return _refused(found.record, f"{by}: {found.message}")
    return replace(found, told=(("Normal", "RequestGranted", by), *found.told))


# Small parts.


def _carries(s: Situation, share: float) -> bool:
    """Whether the canary's ready pods can carry that share of the traffic."""
    if s.canary is None:
        return False
    return can_carry(share, s.wanted, s.canary.ready, s.record.gave_way)


def evidence_of(result: Result) -> dict[str, Any]:
    """A test's numbers as status shows them."""
    worse = "Bad" if result.fired else "Clear"
    if result.fired and result.consequence == "Hold":
        worse = "Worse"
    found = {
        "test": str(result.test),
        "observed": "-" if result.observed is None else _percent(result.observed),
        "bound": _percent(result.bound),
        "canary": f"{result.canary_count}/{result.canary_requests}",
        "evidence": f"{result.evidence:.3g}",
        "needed": f"{result.needed:.3g}",
        "verdict": worse,
    }
    if result.stable_requests:
        found["stable"] = f"{result.stable_count}/{result.stable_requests}"
    return found


def _measurable(s: Situation) -> bool:
    return s.canary is not None and s.canary.sidecar


def _stale(measured: Measured, now: datetime) -> bool:
    if measured.read_at is None:
        return True
    return (now - measured.read_at).total_seconds() > METRICS_PATIENCE_S


def _needs(needed: int | None, following: float, measured: Measured, weight: float) -> str:
    goal = "promotion" if following >= 1.0 else _percent(following)
    if needed is None:
        return f"at the rate of errors seen so far {goal} is out of reach"
    rate = measured.arrivals_per_s
    if not rate or rate * weight <= 0:
        return f"{needed} more requests to the canary before {goal}; none arrive at present"
    seconds = needed / (rate * weight)
    return f"{needed} more requests to the canary before {goal}, about {seconds:.0f} s at this rate"


def _elapsed_s(since: str, now: datetime) -> float:
    if not since:
        return 0.0
    return (now - datetime.fromisoformat(since).astimezone(UTC)).total_seconds()


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"
