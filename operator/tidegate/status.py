"""The status document: what each revision does, where the rollout stands, on what evidence."""

import contextlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from tidegate.api.spec import Spec
from tidegate.api.status import (
    ColdStartStatus,
    Condition,
    ConditionStatus,
    EvidenceStatus,
    FailedRevision,
    HistoryEntry,
    Revisions,
    RevisionState,
    RolloutStatus,
    ScalingStatus,
    SloStatus,
    Status,
    TestStatus,
    TrafficShare,
)
from tidegate.api.units import fraction
from tidegate.cold_start import Summary
from tidegate.diagnosis import Finding, Severity
from tidegate.inactive import inactive_fields
from tidegate.observed import Attained, Measured, Object
from tidegate.record import Phase, Record, numbers
from tidegate.resources.meta import selector
from tidegate.resources.services import HTTP_PORT
from tidegate.revision import Revision
from tidegate.rollout import LIVE, REFRESH_S, Course, evidence_of, percent
from tidegate.scaling import Replicas

MAX_MESSAGE: Final = 1024
MAX_FAILED: Final = 10


@dataclass(frozen=True)
class Verdict:
    """One condition before it has a time.

    Attributes:
        type: for example ``Ready``.
        status: True, False or Unknown.
        reason: CamelCase.
        message: value and mend.
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


@dataclass(frozen=True)
class RevisionView:
    """A revision and how it does.

    Attributes:
        revision: what it is.
        finding: what holds it.
        pods: pods that exist.
        ready: pods that serve.
        cold_start: how long they took to start; None: not known.
    """

    revision: Revision
    finding: Finding
    pods: int
    ready: int
    cold_start: Summary | None = None


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def document(
    deployment: Object,
    spec: Spec,
    *,
    verdicts: Sequence[Verdict],
    record: Record,
    course: Course,
    views: Mapping[str, RevisionView],
    scaling: ScalingStatus,
    slo: SloStatus,
    measured: Measured | None,
    known: Mapping[str, Revision],
    now: datetime,
) -> dict[str, Any]:
    """The whole status in manifest form.

    Args:
        deployment: the ModelDeployment as it lives.
        spec: its spec.
        verdicts: its conditions.
        record: the decision in force.
        course: what the rollout comes to.
        views: the revisions that have pods, by hash.
        scaling: replicas and why.
        slo: what clients get against what they are promised.
        measured: of the rollout under way.
        known: all revisions, oldest first.
        now: UTC.
    """
    name = deployment["metadata"]["name"]
    live = record.phase in LIVE
    stable = views.get(record.stable or record.canary)
    canary = views.get(record.canary) if record.stable and live else None
    status = Status(
        observed_generation=deployment["metadata"].get("generation"),
        replicas=sum(v.pods for v in views.values()),
        ready_replicas=sum(v.ready for v in views.values()),
        selector=",".join(f"{k}={v}" for k, v in sorted(selector(name).items())),
        conditions=conditions(deployment, verdicts, now),
        revisions=Revisions(
            stable=stable and _state(stable),
            canary=canary and _state(canary),
            failed=_failed(record, known),
        ),
        traffic=_traffic(deployment, record, stable, canary, measured, now),
        rollout=_rollout(deployment, spec, record, course, measured, now),
        scaling=scaling,
        slo=slo,
        url=_url(deployment, spec),
        history=_history(deployment, spec, record, known),
        inactive=inactive_fields(spec),
        last_request=record.request or None,
    )
    return _dump(status)


def steady(deployment: Object, course: Course, now: datetime) -> Course:
    """The course in the words of the last status, while these are fresh.

    Counters change each second; status is written each `REFRESH_S` at most, unless something is
    decided.
    """
    before = _before(deployment)
    if _fresh(before, course.record, now) and before.get("hold", "") == course.hold:
        return replace(
            course,
            message=before.get("message") or "",
            next_decision=before.get("nextDecision") or "",
        )
    return course


def record_of(deployment: Object) -> Record | None:
    """The decision as the last status tells it, for when route and Service are both gone."""
    status = deployment.get("status") or {}
    before, revisions = _before(deployment), status.get("revisions") or {}
    stable = (revisions.get("stable") or {}).get("hash") or ""
    if not stable:
        return None
    try:
        phase = Phase(before.get("phase") or "")
    except ValueError:
        phase = Phase.PROMOTED
    canary = (revisions.get("canary") or {}).get("hash") or ""
    if phase in LIVE and not canary:
        # The first revision is told as stable, being the only one.
        stable, canary = "", stable
    elif phase is Phase.ROLLED_BACK and (known := revisions.get("failed")):
        canary = known[0]["hash"]
    elif phase not in LIVE:
        canary, phase = "", Phase.PROMOTED
    weight = before.get("weight")
    return Record(
        stable=stable,
        canary=canary,
        phase=phase,
        weight=fraction(weight) if weight and phase in LIVE else 0.0,
        step=before.get("step") if phase is Phase.CANARY else None,
        started=before.get("started") or "",
        since=before.get("since") or "",
        request=status.get("lastRequest") or "",
    )


def failed(deployment: Object) -> list[dict[str, Any]]:
    """The failed revisions that the last status remembers."""
    revisions = (deployment.get("status") or {}).get("revisions") or {}
    return list(revisions.get("failed") or ())


def failure_of(record: Record) -> str:
    """What stays known of a revision that was rolled back, as JSON."""
    said = {
        "reason": record.reason,
        "message": record.message,
        "time": record.since,
        "evidence": numbers(record.evidence),
    }
    return json.dumps({k: v for k, v in said.items() if v}, sort_keys=True)


def evidence_state(deployment: Object, record: Record) -> str:
    """The evidence that the last status kept of this rollout; empty: none."""
    before = _before(deployment)
    if before.get("started") != record.started:
        return ""
    return str((before.get("evidence") or {}).get("state") or "")


def seen(deployment: Object, record: Record) -> dict[str, str]:
    """When the last status says that this rollout's canary did what each test counts."""
    before = _before(deployment)
    if before.get("started") != record.started:
        return {}
    tests = (before.get("evidence") or {}).get("tests") or ()
    return {str(t["test"]): str(t["seen"]) for t in tests if t.get("seen")}


