"""Tidegate's own law in the simulated world: the code that runs in the cluster, and only it.

What a pod would say by its sidecar and by Triton is made from the simulated counters, for
`tidegate.autoscaling.observer` to read.
"""

from collections import deque
from itertools import accumulate
from typing import Final

from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.decision import Bounds, Decision, Fleet, replicas
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Batch, Look, TritonStats
from tidegate.autoscaling.server import LAW, Law, ServerModel
from tidegate.resources.sidecar import TrafficClass
from tidegate.sidecar_page import Counts, Reading
from tidegate.simulation.pod import Pod, Server
from tidegate.simulation.world import View

EPOCH_S: Final = 1_750_000_000.0
"""When a simulation begins; the law knows times since the epoch only."""


def model_of(server: Server) -> ServerModel:
    """What the law knows of a simulated pod before it has measured anything."""
    return ServerModel(
        instances=server.instances,
        max_batch=server.max_batch,
        preferred=server.preferred,
        queue_delay_ms=1000.0 * server.delay_s,
        queue_size=server.queue,
        quantile=server.quantile,
        target_ms=1000.0 * server.target_s,
    )


def look_at(pod: Pod, edges_s: tuple[float, ...], now_s: float) -> Look:
    """What sidecar and Triton of a pod say."""
    c = pod.counters
    timed = sum(c.histogram)
    counts = Counts(
        started=c.started,
        succeeded=c.answered,
        failed=c.failed + c.refused,
        in_flight=c.in_flight,
        timed=timed,
        faster=tuple(accumulate(c.histogram[:-1])),
    )
    at_s = EPOCH_S + now_s
    reading = Reading(
        pod=pod.name,
        revision="simulated",
        at_s=at_s,
        edges_ms=tuple(round(1000 * edge) for edge in edges_s),
        classes={TrafficClass.CLIENT: counts},
        uptime_s=now_s - pod.created_s,
    )
    return Look(pod=pod.name, at_s=at_s, reading=reading, triton=triton_of(pod))


def triton_of(pod: Pod) -> TritonStats:
    """What Triton itself says of a pod."""
    c = pod.counters
    return TritonStats(
        batches=tuple(
            Batch(size, n, 1000.0 * busy_s) for size, (n, busy_s) in sorted(c.batches.items())
        ),
        succeeded=c.answered,
        failed=c.failed,
        items=sum(size * n for size, (n, _) in c.batches.items()),
        pending=c.in_flight - pod.running,
    )


class Tidegate:
    """The law.

    Args:
        server: what a pod is.
        bounds: of the replicas.
        cold_start_s: as seen with earlier pods.
        law: constants.
        capacities: to share what the capacity model worked out; its answers are the same without.
    """

    def __init__(
        self,
        server: Server,
        bounds: Bounds,
        cold_start_s: float,
        law: Law = LAW,
        capacities: Capacities | None = None,
    ) -> None:
        self.interval_s = law.interval_s
        self._capacities = Capacities() if capacities is None else capacities
        self._observer = Observer(model_of(server), self._capacities, law)
        self._bounds = bounds
        self._cold_start_s = cold_start_s
        self._law = law
        self._looks: deque[tuple[float, list[Look]]] = deque()
        self.decision: Decision | None = None
        """The latest, with all its numbers."""

    def decide(self, view: View) -> int:
        """Replicas to ask for."""
        self._capacities.refill()
        now = view.now_s
        demand = self._observer.observe(
            EPOCH_S + now,
            self._seen(view),
            ready=[pod.name for pod in view.pods if pod.ready_s <= now],
        )
        fleet = Fleet(
            desired=view.desired,
            ready=view.ready,
            waiting_for_gpu=view.waiting_for_gpu,
            raised_at_s=None if view.raised_s is None else EPOCH_S + view.raised_s,
            lowered_at_s=None if view.lowered_s is None else EPOCH_S + view.lowered_s,
            cold_start_s=self._cold_start_s,
        )
        self.decision = replicas(self._bounds, fleet, demand, EPOCH_S + now, law=self._law)
        return self.decision.desired

    def _seen(self, view: View) -> list[Look]:
        """Looks at the pods as they were a lag ago."""
        now, looks = view.now_s, self._looks
        looks.append(
            (
                now,
                [
                    look_at(pod, view.edges_s, now)
                    for pod in (*view.pods, *view.leaving)
                    if pod.ready_s <= now and pod.name not in view.unread
                ],
            )
        )
        then = now - view.lag_s
        while len(looks) > 1 and looks[1][0] <= then:
            looks.popleft()
        at_s, seen = looks[0]
        return seen if at_s <= then else []
