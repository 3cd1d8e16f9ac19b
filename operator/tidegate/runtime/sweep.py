"""Compares the cache with the API server, and repairs it.

A watch can lose what it should bring: a relist after a gap tells of no deletions, and a connection
can die without a word. So from time to time the metadata of each kind is listed: what only the
cache has is dropped, what the watch does not bring is read. A kind counts as synced once a list
was wholly in the cache; a watch that stays behind is started anew, and makes ``/healthz`` fail if
that does not help.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from tidegate.runtime.cache import Cache, Listed, Place, place_of, uid_of, version_of
from tidegate.runtime.kinds import Kind
from tidegate.runtime.kube import Kube
from tidegate.runtime.telemetry import Metrics

log: Final = structlog.get_logger(__name__)

CATCH_UP_S: Final = 5.0
"""A watch that makes no progress for so long is behind."""
POLL_S: Final = 0.05
READS_AT_ONCE: Final = 8


@dataclass
class WatchHealth:
    """How the watches do. Times are monotonic seconds.

    Attributes:
        synced: kinds of which a list was once wholly in the cache.
        behind_since: kinds whose watch did not bring what a list had, and since when.
    """

    synced: set[Kind] = field(default_factory=set)
    behind_since: dict[Kind, float] = field(default_factory=dict)

    def swept(self, kind: Kind, now: float, *, behind: bool) -> None:
        """A kind was compared, and its watch was behind or not."""
        self.synced.add(kind)
        if behind:
            self.behind_since.setdefault(kind, now)
        else:
            self.behind_since.pop(kind, None)

    def forget(self, kind: Kind) -> None:
        """The cluster does not serve the kind any more."""
        self.synced.discard(kind)
        self.behind_since.pop(kind, None)

    def age_s(self, kind: Kind, now: float) -> float:
        """For how many seconds the watch has been behind; 0 while it keeps up."""
        since = self.behind_since.get(kind)
        return 0.0 if since is None else now - since


class Sweeper:
    """Sweeps one kind after the other.

    Args:
        kube: the client.
        cache: what is compared and repaired.
        health: where the result is noted.
        metrics: counts.
        namespaces: where to look; (None,): everywhere.
        clock: monotonic, seconds.
        sleep: waits, seconds.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        health: WatchHealth,
        metrics: Metrics,
        namespaces: tuple[str | None, ...],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._health = health
        self._metrics = metrics
        self._namespaces = namespaces
        self._clock = clock
        self._sleep = sleep

    async def sweep(self, kind: Kind) -> bool:
        """Compare and repair one kind. Returns whether its watch keeps up.

        Raises:
            KubeError: the kind could not be listed or read.
        """
        behind = False
        for namespace in self._namespaces:
            behind = await self._sweep(kind, namespace) or behind
        self._health.swept(kind, self._clock(), behind=behind)
        return not behind

    async def _sweep(self, kind: Kind, namespace: str | None) -> bool:
        newest_before = self._cache.newest(kind, namespace)
        listed, version = await self._list(kind, namespace)
        found = self._cache.compare(kind, namespace, listed, version, newest_before)
        if found.history_went_back:
            log.warning(
                "history went back",
                kind=kind.kind,
                reason="the API server knows less than it did; all objects are taken in anew",
            )
        if found.ghosts:
            self._metrics.ghosts.labels(kind.kind).inc(len(found.ghosts))
            log.info("ghosts dropped", kind=kind.kind, count=len(found.ghosts))
        missing = await self._catch_up(kind, found.behind)
        if missing:
            self._metrics.repairs.labels(kind.kind).inc(len(missing))
            log.warning("watch is behind", kind=kind.kind, objects=len(missing))
            await self._repair(kind, missing)
        return bool(missing)

    async def _list(self, kind: Kind, namespace: str | None) -> tuple[dict[Place, Listed], int]:
        listed: dict[Place, Listed] = {}
        version = 0
        async for page in self._kube.pages(
            kind, namespace, selector=kind.selector, metadata_only=True
        ):
            version = version_of(page)
            for item in page.get("items") or ():
                listed[place_of(item)] = Listed(uid_of(item), version_of(item))
        return listed, version

    async def _catch_up(self, kind: Kind, behind: Mapping[Place, Listed]) -> Mapping[Place, Listed]:
        """Wait while the watch makes progress; what it does not bring is returned."""
        waited_s = 0.0
        while behind and waited_s < CATCH_UP_S:
            await self._sleep(POLL_S)
            left = self._cache.behind(kind, behind)
            waited_s = waited_s + POLL_S if len(left) == len(behind) else 0.0
            behind = left
        return behind

    async def _repair(self, kind: Kind, missing: Mapping[Place, Listed]) -> None:
        semaphore = asyncio.Semaphore(READS_AT_ONCE)

        async def read(place: Place) -> None:
            async with semaphore:
                obj = await self._kube.find(kind, place.namespace, place.name)
            if obj is not None:
                self._cache.put(kind, obj)

        async with asyncio.TaskGroup() as group:
            for place in missing:
                group.create_task(read(place))