def _before(deployment: Object) -> Mapping[str, Any]:
    return (deployment.get("status") or {}).get("rollout") or {}


def _fresh(before: Mapping[str, Any], record: Record, now: datetime) -> bool:
    """Whether the last status tells of the same phase and is recent."""
    if (before.get("phase"), before.get("since")) != (str(record.phase), record.since):
        return False
    at = (before.get("evidence") or {}).get("time")
    if not at:
        return False
    age_s = (now - datetime.fromisoformat(at).astimezone(UTC)).total_seconds()
    return age_s < REFRESH_S - 0.5


def _rollout(
    deployment: Object,
    spec: Spec,
    record: Record,
    course: Course,
    measured: Measured | None,
    now: datetime,
) -> RolloutStatus:
    live = record.phase in LIVE
    return RolloutStatus(
        phase=str(record.phase),
        weight=percent(record.weight) if live else None,
        step=record.step,
        steps=len(spec.rollout.steps) if live and record.step is not None else None,
        mirror=percent(record.mirror) if record.mirror else None,
        hold=course.hold or None,
        started=record.started or None,
        since=record.since or None,
        next_decision=course.next_decision or None,
        message=course.message[:MAX_MESSAGE] or None,
        evidence=_evidence(deployment, record, course, measured, now),
    )


