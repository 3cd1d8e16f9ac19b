"""The simulated cluster: pods that start, serve, fail and go, and a law that says how many.

What it has: instances, dynamic batching, bounded queues (`tidegate.simulation.pod`); log-normal
cold starts; a limit of GPUs; draining; Kubernetes' order of deletion; a look at the counters that
lags or fails; pods that crash, are slow or answer with errors; service times that drift. What it
does not have: the network, the gateway's own queue, several models on one GPU; rollouts are in
`tidegate.simulation.rollout`.

Requests go to a ready pod at random (as kube-proxy does it for connections), or to the emptier of
two (Envoy's least request).
"""

import math
import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from tidegate.resources.sidecar import latency_edges_ms
from tidegate.simulation.load import CONSTANT, Drift, Load
from tidegate.simulation.pod import Counters, Pod, Server

TAIL_S: Final = 600.0
"""After the last request the world goes on until all are answered, at most so long."""


class Balancing(StrEnum):
    """Which pod gets a request."""

    RANDOM = "random"
    LEAST_REQUEST = "least request of two"


class Kind(StrEnum):
    """What may go wrong."""

    CRASH = "crash"
    """A pod dies with all that is in it, and starts anew."""
    SLOW = "slow"
    """A pod takes `size` times as long."""
    ERRORS = "errors"
    """All pods fail a share `size` of their requests, as a bad revision does."""
    NO_METRICS = "no metrics"
    """A share `size` of the looks at pods fails."""
    GPUS = "GPUs"
    """Only `size` GPUs are there."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        kind: what.
        begin_s: when.
        end_s: until when.
        size: how much, see `Kind`.
    """

    kind: Kind
    begin_s: float
    end_s: float = math.inf
    size: float = 1.0


@dataclass(frozen=True)
class World:
    """Everything but the law.

    Attributes:
        server: how a pod serves.
        load: what is asked for.
        drift: of the service time.
        cold_start_s: median time from asking for a pod until it serves.
        cold_start_sigma: of its logarithm.
        least, most: replicas that a law may ask for.
        initial: ready pods at the start.
        drain_s: least time in which a pod that goes keeps its GPU; it answers what it has.
        lag_s: age of what a law reads.
        balancing: which pod gets a request.
        faults: what goes wrong.
        gpus: how many there are.
    """

    server: Server
    load: Load
    drift: Drift = CONSTANT
    cold_start_s: float = 60.0
    cold_start_sigma: float = 0.2
    least: int = 1
    most: int = 100
    initial: int = 1
    drain_s: float = 10.0
    lag_s: float = 0.0
    balancing: Balancing = Balancing.RANDOM
    faults: tuple[Fault, ...] = ()
    gpus: int = 1_000_000

    def edges_s(self) -> tuple[float, ...]:
        """Edges of the latency histogram: the sidecar's, with the target among them."""
        target_ms = max(1, round(1000 * self.server.target_s))
        return tuple(edge / 1000 for edge in latency_edges_ms(target_ms))


@dataclass(frozen=True)
class View:
    """What a law sees.

    Attributes:
        now_s: since the start.
        desired: replicas asked for.
        ready: pods that serve.
        starting: pods that do not yet.
        waiting_for_gpu: of the starting, those that no node has room for.
        totals: of all pods since the start, those that are gone too.
        edges_s: of the histogram in the totals.
        pods: those that are there and not leaving (their counters: as of `now_s`).
        unread: names of those that could not be read this time.
        leaving: those on their way out.
        raised_s: when the replicas were last raised; None: never.
        lowered_s: when they were last lowered; None: never.
        lag_s: age of the totals; who looks at the pods themselves has to wait as long.
    """

    now_s: float
    desired: int
    ready: int
    starting: int
    waiting_for_gpu: int
    totals: Counters
    edges_s: tuple[float, ...]
    pods: Sequence[Pod]
    unread: frozenset[str]
    leaving: Sequence[Pod]
    raised_s: float | None
    lowered_s: float | None
    lag_s: float = 0.0


class Policy(Protocol):
    """A law that says how many replicas there are to be."""

    @property
    def interval_s(self) -> float:
        """Time between two decisions."""

    def decide(self, view: View) -> int:
        """Replicas to ask for; the world keeps them within its bounds."""


