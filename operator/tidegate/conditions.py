"""Conditions with kstatus semantics: what is true of a ModelDeployment, and why.

``Available``: some revision serves. ``Ready``: the spec's revision is live, whole. ``Reconciling``
and ``Stalled`` are abnormal when True: under way, and waiting for somebody to mend something. A
revision that was rolled back leaves Available=True, Ready=False, Stalled=True. Pure.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tidegate.api.spec import Spec
from tidegate.api.status import ScalingStatus, SloStatus
from tidegate.autoscaling.decision import Decision, Hold
from tidegate.diagnosis import READY, Finding, Severity
from tidegate.observed import Attained, GoldenResult, Measured
from tidegate.record import Record
from tidegate.rollout import LIVE, MEASURED, Course, serving
from tidegate.scaling import Replicas
from tidegate.status import RevisionView, Verdict

_FAILING_HOLDS: Final = frozenset({"RolledBack", "GoldenRequestsFailed"})
"""Holds that somebody has to mend."""
_MOVING: Final = frozenset({"NeedsMoreRequests", "GoldenRequests", "CanaryShort"})
"""Holds that pass by themselves."""


def conditions(
    spec: Spec,
    record: Record,
    course: Course,
    *,
    serves: RevisionView | None,
    target: RevisionView,
    wanted: int,
    failure: Finding | None,
    pinned: bool,
    late: bool,
    measured: Measured | None,
    scale: Replicas,
    scaling: ScalingStatus,
    slo: SloStatus,
    attained: Attained | None,
) -> list[Verdict]:
    """All conditions but `RuntimeOutdated` and `AnswersRight`.

    Args:
        spec: what is asked for.
        record: the decision in force.
        course: what the rollout comes to.
        serves: the revision that gets the traffic; None: none does.
        target: the revision that is asked for.
        wanted: replicas that serve.
        failure: what stands in the way of everything.
        pinned: the target's bytes are pinned.
        late: the first revision is not ready in time.
        measured: of the rollout under way.
        scale: replicas and why.
        scaling: the same in the words of status, which change seldom.
        slo: what clients get, in the words of status.
        attained: the same as measured; None: nothing was.
    """
    finding = failure or _finding(record, course, target, wanted, pinned=pinned)
    ready = finding.severity is Severity.READY
    late = late and not ready
    stalled = finding.severity is Severity.FAILING or late
    text = finding.message
    if late:
        deadline = spec.rollout.progress_deadline
        text = f"not ready within rollout.progressDeadline ({deadline}): {text}"
    other = serves is not None and serves.ready and serves.revision != target.revision
    if other and not ready and serves is not None:
        text += f" Revision {serves.revision.hash} goes on serving."
    verdicts = [
        _available(serves, target, wanted),
        Verdict("Ready", "True", "Ready", f"{_served_by(target)}, as the spec asks")
        if ready
        else Verdict("Ready", "False", finding.reason, text),
        Verdict("Reconciling", "False", "Ready" if ready else finding.reason)
        if ready or stalled
        else Verdict("Reconciling", "True", finding.reason, text),
        Verdict("Stalled", "True", finding.reason, text)
        if stalled
        else Verdict("Stalled", "False", "Ready" if ready else "Progressing"),
        Verdict("WaitingForGPU", "True", finding.reason, finding.message)
        if finding.reason == "WaitingForGPU"
        else Verdict("WaitingForGPU", "False", "NotWaiting"),
        _metrics(record, course, measured, scale.decision, scaling.reason),
        _slo_met(slo, attained),
    ]
    if scale.decision is not None:
        verdicts.append(_feasible(scale.decision, scaling.reason))
    return verdicts


def answers(results: Sequence[GoldenResult | None], problem: str) -> Verdict:
    """Whether what serves answers golden requests rightly, as of the last time.

    Args:
        results: of the pods of the revision that serves; None: not asked yet.
        problem: why golden requests cannot be sent.
    """
    known = [r for r in results if r is not None]
    wrong = [r for r in known if not r.passed]
    if wrong:
        text = f"{len(wrong)} of {len(known)} pods: {wrong[0].message}"
        text += (
            " Such a pod gets no more traffic."
            if len(wrong) < len(known)
            else " They go on serving, since no pod answers otherwise: have the model, its "
            "environment or the expected answers changed?"
        )
        return Verdict("AnswersRight", "False", "WrongAnswers", text)
    if problem:
        return Verdict("AnswersRight", "Unknown", "GoldenRequests", problem)
    if not known:
        return Verdict("AnswersRight", "Unknown", "Measuring", "no pod was asked yet")
    return Verdict(
        "AnswersRight", "True", "AnswersRight", f"{len(known)} of {len(results)} pods asked"
    )


def _finding(
    record: Record, course: Course, target: RevisionView, wanted: int, *, pinned: bool
) -> Finding:
    """What holds the spec's revision."""
    hash_ = target.revision.hash
    if serving(record) == hash_:
        if target.finding.severity is not Severity.READY:
            return target.finding
        if not pinned and wanted:
            return Finding(
                Severity.PROGRESSING, "Ready", "PinningSource", "the model's bytes are being pinned"
            )
        return READY
    live = record.phase in LIVE and record.canary == hash_
    # What holds the pods themselves says it best.
    theirs = ("", "CanaryShort", target.finding.reason)
    if live and course.hold in theirs and target.finding.severity is not Severity.READY:
        return replace(target.finding, message=course.message or target.finding.message)
    if course.hold in _FAILING_HOLDS:
        return Finding(Severity.FAILING, "Failed", course.hold, course.message)
    if course.hold:
        severity = Severity.PROGRESSING if course.hold in _MOVING else Severity.WAITING
        return Finding(severity, "Waiting", course.hold, course.message)
    return Finding(Severity.PROGRESSING, "Ready", str(record.phase), course.message)


