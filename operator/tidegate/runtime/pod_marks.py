"""Marks on a model's pods: one is out of service, another is to go first."""

from typing import Any

from tidegate.actions import DeletionCost, TakeOut
from tidegate.api.names import CHILDREN_MANAGER, DELETION_COST_ANNOTATION, SERVING_LABEL
from tidegate.observed import Object
from tidegate.runtime.cache import Cache, Key, place_of, uid_of
from tidegate.runtime.done import NOTHING, Done
from tidegate.runtime.kinds import POD
from tidegate.runtime.kube import InvalidError, Kube, NotFoundError


class PodMarks:
    """Puts labels and annotations on pods, each of the UID that was meant.

    Args:
        kube: the client.
        cache: what is observed, and where answers go.
    """

    def __init__(self, kube: Kube, cache: Cache) -> None:
        self._kube = kube
        self._cache = cache

    async def take_out(self, key: Key, action: TakeOut) -> Done:
        """Out of service. Nothing puts the label back: drift is looked for in children alone."""
        live = self._cache.get(POD, key.namespace, action.name)
        if live is None or SERVING_LABEL not in (live["metadata"].get("labels") or {}):
            return NOTHING
        changes = {"labels": {SERVING_LABEL: None}}
        return await self._mark(key, live, action.uid, changes, action.reason)

    async def deletion_cost(self, key: Key, action: DeletionCost) -> Done:
        """What it costs to lose it: a ReplicaSet takes the cheapest first."""
        live = self._cache.get(POD, key.namespace, action.name)
        if live is None:
            return NOTHING
        before = (live["metadata"].get("annotations") or {}).get(DELETION_COST_ANNOTATION)
        if before == str(action.cost):
            return NOTHING
        changes = {"annotations": {DELETION_COST_ANNOTATION: str(action.cost)}}
        return await self._mark(key, live, action.uid, changes, f"{before} -> {action.cost}")

    async def _mark(
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