@dataclass(frozen=True)
class Moment:
    """How it stood at one decision.

    Attributes:
        at_s: since the start.
        desired: replicas asked for.
        ready: pods that serve.
        arrived: requests since the last moment.
        missed: requests since then that were refused, failed or late, or could go nowhere.
    """

    at_s: float
    desired: int
    ready: int
    arrived: int
    missed: int


@dataclass
class Outcome:
    """What became of it.

    Attributes:
        arrived: requests.
        answered: of them, well.
        late: of the answered, slower than the target.
        refused: for want of room, or of a ready pod.
        failed: answered with an error, or lost with a pod.
        in_flight: not answered when the world ended.
        gpu_s: pods times seconds, from the node to the end of draining.
        duration_s: of the load.
        histogram: latencies, by the edges of the world.
        moments: one for each decision.
        ups, downs: changes of the replicas.
        turns: how often a change went the other way than the one before.
    """

    arrived: int = 0
    answered: int = 0
    late: int = 0
    refused: int = 0
    failed: int = 0
    in_flight: int = 0
    gpu_s: float = 0.0
    duration_s: float = 0.0
    histogram: list[int] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    ups: int = 0
    downs: int = 0
    turns: int = 0

    @property
    def in_time(self) -> int:
        """Requests answered well within the target."""
        return self.answered - self.late

    @property
    def attainment(self) -> float:
        """Share of all requests that were; 1 where there were none."""
        return self.in_time / self.arrived if self.arrived else 1.0


