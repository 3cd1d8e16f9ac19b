"""What a ModelDeployment needs once, whatever its revisions: routes, guards, looks, no leftovers.

Pure.
"""

from collections.abc import Iterable

from tidegate import rollout, source
from tidegate.actions import Action, Apply, Delete
from tidegate.api.names import REVISION_LABEL
from tidegate.observed import Ref
from tidegate.record import Phase, Record
from tidegate.resources.look import API_VERSION as LOOK_VERSION
from tidegate.resources.look import KIND as LOOK_KIND
from tidegate.resources.look import look_job, look_name
from tidegate.resources.monitoring import KIND as MONITOR_KIND
from tidegate.resources.monitoring import pod_monitor
from tidegate.resources.policies import disruption_budget, network_policy
from tidegate.resources.route import API_VERSION as ROUTE_VERSION
from tidegate.resources.route import GRPC_KIND, Split, grpc_route, http_route
from tidegate.resources.route import KIND as ROUTE_KIND
from tidegate.resources.services import entry_service
from tidegate.revision import Revision
from tidegate.rollout import MEASURED
from tidegate.situation import Scene, has_sidecar


def traffic(scene: Scene, record: Record) -> Iterable[Action]:
    """The routes and the entry Service, with the decision written on them."""
    deployment = scene.observed.deployment
    gateway = scene.spec.traffic.gateway
    name = deployment["metadata"]["name"]
    serves = scene.known.get(rollout.serving(record))
    written = record.dump()
    split = _split(scene, record)
    for kind, make, used in (
        (ROUTE_KIND, http_route, gateway is not None),
        (GRPC_KIND, grpc_route, gateway is not None and bool(gateway.grpc_hostnames)),
    ):
        ref = Ref(ROUTE_VERSION, kind, name)
        if used and gateway is not None and split is not None:
            if kind in scene.observed.present_kinds:
                yield Apply(make(deployment, scene.spec, gateway, split, written))
        elif not used and ref in scene.observed.children:
            yield Delete(ref, scene.observed.children[ref]["metadata"]["uid"])
    # After the route, which tells what holds should the two differ.
    yield Apply(
        entry_service(
            deployment,
            None if serves is None or not _may_serve(scene, record) else serves.hash,
            sidecar=has_sidecar(serves or scene.target),
            record=written,
        )
    )


def _may_serve(scene: Scene, record: Record) -> bool:
    """Whether in-cluster callers reach anything: not before golden requests passed."""
    return bool(record.stable) or record.weight >= 1.0


def _split(scene: Scene, record: Record) -> Split | None:
    stable, canary = scene.known.get(record.stable), scene.known.get(record.canary)
    if stable is None:
        if canary is None or not _may_serve(scene, record):
            return None
        return Split(canary.name)
    # Listed only once its Service exists and its golden answers are right: for BlueGreen and
    # its pin this is the preview.
    verified = record.phase is Phase.VERIFYING and scene.golden_passed(record)
    reachable = verified or record.phase in MEASURED
    if canary is None or canary is stable or not reachable:
        return Split(stable.name)
    return Split(stable.name, canary.name, record.weight, record.mirror)


def guards(scene: Scene, revisions: list[Revision]) -> Iterable[Action]:
    """Disruption budget, network policy and, where the cluster has them, the pod monitor."""
    if not revisions:
        return
    deployment = scene.observed.deployment
    yield Apply(disruption_budget(deployment))
    sidecars = {has_sidecar(r) for r in revisions}
    yield Apply(network_policy(deployment, scene.spec, scene.platform, sidecars=sidecars))
    if MONITOR_KIND in scene.observed.present_kinds:
        yield Apply(pod_monitor(deployment, sidecar=has_sidecar(revisions[0])))


def looks(scene: Scene) -> Iterable[Action]:
    """Looks at the source, as long as it is followed."""
    profile = scene.platform.profile(scene.spec.runtime.profile)
    ref = Ref(LOOK_VERSION, LOOK_KIND, look_name(scene.observed.deployment))
    if not source.follows(scene.spec):
        if ref in scene.observed.children:
            yield Delete(ref, scene.observed.children[ref]["metadata"]["uid"])
    elif profile is not None and LOOK_KIND in scene.observed.present_kinds:
        yield Apply(look_job(scene.observed.deployment, scene.spec, scene.platform, profile))


def tidied(scene: Scene, active: set[str]) -> Iterable[Action]:
    """Children of revisions that neither serve nor are wanted; old records beyond the limit."""
    old = [r for h, r in scene.known.items() if h not in active and h != scene.target.hash]
    # Counted apart: a row of failed ones does not push out what one may want to go back to.
    served = [r.hash for r in old if r.live_since][-scene.spec.history_limit :]
    others = [r.hash for r in old if not r.live_since][-scene.spec.history_limit :]
    kept = {*served, *others, scene.target.hash}
    # Pods before the files and Services that they use.
    for ref, obj in sorted(
        scene.observed.children.items(),
        key=lambda item: (item[0].kind != "Deployment", item[0]),
    ):
        hash_ = (obj["metadata"].get("labels") or {}).get(REVISION_LABEL)
        if hash_ is None or hash_ in active:
            continue
        if ref.kind == "ControllerRevision" and hash_ in kept:
            continue
        yield Delete(ref, obj["metadata"]["uid"])
