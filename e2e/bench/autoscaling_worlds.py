"""The worlds and laws of the autoscaling benchmark: jobs, scenarios, settings that are swept."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from e2e.bench.laws.kpa import Kpa
from e2e.bench.laws.llmd import Llmd
from e2e.bench.laws.oracle import Oracle
from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.capacity import Pod, capacity
from tidegate.autoscaling.decision import Bounds
from tidegate.autoscaling.server import LAW
from tidegate.simulation.hpa import Hpa, Metric
from tidegate.simulation.law import Tidegate
from tidegate.simulation.load import (
    CONSTANT,
    Drift,
    Load,
    bursts,
    diurnal,
    flash_crowd,
    multiplied,
    ramp,
    steady,
)
from tidegate.simulation.pod import Server
from tidegate.simulation.trace import read
from tidegate.simulation.world import Outcome, Policy, World, simulate

MOST: Final = 60
"""maxReplicas of every law."""
PODS: Final = 4.0
"""Pods that a job needs on average."""
SHAPES: Final = (
    Server(0.09, 0.02, cv=0.1, max_batch=8, target_s=0.5),
    Server(0.06, 0.0, cv=0.35, instances=2, target_s=0.25),
    Server(0.04, 0.025, cv=0.1, max_batch=4, preferred=(4,), delay_s=0.02, target_s=0.3),
)
"""A batching model, one without batches on two instances, one that waits for batches."""


@cache
def holds(server: Server, factor: float = 1.0) -> float:
    """Requests a second that one pod holds within the objective, by the capacity model."""
    pod = Pod(
        server.alpha_s * factor,
        server.beta_s * factor,
        server.instances,
        server.max_batch,
        server.preferred,
        server.delay_s,
        server.queue,
        server.cv,
    )
    return capacity(pod, server.quantile, server.target_s).rate


@dataclass(frozen=True)
class Job:
    """One model and its load.

    Attributes:
        name: for people.
        server: how a pod serves.
        load: what is asked for.
        drift: of the service time.
    """

    name: str
    server: Server
    load: Load
    drift: Drift = CONSTANT

    def capacity(self, at_s: float) -> float:
        """What one pod holds at a time."""
        # On a grid, so that a drift asks the model a few dozen times only.
        return holds(self.server, round(self.drift.factor(at_s) * 50) / 50)


def _sized(load: Load, server: Server, seed: int) -> Load:
    """So many requests that the mean needs `PODS` pods."""
    mean = sum(load.rates) / len(load.rates)
    return multiplied(load, PODS * holds(server) / mean, seed)


def jobs(seed: int, seconds: float, traces: Path | None, count: int) -> list[Job]:
    """The jobs: of the recorded traces in a folder, if there is one, else made up.

    Every seed takes another window of a trace that is long enough, and draws its requests anew.
    """
    loads = _recorded(traces, seed, seconds) if traces else []
    for i in range(count - len(loads)):
        loads.append(replace(diurnal(100.0, seconds, 1000 * seed + i), name=f"made up {i + 1}"))
    made = []
    for i, load in enumerate(loads[:count]):
        server = SHAPES[i % len(SHAPES)]
        made.append(Job(load.name, server, _sized(load, server, seed)))
    return made


def _recorded(folder: Path, seed: int, seconds: float) -> list[Load]:
    loads = []
    for path in sorted(folder.glob("*.csv")):
        text = path.read_text(encoding="utf-8")
        width = text.partition("\n")[0].count(",") + 1
        head = text.partition(",")[0].strip()
        if head.replace(".", "").isdigit() and width > 1:
            loads += [
                _window(read(text, name=f"{path.stem[:9]} {i}", column=str(i)), seed, seconds)
                for i in range(1, width + 1)
            ]
        else:
            loads.append(_window(read(text, name=path.stem[-14:]), seed, seconds))
    # The same order whatever the names, so that shapes and halves mix the sources.
    random.Random(7).shuffle(loads)
    return loads


def _window(load: Load, seed: int, seconds: float) -> Load:
    room = load.duration_s - seconds
    if room <= 0:
        return load
    begin = (seed * seconds) % room
    return load.window(begin, begin + seconds)


def scenarios(seconds: float) -> list[Job]:
    """Loads of one shape each, on the batching model."""
    server = SHAPES[0]
    rate = PODS * holds(server)
    third = seconds / 3
    return [
        Job("steady", server, steady(rate, seconds)),
        Job("ramp", server, ramp(rate / 3, 2 * rate, seconds)),
        Job("flash crowd", server, flash_crowd(rate, seconds)),
        Job("bursts", server, bursts(rate, seconds)),
        Job("drift", server, steady(rate, seconds), Drift(((third, 1.0), (2 * third, 1.4)))),
        Job(
            "service-time change",
            server,
            steady(rate, seconds),
            Drift(((third, 1.0), (third + 1.0, 1.4))),
        ),
    ]


# Laws.

Make = Callable[[Job, float, Capacities], Policy]


@dataclass(frozen=True)
class Setting:
    """A law with a setting.

    Attributes:
        law: its name.
        value: what is swept.
    """

    law: str
    value: float

    def __str__(self) -> str:
        return f"{self.law} {self.value:g}"


OURS: Final = "Tidegate"
RPS: Final = "rps target, capacity known"
ORACLE: Final = "oracle"


def _tidegate(value: float, job: Job, cold_s: float, capacities: Capacities) -> Policy:
    return Tidegate(job.server, Bounds(1, MOST), cold_s, replace(LAW, headroom=value), capacities)


def _oracle(value: float, job: Job, cold_s: float, _: Capacities) -> Policy:
    # Nearly all starts (2.5 sigma of the world's 0.2) take less.
    return Oracle(job.load, job.capacity, cold_s * math.exp(0.5), value)


LAWS: Final[dict[str, tuple[tuple[float, ...], Callable[..., Policy]]]] = {
    ORACLE: ((0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.2), _oracle),
    OURS: ((0.6, 0.75, 0.9, 1.05, 1.3, 1.65, 2.1), _tidegate),
    RPS: (
        (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2),
        lambda v, job, *_: Hpa(Metric.RPS, v * holds(job.server)),
    ),
    "KEDA, rps over 2 min": (
        (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2),
        lambda v, job, *_: Hpa(Metric.RPS, v * holds(job.server), window_s=120.0),
    ),
    "HPA, utilisation": (
        (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
        lambda v, *_: Hpa(Metric.UTILISATION, v),
    ),
    "HPA, latency": (
        (0.5, 0.6, 0.7, 0.8, 0.9, 1.1),
        lambda v, job, *_: Hpa(
            Metric.LATENCY, v * job.server.target_s, quantile=job.server.quantile
        ),
    ),
    "Knative KPA": (
        (0.3, 0.4, 0.5, 0.65, 0.8, 1.0),
        lambda v, job, *_: Kpa(v * job.server.instances * job.server.max_batch),
    ),
    "llm-d SLO": (
        (0.4, 0.55, 0.65, 0.75, 0.85, 0.95),
        lambda v, job, *_: Llmd(job.server.target_s, v),
    ),
}
"""Name to the values that are swept (cautious and dear first, or last) and how it is made."""


@dataclass(frozen=True)
class Played:
    """One run, as far as the tables need it.

    Attributes:
        group: trace or scenario.
        job: its name.
        seed: of the run.
        cold_s: median cold start.
        setting: of the law.
        arrived, in_time: requests.
        gpu_s: pods times seconds.
        turns: changes of direction.
    """

    group: str
    job: str
    seed: int
    cold_s: float
    setting: Setting
    arrived: int
    in_time: int
    gpu_s: float
    turns: int

    @property
    def attainment(self) -> float:
        """Share of the requests in time."""
        return self.in_time / self.arrived if self.arrived else 1.0


@dataclass(frozen=True)
class Task:
    """What one process does in one go: a job with several seeds.

    Attributes:
        group: of the tables.
        cases: the job as each seed has it, and the seed.
        colds_s: cold starts.
        laws: which.
        every: with 2, every other setting of each law.
    """

    group: str
    cases: tuple[tuple[Job, int], ...]
    colds_s: tuple[float, ...]
    laws: tuple[str, ...]
    every: int = 1

    def __str__(self) -> str:
        starts = ", ".join(f"{cold_s:g}" for cold_s in self.colds_s)
        return f"{self.group} {self.cases[0][0].name}, cold start {starts} s"


def play(task: Task) -> list[Played]:
    """Run it. The same task gives the same result in any process."""
    found = []
    # What the capacity model says of this job's model is worked out once.
    capacities = Capacities(1_000_000_000)
    for job, seed in task.cases:
        arrivals = job.load.arrivals(seed)
        for cold_s in task.colds_s:
            for law, value in _settings(task.laws, task.every):
                setting = Setting(law, value)
                o = run(job, setting, seed, cold_s, capacities, arrivals)
                found.append(
                    Played(
                        task.group,
                        job.name,
                        seed,
                        cold_s,
                        setting,
                        o.arrived,
                        o.in_time,
                        o.gpu_s,
                        o.turns,
                    )
                )
    return found


def run(
    job: Job,
    setting: Setting,
    seed: int,
    cold_s: float,
    capacities: Capacities,
    arrivals: Sequence[float] | None = None,
) -> Outcome:
    """One run; every law begins with the pods that the oracle would have."""
    initial = max(1, math.ceil(job.load.rate(0.0) / (0.8 * job.capacity(0.0))))
    world = World(
        job.server,
        job.load,
        job.drift,
        cold_start_s=cold_s,
        most=MOST,
        initial=min(MOST, initial),
        lag_s=0.0,
    )
    policy = LAWS[setting.law][1](setting.value, job, cold_s, capacities)
    return simulate(world, policy, seed, arrivals)


def _settings(laws: Sequence[str], every: int) -> Iterator[tuple[str, float]]:
    for law in laws:
        for value in LAWS[law][0][::every]:
            yield law, value
