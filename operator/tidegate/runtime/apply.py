"""Carries out a plan's actions, each only if it changes something.

Rules kept here:

- An object that the ModelDeployment does not control is never touched. A first apply goes without
  force, after looking whether the name is free; should somebody take the name in the milliseconds
  between, the apply is taken back.
- ``spec.replicas`` of a Deployment belongs to the scale manager as soon as that one has set it.
  From then on the children's manager leaves the field out, which drops nothing, since the other
  owns it. While the children's manager is still its only owner (a Deployment that was never
  scaled), it repeats the live value: leaving it out would set the default of 1.
- What others add to a child's spec is taken out again, what they change is put back, with a
  growing pause where they insist.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from tidegate.actions import (
    Action,
    Annotate,
    Apply,
    Delete,
    DeletePod,
    DeletionCost,
    Scale,
    TakeOut,
    WriteStatus,
)
from tidegate.api.names import (
    API_VERSION,
    CHILDREN_MANAGER,
    DELETION_COST_ANNOTATION,
    KIND,
    SCALE_MANAGER,
    SERVING_LABEL,
    STATUS_MANAGER,
)
from tidegate.observed import Object, Ref
from tidegate.runtime import drift
from tidegate.runtime.cache import Cache, Key, controlled_by, place_of, uid_of, version_of
from tidegate.runtime.kinds import DEPLOYMENT, MODEL_DEPLOYMENT, POD, Kind, kind_of
from tidegate.runtime.kube import (
    ConflictError,
    InvalidError,
    Kube,
    NotFoundError,
)
from tidegate.runtime.telemetry import Metrics

log: Final = structlog.get_logger(__name__)

REPLICAS: Final = ("spec", "replicas")
REMEMBERED: Final = 10_000
"""Objects of which something is remembered between passes."""
RESTARTED_AT: Final = (
    *("spec", "template", "metadata", "annotations"),
    "kubectl.kubernetes.io/restartedAt",
)
"""Set by ``kubectl rollout restart``, which asks for fresh pods of the same revision."""


class ForeignObjectError(Exception):
    """An object of the wanted name exists, and the ModelDeployment does not control it."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"{ref.kind} {ref.name} is not controlled by this ModelDeployment")
        self.ref = ref


@dataclass(frozen=True)
class Done:
    """What an action came to.

    Attributes:
        wrote: whether the world changed.
        reason: why, or why not, for the log; empty where there is nothing to say.
        again_after_s: look again at the latest in so many seconds; None: no wish.
        drifted: what others had changed and was put back, for an event; empty: nothing.
    """

    wrote: bool = False
    reason: str = ""
    again_after_s: float | None = None
    drifted: str = ""


NOTHING: Final = Done()


@dataclass
class PutBacks:
    """How often a child was put back, so that two who insist do not spin. Times are seconds.

    Attributes:
        first_s: pause after the first time.
        limit_s: longest pause.
        calm_s: after so long without a quarrel, counting begins anew.
    """

    first_s: float = 1.0
    limit_s: float = 600.0
    calm_s: float = 1800.0
    _by_uid: dict[str, tuple[int, float]] = field(default_factory=dict)

    def wait_s(self, uid: str, now: float) -> float:
        """How long to wait before putting back again; 0: now."""
        times, last = self._by_uid.get(uid, (0, 0.0))
        if times == 0 or now - last > self.calm_s:
            return 0.0
        pause = min(self.limit_s, self.first_s * 2.0 ** min(times - 1, 60))
        return max(0.0, pause - (now - last))

    def done(self, uid: str, now: float) -> None:
        """It was put back now."""
        times, last = self._by_uid.get(uid, (0, now))
        self._by_uid[uid] = (1 if now - last > self.calm_s else times + 1, now)
        for old in [u for u, (_, at) in self._by_uid.items() if now - at > self.calm_s]:
            del self._by_uid[old]


