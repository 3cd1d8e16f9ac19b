"""The one place where everything comes together: what is observed in, actions out.

Pure: everything it needs is in its arguments, the clock too. It composes the parts and decides
little itself:

1. read the spec; 2. find the revision that it asks for, or let it be born; 3. decide which revision
gets the traffic; 4. keep every child of both as it was born; 5. pin the bytes, scale, move the
traffic, tidy up; 6. say so in status and events.

Planning again at once for the world it asked for gives no further change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from tidegate import rollout, scaling
from tidegate import status as status_document
from tidegate.actions import (
    Action,
    Annotate,
    Apply,
    Delete,
    DeletePod,
    Event,
    Plan,
    Scale,
    WriteStatus,
)
from tidegate.api.names import (
    DIGEST_ANNOTATION,
    LIVE_SINCE_ANNOTATION,
    REVISION_LABEL,
)
from tidegate.api.spec import Sidecar, Spec, parse
from tidegate.api.units import duration_s
from tidegate.diagnosis import Finding, Severity, diagnose_revision, fetch_result, is_ready
from tidegate.observed import Object, Observed, Ref
from tidegate.platform import Platform
from tidegate.resources.birth import manifests
from tidegate.resources.meta import metadata, owned
from tidegate.resources.monitoring import KIND as MONITOR_KIND
from tidegate.resources.monitoring import pod_monitor
from tidegate.resources.pod import Parts
from tidegate.resources.policies import disruption_budget, network_policy
from tidegate.resources.route import KIND as ROUTE_KIND
from tidegate.resources.route import Split, http_route
from tidegate.resources.services import entry_service
from tidegate.revision import (
    Revision,
    child_name,
    controller_revision,
    known_revisions,
    pin_name,
    pinned_digest,
    pod_shape,
    revision_hash,
    with_record,
)
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


def plan(observed: Observed, platform: Platform, now: datetime) -> Plan:
    """What to do for one ModelDeployment.

    Args:
        observed: what is known of it and of its children.
        platform: the platform's settings.
        now: UTC.
    """
    deployment = observed.deployment
    if deployment["metadata"].get("deletionTimestamp"):
        return Plan()
    try:
        spec = parse(dict(deployment["spec"]))
    except ValidationError as error:
        return _nothing_but_status(deployment, "InvalidSpec", _first_error(error), now)

    known = known_revisions(observed)
    serving = rollout.serving(observed, known)
    try:
        target = _target(spec, observed, platform, known)
    except CannotBeBornError as error:
        # What serves goes on serving, and is kept as it was born.
        if serving is None:
            return _nothing_but_status(deployment, error.reason, str(error), now)
        failure = Finding(Severity.FAILING, "Failed", error.reason, str(error))
        return _Composer(observed, platform, spec, known, now).compose(serving, serving, failure)
    known = {target.hash: target} | known if target.hash not in known else known
    return _Composer(observed, platform, spec, known, now).compose(target.hash, serving)


def _target(
    spec: Spec, observed: Observed, platform: Platform, known: Mapping[str, Revision]
) -> Revision:
    """The revision that the spec asks for: remembered, or born now.

    Raises:
        CannotBeBornError: it needs something that the platform does not have.
    """
    name = observed.deployment["metadata"]["name"]
    shape = pod_shape(spec)
    hash_ = revision_hash(shape)
    if hash_ in known:
        return known[hash_]
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
    now: datetime

    def compose(
        self, target_hash: str, serving: str | None, failure: Finding | None = None
    ) -> Plan:
        """The plan, towards that target; `failure` says why the spec's own cannot be it."""
        target = self.known[target_hash]
        scale = scaling.replicas(self.spec)
        wanted = {target_hash: scale.desired}
        target_view = self._view(target, scale.desired)
        pinned = self._pin_of(target) is not None
        target_serves = scale.desired == 0 or (pinned and target_view.ready >= scale.desired)
        course = rollout.course(
            self.spec, serving, target_hash, self.known, target_serves=target_serves
        )
        stable = self.known[course.stable]
        stable_view = target_view if stable is target else self._view(stable, scale.desired)
        canary_view = None if stable is target else target_view
        wanted[stable.hash] = scale.desired

        actions: list[Action] = []
        active = {r.hash: r for r in (stable, target)}.values()
        for revision in active:
            actions += self._born(revision)
            actions += self._pinned(revision)
        actions += self._traffic(stable)
        actions += self._guards(stable, target)
        for revision in active:
            actions += self._scaled(revision, wanted[revision.hash])
        if stable_view.ready > 0 and not stable.live_since:
            actions.append(self._live(stable))
        actions += self._tidied(stable, target)

        verdicts = self._verdicts(stable_view, canary_view, scale.desired, failure, course.message)
        phase = "Stable" if canary_view is None and stable.live_since else "Preparing"
        document = status_document.document(
            self.observed.deployment,
            self.spec,
            verdicts=verdicts,
            stable=stable_view,
            canary=canary_view,
            scale=scale,
            rollout_message=course.message if canary_view is not None else "",
            phase=phase,
            known=self.known,
            now=self.now,
        )
        actions += self._events(verdicts, course, target)
        actions.append(WriteStatus(document))
        return Plan(tuple(actions), self._again_after_s(target, target_view))

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

    def _born(self, revision: Revision) -> Iterable[Action]:
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

    def _live(self, revision: Revision) -> Action:
        ref = Ref("apps/v1", "ControllerRevision", revision.name)
        return Annotate(ref, {LIVE_SINCE_ANNOTATION: timestamp(self.now)})

    # What the ModelDeployment needs.

    def _traffic(self, stable: Revision) -> Iterable[Action]:
        deployment = self.observed.deployment
        sidecar = _has_sidecar(stable)
        yield Apply(entry_service(deployment, stable.hash, sidecar=sidecar))
        gateway = self.spec.traffic.gateway
        ref = Ref("gateway.networking.k8s.io/v1", ROUTE_KIND, deployment["metadata"]["name"])
        if gateway is not None and ROUTE_KIND in self.observed.present_kinds:
            yield Apply(http_route(deployment, self.spec, gateway, Split(stable.name), ""))
        elif gateway is None and ref in self.observed.children:
            yield Delete(ref, self.observed.children[ref]["metadata"]["uid"])

    def _guards(self, stable: Revision, target: Revision) -> Iterable[Action]:
        deployment = self.observed.deployment
        yield Apply(disruption_budget(deployment))
        sidecars = {_has_sidecar(stable), _has_sidecar(target)}
        yield Apply(network_policy(deployment, self.spec, self.platform, sidecars=sidecars))
        if MONITOR_KIND in self.observed.present_kinds:
            yield Apply(pod_monitor(deployment, sidecar=_has_sidecar(stable)))

    def _tidied(self, stable: Revision, target: Revision) -> Iterable[Action]:
        """Children of revisions that neither serve nor are wanted; old records beyond the limit."""
        active = {stable.hash, target.hash}
        old = [r for h, r in self.known.items() if h not in active]
        # Counted apart: a row of failed ones does not push out what one may want to go back to.
        served = [r.hash for r in old if r.live_since][-self.spec.history_limit :]
        failed = [r.hash for r in old if not r.live_since][-self.spec.history_limit :]
        kept = {*served, *failed}
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

    def _verdicts(
        self,
        stable: RevisionView,
        canary: RevisionView | None,
        wanted: int,
        failure: Finding | None,
        message: str,
    ) -> list[Verdict]:
        target = canary or stable
        finding = failure or self._world_failure() or target.finding
        if finding.severity is Severity.READY and canary is not None:
            paused = self.spec.rollout.paused
            finding = Finding(
                Severity.WAITING if paused else Severity.PROGRESSING,
                "Ready",
                "Paused" if paused else "SwitchingTraffic",
                message,
            )
        if finding.severity is Severity.READY and self._pin_of(target.revision) is None and wanted:
            finding = Finding(
                Severity.PROGRESSING, "Ready", "PinningSource", "the model's bytes are being pinned"
            )
        ready = finding.severity is Severity.READY
        late = not ready and self._is_late(target.revision)
        stalled = finding.severity is Severity.FAILING or late
        text = finding.message
        if late:
            deadline = self.spec.rollout.progress_deadline
            text = f"not ready within rollout.progressDeadline ({deadline}): {text}"
        if canary is not None and not ready and stable.ready:
            text += f" Revision {stable.revision.hash} goes on serving."
        count = f"{stable.ready} pod serves" if stable.ready == 1 else f"{stable.ready} pods serve"
        serves = f"{count} revision {stable.revision.hash}"
        verdicts = [
            _available(stable, wanted, serves),
            Verdict("Ready", "True", "Ready", f"{serves}, as the spec asks")
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
            Verdict(
                "MetricsAvailable", "Unknown", "NotMeasured", "this version takes no measurements"
            ),
            self._outdated(target.revision),
        ]
        return verdicts

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
        if gateway is not None and ROUTE_KIND not in self.observed.present_kinds:
            return Finding(
                Severity.FAILING,
                "Failed",
                "GatewayAPIMissing",
                "traffic.gateway: this cluster does not serve Gateway API's HTTPRoute. Install "
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

    def _is_late(self, revision: Revision) -> bool:
        deadline = self._deadline(revision)
        return deadline is not None and self.now >= deadline

    def _deadline(self, revision: Revision) -> datetime | None:
        if not revision.created or revision.live_since:
            return None
        created = datetime.fromisoformat(revision.created).astimezone(UTC)
        return created + timedelta(seconds=duration_s(self.spec.rollout.progress_deadline))

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
            f"{'; '.join(old)}. A changed spec makes a new revision with them.",
        )

    def _events(
        self, verdicts: list[Verdict], course: rollout.Course, target: Revision
    ) -> Iterable[Action]:
        if course.switched_from is not None:
            yield Event(
                "Normal",
                "TrafficSwitched",
                f"all traffic goes from revision {course.switched_from} to {course.stable}: "
                f"{course.message}",
            )
        before = _conditions(self.observed.deployment)
        for verdict in verdicts:
            old = before.get(verdict.type) or {}
            if verdict.type == "Ready" and verdict.status == "True" and old.get("status") != "True":
                yield Event("Normal", "Ready", verdict.message)
            if (
                verdict.type == "Stalled"
                and verdict.status == "True"
                and (old.get("status"), old.get("reason")) != ("True", verdict.reason)
            ):
                yield Event("Warning", verdict.reason, verdict.message)
            if (
                verdict.type == "WaitingForGPU"
                and verdict.status == "True"
                and (old.get("status") != "True")
            ):
                yield Event("Warning", verdict.reason, verdict.message)

    def _again_after_s(self, target: Revision, view: RevisionView) -> float | None:
        """The progress deadline passes without any event."""
        deadline = self._deadline(target)
        if deadline is None or view.finding.severity is Severity.READY or deadline <= self.now:
            return None
        return (deadline - self.now).total_seconds()


def _available(stable: RevisionView, wanted: int, serves: str) -> Verdict:
    if stable.ready:
        return Verdict("Available", "True", "Serving", serves)
    if wanted == 0:
        return Verdict(
            "Available", "False", "ScaledToZero", "replicas is 0, so nothing serves. Set replicas."
        )
    return Verdict("Available", "False", stable.finding.reason, stable.finding.message)


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
