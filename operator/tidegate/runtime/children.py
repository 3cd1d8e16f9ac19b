"""The objects that a ModelDeployment controls: made, kept as they are wanted, and scaled.

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

import time
from collections.abc import Callable
from typing import Any, Final

from tidegate.actions import Annotate, Scale
from tidegate.api.names import CHILDREN_MANAGER, SCALE_MANAGER
from tidegate.observed import Object, Ref
from tidegate.runtime import drift
from tidegate.runtime.cache import Cache, Key, controlled_by, uid_of, version_of
from tidegate.runtime.done import NOTHING, Done
from tidegate.runtime.foreign import ForeignObjectError
from tidegate.runtime.kinds import DEPLOYMENT, Kind, kind_of
from tidegate.runtime.kube import ConflictError, InvalidError, Kube
from tidegate.runtime.put_backs import PutBacks
from tidegate.runtime.settled import Settled, digest
from tidegate.runtime.telemetry import Metrics

REPLICAS: Final = ("spec", "replicas")
RESTARTED_AT: Final = (
    *("spec", "template", "metadata", "annotations"),
    "kubectl.kubernetes.io/restartedAt",
)
"""Set by ``kubectl rollout restart``, which asks for fresh pods of the same revision."""


class Children:
    """Applies children.

    Args:
        kube: the client.
        cache: what is observed, and where answers go.
        metrics: counts.
        settled: applies that change nothing.
        put_backs: pauses between put-backs.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        metrics: Metrics,
        settled: Settled,
        put_backs: PutBacks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._metrics = metrics
        self._settled = settled
        self._clock = clock
        self._put_backs = put_backs

    async def apply(self, key: Key, deployment: Object, manifest: dict[str, Any]) -> Done:
        """Have it be there as the manifest says; raises as `Carrier.carry_out` does."""
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
        if found is not None and self._settled.knows(live, CHILDREN_MANAGER, document):
            found = None
        ignored = (REPLICAS, RESTARTED_AT) if kind == DEPLOYMENT else ()
        foreign = drift.foreign_fields(document, live, ignored=ignored)
        if found is None and not foreign:
            return NOTHING
        drifted = bool(foreign) or (found is not None and found.taken)
        uid, wish = uid_of(live), digest(document)
        if drifted:
            wait_s = self._put_backs.wait_s(uid, wish, self._clock())
            if wait_s > 0.0:
                return Done(again_after_s=wait_s)
        self._put_backs.wished(uid, wish)
        wrote = False
        if found is not None:
            # Of this object, and not of one that took its name meanwhile.
            same = {**document, "metadata": {**document["metadata"], "uid": uid}}
            written = await self._kube.apply(kind, same, manager=CHILDREN_MANAGER, force=True)
            if version_of(written.document) == version_of(live):
                self._settled.add(written.document, CHILDREN_MANAGER, document)
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

    async def annotate(self, key: Key, deployment: Object, action: Annotate) -> Done:
        """Have a child carry these annotations."""
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

    async def scale(self, key: Key, deployment: Object, action: Scale) -> Done:
        """Have a Deployment want so many pods."""
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

    def _controlled(self, kind: Kind, key: Key, deployment: Object, ref: Ref) -> Object | None:
        live = self._cache.get(kind, key.namespace, ref.name)
        if live is not None and not controlled_by(live, uid_of(deployment)):
            raise ForeignObjectError(ref)
        return live


def with_replicas_of(live: Object, manifest: dict[str, Any]) -> dict[str, Any]:
    """A Deployment's manifest for its next apply, as to replicas (see the module's text)."""
    spec = {k: v for k, v in manifest["spec"].items() if k != "replicas"}
    if drift.owners(live, REPLICAS) == {CHILDREN_MANAGER}:
        spec["replicas"] = live["spec"].get("replicas", 1)
    return {**manifest, "spec": spec}


def _in_namespace(manifest: dict[str, Any], namespace: str) -> dict[str, Any]:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}


def _managers(obj: Object) -> set[str]:
    return {str(e.get("manager")) for e in obj["metadata"].get("managedFields") or ()}


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
