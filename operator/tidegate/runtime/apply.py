"""Carries out a plan's actions, each only if it changes something."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
from tidegate.observed import Object
from tidegate.runtime.cache import Cache, Key, uid_of
from tidegate.runtime.children import Children
from tidegate.runtime.done import NOTHING, Done
from tidegate.runtime.kinds import POD, Kind, kind_of
from tidegate.runtime.kube import ConflictError, Kube, NotFoundError
from tidegate.runtime.pod_marks import PodMarks
from tidegate.runtime.put_backs import PutBacks
from tidegate.runtime.settled import Settled
from tidegate.runtime.status_writer import StatusWriter
from tidegate.runtime.telemetry import Metrics


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
        self._settled = Settled()
        self._put_backs = PutBacks()
        self._children = Children(kube, cache, metrics, self._settled, self._put_backs, clock)
        self._marks = PodMarks(kube, cache)
        self._status = StatusWriter(kube, cache, self._settled)

    async def carry_out(self, key: Key, deployment: Object, action: Action) -> Done:
        """Do it, unless it is so already.

        Raises:
            ForeignObjectError: an object of that name is somebody else's.
            KubeError: the API server refused, or did not answer.
            FencedError: this process may not write.
        """
        match action:
            case Apply(manifest=manifest):
                return await self._children.apply(key, deployment, manifest)
            case Annotate():
                return await self._children.annotate(key, deployment, action)
            case Scale():
                return await self._children.scale(key, deployment, action)
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
                return await self._marks.take_out(key, action)
            case DeletionCost():
                return await self._marks.deletion_cost(key, action)
            case WriteStatus():
                return await self._status.write(key, deployment, action.status)
            case _:
                raise TypeError(f"no way to carry out a {type(action).__name__}")

    def status_would_change(self, key: Key, deployment: Object, status: dict[str, Any]) -> bool:
        """Whether writing that status would change anything."""
        return self._status.would_change(key, deployment, status)

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
