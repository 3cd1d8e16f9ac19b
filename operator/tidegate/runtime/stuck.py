"""What events tell about pods whose own status does not say why they do not start."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import structlog

from tidegate.observed import Object
from tidegate.runtime.cache import Key, uid_of
from tidegate.runtime.events import events_about_pod
from tidegate.runtime.kube import Kube, KubeError

log: Final = structlog.get_logger(__name__)

STUCK_AFTER_S: Final = 3.0
"""A pod on a node, with no container started for so long, has a story to tell in its events."""
FRESH_S: Final = 10.0
"""For so long events are not read again."""
PODS_ASKED: Final = 3
"""Stuck pods of one ModelDeployment whose events are read; the others tell the same."""
REMEMBERED: Final = 1024


class StuckPods:
    """Reads the events of pods that are stuck, and keeps them for a while.

    Args:
        kube: the client.
        now: wall clock, UTC.
        clock: monotonic, seconds.
    """

    def __init__(
        self, kube: Kube, *, now: Callable[[], datetime], clock: Callable[[], float]
    ) -> None:
        self._kube = kube
        self._now = now
        self._clock = clock
        self._read: OrderedDict[str, tuple[float, list[Object]]] = OrderedDict()

    async def events(
        self, key: Key, pods: Iterable[Object]
    ) -> tuple[tuple[Object, ...], float | None]:
        """The events about a ModelDeployment's stuck pods, as far as they can be read.

        Returns:
            The events, and in how many seconds to look again; None: no wish.
        """
        found: list[Object] = []
        again_after_s: list[float] = []
        asked = 0
        for pod in pods:
            waited_s = stuck_for_s(pod, self._now())
            if waited_s is None:
                self._read.pop(uid_of(pod), None)
            elif waited_s < STUCK_AFTER_S:
                again_after_s.append(STUCK_AFTER_S - waited_s + 0.1)
            else:
                again_after_s.append(FRESH_S)
                if asked < PODS_ASKED:
                    asked += 1
                    found += await self._about(key, pod)
        return tuple(found), min(again_after_s, default=None)

    async def _about(self, key: Key, pod: Object) -> list[Object]:
        uid, now = uid_of(pod), self._clock()
        read_at, events = self._read.get(uid, (None, []))
        if read_at is not None and now - read_at < FRESH_S:
            return events
        try:
            events = await events_about_pod(self._kube, pod)
        except KubeError as error:
            # They explain; what is decided must not wait for them.
            log.warning("events not read", modeldeployment=str(key), problem=str(error))
        self._read[uid] = (now, events)
        while len(self._read) > REMEMBERED:
            self._read.popitem(last=False)
        return events


def stuck_for_s(pod: Object, now: datetime) -> float | None:
    """For how long a pod has been on its node without any container started; None if it has not."""
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") != "Pending":
        return None
    statuses = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    if any(
        "waiting" not in (s.get("state") or {"waiting": {}}) or s.get("lastState") for s in statuses
    ):
        return None
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "True":
            since = datetime.fromisoformat(condition["lastTransitionTime"])
            return max(0.0, (now - since).total_seconds())
    return None
