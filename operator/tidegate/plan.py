"""The one place where everything comes together: what is observed in, actions out.

Pure: everything it needs is in its arguments, the clock too. It composes the parts and decides
little itself:

1. read the spec; 2. find the revision that it asks for, or let it be born; 3. decide which revision
gets which traffic; 4. keep every child of both as it was born; 5. pin the bytes, place the pods,
move the traffic, tidy up; 6. say so in status and events.

Planning again at once for the world it asked for gives no further change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from pydantic import ValidationError

from tidegate import conditions, placement, rollout, scaling, verbs
from tidegate import status as status_document
from tidegate.actions import (
    Action,
    Annotate,
    Apply,
    Delete,
    DeletePod,
    Event,
    Measure,
    Plan,
    Scale,
    TakeOut,
    Verify,
    WriteStatus,
)
from tidegate.analysis.judgement import Objective
from tidegate.api.names import (
    DIGEST_ANNOTATION,
    FAILED_ANNOTATION,
    LIVE_SINCE_ANNOTATION,
    REQUEST_ANNOTATION,
    REVISION_LABEL,
    SERVING_LABEL,
)
from tidegate.api.spec import Sidecar, Spec, parse
from tidegate.api.units import duration_s
from tidegate.diagnosis import (
    Finding,
    Severity,
    diagnose_pod,
    diagnose_revision,
    fetch_result,
    is_ready,
)
from tidegate.observed import Measured, Measurements, Object, Observed, Ref
from tidegate.placement import Load, Placement, Pods
from tidegate.platform import Platform
from tidegate.record import Phase, Record
from tidegate.resources.birth import manifests
from tidegate.resources.meta import metadata, owned
from tidegate.resources.monitoring import KIND as MONITOR_KIND
from tidegate.resources.monitoring import pod_monitor
from tidegate.resources.pod import Parts
from tidegate.resources.policies import disruption_budget, network_policy
from tidegate.resources.route import API_VERSION as ROUTE_VERSION
from tidegate.resources.route import (
    GRPC_KIND,
    Split,
    grpc_route,
    http_route,
    record_of,
    route_state,
)
from tidegate.resources.route import KIND as ROUTE_KIND
from tidegate.resources.services import entry_service, revision_of
from tidegate.revision import (
    Revision,
    child_name,
    controller_revision,
    failure_text,
    known_revisions,
    pin_name,
    pinned_digest,
    pod_shape,
    revision_hash,
    with_record,
)
from tidegate.rollout import LIVE, Course, Gateway, Golden, Side, Situation
from tidegate.status import RevisionView, Verdict, timestamp

# A revision's children, in the order in which they must exist.
_ORDER: Final = ("ConfigMap", "ResourceClaimTemplate", "Service", "Deployment")


class CannotBeBornError(Exception):
    """The spec's revision cannot be made; nothing of it exists.

    Attributes:
        reason: CamelCase, for conditions.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def plan(
    observed: Observed,
    platform: Platform,
    now: datetime,
    measurements: Measurements | None = None,
) -> Plan:
    """What to do for one ModelDeployment.

    Args:
        observed: what is known of it and of its children.
        platform: the platform's settings.
        now: UTC.
        measurements: what was measured; None: nothing.
    """
    deployment = observed.deployment
    if deployment["metadata"].get("deletionTimestamp"):
        return Plan()
    try:
        spec = parse(dict(deployment["spec"]))
    except ValidationError as error:
        return _nothing_but_status(deployment, "InvalidSpec", _first_error(error), now)

    known = known_revisions(observed)
    record = _record_in_force(observed, known)
    request = verbs.parse((deployment["metadata"].get("annotations") or {}).get(REQUEST_ANNOTATION))
    if request is not None and request.id in (record.request, _last_request(deployment)):
        request = None
    failure: Finding | None = None
    try:
        target = _target(spec, observed, platform, known, record, request)
    except CannotBeBornError as error:
        # What serves goes on serving, and is kept as it was born.
        serves = rollout.serving(record)
        if serves not in known:
            return _nothing_but_status(deployment, error.reason, str(error), now)
        failure = Finding(Severity.FAILING, "Failed", error.reason, str(error))
        target = known[record.canary if record.phase in LIVE else serves]
    known.setdefault(target.hash, target)
    return _Composer(
        observed,
        platform,
        spec,
        known,
        target,
        now,
        measurements or Measurements(),
        request,
        failure,
    ).compose(record)


