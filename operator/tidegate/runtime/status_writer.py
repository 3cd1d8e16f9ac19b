"""The one status write of a pass."""

from typing import Any

from tidegate.api.names import API_VERSION, KIND, STATUS_MANAGER
from tidegate.observed import Object
from tidegate.runtime import drift
from tidegate.runtime.cache import Cache, Key, uid_of, version_of
from tidegate.runtime.done import NOTHING, Done
from tidegate.runtime.kinds import MODEL_DEPLOYMENT
from tidegate.runtime.kube import ConflictError, Kube
from tidegate.runtime.settled import Settled


class StatusWriter:
    """Writes status, where that changes something.

    Args:
        kube: the client.
        cache: where answers go.
        settled: applies that change nothing.
    """

    def __init__(self, kube: Kube, cache: Cache, settled: Settled) -> None:
        self._kube = kube
        self._cache = cache
        self._settled = settled

    def would_change(self, key: Key, deployment: Object, status: dict[str, Any]) -> bool:
        """Whether writing it would change anything."""
        live = self._cache.deployment(key) or deployment
        document = _document(key, live, status)
        found = drift.difference(document, live, STATUS_MANAGER, subresource="status")
        return found is not None and not self._settled.knows(live, STATUS_MANAGER, document)

    async def write(self, key: Key, deployment: Object, status: dict[str, Any]) -> Done:
        """Write it, unless the ModelDeployment is another by now.

        Raises:
            KubeError: the API server refused, or did not answer.
            FencedError: this process may not write.
        """
        live = self._cache.deployment(key) or deployment
        if uid_of(live) != uid_of(deployment):
            return NOTHING
        document = _document(key, live, status)
        found = drift.difference(document, live, STATUS_MANAGER, subresource="status")
        if found is None or self._settled.knows(live, STATUS_MANAGER, document):
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
            self._settled.add(written.document, STATUS_MANAGER, _document(key, live, status))
            return NOTHING
        self._cache.put(MODEL_DEPLOYMENT, written.document)
        return Done(wrote=True, reason=str(found))


def _document(key: Key, live: Object, status: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": key.name, "namespace": key.namespace},
        "status": status,
    }
