"""What a revision needs: its children as it was born, pinned bytes, a number of pods, a memory.

Pure.
"""

from collections.abc import Iterable
from typing import Final

from tidegate import rollout, scaling
from tidegate import status as status_document
from tidegate.actions import Action, Annotate, Apply, DeletePod, DeletionCost, Event, Scale, TakeOut
from tidegate.api.names import (
    DIGEST_ANNOTATION,
    FAILED_ANNOTATION,
    GOLDEN_ANNOTATION,
    LIVE_SINCE_ANNOTATION,
    SERVING_LABEL,
    SOURCE_ADDRESS_ANNOTATION,
    SOURCE_VERSION_ANNOTATION,
)
from tidegate.diagnosis import fetch_result, is_ready
from tidegate.observed import Ref
from tidegate.record import Phase, Record
from tidegate.resources.meta import metadata, owned
from tidegate.revision import Revision, controller_revision, pin_name
from tidegate.rollout import LIVE, Course
from tidegate.situation import Scene
from tidegate.status import timestamp

# A revision's children, in the order in which they must exist.
_ORDER: Final = ("ConfigMap", "ResourceClaimTemplate", "Service", "Deployment")


def kept(scene: Scene, revision: Revision) -> Iterable[Action]:
    """Its record and its children, as it was born."""
    deployment = scene.observed.deployment
    keeper = Ref("apps/v1", "ControllerRevision", revision.name)
    if keeper not in scene.observed.children:
        yield Apply(controller_revision(deployment, revision))
        if not revision.created and revision.deployment_ref not in scene.observed.children:
            yield Event(
                "Normal",
                "RevisionCreated",
                f"revision {revision.hash}: {revision.source}, image {revision.image}",
            )
    for kind in _ORDER:
        for manifest in revision.manifests:
            if manifest["kind"] == kind:
                yield Apply(owned(deployment, manifest))


def pinned(scene: Scene, revision: Revision) -> Iterable[Action]:
    """Hold all pods of a revision to the bytes that its first one fetched."""
    pods = [p for p in scene.pods(revision) if not p["metadata"].get("deletionTimestamp")]
    fetched = [(p, r) for p in pods if (r := fetch_result(p)) is not None]
    digest = revision.digest or scene.pin_of(revision)
    if digest is None and fetched:
        digest = fetched[0][1].digest
    if digest is None:
        return
    name = pin_name(revision.name)
    told = [r for _, r in fetched if r.digest == digest]
    version = revision.source_version or next((r.version for r in told if r.version), "")
    address = revision.source_address or next((r.address for r in told if r.address), "")
    # What is pinned stays as it was pinned: the ConfigMap is immutable.
    live = scene.observed.children.get(Ref("v1", "ConfigMap", name))
    data = {"digest": digest} | ({"address": address} if address else {})
    if live is not None and (live.get("data") or {}).get("digest") == digest:
        data = dict(live["data"])
    yield Apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(scene.observed.deployment, name, revision.hash),
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
    if news and ref in scene.observed.children:
        yield Annotate(ref, news)
    for pod, result in fetched:
        other = result.digest
        if other != digest:
            yield DeletePod(
                pod["metadata"]["name"],
                pod["metadata"]["uid"],
                f"SourceMoved: it loaded {other}, the revision is pinned to {digest}",
            )


def scaled(scene: Scene, revision: Revision, wanted: int) -> Iterable[Action]:
    """So many pods; who else changes their number is told of."""
    live = scene.observed.children.get(revision.deployment_ref)
    if live is None:
        return
    number = scaling.before_pin(wanted, pinned=scene.is_pinned(revision))
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


def fewer(scene: Scene, revision: Revision, wanted: int) -> Iterable[Action]:
    """Before a revision gets fewer pods: the ones that have least to do go first."""
    live = scene.observed.children.get(revision.deployment_ref)
    if live is None or wanted >= (live["spec"].get("replicas") or 0):
        return
    for pod in scene.pods(revision):
        meta = pod["metadata"]
        in_flight = scene.measurements.in_flight.get(meta["uid"])
        if in_flight is not None and not meta.get("deletionTimestamp"):
            yield DeletionCost(meta["name"], meta["uid"], in_flight)


def remembered(scene: Scene, record: Record, course: Course) -> Iterable[Action]:
    """What stays known of a revision when the record has gone on."""
    serves = scene.known.get(rollout.serving(record))
    if serves is not None and not serves.live_since:
        promoted = record.phase in (Phase.PROMOTED, Phase.BAKING)
        if promoted and any(map(is_ready, scene.pods(serves))):
            yield _annotated(scene, serves, LIVE_SINCE_ANNOTATION, timestamp(scene.now))
    for revision in scene.known.values():
        golden = scene.golden_requests(revision)
        if scene.describes(revision) and revision.created and revision.golden != golden:
            yield _annotated(scene, revision, GOLDEN_ANNOTATION, golden)
    yield from failure_kept(scene, record)
    canary = scene.known.get(record.canary)
    if canary is not None and record.phase in LIVE and canary.failed:
        yield _annotated(scene, canary, FAILED_ANNOTATION, "")


def failure_kept(scene: Scene, record: Record) -> Iterable[Action]:
    """A revision that was rolled back is remembered by its ControllerRevision."""
    canary = scene.known.get(record.canary)
    if canary is None or record.phase is not Phase.ROLLED_BACK:
        return
    text = status_document.failure_of(record)
    if canary.failed != text and not scene.forgiven:
        yield _annotated(scene, canary, FAILED_ANNOTATION, text)


def _annotated(scene: Scene, revision: Revision, key: str, value: str) -> Action:
    return Annotate(Ref("apps/v1", "ControllerRevision", revision.name), {key: value})


def taken_out(scene: Scene) -> Iterable[Action]:
    """Pods whose golden answers are wrong get no traffic.

    Only beside a sibling whose answers are right: where all of a revision's pods are wrong
    alike, the expected answers may be. For a canary that is a reason to roll back; what serves
    goes on serving.
    """
    if scene.spec.golden_requests is None:
        return
    results = scene.measurements.golden
    for revision in scene.known.values():
        pods = scene.pods(revision)
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
