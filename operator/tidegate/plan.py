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
from datetime import datetime, timedelta
from typing import Final

from pydantic import ValidationError

from tidegate import conditions, rollout, scaling, source, verbs
from tidegate import status as status_document
from tidegate.actions import (
    Action,
    Annotate,
    Apply,
    Delete,
    DeletePod,
    DeletionCost,
    Event,
    Load,
    Measure,
    Plan,
    Scale,
    ShortLoad,
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
    SOURCE_ADDRESS_ANNOTATION,
    SOURCE_VERSION_ANNOTATION,
)
from tidegate.api.spec import ScalingMode, parse
from tidegate.api.units import duration_s
from tidegate.autoscaling.decision import Hold
from tidegate.diagnosis import (
    Finding,
    Severity,
    fetch_result,
    is_ready,
)
from tidegate.measurement import bounds_ms
from tidegate.observed import Measurements, Object, Observed, Ref
from tidegate.placement import Placement
from tidegate.platform import Platform
from tidegate.record import Phase, Record
from tidegate.resources.look import API_VERSION as LOOK_VERSION
from tidegate.resources.look import KIND as LOOK_KIND
from tidegate.resources.look import look_job, look_name
from tidegate.resources.meta import metadata, owned
from tidegate.resources.monitoring import KIND as MONITOR_KIND
from tidegate.resources.monitoring import pod_monitor
from tidegate.resources.policies import disruption_budget, network_policy
from tidegate.resources.route import API_VERSION as ROUTE_VERSION
from tidegate.resources.route import (
    GRPC_KIND,
    Split,
    grpc_route,
    http_route,
    record_of,
)
from tidegate.resources.route import KIND as ROUTE_KIND
from tidegate.resources.services import entry_service, revision_of
from tidegate.revision import (
    Revision,
    controller_revision,
    known_revisions,
    pin_name,
    spec_of,
)
from tidegate.rollout import LIVE, MEASURED, Course
from tidegate.situation import Scene, conditions_of, has_sidecar, moment
from tidegate.status import RevisionView, Verdict, timestamp
from tidegate.target import CannotBeBornError, asked_for

# A revision's children, in the order in which they must exist.
_ORDER: Final = ("ConfigMap", "ResourceClaimTemplate", "Service", "Deployment")

STABILISING_S: Final = 10.0
"""How often a number that is to come down is looked at."""


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
    look = source.last_look(observed, spec)
    record = source.brought_up(_record_in_force(observed, known), spec, look, known)
    request = verbs.parse((deployment["metadata"].get("annotations") or {}).get(REQUEST_ANNOTATION))
    if request is not None and request.id in (record.request, _last_request(deployment)):
        request = None
    failure: Finding | None = None
    try:
        target = asked_for(spec, observed, platform, known, record, request)
    except CannotBeBornError as error:
        # What serves goes on serving, and is kept as it was born.
        serves = rollout.serving(record)
        if serves not in known:
            return _nothing_but_status(deployment, error.reason, str(error), now)
        failure = Finding(Severity.FAILING, "Failed", error.reason, str(error))
        target = known[record.canary if record.phase in LIVE else serves]
    known.setdefault(target.hash, target)
    scene = _Composer(
        observed=observed,
        spec=spec,
        known=known,
        target=target,
        now=now,
        measurements=measurements or Measurements(),
        request=request,
        platform=platform,
        failure=failure,
        look=look,
    )
    scene.scale = scene.sized(record)
    return scene.compose(record)


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
            found = Record(stable=serves or _last_that_served(known))
    if found.stable and found.stable not in known:
        found = replace(found, stable="")
    if found.phase in LIVE and found.canary not in known:
        phase = Phase.SUPERSEDED if found.stable else Phase.PROMOTED
        found = replace(found, canary="", phase=phase, weight=0.0, mirror=0.0, step=None)
    return found


def _last_that_served(known: Mapping[str, Revision]) -> str:
    """Where nothing else says what serves: the newest one that ever did and has not failed."""
    served = [r for r in known.values() if r.live_since and not r.failed]
    return max(served, key=lambda r: (r.live_since, r.number)).hash if served else ""


def _last_request(deployment: Object) -> str:
    return str((deployment.get("status") or {}).get("lastRequest") or "")


