"""The status document: conditions with kstatus semantics, and what each revision does.

``Available``: some revision serves. ``Ready``: the spec's revision is live, whole. ``Reconciling``
and ``Stalled`` are abnormal when True: under way, and waiting for somebody to mend something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tidegate.api.spec import Spec
from tidegate.api.status import (
    Condition,
    ConditionStatus,
    HistoryEntry,
    Revisions,
    RevisionState,
    RolloutStatus,
    ScalingStatus,
    SloStatus,
    Status,
    TrafficShare,
)
from tidegate.diagnosis import Finding, Severity
from tidegate.inactive import inactive_fields
from tidegate.observed import Object
from tidegate.resources.meta import selector
from tidegate.resources.services import HTTP_PORT
from tidegate.revision import Revision
from tidegate.scaling import Replicas

MAX_MESSAGE: Final = 1024


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
    """

    revision: Revision
    finding: Finding
    pods: int
    ready: int


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def document(
    deployment: Object,
    spec: Spec,
    *,
    verdicts: Sequence[Verdict],
    stable: RevisionView,
    canary: RevisionView | None,
    scale: Replicas,
    rollout_message: str,
    phase: str,
    known: Mapping[str, Revision],
    now: datetime,
) -> dict[str, Any]:
    """The whole status in manifest form.

    Args:
        deployment: the ModelDeployment as it lives.
        spec: its spec.
        verdicts: its conditions.
        stable: the revision that gets the traffic.
        canary: the one that is wanted and does not get it yet.
        scale: replicas and why.
        rollout_message: why the rollout stands where it stands.
        phase: of the rollout.
        known: all revisions, oldest first.
        now: UTC.
    """
    name = deployment["metadata"]["name"]
    views = [stable] if canary is None else [stable, canary]
    traffic = [TrafficShare(revision=stable.revision.hash, weight=100)]
    if canary is not None:
        traffic.append(TrafficShare(revision=canary.revision.hash, weight=0))
    before = (deployment.get("status") or {}).get("rollout") or {}
    since = before.get("since") if before.get("phase") == phase else timestamp(now)
    status = Status(
        observed_generation=deployment["metadata"].get("generation"),
        replicas=sum(v.pods for v in views),
        ready_replicas=sum(v.ready for v in views),
        selector=",".join(f"{k}={v}" for k, v in sorted(selector(name).items())),
        conditions=conditions(deployment, verdicts, now),
        revisions=Revisions(stable=_state(stable), canary=canary and _state(canary)),
        traffic=tuple(traffic),
        rollout=RolloutStatus(phase=phase, since=since, message=rollout_message or None),
        scaling=ScalingStatus(desired=scale.desired, reason=scale.reason),
        slo=_slo(spec),
        url=_url(deployment, spec),
        history=_history(known, stable.revision.hash),
        inactive=inactive_fields(spec),
    )
    return _dump(status)


def invalid(deployment: Object, verdicts: Sequence[Verdict], now: datetime) -> dict[str, Any]:
    """The status where nothing can be decided: new conditions, all else as it was."""
    before = {
        key: value
        for key, value in (deployment.get("status") or {}).items()
        if key not in ("conditions", "observedGeneration")
    }
    found = conditions(deployment, verdicts, now)
    return before | {
        "observedGeneration": deployment["metadata"].get("generation"),
        "conditions": [c.model_dump(by_alias=True) for c in found],
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
    )


def _slo(spec: Spec) -> SloStatus:
    latency = spec.slo.latency
    return SloStatus(
        latency=None if latency is None else f"-/{latency.target}",
        error_rate=f"-/{spec.slo.max_error_rate}",
    )


def _url(deployment: Object, spec: Spec) -> str:
    gateway = spec.traffic.gateway
    if gateway is not None and gateway.hostnames:
        return f"http://{gateway.hostnames[0]}"
    meta = deployment["metadata"]
    return f"http://{meta['name']}.{meta['namespace']}.svc:{HTTP_PORT}"


def _history(known: Mapping[str, Revision], stable: str) -> tuple[HistoryEntry, ...]:
    """Revisions that served, newest first."""
    served = [r for r in known.values() if r.live_since]
    return tuple(
        HistoryEntry(
            revision=r.hash,
            outcome="Live" if r.hash == stable else "Replaced",
            time=r.live_since,
        )
        for r in sorted(served, key=lambda r: (r.live_since, r.number), reverse=True)
    )


def _dump(status: Status) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