def _evidence(
    deployment: Object,
    record: Record,
    course: Course,
    measured: Measured | None,
    now: datetime,
) -> EvidenceStatus | None:
    before = _before(deployment)
    if record.phase not in LIVE or measured is None:
        if record.phase in LIVE and before.get("started") == record.started:
            # Not read yet by this process: what was known is still what is known.
            kept = before.get("evidence")
            return None if kept is None else EvidenceStatus.model_validate(kept)
        return None
    if _fresh(before, record, now) and (before.get("hold") or "") == course.hold:
        return EvidenceStatus.model_validate(before["evidence"])
    judged = measured.judgement
    rate = measured.arrivals_per_s
    needed, seconds = course.requests_needed, None
    if needed is not None and rate and record.weight > 0:
        seconds = math.ceil(needed / (rate * record.weight))
    return EvidenceStatus(
        verdict="Bad" if judged.bad is not None else "Good" if judged.proven else "NotYet",
        requests=judged.requests,
        requests_needed=needed,
        seconds_needed=seconds,
        tests=tuple(TestStatus.model_validate(evidence_of(r, measured)) for r in judged.results),
        state=measured.state or None,
        time=timestamp(now),
    )


def _traffic(
    deployment: Object,
    record: Record,
    stable: RevisionView | None,
    canary: RevisionView | None,
    measured: Measured | None,
    now: datetime,
) -> tuple[TrafficShare, ...]:
    if stable is None:
        return ()
    if canary is None:
        serves = bool(record.stable) or record.weight >= 1.0
        return (TrafficShare(revision=stable.revision.hash, weight=100 if serves else 0),)
    weight = round(record.weight * 100)
    shares: dict[str, str | None] = {}
    total = 0 if measured is None else measured.canary_arrivals + measured.stable_arrivals
    if measured is not None and total and measured.since == record.since:
        share = measured.canary_arrivals / total
        shares = {record.canary: percent(share), record.stable: percent(1 - share)}
    if _fresh(_before(deployment), record, now):
        old = (deployment.get("status") or {}).get("traffic") or ()
        shares = {t["revision"]: t.get("observedShare") for t in old}
    return tuple(
        TrafficShare(revision=h, weight=w, observed_share=shares.get(h))
        for h, w in ((record.stable, 100 - weight), (record.canary, weight))
    )


def _failed(record: Record, known: Mapping[str, Revision]) -> tuple[FailedRevision, ...]:
    """Revisions that get no traffic again by themselves, newest failure first."""
    found: dict[str, dict[str, Any]] = {}
    for hash_, revision in known.items():
        if revision.failed and hash_ != record.stable:
            with contextlib.suppress(ValueError):
                found[hash_] = json.loads(revision.failed)
    if record.phase is Phase.ROLLED_BACK:
        found[record.canary] = json.loads(failure_of(record))
    if record.phase in LIVE:
        found.pop(record.canary, None)
    newest = sorted(found.items(), key=lambda item: str(item[1].get("time")), reverse=True)
    return tuple(
        FailedRevision(
            hash=hash_,
            reason=said.get("reason", ""),
            message=str(said.get("message", ""))[:MAX_MESSAGE],
            time=said.get("time", ""),
            evidence=said.get("evidence"),
        )
        for hash_, said in newest[:MAX_FAILED]
    )


def invalid(deployment: Object, verdicts: Sequence[Verdict], now: datetime) -> dict[str, Any]:
    """The status where nothing can be decided: new conditions, all else as it was."""
    before = {
        key: value
        for key, value in (deployment.get("status") or {}).items()
        # Quality is another party's, as are the conditions that are not among the verdicts.
        if key not in ("conditions", "observedGeneration", "quality")
    }
    found = conditions(deployment, verdicts, now)
    return before | {
        "observedGeneration": deployment["metadata"].get("generation"),
        "conditions": [c.model_dump(by_alias=True, exclude_none=True) for c in found],
    }


