"""What one look at a thousand scaled deployments costs: measuring and deciding, reading apart.

``python -m e2e.bench.scaling_tick`` plays that many deployments, all different and all drifting
(load and service time each by up to a half, with periods of some minutes), in simulated time.
Each tick, their counters go through the operator's own observers and decisions; what is counted is
the processor time of that. No cluster. How a round of looks stays short: one run of the capacity
model tells every quantile at a load, so deployments share runs on a grid relative to the service
time, and only so many are made in a round (`tidegate.autoscaling.capacities`).

Also: how far the capacities that were used lie from those of a run of the model by itself, after
the first minutes, for as many deployments as ``--checked`` says.
"""

import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from e2e.bench.report import Report, parser, quantile
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.capacity import capacity, pod_of
from tidegate.autoscaling.decision import Bounds, Fleet, replicas
from tidegate.autoscaling.demand import Demand
from tidegate.autoscaling.observer import LEAST_ROOM, LEAST_SHARE, MOST_TAKEN, Observer
from tidegate.autoscaling.reading import Batch, Look, TritonStats
from tidegate.autoscaling.server import LAW, ServerModel
from tidegate.resources.sidecar import LATENCY_EDGES_MS, TrafficClass
from tidegate.sidecar_page import Counts, Reading

TICK_S: Final = 5.0
START_S: Final = 1_700_000_000.0
HELD_S: Final = LAW.first_intervals * TICK_S
"""Nothing is decided before so much data."""
SETTLED_S: Final = 300.0
AIM: Final = "at most 1 s"
SEED: Final = 20_261_121