def _record_in_force(observed: Observed, known: Mapping[str, Revision]) -> Record:
    """The decision that holds: from the route, the entry Service, or the last status."""
    name = observed.deployment["metadata"]["name"]
    entry = observed.children.get(Ref("v1", "Service", name))
    route = observed.children.get(Ref(ROUTE_VERSION, ROUTE_KIND, name))
    found = next((r for o in (route, entry) if o is not None and (r := record_of(o))), None)
    if found is None:
        found = status_document.record_of(observed.deployment)
        serves = revision_of(entry) if entry is not None else None
        if found is None or (serves is not None and serves not in (found.stable, found.canary)):
            found = Record(stable=serves or "")
    if found.stable and found.stable not in known:
        found = replace(found, stable="")
    if found.phase in LIVE and found.canary not in known:
        phase = Phase.SUPERSEDED if found.stable else Phase.PROMOTED
        found = replace(found, canary="", phase=phase, weight=0.0, mirror=0.0, step=None)
    return found


def _last_request(deployment: Object) -> str:
    return str((deployment.get("status") or {}).get("lastRequest") or "")


def _target(
    spec: Spec,
    observed: Observed,
    platform: Platform,
    known: Mapping[str, Revision],
    record: Record,
    request: verbs.Request | None,
) -> Revision:
    """The revision that is asked for: remembered, or born now.

    Of several with the spec's shape (after a `restart`) it is the newest.

    Raises:
        CannotBeBornError: it needs something that the platform does not have.
    """
    shape = pod_shape(spec)
    hash_ = revision_hash(shape)
    if request is not None and request.verb is verbs.Verb.RESTART:
        again = revision_hash(shape, f"restart {request.id}")
        return known.get(again) or _born(spec, observed, platform, known, again)
    if record.target_for == hash_ and record.target in known:
        return known[record.target]
    alike = [r for r in known.values() if r.hash == hash_ or revision_hash(r.shape) == hash_]
    if alike:
        return max(alike, key=lambda r: r.number)
    return _born(spec, observed, platform, known, hash_)


def _born(
    spec: Spec,
    observed: Observed,
    platform: Platform,
    known: Mapping[str, Revision],
    hash_: str,
) -> Revision:
    """A new revision.

    Raises:
        CannotBeBornError: it needs something that the platform does not have.
    """
    name = observed.deployment["metadata"]["name"]
    shape = pod_shape(spec)
    profile = platform.profile(spec.runtime.profile)
    if profile is None:
        names = ", ".join(sorted(platform.profiles)) or "none"
        raise CannotBeBornError(
            "ProfileNotFound",
            f"runtime.profile: the platform has no profile {spec.runtime.profile!r} "
            f"(it has: {names}). Use one of them, or none.",
        )
    account = spec.runtime.service_account_name
    if account is not None and account not in platform.allowed_service_accounts:
        raise CannotBeBornError(
            "ServiceAccountNotAllowed",
            f"runtime.serviceAccountName: {account!r} is not on the platform's list "
            "(allowedServiceAccounts). Ask the platform team, or leave it out.",
        )
    gpu = spec.runtime.gpu
    if gpu.count and gpu.dra and "ResourceClaimTemplate" not in observed.present_kinds:
        raise CannotBeBornError(
            "ClaimsNotServed",
            "runtime.gpu.dra: this cluster does not serve resource.k8s.io/v1. Ask for a counted "
            "resource instead, or enable dynamic resource allocation.",
        )
    number = max((r.number for r in known.values()), default=0) + 1
    full_name = child_name(name, hash_)
    parts = Parts(
        deployment=name,
        hash=hash_,
        name=full_name,
        pin_name=pin_name(full_name),
        model=spec.model,
        runtime=spec.runtime,
        profile=profile,
        platform=platform,
    )
    try:
        born = manifests(spec, parts)
    except ValueError as error:
        raise CannotBeBornError("ConfigInvalid", str(error)) from error
    return Revision(hash_, number, shape, with_record(born, shape, number))