class Simulation:
    """One run.

    Args:
        world: everything but the law.
        policy: the law; it is used up by the run.
        seed: of everything random.
        arrivals: of the load with this seed, where they are at hand already.
    """

    def __init__(
        self, world: World, policy: Policy, seed: int, arrivals: Sequence[float] | None = None
    ) -> None:
        self.world = world
        self.policy = policy
        self._arrivals = world.load.arrivals(seed) if arrivals is None else arrivals
        # Streams apart, so that what one law does changes nothing for another.
        self._routing = random.Random(f"{seed} routing")
        self._starts = random.Random(f"{seed} starts")
        self._metrics = random.Random(f"{seed} metrics")
        self._seed = seed
        self._edges = world.edges_s()
        self._made = 0
        self._pods: list[Pod] = []
        self._leaving: list[Pod] = []
        self._gone = Counters(histogram=[0] * (len(self._edges) + 1))
        self._nowhere = 0
        self._desired = world.initial
        self._raised: float | None = None
        self._lowered: float | None = None
        self._past: list[View] = []
        self._next = 0
        self.outcome = Outcome(duration_s=world.load.duration_s)

    def run(self) -> Outcome:
        """Play it to the end."""
        world, outcome = self.world, self.outcome
        for _ in range(world.initial):
            self._create(0.0, ready_s=0.0)
        step_s, end = self.policy.interval_s, world.load.duration_s
        ticks = math.ceil(end / step_s - 1e-9)
        direction = arrived = missed = 0
        at = 0.0
        for tick in range(1, ticks + 1):
            until = min(end, tick * step_s)
            self._play(at, until)
            at = until
            view = self._view(at)
            totals = view.totals
            missed_now = totals.late + totals.failed + totals.refused + self._nowhere
            came = totals.started + self._nowhere
            desired = max(world.least, min(world.most, self.policy.decide(self._seen(view))))
            outcome.moments.append(
                Moment(at, desired, view.ready, came - arrived, missed_now - missed)
            )
            arrived, missed = came, missed_now
            if desired != self._desired:
                up = desired > self._desired
                outcome.ups += up
                outcome.downs += not up
                outcome.turns += direction != 0 and direction != (1 if up else -1)
                direction = 1 if up else -1
                if up:
                    self._raised = at
                else:
                    self._lowered = at
            self._scale(desired, at)
        # What is held at the end is paid until then; the rest is only played for its answers.
        outcome.gpu_s += sum(self._held(pod, end) for pod in [*self._pods, *self._leaving])
        self._finish(end)
        totals = self._totals()
        outcome.arrived = totals.started + self._nowhere
        outcome.answered, outcome.late = totals.answered, totals.late
        outcome.refused, outcome.failed = totals.refused + self._nowhere, totals.failed
        outcome.in_flight = totals.in_flight
        outcome.histogram = totals.histogram
        return outcome

    # Time.

    def _play(self, begin: float, end: float) -> None:
        """From one decision to the next, cut where pods become ready or something goes wrong."""
        world = self.world
        cuts = {p.ready_s for p in self._pods if begin < p.ready_s < end}
        for fault in world.faults:
            cuts |= {t for t in (fault.begin_s, fault.end_s) if begin < t < end}
        at = begin
        for until in [*sorted(cuts), end]:
            self._disturb(at, until)
            self._dispatch(at, until)
            for pod in self._pods:
                pod.advance(until)
            for pod in self._leaving:
                pod.advance(until)
            at = until
        self._clear(end)

    def _disturb(self, at: float, until: float) -> None:
        factor = self.world.drift.factor((at + until) / 2)
        for pod in self._pods:
            pod.slower, pod.failing = factor, 0.0
        for pod in self._leaving:
            pod.slower = factor
        for fault in self.world.faults:
            if fault.kind is Kind.CRASH and at <= fault.begin_s < until:
                serving = [p for p in self._pods if p.ready_s <= at]
                if serving:
                    self._crash(serving[0], at)
            elif fault.begin_s <= at < fault.end_s:
                if fault.kind is Kind.SLOW and self._pods:
                    self._pods[0].slower = factor * fault.size
                elif fault.kind is Kind.ERRORS:
                    for pod in self._pods:
                        pod.failing = fault.size

    def _crash(self, pod: Pod, at: float) -> None:
        pod.kill(at)
        pod.counters.ready_s = at - pod.ready_s
        self._gone.add(pod.counters)
        self.outcome.gpu_s += self._held(pod, at)
        self._pods.remove(pod)
        self._create(at)

    def _dispatch(self, begin: float, end: float) -> None:
        arrivals = self._arrivals
        first, last = self._next, bisect_left(arrivals, end, self._next)
        self._next = last
        if first == last:
            return
        ready = [p for p in self._pods if p.ready_s <= begin]
        if not ready:
            self._nowhere += last - first
        elif len(ready) == 1:
            ready[0].queue.extend(arrivals[first:last])
        elif self.world.balancing is Balancing.RANDOM:
            chance, n = self._routing.random, len(ready)
            queues = [p.queue.append for p in ready]
            for came in arrivals[first:last]:
                queues[int(n * chance())](came)
        else:
            chance, n = self._routing.random, len(ready)
            for came in arrivals[first:last]:
                i, j = int(n * chance()), int((n - 1) * chance())
                a, b = ready[i], ready[j + (j >= i)]
                a.advance(came)
                b.advance(came)
                (a if a.in_flight <= b.in_flight else b).queue.append(came)

    def _finish(self, end: float) -> None:
        at = end
        while at < end + TAIL_S and not all(p.idle for p in [*self._pods, *self._leaving]):
            at += 5.0
            for pod in [*self._pods, *self._leaving]:
                pod.advance(at)

    # Pods.

    def _create(self, at: float, *, ready_s: float | None = None) -> None:
        world = self.world
        self._made += 1
        takes = world.cold_start_s * math.exp(world.cold_start_sigma * self._starts.gauss(0, 1))
        pod = Pod(
            f"pod-{self._made:05}",
            world.server,
            self._edges,
            hash_of(self._seed, self._made),
            at,
            at + takes if ready_s is None else ready_s,
        )
        if ready_s is None and self._gpus_used() >= self._gpus(at):
            pod.scheduled_s, pod.ready_s = None, math.inf
        pod.advance(at)
        self._pods.append(pod)

    def _gpus(self, at: float) -> int:
        there = self.world.gpus
        for fault in self.world.faults:
            if fault.kind is Kind.GPUS and fault.begin_s <= at < fault.end_s:
                there = min(there, int(fault.size))
        return there

    def _gpus_used(self) -> int:
        return sum(p.scheduled_s is not None for p in self._pods) + len(self._leaving)

    def _held(self, pod: Pod, until: float) -> float:
        return 0.0 if pod.scheduled_s is None else until - pod.scheduled_s

    def _scale(self, desired: int, at: float) -> None:
        self._desired = desired
        while len(self._pods) < desired:
            self._create(at)
        if len(self._pods) > desired:
            # Kubernetes: without a node first, then not ready, then those that are ready for the
            # shortest time.
            self._pods.sort(key=lambda p: (p.scheduled_s is not None, p.ready_s <= at, -p.ready_s))
            for pod in self._pods[: len(self._pods) - desired]:
                pod.leaving_s = at
                if pod.scheduled_s is None:
                    self._gone.add(pod.counters)
                else:
                    self._leaving.append(pod)
            self._pods = self._pods[len(self._pods) - desired :]
        self._schedule(at)

    def _schedule(self, at: float) -> None:
        world = self.world
        for pod in self._pods:
            if pod.scheduled_s is None and self._gpus_used() < self._gpus(at):
                takes = world.cold_start_s * math.exp(
                    world.cold_start_sigma * self._starts.gauss(0, 1)
                )
                pod.scheduled_s, pod.ready_s = at, at + takes

    def _clear(self, at: float) -> None:
        """Pods that have drained are gone."""
        still = []
        for pod in self._leaving:
            assert pod.leaving_s is not None
            if pod.idle and at >= pod.leaving_s + self.world.drain_s:
                self._gone.add(pod.counters)
                self.outcome.gpu_s += self._held(pod, at)
            else:
                still.append(pod)
        self._leaving = still

    # Looking.

    def _totals(self) -> Counters:
        totals = Counters()
        totals.add(self._gone)
        for pod in [*self._pods, *self._leaving]:
            totals.add(pod.counters)
        return totals

    def _view(self, at: float) -> View:
        unread = frozenset(
            pod.name
            for fault in self.world.faults
            if fault.kind is Kind.NO_METRICS and fault.begin_s <= at < fault.end_s
            for pod in [*self._pods, *self._leaving]
            if self._metrics.random() < fault.size
        )
        ready = sum(p.ready_s <= at for p in self._pods)
        return View(
            now_s=at,
            desired=self._desired,
            ready=ready,
            starting=len(self._pods) - ready,
            waiting_for_gpu=sum(p.scheduled_s is None for p in self._pods),
            totals=self._totals(),
            edges_s=self._edges,
            pods=tuple(self._pods),
            unread=unread,
            leaving=tuple(self._leaving),
            raised_s=self._raised,
            lowered_s=self._lowered,
        )

    def _seen(self, view: View) -> View:
        """What the law sees of it: the totals are as old as the lag."""
        lag_s = self.world.lag_s
        if lag_s <= 0.0:
            return view
        self._past.append(view)
        while len(self._past) > 1 and self._past[1].now_s <= view.now_s - lag_s:
            self._past.pop(0)
        old = self._past[0]
        return View(**{**vars(view), "totals": old.totals, "lag_s": lag_s})


def hash_of(seed: int, number: int) -> int:
    """A seed of its own for each pod."""
    return (seed * 1_000_003 + number) & 0x7FFFFFFF


def simulate(
    world: World, policy: Policy, seed: int, arrivals: Sequence[float] | None = None
) -> Outcome:
    """Play a world under a law.

    Args:
        world: everything but the law.
        policy: the law; use a new one for each run.
        seed: of everything random.
        arrivals: of the load with this seed, where they are at hand already.
    """
    return Simulation(world, policy, seed, arrivals).run()


def quantile(histogram: Sequence[int], edges_s: Sequence[float], q: float) -> float | None:
    """A quantile of a latency histogram, linear within its bucket; None: it is empty.

    Beyond the last edge the last edge is the answer, as Prometheus' ``histogram_quantile`` has it.
    """
    count = sum(histogram)
    if count <= 0:
        return None
    rank, below = q * count, 0
    for i, n in enumerate(histogram):
        if n and below + n >= rank:
            if i >= len(edges_s):
                return edges_s[-1]
            low = edges_s[i - 1] if i else 0.0
            return low + (edges_s[i] - low) * (rank - below) / n
        below += n
    return edges_s[-1]