def _available(serves: RevisionView | None, target: RevisionView, wanted: int) -> Verdict:
    if serves is not None and serves.ready:
        return Verdict("Available", "True", "Serving", _served_by(serves))
    if wanted == 0:
        return Verdict(
            "Available", "False", "ScaledToZero", "replicas is 0, so nothing serves. Set replicas."
        )
    found = (serves or target).finding
    if found.severity is Severity.READY:
        return Verdict("Available", "False", "NothingServes", "no revision gets traffic yet")
    return Verdict("Available", "False", found.reason, found.message)


def _metrics(
    record: Record,
    course: Course,
    measured: Measured | None,
    decision: Decision | None,
    reason: str,
) -> Verdict:
    if course.hold == "MetricsUnavailable":
        return Verdict("MetricsAvailable", "False", "MetricsUnavailable", course.message)
    if course.hold == "Unsupported":
        return Verdict("MetricsAvailable", "False", "Unsupported", course.message)
    if record.phase in MEASURED and measured is not None and measured.read_at is not None:
        return Verdict("MetricsAvailable", "True", "Measured")
    if decision is None:
        return Verdict(
            "MetricsAvailable", "Unknown", "NotMeasured", "measurements are taken during a rollout"
        )
    if decision.hold in (Hold.METRICS_MISSING, Hold.CAPACITY_UNKNOWN):
        return Verdict("MetricsAvailable", "False", decision.hold.value, reason)
    if decision.demand is None:
        return Verdict(
            "MetricsAvailable", "Unknown", "Measuring", "less than a minute was measured"
        )
    return Verdict("MetricsAvailable", "True", "Measured")


def _slo_met(slo: SloStatus, attained: Attained | None) -> Verdict:
    """Unknown is not met: too few requests say nothing."""
    if attained is None or (attained.latency_met is None and attained.errors_met is None):
        return Verdict("SLOMet", "Unknown", "TooFewRequests", "too few requests to say")
    missed = []
    if attained.latency_met is False:
        missed.append(f"latency {slo.latency}")
    if attained.errors_met is False:
        missed.append(f"errors {slo.error_rate}")
    if missed:
        return Verdict("SLOMet", "False", "SLOMissed", f"{' and '.join(missed)} (measured/limit)")
    return Verdict("SLOMet", "True", "SLOMet")


def _feasible(decision: Decision, reason: str) -> Verdict:
    if decision.demand is None or decision.demand.service is None:
        return Verdict("SLOInfeasible", "Unknown", "Measuring")
    if decision.demand.infeasible:
        return Verdict("SLOInfeasible", "True", "SLOInfeasible", reason)
    return Verdict("SLOInfeasible", "False", "Feasible")


def _served_by(view: RevisionView) -> str:
    count = f"{view.ready} pod serves" if view.ready == 1 else f"{view.ready} pods serve"
    return f"{count} revision {view.revision.hash}"