def conditions(
    deployment: Object, verdicts: Sequence[Verdict], now: datetime
) -> tuple[Condition, ...]:
    """Conditions with times: that of the last change of status is kept where it did not change."""
    before = {c["type"]: c for c in (deployment.get("status") or {}).get("conditions") or ()}
    found = []
    for verdict in verdicts:
        old = before.get(verdict.type) or {}
        kept = old.get("status") == verdict.status
        found.append(
            Condition(
                type=verdict.type,
                status=verdict.status,
                reason=verdict.reason,
                message=verdict.message[:MAX_MESSAGE],
                last_transition_time=old["lastTransitionTime"] if kept else timestamp(now),
                observed_generation=deployment["metadata"].get("generation") or 0,
            )
        )
    return tuple(found)


def _state(view: RevisionView) -> RevisionState:
    revision, finding = view.revision, view.finding
    well = finding.severity is Severity.READY
    return RevisionState(
        name=revision.name,
        hash=revision.hash,
        digest=revision.digest,
        source=revision.source,
        image=revision.image,
        replicas=view.pods,
        ready_replicas=view.ready,
        state=finding.state,
        reason=None if well else finding.reason,
        message=None if well else finding.message[:MAX_MESSAGE],
        created=revision.created or None,
        cold_start=view.cold_start and _cold_start(view.cold_start),
    )


def _cold_start(found: Summary) -> ColdStartStatus:
    return ColdStartStatus(
        pods=found.pods,
        median=f"{found.median_s:.0f}s",
        largest=f"{found.largest_s:.0f}s",
        phases=str(found.phases),
    )


def slo(deployment: Object, spec: Spec, attained: Attained | None) -> SloStatus:
    """What clients got lately against what they are promised, for reading.

    Figures that hardly changed stay as they were: status is not written for them.
    """
    latency, found = spec.slo.latency, attained
    quantile_ms = found.quantile_ms if found is not None else None
    failed = found.failed / found.answered if found is not None and found.answered else None
    now = SloStatus(
        latency=None if latency is None else f"{_short(quantile_ms, 'ms')}/{latency.target}",
        error_rate=f"{_short(failed and 100 * failed, '%')}/{spec.slo.max_error_rate}",
        window=None if found is None or not found.answered else f"{_WINDOW_S:.0f}s",
    )
    old = (deployment.get("status") or {}).get("slo") or {}
    before = SloStatus.model_validate({k: v for k, v in old.items() if isinstance(v, str)})
    pairs = ((before.latency, now.latency), (before.error_rate, now.error_rate))
    return before if before.window == now.window and all(_near(a, b) for a, b in pairs) else now


_WINDOW_S: Final = 300.0
"""As in `tidegate.attainment`; a shorter one is called so, too: it fills once."""
_LONGEST_S: Final = 99_999.0
"""What a duration of five digits can say."""
_DEAD_BAND: Final = 0.25
"""Figures within this share of the last ones are no news."""


