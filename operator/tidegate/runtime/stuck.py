"""What events tell about pods whose own status does not say why they do not start."""

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Final

import structlog

from tidegate.observed import Object
from tidegate.runtime.background import Background, UnansweredError
from tidegate.runtime.cache import Key, uid_of
from tidegate.runtime.events import events_about_pod
from tidegate.runtime.kube import Kube, KubeError
from tidegate.runtime.pods import first_of_each_revision

log: Final = structlog.get_logger(__name__)

STUCK_AFTER_S: Final = 3.0
"""A pod on a node, with no container started for so long, has a story to tell in its events."""
FRESH_S: Final = 10.0
"""For so long events are not read again."""


class StuckPods:
    """Reads the events of pods that are stuck, beside the passes, and keeps them for a while.

    Args:
        kube: the client.
        wake: told of a ModelDeployment about whose pods events tell something else than before.
        now: wall clock, UTC.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        kube: Kube,
        wake: Callable[[Key], None],
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._now = now
        nothing: tuple[Object, ...] = ()
        self._asked = Background(nothing, lambda _: FRESH_S, wake, clock=clock)

    def events(self, key: Key, pods: Iterable[Object]) -> tuple[tuple[Object, ...], float | None]:
        """The events about a ModelDeployment's stuck pods, as far as they are known.

        Returns:
            The events, and in how many seconds to look again; None: no wish.
        """
        stuck: list[Object] = []
        again_after_s: list[float] = []
        for pod in pods:
            waited_s = stuck_for_s(pod, self._now())
            if waited_s is None:
                continue
            if waited_s < STUCK_AFTER_S:
                again_after_s.append(STUCK_AFTER_S - waited_s + 0.1)
            else:
                stuck.append(pod)
        asked = first_of_each_revision(stuck)
        found = self._asked.take(
            key, {uid_of(pod): partial(self._about, key, pod) for pod in asked}
        )
        if found.again_after_s is not None:
            again_after_s.append(found.again_after_s)
        events = tuple(event for told in found.answers.values() for event in told)
        return events, min(again_after_s, default=None)

    async def stop(self) -> None:
        """Read nothing any more."""
        await self._asked.stop()

    async def _about(self, key: Key, pod: Object) -> tuple[Object, ...]:
        try:
            return tuple(await events_about_pod(self._kube, pod))
        except KubeError as error:
            log.warning("events not read", modeldeployment=str(key), problem=str(error))
            raise UnansweredError from error


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