@dataclass
class _Composer(Scene):
    """What is known, and the actions that follow from it.

    Attributes:
        platform: the platform's settings.
        failure: why the spec's own revision cannot be made; None: it can.
        look: what the last look at the source said.
        told: events so far, as (type, reason, message).
    """

    platform: Platform = field(default_factory=Platform)
    failure: Finding | None = None
    look: source.Look = field(default_factory=source.Look)
    told: list[tuple[str, str, str]] = field(default_factory=list)

    def compose(self, before: Record) -> Plan:
        """The plan that goes on from a decision in force."""
        course, placed = self._decided(before)
        record = course.record
        course = status_document.steady(self.observed.deployment, course, self.now)
        views = {h: self.view(self.known[h], n) for h, n in self._wanted(record, placed).items()}

        actions: list[Action] = []
        traffic = list(self._traffic(record))
        # What the record is about to forget.
        actions += self._failure_kept(before)
        # Away from a bad revision comes before everything else.
        first = record.weight < before.weight
        actions += traffic if first else ()
        for hash_ in views:
            actions += self._kept(self.known[hash_])
            actions += self._pinned(self.known[hash_])
        actions += () if first else traffic
        actions += self._guards([self.known[h] for h in views])
        for hash_, number in self._wanted(record, placed).items():
            actions += self._fewer(self.known[hash_], number)
            actions += self._scaled(self.known[hash_], number)
        actions += self._remembered(record, course)
        actions += self._taken_out()
        actions += self._looked_at()
        actions += self._tidied(set(views))

        serves = rollout.serving(record)
        scaling_status = status_document.scaling(self.observed.deployment, self.scale, self.now)
        slo = status_document.slo(self.observed.deployment, self.spec, self.measurements.attained)
        verdicts = conditions.conditions(
            self.spec,
            record,
            course,
            serves=views.get(serves),
            target=views.get(self.target.hash) or self.view(self.target, self.wanted),
            wanted=self.wanted,
            failure=self.failure or self._world_failure(),
            pinned=self.pin_of(self.target) is not None,
            late=self._is_late(record),
            measured=self.measured(record),
            scale=self.scale,
            scaling=scaling_status,
            slo=slo,
            attained=self.measurements.attained,
        )
        verdicts.append(self._outdated(self.known.get(serves, self.target)))
        verdicts += self._followed(record)
        verdicts += self._answers(self.known.get(serves))
        document = status_document.document(
            self.observed.deployment,
            self.spec,
            verdicts=verdicts,
            record=record,
            course=course,
            views=views,
            scaling=scaling_status,
            slo=slo,
            measured=self.measured(record),
            known=self.known,
            now=self.now,
        )
        actions += self._events(verdicts)
        actions += self._scaling_told()
        actions.append(WriteStatus(document))
        return Plan(
            tuple(actions),
            self._again_after_s(record, course),
            self._measure(record),
            self._verify(record, views),
            self._load(record),
        )

    # What is decided.

    def _decided(self, before: Record) -> tuple[Course, Placement | None]:
        """Go on until nothing more follows from what is known now."""
        if self.failure is not None:
            return Course(before), self.placed(before)
        record = before
        for _ in range(8):
            course = rollout.course(self.situation(record))
            self.told += course.told
            self.forgiven = self.forgiven or course.forgive
            if course.record == record:
                break
            record = course.record
        placed = self.placed(record)
        if placed is not None and placed.gave_way != record.gave_way:
            changed = replace(record, gave_way=placed.gave_way, gave_way_at=rollout.stamp(self.now))
            course = replace(course, record=changed, again_after_s=0.0)
        if placed is not None and placed.reason and not course.hold and record.phase in LIVE:
            course = replace(course, hold=placed.reason, message=placed.message)
        elif placed is not None and placed.reason == course.hold:
            course = replace(course, message=placed.message)
        return course, placed

    def _wanted(self, record: Record, placed: Placement | None) -> dict[str, int]:
        """Replicas of each revision that has pods, the one that serves first."""
        if placed is None:
            only = record.stable or (record.canary if record.phase in LIVE else "")
            return {only: self.wanted} if only in self.known else {}
        found = {record.stable: placed.stable}
        if record.phase in LIVE or self.keeps_failed(record):
            found[record.canary] = placed.canary
        return found

    # What is to be known for the next plan.

    def _measure(self, record: Record) -> Measure | None:
        stable, canary = self.known.get(record.stable), self.known.get(record.canary)
        if record.phase not in LIVE or stable is None or canary is None:
            return None
        if not has_sidecar(canary):
            return None
        objective = Objective.of(self.spec)
        bounds = bounds_ms(objective.latency_target_ms)
        return Measure(
            stable=stable.hash,
            canary=canary.hash,
            started=record.started,
            since=record.since,
            objective=replace(objective, latency_bounds_ms=bounds),
            interval_s=rollout.measure_interval_s(record, self.now),
            state=status_document.evidence_state(self.observed.deployment, record),
        )

    def _verify(self, record: Record, views: Mapping[str, RevisionView]) -> Verify | None:
        asked = self.spec.golden_requests
        if asked is None:
            return None
        pods = [p for h in views for p in self.pods(self.known[h]) if is_ready(p)]
        return Verify(
            config_map=asked.config_map_name,
            model=self.spec.model.name or self.observed.deployment["metadata"]["name"],
            pods=tuple(p["metadata"]["uid"] for p in pods),
            every_s=None if asked.every is None else duration_s(asked.every),
            load=self._short_load(record),
        )

    def _short_load(self, record: Record) -> ShortLoad | None:
        """Only while nothing is served: nobody's requests wait behind it."""
        asked = self.spec.golden_requests and self.spec.golden_requests.load_test
        if not asked or record.stable or record.weight > 0 or record.phase not in LIVE:
            return None
        objective = Objective.of(self.spec)
        return ShortLoad(
            rate_per_s=asked.rate,
            duration_s=duration_s(asked.duration),
            max_error_rate=objective.max_error_rate,
            latency_target_ms=objective.latency_target_ms,
            slow_share=objective.slow_share,
        )

    def _load(self, record: Record) -> Load | None:
        found = {h: self.known.get(h) for h in (rollout.serving(record), record.canary) if h}
        revisions = {h: r for h, r in found.items() if r is not None}
        if not revisions:
            return None
        by_load = self.spec.scaling_mode is ScalingMode.SLO
        name = self.observed.deployment["metadata"]["name"]
        return Load(
            spec=self.spec,
            model=self.spec.model.name or name,
            scaled={h: spec_of(r, self.spec) for h, r in revisions.items()} if by_load else {},
        )

    # What a revision needs.

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

    def _pinned(self, revision: Revision) -> Iterable[Action]:
        """Hold all pods of a revision to the bytes that its first one fetched."""
        pods = [p for p in self.pods(revision) if not p["metadata"].get("deletionTimestamp")]
        fetched = [(p, r) for p in pods if (r := fetch_result(p)) is not None]
        digest = revision.digest or self.pin_of(revision)
        if digest is None and fetched:
            digest = fetched[0][1].digest
        if digest is None:
            return
        name = pin_name(revision.name)
        told = [r for _, r in fetched if r.digest == digest]
        version = revision.source_version or next((r.version for r in told if r.version), "")
        address = revision.source_address or next((r.address for r in told if r.address), "")
        # What is pinned stays as it was pinned: the ConfigMap is immutable.
        live = self.observed.children.get(Ref("v1", "ConfigMap", name))
        data = {"digest": digest} | ({"address": address} if address else {})
        if live is not None and (live.get("data") or {}).get("digest") == digest:
            data = dict(live["data"])
        yield Apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata(self.observed.deployment, name, revision.hash),
                "immutable": True,
                "data": data,
            }
        )
        learned = {
            DIGEST_ANNOTATION: (revision.digest, digest),
            SOURCE_VERSION_ANNOTATION: (revision.source_version, version),
            SOURCE_ADDRESS_ANNOTATION: (revision.source_address, address),
        }
        news = {key: now for key, (before, now) in learned.items() if now and now != before}
        ref = Ref("apps/v1", "ControllerRevision", revision.name)
        if news and ref in self.observed.children:
            yield Annotate(ref, news)
        for pod, result in fetched:
            other = result.digest
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
        number = scaling.before_pin(wanted, pinned=self.is_pinned(revision))
        there = live["spec"].get("replicas")
        if there == number:
            return
        yield Scale(revision.deployment_ref, number)
        other = scaling.other_scaler(live)
        if other:
            yield Event(
                "Warning",
                "OtherScaler",
                f"{other} set Deployment {revision.name} to {there} replicas; it gets {number} "
                "again. Scale the ModelDeployment instead (scaling.mode External or Fixed).",
            )

    def _fewer(self, revision: Revision, wanted: int) -> Iterable[Action]:
        """Before a revision gets fewer pods: the ones that have least to do go first."""
        live = self.observed.children.get(revision.deployment_ref)
        if live is None or wanted >= (live["spec"].get("replicas") or 0):
            return
        for pod in self.pods(revision):
            meta = pod["metadata"]
            in_flight = self.measurements.in_flight.get(meta["uid"])
            if in_flight is not None and not meta.get("deletionTimestamp"):
                yield DeletionCost(meta["name"], meta["uid"], in_flight)

    def _remembered(self, record: Record, course: Course) -> Iterable[Action]:
        """What stays known of a revision when the record has gone on."""
        serves = self.known.get(rollout.serving(record))
        if serves is not None and not serves.live_since:
            promoted = record.phase in (Phase.PROMOTED, Phase.BAKING)
            if promoted and any(map(is_ready, self.pods(serves))):
                yield self._annotated(serves, LIVE_SINCE_ANNOTATION, timestamp(self.now))
        yield from self._failure_kept(record)
        canary = self.known.get(record.canary)
        if canary is not None and record.phase in LIVE and canary.failed:
            yield self._annotated(canary, FAILED_ANNOTATION, "")

    def _failure_kept(self, record: Record) -> Iterable[Action]:
        """A revision that was rolled back is remembered by its ControllerRevision."""
        canary = self.known.get(record.canary)
        if canary is None or record.phase is not Phase.ROLLED_BACK:
            return
        text = status_document.failure_of(record)
        if canary.failed != text and not self.forgiven:
            yield self._annotated(canary, FAILED_ANNOTATION, text)

    def _annotated(self, revision: Revision, key: str, value: str) -> Action:
        return Annotate(Ref("apps/v1", "ControllerRevision", revision.name), {key: value})

    def _taken_out(self) -> Iterable[Action]:
        """Pods whose golden answers are wrong get no traffic.

        Only beside a sibling whose answers are right: where all of a revision's pods are wrong
        alike, the expected answers may be. For a canary that is a reason to roll back; what serves
        goes on serving.
        """
        if self.spec.golden_requests is None:
            return
        results = self.measurements.golden
        for revision in self.known.values():
            pods = self.pods(revision)
            found = {p["metadata"]["uid"]: results.get(p["metadata"]["uid"]) for p in pods}
            if not any(r is not None and r.passed for r in found.values()):
                continue
            for pod in pods:
                meta, result = pod["metadata"], found[pod["metadata"]["uid"]]
                if result is None or result.passed or meta.get("deletionTimestamp"):
                    continue
                if (meta.get("labels") or {}).get(SERVING_LABEL) == "true":
                    text = f"pod {meta['name']} gets no more traffic: {result.message}"
                    yield TakeOut(meta["name"], meta["uid"], f"WrongAnswers: {result.message}")
                    yield Event("Warning", "WrongAnswers", text)

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
                sidecar=has_sidecar(serves or self.target),
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
        # Listed only once its Service exists and its golden answers are right: for BlueGreen and
        # its pin this is the preview.
        verified = record.phase is Phase.VERIFYING and self.golden_passed(record)
        reachable = verified or record.phase in MEASURED
        if canary is None or canary is stable or not reachable:
            return Split(stable.name)
        return Split(stable.name, canary.name, record.weight, record.mirror)

    def _guards(self, revisions: list[Revision]) -> Iterable[Action]:
        if not revisions:
            return
        deployment = self.observed.deployment
        yield Apply(disruption_budget(deployment))
        sidecars = {has_sidecar(r) for r in revisions}
        yield Apply(network_policy(deployment, self.spec, self.platform, sidecars=sidecars))
        if MONITOR_KIND in self.observed.present_kinds:
            yield Apply(pod_monitor(deployment, sidecar=has_sidecar(revisions[0])))

    def _looked_at(self) -> Iterable[Action]:
        """Looks at the source, as long as it is followed."""
        profile = self.platform.profile(self.spec.runtime.profile)
        ref = Ref(LOOK_VERSION, LOOK_KIND, look_name(self.observed.deployment))
        if not source.follows(self.spec):
            if ref in self.observed.children:
                yield Delete(ref, self.observed.children[ref]["metadata"]["uid"])
        elif profile is not None and LOOK_KIND in self.observed.present_kinds:
            yield Apply(look_job(self.observed.deployment, self.spec, self.platform, profile))

    def _tidied(self, active: set[str]) -> Iterable[Action]:
        """Children of revisions that neither serve nor are wanted; old records beyond the limit."""
        old = [r for h, r in self.known.items() if h not in active and h != self.target.hash]
        # Counted apart: a row of failed ones does not push out what one may want to go back to.
        served = [r.hash for r in old if r.live_since][-self.spec.history_limit :]
        others = [r.hash for r in old if not r.live_since][-self.spec.history_limit :]
        kept = {*served, *others, self.target.hash}
        # Pods before the files and Services that they use.
        for ref, obj in sorted(
            self.observed.children.items(),
            key=lambda item: (item[0].kind != "Deployment", item[0]),
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
        return moment(record.started) + timedelta(seconds=limit_s)

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

    def _answers(self, serves: Revision | None) -> Iterable[Verdict]:
        """How golden requests were answered; nothing where there are none."""
        if self.spec.golden_requests is None or serves is None:
            return
        pods = [p for p in self.pods(serves) if is_ready(p)]
        results = [self.measurements.golden.get(p["metadata"]["uid"]) for p in pods]
        yield conditions.answers(results, self.measurements.golden_problem)

    def _followed(self, record: Record) -> Iterable[Verdict]:
        """Whether the source is followed; nothing where nobody asks for it."""
        if not source.follows(self.spec):
            return
        kind, target = "SourceFollowed", self.target
        version = source.seen(record, self.spec).version
        if LOOK_KIND not in self.observed.present_kinds:
            text = (
                "the operator may not make CronJobs (batch/v1) here, so nothing looks at the "
                "source. Give it that right, as the chart's role does."
            )
            yield Verdict(kind, "False", "LooksNotAllowed", text)
        elif self.look.reason:
            yield Verdict(kind, "Unknown", self.look.reason, self.look.message)
        elif not target.digest or target.source_version == version:
            text = f"revision {target.hash} is the one for what the source holds"
            yield Verdict(kind, "True", "Followed", text)
        elif not source.comparable(target.source_version, version):
            text = (
                f"nobody knows which version of the source revision {target.hash} was made of: "
                "an older fetch image made it. The verb `restart` makes one of which it is known."
            )
            yield Verdict(kind, "Unknown", "NotComparable", text)
        elif record.target == target.hash:
            text = (
                f"revision {target.hash} was asked for by a verb, the source holds something else; "
                "its next change is followed"
            )
            yield Verdict(kind, "False", "HeldByVerb", text)
        else:
            text = f"revision {target.hash} was fetched after the last look at the source"
            yield Verdict(kind, "True", "Followed", text)

    def _scaling_told(self) -> Iterable[Action]:
        """An event where the load changes the number; what people set they know themselves."""
        fleet = self.scale.fleet
        if fleet is None or self.scale.decision is None or fleet.desired == self.scale.desired:
            return
        if fleet.desired:  # the first pods are no change
            text = f"{fleet.desired} -> {self.scale.desired} replicas: {self.scale.reason}"
            yield Event("Normal", "Scaled", text)

    def _events(self, verdicts: list[Verdict]) -> Iterable[Action]:
        for type_, reason, message in self.told:
            yield Event("Warning" if type_ == "Warning" else "Normal", reason, message)
        before = conditions_of(self.observed.deployment)
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
        if self.keeps_failed(record):
            keep_s = duration_s(self.spec.rollout.keep_failed)
            found.append(keep_s - self.since_s(record.since) + 0.1)
        if record.phase in LIVE and record.stable:
            waiting = self.places(self.known[record.canary]).waiting
            if waiting:  # for the surge's patience to end, and pods to settle
                found.append(5.0)
        decision = self.scale.decision
        if decision is not None and decision.hold is Hold.STABILISING:
            found.append(STABILISING_S)
        return max(0.05, min(found)) if found else None


def _nothing_but_status(deployment: Object, reason: str, message: str, now: datetime) -> Plan:
    """Nothing is touched; status says what to mend."""
    serves = conditions_of(deployment).get("Available") or {}
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
    old = conditions_of(deployment).get("Stalled") or {}
    if (old.get("status"), old.get("reason")) != ("True", reason):
        actions.append(Event("Warning", reason, message))
    actions.append(WriteStatus(status_document.invalid(deployment, verdicts, now)))
    return Plan(tuple(actions))


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(["spec", *map(str, first["loc"])])
    return f"{where}: {first['msg']} (it is {first.get('input')!r:.200}). Correct the field."
