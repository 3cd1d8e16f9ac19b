"""Looks at simulated pods, and what they come to: the input of `tidegate.plan.plan`.

The pace and the bookkeeping of `tidegate.runtime.measuring` and `tidegate.runtime.load`, whose
tasks wait for real pods; counting, evidence, judgement and the law are the operator's own code.
"""

import random
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from tidegate.actions import Measure
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.judgement import Consequence
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.observer import Observer
from tidegate.autoscaling.reading import Look
from tidegate.autoscaling.server import LAW, ServerModel
from tidegate.measurement import (
    NO_COUNTS,
    Ledger,
    Reading,
    bounds_ms,
    hanging_after_s,
)
from tidegate.observed import Measured
from tidegate.resources.sidecar import TrafficClass
from tidegate.simulation.faults import Defect, Fault, size_of
from tidegate.simulation.fleet import Fleet, Replica
from tidegate.simulation.law import EPOCH_S
from tidegate.situation import moment

T = TypeVar("T")

FAST_S: Final = 0.25
SUSPECT_FOR_S: Final = 10.0
UNREAD_S: Final = 5.0
RATE_OVER_S: Final = 30.0
CARRIES_STEP: Final = 0.05
MIRRORED_STEP: Final = 50


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

    def read(self, fleet: Fleet, at_s: float) -> tuple[list[Reading], dict[str, str]]:
        """A look at all pods with an address; those that do not answer, with their revision."""
        lost = size_of(self._faults, Defect.NO_METRICS, at_s) or 0.0
        lag_s = size_of(self._faults, Defect.LAG, at_s) or 0.0
        readings, unread = [], {}
        for replica in fleet.replicas:
            if replica.scheduled_s is None:
                continue
            reading = None
            if at_s >= replica.fetched_s and not (lost and self._chance() < lost):
                reading = self._page(replica, at_s, lag_s)
            if reading is None:
                unread[replica.name] = replica.revision
            else:
                readings.append(reading)
        return readings, unread

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


class _Signal(NamedTuple):
    """What matters to a decision, coarse enough that it changes seldom."""

    bad: str
    worse: str
    stable_failing: bool
    proven: bool
    hanging: tuple[str, ...]
    read: bool
    silent: bool
    carries: float
    mirrored: int


class Trial:
    """The measurements of one rollout.

    Args:
        measure: what the plan asks for.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.measured: Measured | None = None
        self._evidence = Evidence(measure.objective)
        self._ledger: Ledger | None = None
        self._suspect_until_s = 0.0
        self._all_read_s: float | None = None
        self._read_s: dict[str, float] = {}
        self._requests: dict[str, int] = {}
        self._rates: deque[tuple[float, int]] = deque()
        self._loads: deque[tuple[float, float]] = deque()
        self._told: _Signal | None = None

    def is_of(self, measure: Measure) -> bool:
        """Whether that asks for the same rollout."""
        mine = self.measure
        return (mine.stable, mine.canary, mine.started) == (
            measure.stable,
            measure.canary,
            measure.started,
        )

    def want(self, measure: Measure) -> None:
        """Go on, maybe at another pace; shares of traffic are measured from a new step on."""
        if self.measure.since != measure.since and self.measured is not None:
            self.measured = replace(
                self.measured, since=measure.since, canary_arrivals=0, stable_arrivals=0
            )
        self.measure = measure

    def pause_s(self, at_s: float) -> float:
        """Until the next look."""
        pause_s = self.measure.interval_s
        return min(pause_s, FAST_S) if at_s < self._suspect_until_s else pause_s

    def look(self, at_s: float, readings: Sequence[Reading], unread: Mapping[str, str]) -> bool:
        """Take in a look; returns whether there is news for a decision.

        Args:
            at_s: seconds since the epoch.
            readings: of pods of both revisions.
            unread: pods that could not be read, with the hash of their revision.
        """
        measure = self.measure
        if self._ledger is None:
            target_ms = measure.objective.latency_target_ms
            stable = [r for r in readings if r.revision == measure.stable]
            self._ledger = Ledger(
                measure.stable,
                measure.canary,
                target_ms,
                bounds_ms(target_ms),
                hang_after_s=hanging_after_s(target_ms, stable),
                counts_from_s=moment(measure.started).timestamp(),
            )
        block = self._ledger.observe(readings, at_s=at_s, unread=sorted(unread))
        self._evidence.observe(block)
        judgement = self._evidence.judge()
        bad = any(
            r.evidence > 1.0 and r.consequence is Consequence.ROLL_BACK for r in judgement.results
        )
        if block.canary.failed or block.hanging or bad:
            self._suspect_until_s = at_s + SUSPECT_FOR_S
        for reading in readings:
            self._read_s[reading.pod] = at_s
            self._requests[reading.pod] = sum(c.started for c in reading.classes.values())
        missing = [pod for pod, revision in unread.items() if revision == measure.canary]
        if not missing and any(r.revision == measure.canary for r in readings):
            self._all_read_s = at_s
        before = self.measured
        if before is not None and block.seconds > 0.0:
            _keep(self._rates, (block.seconds, block.canary_arrivals + block.stable_arrivals))
        in_flight = [
            r.classes.get(TrafficClass.CLIENT, NO_COUNTS).in_flight
            for r in readings
            if r.revision == measure.stable
        ]
        if in_flight:
            _keep(self._loads, (block.seconds, sum(in_flight) / len(in_flight)))
        seconds = sum(s for s, _ in self._rates)
        self.measured = Measured(
            stable=measure.stable,
            canary=measure.canary,
            started=measure.started,
            judgement=judgement,
            read_at=(
                None if self._all_read_s is None else datetime.fromtimestamp(self._all_read_s, UTC)
            ),
            since=measure.since,
            unread=block.unread,
            hanging=block.hanging,
            canary_arrivals=(before.canary_arrivals if before else 0) + block.canary_arrivals,
            stable_arrivals=(before.stable_arrivals if before else 0) + block.stable_arrivals,
            mirrored=(before.mirrored if before else 0) + block.mirrored,
            requests=sum(self._requests.values()),
            arrivals_per_s=sum(n for _, n in self._rates) / seconds if seconds else None,
            in_flight_per_pod=(
                sum(n for _, n in self._loads) / len(self._loads) if self._loads else None
            ),
        )
        silent = any(at_s - self._read_s.setdefault(pod, at_s) > UNREAD_S for pod in missing)
        return self._news(self.measured, silent)

    def _news(self, measured: Measured, silent: bool) -> bool:
        told, judgement = self._told, measured.judgement
        carries, mirrored = judgement.carries, measured.mirrored
        if told is not None:
            if abs(carries - told.carries) <= CARRIES_STEP * told.carries:
                carries = told.carries
            if mirrored < told.mirrored + max(MIRRORED_STEP, told.mirrored // 4):
                mirrored = told.mirrored
        self._told = _Signal(
            bad=judgement.bad.test if judgement.bad else "",
            worse=judgement.worse.test if judgement.worse else "",
            stable_failing=judgement.stable_failing,
            proven=judgement.proven,
            hanging=measured.hanging,
            read=measured.read_at is not None,
            silent=silent,
            carries=carries,
            mirrored=mirrored,
        )
        return self._told != told


def _keep(looks: "deque[tuple[float, T]]", newest: "tuple[float, T]") -> None:
    looks.append(newest)
    while len(looks) > 1 and sum(seconds for seconds, _ in looks) > RATE_OVER_S:
        looks.popleft()


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