@dataclass
class _Composer:
    observed: Observed
    platform: Platform
    spec: Spec
    known: dict[str, Revision]
    target: Revision
    now: datetime
    measurements: Measurements
    request: verbs.Request | None
    failure: Finding | None
    told: list[tuple[str, str, str]] = field(default_factory=list)

    def compose(self, before: Record) -> Plan:
        """The plan that goes on from a decision in force."""
        course, placed = self._decided(before)
        record = course.record
        course = status_document.steady(self.observed.deployment, course, self.now)
        views = {h: self._view(self.known[h], n) for h, n in self._wanted(record, placed).items()}

        actions: list[Action] = []
        traffic = list(self._traffic(record))
        # Away from a bad revision comes before everything else.
        first = record.weight < before.weight
        actions += traffic if first else ()
        for hash_ in views:
            actions += self._kept(self.known[hash_])
            actions += self._pinned(self.known[hash_])
        actions += () if first else traffic
        actions += self._guards([self.known[h] for h in views])
        for hash_, number in self._wanted(record, placed).items():
            actions += self._scaled(self.known[hash_], number)
        actions += self._remembered(record, course)
        actions += self._taken_out()
        actions += self._tidied(set(views))

        serves = rollout.serving(record)
        verdicts = conditions.conditions(
            self.spec,
            record,
            course,
            serves=views.get(serves),
            target=views.get(self.target.hash) or self._view(self.target, self.wanted),
            wanted=self.wanted,
            failure=self.failure or self._world_failure(),
            pinned=self._pin_of(self.target) is not None,
            late=self._is_late(record),
            measured=self._measured(record),
        )
        verdicts.append(self._outdated(self.known.get(serves, self.target)))
        document = status_document.document(
            self.observed.deployment,
            self.spec,
            verdicts=verdicts,
            record=record,
            course=course,
            views=views,
            scale=self.scale,
            measured=self._measured(record),
            known=self.known,
            now=self.now,
        )
        actions += self._events(verdicts)
        actions.append(WriteStatus(document))
        return Plan(
            tuple(actions),
            self._again_after_s(record, course),
            self._measure(record),
            self._verify(record, views),
        )

    # What is decided.

    def _decided(self, before: Record) -> tuple[Course, Placement | None]:
        """Go on until nothing more follows from what is known now."""
        if self.failure is not None:
            return Course(before), self._placed(before)
        record = before
        for _ in range(8):
            course = rollout.course(self._situation(record))
            self.told += course.told
            self._forgiven = self._forgiven or course.forgive
            if course.record == record:
                break
            record = course.record
        placed = self._placed(record)
        if placed is not None and placed.gave_way != record.gave_way:
            changed = replace(record, gave_way=placed.gave_way, gave_way_at=rollout.stamp(self.now))
            course = replace(course, record=changed, again_after_s=0.0)
        if placed is not None and placed.reason and not course.hold and record.phase in LIVE:
            course = replace(course, hold=placed.reason, message=placed.message)
        elif placed is not None and placed.reason == course.hold:
            course = replace(course, message=placed.message)
        return course, placed

    _forgiven: bool = False

    @cached_property
    def scale(self) -> scaling.Replicas:
        return scaling.replicas(self.spec)

    @property
    def wanted(self) -> int:
        return self.scale.desired

    def _situation(self, record: Record) -> Situation:
        golden, golden_message = self._golden(record)
        target = self.target.hash
        live = record.phase in LIVE
        return Situation(
            spec=self.spec,
            record=record,
            target=target,
            target_for=revision_hash(pod_shape(self.spec)),
            stable=self._side(record.stable),
            canary=self._side(record.canary if live else target),
            failed=None if self._forgiven else self._failures(record).get(target),
            wanted=self.wanted,
            pinned=self._pin_of(self.target) is not None
            or "sha256" in self.target.shape["model"]["source"],
            golden=golden,
            golden_message=golden_message,
            measured=self._measured(record),
            gateway=self._gateway(),
            waiting_gates=self._waiting_gates(),
            request=self.request,
            undo_to=self._undo_to(record),
            now=self.now,
        )

    def _side(self, hash_: str) -> Side | None:
        revision = self.known.get(hash_)
        if revision is None:
            return None
        live = self.observed.children.get(revision.deployment_ref)
        asked = (live or {}).get("spec", {}).get("replicas") or 1
        view = self._view(revision, max(1, int(asked)))
        return Side(
            hash_,
            pods=view.pods,
            ready=view.ready,
            finding=view.finding,
            sidecar=_has_sidecar(revision),
            served=bool(revision.live_since),
        )

    def _measured(self, record: Record) -> Measured | None:
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
        problem = self.measurements.golden_problem
        if problem:
            return Golden.PENDING, problem
        canary = self.known.get(record.canary) if record.phase in LIVE else None
        pods = [p for p in self._pods(canary) if is_ready(p)] if canary is not None else []
        results = [self.measurements.golden.get(p["metadata"]["uid"]) for p in pods]
        wrong = [r for r in results if r is not None and not r.passed]
        if wrong:
            return Golden.FAILED, wrong[0].message
        if not results or any(r is None for r in results):
            return Golden.PENDING, ""
        return Golden.PASSED, ""

    def _gateway(self) -> Gateway | None:
        gateway = self.spec.traffic.gateway
        if gateway is None or ROUTE_KIND not in self.observed.present_kinds:
            return None
        name = self.observed.deployment["metadata"]["name"]
        route = self.observed.children.get(Ref(ROUTE_VERSION, ROUTE_KIND, name))
        if route is None:
            return Gateway(accepted=False)
        parents = [p.model_dump(by_alias=True, exclude_none=True) for p in gateway.parent_refs]
        state = route_state(route, parents)
        message = f"{state.reason}: {state.message}" if state.reason else ""
        return Gateway(state.accepted, message, state.can_mirror)

    def _waiting_gates(self) -> tuple[str, ...]:
        """Gates whose condition is not True: unknown is not success."""
        found = _conditions(self.observed.deployment)
        return tuple(
            gate
            for gate in self.spec.rollout.gates
            if (found.get(gate) or {}).get("status") != "True"
        )

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

    def _placed(self, record: Record) -> Placement | None:
        """How many pods stable and canary get; None where there is but one revision."""
        stable, canary = self.known.get(record.stable), self.known.get(record.canary)
        if stable is None or canary is None or stable is canary:
            return None
        measured = self._measured(record)
        stepwise = rollout.by_steps(self._situation(record))
        following = rollout.next_weight(self.spec, record, stepwise=stepwise)
        at = record.gave_way_at
        instances = self.spec.model.config.instances
        return placement.place(
            strategy=self.spec.rollout.strategy,
            surge=self.spec.rollout.surge,
            surge_wait_s=duration_s(self.spec.rollout.surge_wait),
            phase=record.phase,
            wanted=self.wanted,
            share=record.weight,
            next_share=max(following, record.mirror),
            stable=self._places(stable),
            canary=self._places(canary),
            load=Load(
                None if measured is None else measured.in_flight_per_pod,
                1 if instances is None else instances.count,
            ),
            gave_way=record.gave_way,
            gave_way_s_ago=self._since_s(at) if at else None,
            start_s=self._start_s(stable),
            keep_failed=self._keeps_failed(record),
        )

    def _places(self, revision: Revision) -> Pods:
        pods = self._pods(revision)
        there = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        waiting, waited_s = "", 0.0
        for pod in there:
            found = diagnose_pod(pod, self.observed.events)
            if found.reason == "WaitingForGPU":
                waiting = found.message
                waited_s = max(waited_s, self._since_s(pod["metadata"]["creationTimestamp"]))
        return Pods(
            there=len(there),
            ready=sum(map(is_ready, there)),
            leaving=len(pods) - len(there),
            waiting=waiting,
            waited_s=waited_s,
        )

    def _start_s(self, revision: Revision) -> float | None:
        """How long the revision's pods took from creation to Ready, at most."""
        found = []
        for pod in self._pods(revision):
            for condition in (pod.get("status") or {}).get("conditions") or ():
                if (condition.get("type"), condition.get("status")) == ("Ready", "True"):
                    ready_at = condition.get("lastTransitionTime")
                    if ready_at:
                        created = _time(pod["metadata"]["creationTimestamp"])
                        found.append((_time(ready_at) - created).total_seconds())
        return max(found, default=None)

    def _keeps_failed(self, record: Record) -> bool:
        keep_s = duration_s(self.spec.rollout.keep_failed)
        return record.phase is Phase.ROLLED_BACK and self._since_s(record.since) < keep_s

    def _wanted(self, record: Record, placed: Placement | None) -> dict[str, int]:
        """Replicas of each revision that has pods, the one that serves first."""
        if placed is None:
            only = record.stable or (record.canary if record.phase in LIVE else "")
            return {only: self.wanted} if only in self.known else {}
        found = {record.stable: placed.stable}
        if record.phase in LIVE or self._keeps_failed(record):
            found[record.canary] = placed.canary
        return found

    def _since_s(self, at: str) -> float:
        return (self.now - _time(at)).total_seconds() if at else 0.0

    # What is to be known for the next plan.

    def _measure(self, record: Record) -> Measure | None:
        stable, canary = self.known.get(record.stable), self.known.get(record.canary)
        if record.phase not in LIVE or stable is None or canary is None:
            return None
        if not _has_sidecar(canary):
            return None
        return Measure(
            stable=stable.hash,
            canary=canary.hash,
            started=record.started,
            since=record.since,
            objective=Objective.of(self.spec),
            interval_s=rollout.measure_interval_s(record, self.now),
            state=status_document.evidence_state(self.observed.deployment, record),
        )

    def _verify(self, record: Record, views: Mapping[str, RevisionView]) -> Verify | None:
        asked = self.spec.golden_requests
        if asked is None:
            return None
        pods = [p for h in views for p in self._pods(self.known[h]) if is_ready(p)]
        return Verify(
            config_map=asked.config_map_name,
            model=self.spec.model.name or self.observed.deployment["metadata"]["name"],
            pods=tuple(p["metadata"]["uid"] for p in pods),
            every_s=None if asked.every is None else duration_s(asked.every),
        )

    # What a revision needs.

    def _view(self, revision: Revision, wanted: int) -> RevisionView:
        pods = self._pods(revision)
        finding = diagnose_revision(
            self.observed.children.get(revision.deployment_ref),
            pods,
            wanted,
            self.observed.events,
            self.observed.models,
        )
        there = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
        return RevisionView(revision, finding, len(there), sum(map(is_ready, there)))

    def _pods(self, revision: Revision) -> list[Object]:
        found = [
            p
            for p in self.observed.pods
            if (p["metadata"].get("labels") or {}).get(REVISION_LABEL) == revision.hash
        ]
        return sorted(
            found, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"])
        )

    def _kept(self, revision: Revision) -> Iterable[Action]:
        deployment = self.observed.deployment
        keeper = Ref("apps/v1", "ControllerRevision", revision.name)
        if keeper not in self.observed.children:
            yield Apply(controller_revision(deployment, revision))
            if not revision.created and revision.deployment_ref not in self.observed.children:
                yield Event(
                    "Normal",
                    "RevisionCreated",
                    f"revision {revision.hash}: {revision.source}, image {revision.image}",
                )
        for kind in _ORDER:
            for manifest in revision.manifests:
                if manifest["kind"] == kind:
                    yield Apply(owned(deployment, manifest))

    def _pin_of(self, revision: Revision) -> str | None:
        return pinned_digest(self.observed, revision.name)

    def _pinned(self, revision: Revision) -> Iterable[Action]:
        """Hold all pods of a revision to the bytes that its first one fetched."""
        pods = [p for p in self._pods(revision) if not p["metadata"].get("deletionTimestamp")]
        fetched = [(p, r.digest) for p in pods if (r := fetch_result(p)) is not None]
        digest = revision.digest or self._pin_of(revision)
        if digest is None and fetched:
            digest = fetched[0][1]
        if digest is None:
            return
        name = pin_name(revision.name)
        yield Apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata(self.observed.deployment, name, revision.hash),
                "immutable": True,
                "data": {"digest": digest},
            }
        )
        if revision.digest != digest:
            ref = Ref("apps/v1", "ControllerRevision", revision.name)
            if ref in self.observed.children:
                yield Annotate(ref, {DIGEST_ANNOTATION: digest})
        for pod, other in fetched:
            if other != digest:
                yield DeletePod(
                    pod["metadata"]["name"],
                    pod["metadata"]["uid"],
                    f"SourceMoved: it loaded {other}, the revision is pinned to {digest}",
                )

    def _scaled(self, revision: Revision, wanted: int) -> Iterable[Action]:
        live = self.observed.children.get(revision.deployment_ref)
        if live is None:
            return
        pinned = self._pin_of(revision) is not None or "sha256" in revision.shape["model"]["source"]
        number = scaling.before_pin(wanted, pinned=pinned)
        if live["spec"].get("replicas") != number:
            yield Scale(revision.deployment_ref, number)

    def _remembered(self, record: Record, course: Course) -> Iterable[Action]:
        """What stays known of a revision when the record has gone on."""
        serves = self.known.get(rollout.serving(record))
        if serves is not None and not serves.live_since:
            promoted = record.phase in (Phase.PROMOTED, Phase.BAKING)
            if promoted and any(map(is_ready, self._pods(serves))):
                yield self._annotated(serves, LIVE_SINCE_ANNOTATION, timestamp(self.now))
        canary = self.known.get(record.canary)
        if canary is None:
            return
        if record.phase is Phase.ROLLED_BACK:
            text = status_document.failure_of(record)
            if canary.failed != text:
                yield self._annotated(canary, FAILED_ANNOTATION, text)
        elif record.phase in LIVE and canary.failed:
            yield self._annotated(canary, FAILED_ANNOTATION, "")

    def _annotated(self, revision: Revision, key: str, value: str) -> Action:
        return Annotate(Ref("apps/v1", "ControllerRevision", revision.name), {key: value})

    def _taken_out(self) -> Iterable[Action]:
        """Pods whose golden answers are wrong get no traffic."""
        if self.spec.golden_requests is None:
            return
        for pod in self.observed.pods:
            meta = pod["metadata"]
            result = self.measurements.golden.get(meta["uid"])
            if result is None or result.passed or meta.get("deletionTimestamp"):
                continue
            if (meta.get("labels") or {}).get(SERVING_LABEL) == "true":
                yield TakeOut(meta["name"], meta["uid"], f"WrongAnswers: {result.message}")
                yield Event(
                    "Warning",
                    "WrongAnswers",
                    f"pod {meta['name']} gets no more traffic: {result.message}",
                )

    # What the ModelDeployment needs.

    def _traffic(self, record: Record) -> Iterable[Action]:
        deployment = self.observed.deployment
        gateway = self.spec.traffic.gateway
        name = deployment["metadata"]["name"]
        serves = self.known.get(rollout.serving(record))
        written = record.dump()
        split = self._split(record)
        for kind, make, used in (
            (ROUTE_KIND, http_route, gateway is not None),
            (GRPC_KIND, grpc_route, gateway is not None and bool(gateway.grpc_hostnames)),
        ):
            ref = Ref(ROUTE_VERSION, kind, name)
            if used and gateway is not None and split is not None:
                if kind in self.observed.present_kinds:
                    yield Apply(make(deployment, self.spec, gateway, split, written))
            elif not used and ref in self.observed.children:
                yield Delete(ref, self.observed.children[ref]["metadata"]["uid"])
        # After the route, which tells what holds should the two differ.
        yield Apply(
            entry_service(
                deployment,
                None if serves is None or not self._may_serve(record) else serves.hash,
                sidecar=_has_sidecar(serves or self.target),
                record=written,
            )
        )

    def _may_serve(self, record: Record) -> bool:
        """Whether in-cluster callers reach anything: not before golden requests passed."""
        return bool(record.stable) or record.weight >= 1.0

    def _split(self, record: Record) -> Split | None:
        stable, canary = self.known.get(record.stable), self.known.get(record.canary)
        if stable is None:
            if canary is None or not self._may_serve(record):
                return None
            return Split(canary.name)
        # Listed only once its Service exists and its pods were ready.
        reachable = record.phase in LIVE and record.phase is not Phase.PREPARING
        if canary is None or canary is stable or not reachable:
            return Split(stable.name)
        return Split(stable.name, canary.name, record.weight, record.mirror)

    def _guards(self, revisions: list[Revision]) -> Iterable[Action]:
        if not revisions:
            return
        deployment = self.observed.deployment
        yield Apply(disruption_budget(deployment))
        sidecars = {_has_sidecar(r) for r in revisions}
        yield Apply(network_policy(deployment, self.spec, self.platform, sidecars=sidecars))
        if MONITOR_KIND in self.observed.present_kinds:
            yield Apply(pod_monitor(deployment, sidecar=_has_sidecar(revisions[0])))

    def _tidied(self, active: set[str]) -> Iterable[Action]:
        """Children of revisions that neither serve nor are wanted; old records beyond the limit."""
        old = [r for h, r in self.known.items() if h not in active and h != self.target.hash]
        # Counted apart: a row of failed ones does not push out what one may want to go back to.
        served = [r.hash for r in old if r.live_since][-self.spec.history_limit :]
        others = [r.hash for r in old if not r.live_since][-self.spec.history_limit :]
        kept = {*served, *others, self.target.hash}
        # Pods before the files and Services that they use.
        for ref, obj in sorted(
            self.observed.children.items(), key=lambda item: (item[0].kind != "Deployment", item[0])
        ):
            hash_ = (obj["metadata"].get("labels") or {}).get(REVISION_LABEL)
            if hash_ is None or hash_ in active:
                continue
            if ref.kind == "ControllerRevision" and hash_ in kept:
                continue
            yield Delete(ref, obj["metadata"]["uid"])

    # What people are told.

    def _world_failure(self) -> Finding | None:
        """What the cluster does not let us do."""
        if self.observed.foreign:
            names = ", ".join(f"{r.kind} {r.name}" for r in sorted(self.observed.foreign))
            return Finding(
                Severity.FAILING,
                "Failed",
                "NameConflict",
                f"{names}: exists and is not controlled by this ModelDeployment, so it is not "
                "touched. Delete or rename it, or choose another name.",
            )
        gateway = self.spec.traffic.gateway
        missing = [k for k in (ROUTE_KIND, GRPC_KIND) if k not in self.observed.present_kinds]
        if gateway is not None and (
            ROUTE_KIND in missing or (GRPC_KIND in missing and gateway.grpc_hostnames)
        ):
            return Finding(
                Severity.FAILING,
                "Failed",
                "GatewayAPIMissing",
                f"traffic.gateway: this cluster does not serve Gateway API's {missing[0]}. Install "
                "its CRDs, or leave traffic.gateway out.",
            )
        if self.observed.failures:
            first = self.observed.failures[0]
            what = "" if first.ref is None else f" {first.ref.kind} {first.ref.name}"
            return Finding(
                Severity.FAILING,
                "Failed",
                first.reason,
                f"{first.action}{what} was refused: {first.message}",
            )
        return None

    def _is_late(self, record: Record) -> bool:
        """Whether the first revision should have been ready by now."""
        deadline = self._deadline(record)
        return deadline is not None and self.now >= deadline

    def _deadline(self, record: Record) -> datetime | None:
        if record.stable or record.phase not in LIVE or not record.started:
            return None
        limit_s = duration_s(self.spec.rollout.progress_deadline)
        return _time(record.started) + timedelta(seconds=limit_s)

    def _outdated(self, revision: Revision) -> Verdict:
        """Whether a revision born today would get other images."""
        images = self.platform.images
        pod = revision.manifest("Deployment")["spec"]["template"]["spec"]
        used = {c["name"]: c["image"] for c in (*pod["initContainers"], *pod["containers"])}
        profile = self.platform.profile(self.spec.runtime.profile)
        triton = self.spec.runtime.image or (profile and profile.image) or images.triton
        today = {"fetch": images.fetch, "envoy": images.envoy, "triton": triton}
        old = [f"{n}: {used[n]}, now {i}" for n, i in today.items() if used.get(n, i) != i]
        if not old:
            return Verdict("RuntimeOutdated", "False", "Current")
        return Verdict(
            "RuntimeOutdated",
            "True",
            "NewerDefaults",
            f"{'; '.join(old)}. The verb `restart` makes a new revision with them.",
        )

    def _events(self, verdicts: list[Verdict]) -> Iterable[Action]:
        for type_, reason, message in self.told:
            yield Event("Warning" if type_ == "Warning" else "Normal", reason, message)
        before = _conditions(self.observed.deployment)
        for verdict in verdicts:
            old = before.get(verdict.type) or {}
            if verdict.type == "Ready" and verdict.status == "True" and old.get("status") != "True":
                yield Event("Normal", "Ready", verdict.message)
            if (
                verdict.type == "Stalled"
                and verdict.status == "True"
                and verdict.reason != "RolledBack"  # told with the decision
                and (old.get("status"), old.get("reason")) != ("True", verdict.reason)
            ):
                yield Event("Warning", verdict.reason, verdict.message)
            if (
                verdict.type == "WaitingForGPU"
                and verdict.status == "True"
                and (old.get("status") != "True")
            ):
                yield Event("Warning", verdict.reason, verdict.message)

    def _again_after_s(self, record: Record, course: Course) -> float | None:
        """The deadlines pass without any event."""
        found = [] if course.again_after_s is None else [course.again_after_s]
        deadline = self._deadline(record)
        if deadline is not None and deadline > self.now:
            found.append((deadline - self.now).total_seconds())
        if self._keeps_failed(record):
            keep_s = duration_s(self.spec.rollout.keep_failed)
            found.append(keep_s - self._since_s(record.since) + 0.1)
        if record.phase in LIVE and record.stable:
            waiting = self._places(self.known[record.canary]).waiting
            if waiting:  # for the surge's patience to end, and pods to settle
                found.append(5.0)
        return max(0.05, min(found)) if found else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _has_sidecar(revision: Revision) -> bool:
    runtime = revision.shape.get("runtime") or {}
    return bool(runtime.get("sidecar", Sidecar.ON) == Sidecar.ON)


def _nothing_but_status(deployment: Object, reason: str, message: str, now: datetime) -> Plan:
    """Nothing is touched; status says what to mend."""
    serves = _conditions(deployment).get("Available") or {}
    verdicts = [
        Verdict(
            "Available",
            serves.get("status") or "False",
            serves.get("reason") or reason,
            serves.get("message") or message,
        ),
        Verdict("Ready", "False", reason, message),
        Verdict("Reconciling", "False", reason),
        Verdict("Stalled", "True", reason, message),
    ]
    actions: list[Action] = []
    old = _conditions(deployment).get("Stalled") or {}
    if (old.get("status"), old.get("reason")) != ("True", reason):
        actions.append(Event("Warning", reason, message))
    actions.append(WriteStatus(status_document.invalid(deployment, verdicts, now)))
    return Plan(tuple(actions))


def _conditions(deployment: Object) -> dict[str, Mapping[str, Any]]:
    return {c["type"]: c for c in (deployment.get("status") or {}).get("conditions") or ()}


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(["spec", *map(str, first["loc"])])
    return f"{where}: {first['msg']} (it is {first.get('input')!r:.200}). Correct the field."
