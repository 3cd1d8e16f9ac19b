"""Looks at simulated pods, and what they come to: the input of `tidegate.plan.plan`.

In place of the tasks of `tidegate.runtime.measuring` and `tidegate.runtime.load`, which wait for
real pods. What the looks come to is the operator's own code: `tidegate.judging` for a rollout,
`tidegate.autoscaling` for the load.
"""

import random
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW, ServerModel
from tidegate.judging import Asked
from tidegate.sidecar_page import Reading
from tidegate.simulation.faults import Defect, Fault, size_of
from tidegate.simulation.fleet import Fleet, Replica
from tidegate.simulation.law import EPOCH_S


class Pages:
    """Reads simulated pods' sidecars, as far as faults allow.

    Args:
        faults: what goes wrong.
        seed: of chance.
    """

    def __init__(self, faults: Sequence[Fault], seed: int) -> None:
        self._faults = faults
        self._chance = random.Random(f"{seed} metrics").random
        self._kept: dict[str, deque[Reading]] = {}

    def read(self, fleet: Fleet, at_s: float) -> tuple[list[Reading], list[Asked]]:
        """A look at all pods whose sidecar began; and who was asked, by name."""
        lost = size_of(self._faults, Defect.NO_METRICS, at_s) or 0.0
        lag_s = size_of(self._faults, Defect.LAG, at_s) or 0.0
        readings, asked = [], []
        for replica in fleet.replicas:
            if replica.scheduled_s is None or at_s < replica.fetched_s:
                continue
            reading = None
            if not (lost and self._chance() < lost):
                reading = self._page(replica, at_s, lag_s)
            if reading is not None:
                readings.append(reading)
            known = reading is not None
            asked.append(Asked(replica.name, replica.name, replica.revision, known))
        return readings, sorted(asked)

    def _page(self, replica: Replica, at_s: float, lag_s: float) -> Reading | None:
        """The page as it was a lag ago; None: there was none yet."""
        reading = replica.sidecar.reading(
            pod=replica.name,
            revision=replica.revision,
            at_s=EPOCH_S + at_s,
            uptime_s=at_s - replica.fetched_s,
        )
        if not lag_s:
            return reading
        kept = self._kept.setdefault(replica.name, deque())
        kept.append(reading)
        while len(kept) > 1 and kept[1].at_s <= EPOCH_S + at_s - lag_s:
            kept.popleft()
        return kept[0] if kept[0].at_s <= EPOCH_S + at_s - lag_s else None


class Loads:
    """What the load of each revision that scales comes to."""

    def __init__(self) -> None:
        self.demands: dict[str, Demand] = {}
        self._capacities = Capacities()
        self._observers: dict[str, Observer] = {}

    def want(self, models: Mapping[str, ServerModel]) -> None:
        """The revisions that scale, by hash, and how their pods serve."""
        for gone in self._observers.keys() - models.keys():
            del self._observers[gone]
            self.demands.pop(gone, None)
        for hash_, model in models.items():
            observer = self._observers.get(hash_)
            if observer is None:
                self._observers[hash_] = Observer(model, self._capacities, LAW)
            elif observer.model != model:
                observer.model = model

    def look(
        self, at_s: float, looks: Mapping[str, Sequence[Look]], ready: Mapping[str, Collection[str]]
    ) -> None:
        """Take in a look at each revision's pods, by hash; seconds since the epoch."""
        self._capacities.refill()
        for hash_, observer in self._observers.items():
            demand = observer.observe(
                at_s, looks.get(hash_, ()), ready=sorted(ready.get(hash_, ()))
            )
            if demand is not None:
                self.demands[hash_] = demand
