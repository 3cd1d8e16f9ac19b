"""Pods, a stream of requests to them, and an observer that looks at them."""

from collections.abc import Iterator

from tests.unit.autoscaling.pods import START_S, Pod, Stream
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW, Law, ServerModel

MODEL = ServerModel(max_batch=8, target_ms=100.0)
TICK_S = 5.0
SHARED = Capacities(10**9, fine=2000)
"""Worked out once for all tests, less exactly than in the operator."""


class World:
    """Pods, a stream of requests, and an observer that looks each tick.

    Args:
        pods: how many.
        model: of a pod.
        law: of the observer.
        sidecar: whether sidecars are read.
        triton: whether Triton is.
        noise: whether its batches take 10 % more or less.
        capacities: of the observer.
    """

    def __init__(
        self,
        pods: int = 1,
        *,
        model: ServerModel = MODEL,
        law: Law = LAW,
        sidecar: bool = True,
        triton: bool = True,
        noise: bool = False,
        capacities: Capacities = SHARED,
    ) -> None:
        self.capacities = capacities
        self.observer = Observer(model, self.capacities, law)
        self.pods = [Pod(f"p{i}", largest=model.max_batch, noise=noise) for i in range(pods)]
        self.stream = Stream()
        self.now_s = START_S
        self.sidecar, self.triton = sidecar, triton
        self.unread: set[str] = set()
        self.demand: Demand | None = None
        self.observe()

    def serve(self, per_s: float, seconds: float = TICK_S) -> None:
        end_s = self.now_s + seconds
        self.stream.deal(self.stream.until(self.now_s, end_s, per_s), self.pods)
        self.now_s = end_s
        for pod in self.pods:
            pod.run_until(end_s)

    def looks(self) -> list[Look]:
        return [
            pod.look(self.now_s, sidecar=self.sidecar, triton=self.triton)
            for pod in self.pods
            if pod.uid not in self.unread
        ]

    def observe(self) -> Demand | None:
        ready = [pod.uid for pod in self.pods]
        self.demand = self.observer.observe(self.now_s, self.looks(), ready=ready)
        return self.demand

    def run(self, per_s: float, seconds: float) -> Iterator[Demand | None]:
        for _ in range(round(seconds / TICK_S)):
            self.capacities.refill()
            self.serve(per_s)
            yield self.observe()

    def after(self, per_s: float, seconds: float) -> Demand:
        for _ in self.run(per_s, seconds):
            pass
        assert self.demand is not None
        return self.demand