def scaling(deployment: Object, scale: Replicas, now: datetime) -> ScalingStatus:
    """Replicas and every number behind them; as before, while nothing is decided anew."""
    decision, fleet = scale.decision, scale.fleet
    if decision is None or fleet is None:
        return ScalingStatus(
            desired=scale.desired,
            hold=scale.hold or None,
            set_by=scale.set_by,
            reason=scale.reason[:MAX_MESSAGE],
        )
    old = (deployment.get("status") or {}).get("scaling") or {}
    before = ScalingStatus.model_validate(old) if old else None
    raised, lowered = (before.raised, before.lowered) if before is not None else (None, None)
    # Against the last status, not the pods: what is written last is what was last told.
    if before is not None and decision.desired > before.desired:
        raised = timestamp(now)
    elif before is not None and decision.desired < before.desired:
        lowered = timestamp(now)
    demand = decision.demand
    found = ScalingStatus(
        desired=decision.desired,
        required_replicas=decision.required,
        spare=None if decision.required is None else decision.spare,
        hold=None if decision.hold is None else decision.hold.value,
        cold_start=None
        if fleet.cold_start_s is None
        else f"{min(fleet.cold_start_s, _LONGEST_S):.0f}s",
        raised=raised,
        lowered=lowered,
        reason=scale.reason[:MAX_MESSAGE],
    )
    if demand is not None:
        service = demand.service
        found = found.model_copy(
            update={
                "arrival_rate": f"{demand.arrivals_per_s:.3g}",
                "arrivals_from": demand.source.value,
                "dispersion": f"{demand.dispersion:.2g}",
                "arrivals_by_triton": _figure(demand.balance_per_s),
                "capacity_per_pod": _figure(demand.capacity_per_pod),
                "throughput_per_pod": _figure(demand.throughput_per_pod),
                "required_max": demand.required_max,
                "growth": _figure(decision.growth),
                "service_time": service and f"{service.alpha_ms:.3g} + {service.beta_ms:.3g} n ms",
                "latency": demand.measured_ms and _short(demand.measured_ms, "ms"),
                "latency_modelled": demand.model_ms and _short(demand.model_ms, "ms"),
                "feedback": f"{math.exp(demand.feedback):.2f}",
                "pending": f"{demand.pending:.0f}",
                "backlog": f"{demand.backlog:.0f}",
                "coverage": f"{100 * demand.coverage:.0f}%",
            }
        )
    return before if before is not None and _same_scaling(before, found) else found


def _same_scaling(before: ScalingStatus, now: ScalingStatus) -> bool:
    """Whether nothing was decided anew and no figure moved far."""
    exact = ("desired", "required_replicas", "spare", "hold", "raised", "lowered")
    near = ("arrival_rate", "capacity_per_pod", "latency")
    return all(getattr(before, name) == getattr(now, name) for name in exact) and all(
        _near(getattr(before, name), getattr(now, name)) for name in near
    )


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _short(value: float | None, unit: str) -> str:
    """Two significant digits, for columns."""
    if value is None:
        return "-"
    digits = 0 if value == 0 else max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}{unit}"


_NUMBER: Final = re.compile(r"[0-9.]+")


def _near(before: str | None, now: str | None) -> bool:
    """Whether two figures are the same, or nearly."""
    if before is None or now is None or before == now:
        return before == now
    old, new = _NUMBER.match(before), _NUMBER.match(now)
    if old is None or new is None or before[old.end() :] != now[new.end() :]:
        return False
    return abs(float(old[0]) - float(new[0])) <= _DEAD_BAND * float(old[0])


def _url(deployment: Object, spec: Spec) -> str:
    gateway = spec.traffic.gateway
    if gateway is not None and gateway.hostnames:
        return f"http://{gateway.hostnames[0]}"
    meta = deployment["metadata"]
    return f"http://{meta['name']}.{meta['namespace']}.svc:{HTTP_PORT}"


def _history(
    deployment: Object, spec: Spec, record: Record, known: Mapping[str, Revision]
) -> tuple[HistoryEntry, ...]:
    """What became of the revisions, newest first."""
    found: dict[tuple[str, str, str], HistoryEntry] = {}
    old = (deployment.get("status") or {}).get("history") or ()
    said = [dict(record.outcome()), dict(record.past), *old]
    if not old:  # lost, or the first: what the revisions themselves remember
        said += [
            {"revision": r.hash, "outcome": str(Phase.PROMOTED), "time": r.live_since}
            for r in known.values()
            if r.live_since and r.hash not in (record.stable, record.canary)
        ]
    for entry in said:
        if entry:
            told = HistoryEntry.model_validate(entry)
            reason = told.reason[:MAX_MESSAGE]
            key = (told.revision, told.outcome, told.time)
            found.setdefault(key, told.model_copy(update={"reason": reason}))
    newest = sorted(found.values(), key=lambda e: e.time, reverse=True)
    return tuple(newest[: spec.history_limit])


def _dump(status: Status) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
