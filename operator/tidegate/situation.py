"""What is observed, as far as a rollout needs it: the input of its decision.

From objects, pods and measurements to `tidegate.rollout.Situation` and to the placement of pods.
Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from statistics import median
from typing import Any, Final

from tidegate import placement, rollout, scaling, source, verbs
from tidegate import status as status_document
from tidegate.api.names import REVISION_LABEL
from tidegate.api.spec import ScalingMode, Sidecar, Spec
from tidegate.api.units import duration_s
from tidegate.autoscaling.decision import Fleet
from tidegate.cold_start import Summary, cold_start, summarise
from tidegate.diagnosis import Finding, diagnose_pod, diagnose_revision, is_ready
from tidegate.observed import Measured, Measurements, Object, Observed, Ref
from tidegate.placement import Load, Placement, Pods
from tidegate.platform import Platform
from tidegate.record import Phase, Record
from tidegate.resources.route import API_VERSION as ROUTE_VERSION
from tidegate.resources.route import KIND as ROUTE_KIND
from tidegate.resources.route import PENDING, route_state
from tidegate.resources.services import MIRROR_PORT
from tidegate.revision import (
    Revision,
    failure_text,
    pinned_digest,
    pod_shape,
    revision_hash,
)
from tidegate.rollout import LIVE, Gateway, Golden, Side, Situation
from tidegate.scaling import Replicas
from tidegate.status import RevisionView

NOTHING_YET: Final = Replicas(0, "")


@dataclass
class Scene:
    """One ModelDeployment at one moment.

    Attributes:
        observed: objects.
        spec: what is asked for.
        known: its revisions by hash.
        target: the revision that is asked for.
        now: UTC.
        measurements: what was measured.
        platform: the platform's settings.
        scale: replicas of the revision that serves, and why.
        request: a verb that was not handled yet.
        forgiven: the target's failure is forgotten.
        failure: why the spec's own revision cannot be made; None: it can.
        look: what the last look at the source said.
    """

    observed: Observed
    spec: Spec
    known: Mapping[str, Revision]
    target: Revision
    now: datetime
    measurements: Measurements
    platform: Platform
    scale: Replicas = NOTHING_YET
    request: verbs.Request | None = None
    forgiven: bool = False
    failure: Finding | None = None
    look: source.Look = field(default_factory=source.Look)
    # What follows from the above and is asked for again and again while a plan is made.
    _views: dict[tuple[str, int], RevisionView] = field(default_factory=dict, init=False)
    _summaries: dict[str, Summary | None] = field(default_factory=dict, init=False)

    @property
    def wanted(self) -> int:
        """Replicas that serve."""
        return self.scale.desired

    def situation(self, record: Record) -> Situation:
        """All that a decision about traffic depends on."""
        golden, golden_message = self._golden(record)
        target = self.target.hash
        canary = record.canary if record.phase in LIVE else target
        return Situation(
            spec=self.spec,
            record=record,
            target=target,
            target_for=self._target_for,
            stable=self._side(record.stable),
            canary=self._side(canary),
            failed=None if self.forgiven else self._failures(record).get(target),
            wanted=self.wanted,
            wanted_canary=self.sized_canary(record),
            pinned=self.is_pinned(self.target),
            golden=golden,
            golden_message=golden_message,
            measured=self.measured(record),
            gateway=self._gateway(),
            waiting_gates=self._waiting_gates(canary),
            request=self.request,
            undo_to=self._undo_to(record),
            now=self.now,
        )

    @cached_property
    def _target_for(self) -> str:
        return revision_hash(self._shape)

    def _side(self, hash_: str) -> Side | None:
        revision = self.known.get(hash_)
        if revision is None:
            return None
        live = self.observed.children.get(revision.deployment_ref)
        asked = (live or {}).get("spec", {}).get("replicas") or 1
        view = self.view(revision, max(1, int(asked)))
        return Side(
            hash_,
            pods=view.pods,
            ready=view.ready,
            finding=view.finding,
            sidecar=has_sidecar(revision),
            takes_copies=takes_copies(revision),
            served=bool(revision.live_since),
        )

    def measured(self, record: Record) -> Measured | None:
        """What was measured of this rollout, and of no other."""
        found = self.measurements.rollout
        if found is None or record.phase not in LIVE:
            return None
        mine = (record.stable, record.canary, record.started)
        return found if (found.stable, found.canary, found.started) == mine else None

    def _golden(self, record: Record) -> tuple[Golden, str]:
        asked = self.spec.golden_requests
        if asked is None:
            return Golden.NOT_ASKED, ""
        canary = self.known.get(record.canary) if record.phase in LIVE else None
        problem = self.golden_problem(canary or self.target)
        if problem:
            return Golden.PENDING, problem
        pods = [p for p in self.pods(canary) if is_ready(p)] if canary is not None else []
        results = [self.measurements.golden.get(p["metadata"]["uid"]) for p in pods]
        wrong = [r for r in results if r is not None and not r.passed]
        if wrong:
            return Golden.FAILED, wrong[0].message
        if not results or any(r is None for r in results):
            return Golden.PENDING, ""
        return Golden.PASSED, ""

    def golden_requests(self, revision: Revision) -> str:
        """The ConfigMap with a revision's known answers; empty: it has none.

        Of a revision that the spec describes it is the spec's. Another one keeps the ConfigMap that
        was named together with it: its answers are right, though the next version gives others.
        """
        asked = self.spec.golden_requests
        if asked is None:
            return ""
        return asked.config_map_name if self.describes(revision) else revision.golden

    def describes(self, revision: Revision) -> bool:
        """Whether the spec asks for this revision, or for one of the same shape."""
        return revision.shape == self._shape

    @cached_property
    def _shape(self) -> dict[str, Any]:
        return pod_shape(self.spec)

    def golden_problem(self, revision: Revision) -> str:
        """Why its golden requests cannot be sent; empty: nothing is in the way."""
        return self.measurements.golden_problems.get(self.golden_requests(revision), "")

    def golden_passed(self, record: Record) -> bool:
        """Whether no golden request stands between the canary and traffic."""
        return self._golden(record)[0] in (Golden.NOT_ASKED, Golden.PASSED)

    def _gateway(self) -> Gateway | None:
        gateway = self.spec.traffic.gateway
        if gateway is None:
            return None
        if ROUTE_KIND not in self.observed.present_kinds:
            return Gateway(accepted=False, message=f"this cluster does not serve {ROUTE_KIND}s")
        name = self.observed.deployment["metadata"]["name"]
        route = self.observed.children.get(Ref(ROUTE_VERSION, ROUTE_KIND, name))
        if route is None:
            return Gateway(accepted=False)
        parents = [p.model_dump(by_alias=True, exclude_none=True) for p in gateway.parent_refs]
        state = route_state(route, parents)
        message = f"{state.reason}: {state.message}" if state.reason else ""
        refused = not state.accepted and state.reason != PENDING
        return Gateway(state.accepted, message, refused, state.can_mirror)

    def _waiting_gates(self, canary: str) -> tuple[str, ...]:
        """Gates that are not open for this revision, each with why.

        Unknown is not success: a True of another revision, or of none by name, opens nothing.
        """
        found = conditions_of(self.observed.deployment)
        why = {gate: _shut(found.get(gate) or {}, canary) for gate in self.spec.rollout.gates}
        return tuple(f"{gate} {text}" for gate, text in why.items() if text)

    def _undo_to(self, record: Record) -> str:
        """The revision that `undo` would lead to."""
        if self.request is None or self.request.verb is not verbs.Verb.UNDO:
            return ""
        if self.request.revision:
            return self.request.revision if self.request.revision in self.known else ""
        if record.phase in LIVE and record.stable:
            return record.stable
        served = [r for r in self.known.values() if r.live_since and r.hash != record.stable]
        return max(served, key=lambda r: (r.live_since, r.number)).hash if served else ""

    def _failures(self, record: Record) -> dict[str, str]:
        """Why revisions get no traffic again by themselves, by hash."""
        found = {
            f["hash"]: f"{f['reason']}: {f.get('message', '')}"
            for f in status_document.failed(self.observed.deployment)
        }
        for hash_, revision in self.known.items():
            if revision.failed is not None:
                found.pop(hash_, None)
                if revision.failed:
                    found[hash_] = failure_text(revision.failed)
        if record.phase is Phase.ROLLED_BACK:
            found[record.canary] = f"{record.reason}: {record.message}"
        if record.phase in LIVE:
            found.pop(record.canary, None)
        found.pop(record.stable, None)
        return found

    # How many pods.

    def sized(self, record: Record) -> Replicas:
        """Replicas of the revision that serves, while that decision is in force."""
        serves = self.known.get(rollout.serving(record))
        if self.spec.scaling_mode is not ScalingMode.SLO or serves is None:
            set_by = scaling.setters(self.observed.deployment, self._now_s)
            return scaling.replicas(self.spec, now_s=self._now_s, set_by=set_by)
        before = (self.observed.deployment.get("status") or {}).get("scaling") or {}
        fleet = self._fleet(serves, record, before)
        demand = self.measurements.load.get(serves.hash)
        return scaling.replicas(self.spec, fleet, demand, self._now_s, self._all_arrivals(record))

    def sized_canary(self, record: Record) -> int:
        """Replicas that the canary would need for all the traffic."""
        canary = self.known.get(record.canary)
        demand = self.measurements.load.get(record.canary)
        if self.spec.scaling_mode is not ScalingMode.SLO or canary is None or demand is None:
            return self.wanted
        fleet = self._fleet(canary, record, {})
        found = scaling.replicas(
            self.spec, fleet, demand, self._now_s, self._all_arrivals(record)
        ).decision
        if found is None or found.required is None:
            return self.wanted
        # Never fewer than it has: nothing is taken away during a rollout.
        return max(found.required, fleet.desired)

    @property
    def _now_s(self) -> float:
        return self.now.timestamp()

    def _all_arrivals(self, record: Record) -> float | None:
        """Requests a second of both revisions: either one may get all of them at any time."""
        if record.phase not in LIVE or not record.stable:
            return None
        load = self.measurements.load
        found = [load[h].arrivals_per_s for h in (record.stable, record.canary) if h in load]
        return sum(found) if found else None

    def _fleet(self, revision: Revision, record: Record, before: Mapping[str, Any]) -> Fleet:
        live = self.observed.children.get(revision.deployment_ref)
        pods = self.pods(revision)
        there = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        desired = int((live or {}).get("spec", {}).get("replicas") or 0)
        decided = int(before.get("desired") or 0)
        if not self.is_pinned(revision):
            # One pod alone for the moment; what was decided stands in status.
            desired = max(desired, decided)
        elif decided and live is not None and scaling.other_scaler(live):
            desired = decided
        return Fleet(
            desired=desired,
            ready=sum(map(is_ready, there)),
            waiting_for_gpu=sum(
                diagnose_pod(p, self.observed.events).reason == "WaitingForGPU" for p in there
            ),
            raised_at_s=_epoch_s(before.get("raised")),
            lowered_at_s=_epoch_s(before.get("lowered")),
            cold_start_s=self._cold_start_s(revision, before),
            rollout=record.phase in LIVE and bool(record.stable),
        )

    def placed(self, record: Record) -> Placement | None:
        """How many pods stable and canary get; None where there is but one revision."""
        stable, canary = self.known.get(record.stable), self.known.get(record.canary)
        if stable is None or canary is None or stable is canary:
            return None
        measured = self.measured(record)
        situation = self.situation(record)
        stepwise = rollout.by_steps(situation)
        following = rollout.next_weight(self.spec, record, stepwise=stepwise)
        at = record.gave_way_at
        instances = self.spec.model.config.instances
        return placement.place(
            strategy=self.spec.rollout.strategy,
            surge=self.spec.rollout.surge,
            surge_wait_s=duration_s(self.spec.rollout.surge_wait),
            phase=record.phase,
            wanted=self.wanted,
            wanted_canary=self.sized_canary(record),
            share=record.weight,
            next_share=max(following, record.mirror),
            stable=self.places(stable),
            canary=self.places(canary),
            load=Load(
                None if measured is None else measured.in_flight_per_pod,
                1 if instances is None else instances.count,
            ),
            gave_way=record.gave_way,
            gave_way_s_ago=self.since_s(at) if at else None,
            start_s=self._start_s(stable),
            keep_failed=self.keeps_failed(record),
            held_back=rollout.held_back(situation) is not None,
        )

    def places(self, revision: Revision) -> Pods:
        """Its pods, as their placement sees them."""
        pods = self.pods(revision)
        there = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        waiting, waited_s = "", 0.0
        for pod in there:
            found = diagnose_pod(pod, self.observed.events, nodes=self.observed.nodes)
            if found.reason == "WaitingForGPU":
                waiting = found.message
                waited_s = max(waited_s, self.since_s(pod["metadata"]["creationTimestamp"]))
        return Pods(
            there=len(there),
            ready=sum(map(is_ready, there)),
            leaving=len(pods) - len(there),
            waiting=waiting,
            waited_s=waited_s,
        )

    def _start_s(self, revision: Revision) -> float | None:
        """How long the revision's pods took to start, typically."""
        found = self._starts(revision)
        return None if found is None else found.median_s

    def _cold_start_s(self, revision: Revision, before: Mapping[str, Any]) -> float | None:
        """The same for scaling, where a pod that was not ready for a while must not count.

        Of starts that were seen; else as it was, for this operator may be new; else what pods say.

        Args:
            revision: whose pods.
            before: ``status.scaling`` as last written.
        """
        seen = self.measurements.starts
        uids = (p["metadata"]["uid"] for p in self.pods(revision))
        found = [seen[uid] for uid in uids if uid in seen]
        if found:
            return median(found)
        revisions = (self.observed.deployment.get("status") or {}).get("revisions") or {}
        stable = revisions.get("stable") or {}
        if stable.get("hash") == revision.hash and before.get("coldStart"):
            return float(duration_s(before["coldStart"]))
        return self._start_s(revision)

    def _starts(self, revision: Revision) -> Summary | None:
        if revision.hash not in self._summaries:
            there = (p for p in self.pods(revision) if not p["metadata"].get("deletionTimestamp"))
            found = summarise(start for pod in there if (start := cold_start(pod)) is not None)
            self._summaries[revision.hash] = found
        return self._summaries[revision.hash]

    def keeps_failed(self, record: Record) -> bool:
        """Whether a failed canary's pods still stay."""
        keep_s = duration_s(self.spec.rollout.keep_failed)
        return record.phase is Phase.ROLLED_BACK and self.since_s(record.since) < keep_s

    def deadline(self, record: Record) -> datetime | None:
        """When the first revision should be ready; None: it is not about the first."""
        if record.stable or record.phase not in LIVE or not record.started:
            return None
        limit_s = duration_s(self.spec.rollout.progress_deadline)
        return moment(record.started) + timedelta(seconds=limit_s)

    def is_late(self, record: Record) -> bool:
        """Whether the first revision should have been ready by now."""
        deadline = self.deadline(record)
        return deadline is not None and self.now >= deadline

    def since_s(self, at: str) -> float:
        """Seconds since that time; 0 for none."""
        return (self.now - moment(at)).total_seconds() if at else 0.0

    def view(self, revision: Revision, wanted: int) -> RevisionView:
        """A revision and how it does."""
        key = (revision.hash, wanted)
        if key not in self._views:
            self._views[key] = self._viewed(revision, wanted)
        return self._views[key]

    def _viewed(self, revision: Revision, wanted: int) -> RevisionView:
        pods = self.pods(revision)
        finding = diagnose_revision(
            self.observed.children.get(revision.deployment_ref),
            pods,
            wanted,
            self.observed.events,
            self.observed.models,
            self.observed.nodes,
        )
        there = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        return RevisionView(
            revision, finding, len(there), sum(map(is_ready, there)), self._starts(revision)
        )

    def pods(self, revision: Revision) -> Sequence[Object]:
        """Its pods, oldest first."""
        return self._pods_by_revision.get(revision.hash, ())

    @cached_property
    def _pods_by_revision(self) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for pod in self.observed.pods:
            hash_ = (pod["metadata"].get("labels") or {}).get(REVISION_LABEL)
            if hash_ is not None:
                found.setdefault(hash_, []).append(pod)
        for pods in found.values():
            pods.sort(key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]))
        return found

    def is_pinned(self, revision: Revision) -> bool:
        """Whether all of its pods load the same bytes."""
        stated = "sha256" in revision.shape["model"]["source"]
        return stated or bool(revision.digest) or self.pin_of(revision) is not None

    def pin_of(self, revision: Revision) -> str | None:
        """The digest that its pods are held to."""
        return pinned_digest(self.observed, revision.name)


def moment(text: str) -> datetime:
    """The time that RFC 3339 text says, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _epoch_s(text: str | None) -> float | None:
    return moment(text).timestamp() if text else None


def _shut(condition: Mapping[str, Any], canary: str) -> str:
    """Why a gate is not open for a revision; empty: it is."""
    if condition.get("status") != "True":
        return "not True"
    told = condition.get("revision")
    if told == canary:
        return ""
    if not told:
        return f"True but names no revision, which has to be {canary}"
    return f"True of revision {told}, not of {canary}"


def takes_copies(revision: Revision) -> bool:
    """Whether a gateway can send it copies of live requests."""
    ports = revision.manifest("Service")["spec"]["ports"]
    return any(port["port"] == MIRROR_PORT for port in ports)


def has_sidecar(revision: Revision) -> bool:
    """Whether a revision's requests are measured."""
    runtime = revision.shape.get("runtime") or {}
    return bool(runtime.get("sidecar", Sidecar.ON) == Sidecar.ON)


def conditions_of(deployment: Object) -> dict[str, Mapping[str, Any]]:
    """The conditions that status holds, by type."""
    return {c["type"]: c for c in (deployment.get("status") or {}).get("conditions") or ()}