@dataclass
class Deployment:
    """One deployment: counters of its pods, which drift.

    Attributes:
        model: how a pod serves.
        alpha_ms, beta_ms: service time, undisturbed.
        per_s: arrivals of all pods, undisturbed.
        pods: how many.
        period_s: of the drift.
        phase: of the drift.
    """

    model: ServerModel
    alpha_ms: float
    beta_ms: float
    per_s: float
    pods: int
    period_s: float
    phase: float
    started: list[int] = field(default_factory=list)
    timed: list[int] = field(default_factory=list)
    faster: list[list[int]] = field(default_factory=list)
    batches: list[dict[int, tuple[int, float]]] = field(default_factory=list)

    @classmethod
    def drawn(cls, draw: random.Random) -> "Deployment":
        """One at random."""
        largest = draw.choice((1, 4, 8, 16, 32))
        alpha_ms, beta_ms = draw.uniform(2, 40), draw.uniform(0.5, 12)
        instances = draw.choice((1, 1, 2, 4))
        target_ms = float(draw.choice((50, 100, 200, 300, 500, 700)))
        model = ServerModel(instances, largest, target_ms=target_ms)
        pods = draw.randint(1, 6)
        full = pod_of(model, alpha_ms, beta_ms).throughput * 1000.0
        made = cls(
            model=model,
            alpha_ms=alpha_ms,
            beta_ms=beta_ms,
            per_s=full * pods * draw.uniform(0.3, 0.6),
            pods=pods,
            period_s=draw.uniform(300.0, 1200.0),
            phase=draw.uniform(0.0, 2.0 * math.pi),
        )
        made.started, made.timed = [0] * pods, [0] * pods
        made.faster = [[0] * len(LATENCY_EDGES_MS) for _ in range(pods)]
        made.batches = [{} for _ in range(pods)]
        return made

    def run(self, at_s: float, draw: random.Random) -> list[Look]:
        """What its pods counted in one tick."""
        angle = 2.0 * math.pi * at_s / self.period_s + self.phase
        rate = self.per_s * (1.0 + 0.4 * math.sin(angle)) / self.pods
        slower = 1.0 + 0.25 * math.sin(1.7 * angle)
        alpha, beta = self.alpha_ms * slower, self.beta_ms * slower
        full = pod_of(self.model, alpha, beta).throughput * 1000.0
        load = min(0.95, rate / full)
        mean_batch = 1.0 + load * (self.model.max_batch - 1)
        looks = []
        for i in range(self.pods):
            n = max(0, round(draw.gauss(rate * TICK_S, math.sqrt(rate * TICK_S))))
            self.started[i] += n
            self.timed[i] += n
            left = n
            for size in range(1, self.model.max_batch + 1):
                share = math.exp(-size / mean_batch) if size < self.model.max_batch else 1.0
                count = min(round(left * share / size), left // size)
                if count:
                    before, busy = self.batches[i].get(size, (0, 0.0))
                    noise = draw.gauss(1.0, 0.05 / math.sqrt(count))
                    busy += count * (alpha + beta * size) * noise
                    self.batches[i][size] = (before + count, busy)
                    left -= count * size
            scale = (alpha + beta * mean_batch) / (1.0 - load)
            for j, edge in enumerate(LATENCY_EDGES_MS):
                self.faster[i][j] += round(n * (1.0 - math.exp(-edge / scale)))
            counts = Counts(
                started=self.started[i],
                succeeded=self.timed[i],
                in_flight=2,
                timed=self.timed[i],
                faster=tuple(self.faster[i]),
            )
            batches = tuple(Batch(size, *each) for size, each in sorted(self.batches[i].items()))
            stats = TritonStats(batches, succeeded=self.timed[i], items=self.timed[i])
            name = f"p{i}"
            classes = {TrafficClass.CLIENT: counts}
            reading = Reading(name, "r", at_s, LATENCY_EDGES_MS, classes, at_s - START_S + 100.0)
            looks.append(Look(name, at_s, reading, stats))
        return looks


def off(deployment: Deployment, demand: Demand) -> float | None:
    """Relative distance of the capacity used from that of the model itself."""
    service, target_ms = demand.service, demand.target_ms
    if service is None or target_ms is None or demand.infeasible or not demand.capacity_per_pod:
        return None
    pods = max(1, demand.required_replicas or demand.ready_pods)
    scv = 1.0 + (demand.dispersion - 1.0) / pods
    # Each variation costs random numbers of its own.
    pod = pod_of(
        deployment.model,
        service.alpha_ms,
        service.beta_ms,
        cv=round(service.cv, 2),
        scv=round(scv, 1),
    )
    room_ms = min(target_ms, LEAST_ROOM * (demand.idle_ms or 0.0))
    aim_ms = max(room_ms, target_ms * math.exp(-demand.feedback))
    exact = capacity(pod, demand.quantile, aim_ms).rate
    # The law goes no lower than these, whatever the model says.
    if demand.feedback > 0.0:
        exact = max(exact, MOST_TAKEN * capacity(pod, demand.quantile, target_ms).rate)
    exact = max(exact, LEAST_SHARE * pod.throughput)
    return demand.capacity_per_pod / (1000.0 * exact) - 1.0


def measure(report: Report, count: int, seconds: float, checked: int) -> None:
    """Play and count."""
    draw = random.Random(SEED)
    deployments = [Deployment.drawn(draw) for _ in range(count)]
    capacities = Capacities()
    observers = [Observer(each.model, capacities) for each in deployments]
    desired = [each.pods for each in deployments]
    ready = [[f"p{i}" for i in range(each.pods)] for each in deployments]
    bounds = Bounds(1, 100)
    first: list[float] = []
    settled: list[float] = []
    known: list[float] = []
    demands: Sequence[Demand | None] = ()
    for tick in range(1, round(seconds / TICK_S) + 1):
        now_s = START_S + TICK_S * tick
        looks = [each.run(now_s, draw) for each in deployments]
        began = time.process_time()
        capacities.refill()
        demands = [
            observer.observe(now_s, each, ready=pods)
            for observer, each, pods in zip(observers, looks, ready, strict=True)
        ]
        for i, demand in enumerate(demands):
            fleet = Fleet(desired[i], len(ready[i]), cold_start_s=60.0)
            desired[i] = replicas(bounds, fleet, demand, now_s).desired
        used_s = time.process_time() - began
        passed_s = TICK_S * tick
        if passed_s > HELD_S:
            (first if passed_s <= SETTLED_S else settled).append(used_s)
        if passed_s > SETTLED_S:
            exact = sum(d is not None and (d.exact or d.infeasible) for d in demands)
            known.append(100.0 * exact / count)
        if tick % 12 == 0:
            print(f"{passed_s:.0f} s: {used_s:.2f} s, {capacities.inexact} to go", file=sys.stderr)
    report.add("first minutes: one round of looks", "s", first, aim=AIM)
    if settled:
        report.add("later: one round of looks", "s", settled, aim=AIM)
        report.add("later: the 99 % quantile", "s", [quantile(settled, 0.99)])
        report.add("later: capacities worked out exactly", "%", known)
    pairs = zip(deployments[:checked], demands[:checked], strict=True)
    distances = [off(each, demand) for each, demand in pairs if demand is not None]
    found = sorted(100.0 * abs(each) for each in distances if each is not None)
    if found:
        report.add("distance from the model itself", "%", found)
        report.facts["distance_p90_percent"] = round(quantile(found, 0.9), 2)


def main() -> int:
    """Measure. Returns the exit status."""
    made = parser(__doc__)
    made.add_argument("--deployments", type=int, default=1000, help="default: %(default)s")
    made.add_argument(
        "--seconds", type=float, default=900.0, help="simulated (default: %(default)s)"
    )
    made.add_argument("--checked", type=int, default=100, help="default: %(default)s")
    given = made.parse_args()
    report = Report(
        "scaling_tick",
        f"{given.deployments} different, drifting deployments with 1 to 6 pods, each looked at "
        f"every {TICK_S:g} s: processor time of one core for all of them",
    )
    report.await_quiet(given.patience)
    measure(report, given.deployments, given.seconds, given.checked)
    report.finish(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