class Carrier:
    """Carries out actions.

    Args:
        kube: the client.
        cache: where answers go, so that the next plan sees them.
        metrics: counts.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._metrics = metrics
        self._clock = clock
        self._put_backs = PutBacks()
        # Applies that the API server took without changing anything: what differs is only how it
        # writes the same thing. Valid for one version of the object and one wish.
        self._settled: dict[tuple[str, str], tuple[int, str]] = {}
        # What was last asked of an object, by its UID.
        self._wishes: OrderedDict[str, str] = OrderedDict()

    async def carry_out(self, key: Key, deployment: Object, action: Action) -> Done:
        """Do it, unless it is so already.

        Raises:
            ForeignObjectError: an object of that name is somebody else's.
            KubeError: the API server refused, or did not answer.
            FencedError: this process may not write.
        """
        match action:
            case Apply(manifest=manifest):
                return await self._apply(key, deployment, manifest)
            case Annotate():
                return await self._annotate(key, deployment, action)
            case Scale():
                return await self._scale(key, deployment, action)
            case Delete():
                return await self._delete(
                    kind_of(action.ref.api_version, action.ref.kind),
                    key.namespace,
                    action.ref.name,
                    action.uid,
                )
            case DeletePod():
                done = await self._delete(POD, key.namespace, action.name, action.uid)
                return replace(done, reason=action.reason) if done.wrote else done
            case TakeOut():
                return await self._take_out(key, action)
            case DeletionCost():
                return await self._deletion_cost(key, action)
            case WriteStatus():
                return await self._status(key, deployment, action.status)
            case _:
                raise TypeError(f"no way to carry out a {type(action).__name__}")

    def status_would_change(self, key: Key, deployment: Object, status: dict[str, Any]) -> bool:
        """Whether writing that status would change anything."""
        live = self._cache.deployment(key) or deployment
        document = _status_document(key, live, status)
        found = drift.difference(document, live, STATUS_MANAGER, subresource="status")
        return found is not None and not self._is_settled(live, STATUS_MANAGER, document)

    # Children.

    async def _apply(self, key: Key, deployment: Object, manifest: dict[str, Any]) -> Done:
        ref = Ref(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])
        kind = kind_of(ref.api_version, ref.kind)
        uid = uid_of(deployment)
        live = self._cache.get(kind, key.namespace, ref.name)
        if live is None:
            # Not seen is not the same as not there: watches see labelled objects only.
            live = await self._kube.find(kind, key.namespace, ref.name)
        if live is None:
            return await self._first_apply(kind, key, ref, uid, manifest)
        if not controlled_by(live, uid):
            raise ForeignObjectError(ref)
        self._cache.put(kind, live)
        if live["metadata"].get("deletionTimestamp"):
            return Done(reason="waits for the old one to go", again_after_s=5.0)
        return await self._keep(kind, key, live, manifest)

    async def _first_apply(
        self, kind: Kind, key: Key, ref: Ref, uid: str, manifest: dict[str, Any]
    ) -> Done:
        document = _in_namespace(manifest, key.namespace)
        try:
            written = await self._kube.apply(kind, document, manager=CHILDREN_MANAGER, force=False)
        except ConflictError as error:
            live = await self._kube.find(kind, key.namespace, ref.name)
            if live is not None and not controlled_by(live, uid):
                raise ForeignObjectError(ref) from error
            raise
        if not written.created and len(_managers(written.document)) > 1:
            # Somebody made it since we looked. An apply of nothing gives up all that we own.
            empty = {
                "apiVersion": ref.api_version,
                "kind": ref.kind,
                "metadata": {"name": ref.name, "namespace": key.namespace},
            }
            await self._kube.apply(kind, empty, manager=CHILDREN_MANAGER, force=False)
            raise ForeignObjectError(ref)
        self._cache.put(kind, written.document)
        return Done(wrote=True, reason="did not exist")

    async def _keep(self, kind: Kind, key: Key, live: Object, manifest: dict[str, Any]) -> Done:
        document = _in_namespace(manifest, key.namespace)
        if kind == DEPLOYMENT:
            document = with_replicas_of(live, document)
        found = drift.difference(document, live, CHILDREN_MANAGER)
        if found is not None and self._is_settled(live, CHILDREN_MANAGER, document):
            found = None
        ignored = (REPLICAS, RESTARTED_AT) if kind == DEPLOYMENT else ()
        foreign = drift.foreign_fields(document, live, ignored=ignored)
        if found is None and not foreign:
            return NOTHING
        drifted = bool(foreign) or (found is not None and found.taken)
        uid, wish = uid_of(live), _digest(document)
        # Only the same wish again has to wait: a new one (weights of a rollback) goes at once.
        if drifted and self._wishes.get(uid) == wish:
            wait_s = self._put_backs.wait_s(uid, self._clock())
            if wait_s > 0.0:
                return Done(again_after_s=wait_s)
        self._wishes[uid] = wish
        self._wishes.move_to_end(uid)
        while len(self._wishes) > REMEMBERED:
            self._wishes.popitem(last=False)
        wrote = False
        if found is not None:
            # Of this object, and not of one that took its name meanwhile.
            same = {**document, "metadata": {**document["metadata"], "uid": uid}}
            written = await self._kube.apply(kind, same, manager=CHILDREN_MANAGER, force=True)
            if version_of(written.document) == version_of(live):
                self._settle(written.document, CHILDREN_MANAGER, document)
            else:
                wrote = True
            self._cache.put(kind, written.document)
            live = written.document
            foreign = drift.foreign_fields(document, live, ignored=ignored)
        if foreign:
            try:
                written = await self._kube.patch(
                    kind,
                    key.namespace,
                    str(live["metadata"]["name"]),
                    drift.removal(live, foreign),
                    manager=CHILDREN_MANAGER,
                )
            except InvalidError as error:
                raise ConflictError(str(error), code=409, reason="Conflict") from error
            wrote = wrote or version_of(written.document) != version_of(live)
            self._cache.put(kind, written.document)
        if not drifted:
            return Done(wrote, str(found) if wrote else "")
        self._put_backs.done(uid, self._clock())
        self._metrics.drift.labels(kind.kind).inc()
        text = _drift_text(kind, live, found, foreign)
        return Done(wrote, text, drifted=text)

    async def _annotate(self, key: Key, deployment: Object, action: Annotate) -> Done:
        kind = kind_of(action.ref.api_version, action.ref.kind)
        live = self._controlled(kind, key, deployment, action.ref)
        if live is None:
            return NOTHING
        have = live["metadata"].get("annotations") or {}
        if all(have.get(k) == v for k, v in action.annotations.items()):
            return NOTHING
        written = await self._kube.merge(
            kind,
            key.namespace,
            action.ref.name,
            {"metadata": {"uid": uid_of(live), "annotations": dict(action.annotations)}},
            manager=CHILDREN_MANAGER,
        )
        self._cache.put(kind, written.document)
        return Done(wrote=True, reason=", ".join(sorted(action.annotations)))

    async def _scale(self, key: Key, deployment: Object, action: Scale) -> Done:
        kind = kind_of(action.ref.api_version, action.ref.kind)
        live = self._controlled(kind, key, deployment, action.ref)
        if live is None:
            return NOTHING
        now = live["spec"].get("replicas", 1)
        if now == action.replicas:
            return NOTHING
        scale = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {
                "name": action.ref.name,
                "namespace": key.namespace,
                "uid": uid_of(live),
            },
            "spec": {"replicas": action.replicas},
        }
        await self._kube.apply(kind, scale, manager=SCALE_MANAGER, force=True, sub="scale")
        # The answer is a Scale, not a Deployment: read what became of that one.
        self._cache.put(kind, await self._kube.get(kind, key.namespace, action.ref.name))
        return Done(wrote=True, reason=f"{now} -> {action.replicas} replicas")

    async def _delete(self, kind: Kind, namespace: str, name: str, uid: str) -> Done:
        live = self._cache.get(kind, namespace, name)
        if live is None or uid_of(live) != uid or live["metadata"].get("deletionTimestamp"):
            return NOTHING
        try:
            written = await self._kube.delete(kind, namespace, name, uid=uid)
        except (NotFoundError, ConflictError):
            self._cache.gone(kind, namespace, name, uid)
            return NOTHING
        if written.document.get("metadata", {}).get("deletionTimestamp"):
            self._cache.put(kind, written.document)  # it ends when its finalizers or grace allow
        else:
            self._cache.gone(kind, namespace, name, uid)
        return Done(wrote=True, reason="not wanted any more")

    async def _take_out(self, key: Key, action: TakeOut) -> Done:
        """Nothing puts the label back: drift is looked for in children, and pods are none."""
        live = self._cache.get(POD, key.namespace, action.name)
        if live is None or SERVING_LABEL not in (live["metadata"].get("labels") or {}):
            return NOTHING
        changes = {"labels": {SERVING_LABEL: None}}
        return await self._mark_pod(key, live, action.uid, changes, action.reason)

    async def _deletion_cost(self, key: Key, action: DeletionCost) -> Done:
        live = self._cache.get(POD, key.namespace, action.name)
        if live is None:
            return NOTHING
        before = (live["metadata"].get("annotations") or {}).get(DELETION_COST_ANNOTATION)
        if before == str(action.cost):
            return NOTHING
        changes = {"annotations": {DELETION_COST_ANNOTATION: str(action.cost)}}
        return await self._mark_pod(key, live, action.uid, changes, f"{before} -> {action.cost}")

    async def _mark_pod(
        self, key: Key, live: Object, uid: str, metadata: dict[str, Any], reason: str
    ) -> Done:
        if uid_of(live) != uid:
            return NOTHING
        document = {"metadata": {"uid": uid, **metadata}}
        try:
            written = await self._kube.merge(
                POD, key.namespace, place_of(live).name, document, manager=CHILDREN_MANAGER
            )
        except NotFoundError:
            return NOTHING
        except InvalidError as error:
            # Another pod has its name: the API server finds that the UID may not be changed.
            if "metadata.uid" in str(error):
                return NOTHING
            raise
        self._cache.put(POD, written.document)
        return Done(wrote=True, reason=reason)

    def _controlled(self, kind: Kind, key: Key, deployment: Object, ref: Ref) -> Object | None:
        live = self._cache.get(kind, key.namespace, ref.name)
        if live is not None and not controlled_by(live, uid_of(deployment)):
            raise ForeignObjectError(ref)
        return live

    # Status.

    async def _status(self, key: Key, deployment: Object, status: dict[str, Any]) -> Done:
        live = self._cache.deployment(key) or deployment
        if uid_of(live) != uid_of(deployment):
            return NOTHING
        document = _status_document(key, live, status)
        found = drift.difference(document, live, STATUS_MANAGER, subresource="status")
        if found is None or self._is_settled(live, STATUS_MANAGER, document):
            return NOTHING
        # With the version that the plan saw: a decision about an older spec is not written.
        document["metadata"] |= {
            "uid": uid_of(live),
            "resourceVersion": live["metadata"]["resourceVersion"],
        }
        try:
            written = await self._kube.apply(
                MODEL_DEPLOYMENT, document, manager=STATUS_MANAGER, force=True, sub="status"
            )
        except ConflictError:
            fresh = await self._kube.find(MODEL_DEPLOYMENT, key.namespace, key.name)
            if fresh is not None:
                self._cache.put(MODEL_DEPLOYMENT, fresh)
            return Done(reason="the ModelDeployment changed meanwhile", again_after_s=0.05)
        if version_of(written.document) == version_of(live):
            self._settle(written.document, STATUS_MANAGER, _status_document(key, live, status))
            return NOTHING
        self._cache.put(MODEL_DEPLOYMENT, written.document)
        return Done(wrote=True, reason=str(found))

    # Writes that the API server finds to change nothing.

    def _is_settled(self, live: Object, manager: str, document: dict[str, Any]) -> bool:
        return self._settled.get((uid_of(live), manager)) == (version_of(live), _digest(document))

    def _settle(self, live: Object, manager: str, document: dict[str, Any]) -> None:
        if len(self._settled) > REMEMBERED:
            self._settled.clear()
        self._settled[uid_of(live), manager] = (version_of(live), _digest(document))
        log.debug(
            "apply changed nothing",
            object=f"{live['kind']}/{place_of(live).name}",
            difference=str(drift.difference(document, live, manager)),
        )


def with_replicas_of(live: Object, manifest: dict[str, Any]) -> dict[str, Any]:
    """A Deployment's manifest for its next apply, as to replicas (see the module's text)."""
    spec = {k: v for k, v in manifest["spec"].items() if k != "replicas"}
    if drift.owners(live, REPLICAS) == {CHILDREN_MANAGER}:
        spec["replicas"] = live["spec"].get("replicas", 1)
    return {**manifest, "spec": spec}


def _in_namespace(manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def _status_document(key: Key, live: Object, status: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": key.name, "namespace": key.namespace},
        "status": status,
    }


def _managers(obj: Object) -> set[str]:
    return {str(e.get("manager")) for e in obj["metadata"].get("managedFields") or ()}


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _drift_text(
    kind: Kind,
    live: Object,
    found: drift.Difference | None,
    foreign: list[drift.ForeignField],
) -> str:
    name = live["metadata"]["name"]
    if foreign:
        fields = ", ".join(drift.dotted(f.path) for f in foreign[:5])
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        managers = ", ".join(sorted({f.manager for f in foreign}))
        return f"{kind} {name}: took out {fields}{more}, set by {managers}"
    path = drift.dotted(found.path) if found is not None else "."
    return f"{kind} {name}: put back {path}, which somebody else had changed"
