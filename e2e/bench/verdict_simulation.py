"""Rollouts in simulated time, judged by the code that decides in the cluster: `tidegate.analysis`.

`World` plays clients and both revisions, second by second. `play` leads a canary through the
default steps by the rules of `tidegate.rollout` (a step's least hold; the next weight only if the
evidence carries it; promotion by proof; then the bake) and asks the real `Evidence` about each
block.

A *quiet* second is one in which no request of the canary failed or was slow. Neighbouring quiet
seconds are given to the evidence as one block: nothing that rolls back can rise in them, and an
hour costs milliseconds. What changes by it is the guess of stable's share, which is made anew
before each block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from tidegate.analysis.block import Block, Tally
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.judgement import Objective, Test

TARGET_MS: Final = 100
EDGES_MS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, TARGET_MS, 150, 200, 300, 500)
"""Latency bounds that are counted: the sidecar's ladder, as far as it tells anything here."""
SIGMA: Final = 1.0
"""Latencies are log-normal with this standard deviation of the logarithm."""
LEAST_SLOW: Final = 1e-5
"""Share of slow requests where there should be none."""
STEPS: Final = (0.01, 0.05, 0.25, 0.5)
HOLD_S: Final = 30
BAKE_S: Final = 600
LATE_S: Final = 180
"""So long after its promotion a version turns bad that is to turn bad late."""
HORIZON_S: Final = 3600

Counts = npt.NDArray[np.int64]


def objective(false_rollback_rate: float, *, latency: bool = True) -> Objective:
    """The defaults of `rollout` with an SLO of 1 % errors, and 99 % within the target."""
    return Objective(
        max_error_rate=0.01,
        latency_target_ms=TARGET_MS if latency else None,
        slow_share=0.01 if latency else 0.0,
        false_rollback_rate=false_rollback_rate,
        confidence=0.95,
    )


@dataclass(frozen=True)
class Burst:
    """Errors that hit both revisions alike, such as those of a database behind them.

    Attributes:
        every_s: from one beginning to the next, on average; the time between is random.
        seconds: how long it lasts.
        errors: share of requests that fail in it.
    """

    every_s: float = 300.0
    seconds: int = 10
    errors: float = 0.2


@dataclass(frozen=True)
class Traffic:
    """What clients send, and what the revisions make of it.

    Attributes:
        rate: requests a second, both revisions together; Poisson.
        stable_errors: share of stable's requests that fail.
        canary_errors: share of the canary's.
        slow: share of stable's requests that are slower than the target.
        factor: by how much the canary is slower.
        burst: errors of both; None: none.
        cluster: requests with the same outcome that one connection carries, one a second.
        late_errors: share of the canary's that fail from `LATE_S` after its promotion on; None: as
            before.
    """

    rate: float
    stable_errors: float
    canary_errors: float
    slow: float
    factor: float = 1.0
    burst: Burst | None = None
    cluster: int = 1
    late_errors: float | None = None

    def at_least(self, factor: float) -> list[float]:
        """Shares of requests that take at least each of `EDGES_MS`, slower by `factor`."""
        normal = NormalDist()
        middle = np.log(TARGET_MS) - SIGMA * normal.inv_cdf(1.0 - max(self.slow, LEAST_SLOW))
        middle += np.log(factor)
        return [1.0 - normal.cdf((float(np.log(e)) - middle) / SIGMA) for e in EDGES_MS]


@dataclass(frozen=True)
class Side:
    """One revision's seconds: arrays with one entry (or row) a second."""

    requests: Counts
    failed: Counts
    slower: Counts


@dataclass
class World:
    """Clients and both revisions; every call goes on where the last one ended.

    Attributes:
        traffic: what happens.
        random: where chance comes from.
        at_s: seconds since the canary got its first weight.
        turns_s: when the canary turns bad; None: it does not, or not yet.
    """

    traffic: Traffic
    random: np.random.Generator
    at_s: int = 0
    turns_s: int | None = None
    _burst_from: float = field(default=-1.0, repr=False)
    _open: dict[bool, Counts] = field(default_factory=dict, repr=False)
    _shares: dict[bool, list[float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for canary in (False, True):
            at_least = [1.0, *self.traffic.at_least(self.traffic.factor if canary else 1.0), 0.0]
            # Of a request: its place between neighbouring edges.
            self._shares[canary] = [a - b for a, b in pairwise(at_least)]
        if self.traffic.burst is not None:
            self._burst_from = self.random.exponential(self.traffic.burst.every_s)

    def take(self, seconds: int, weight: float, width: int = 1) -> tuple[Side, Side]:
        """The canary's and stable's next seconds.

        Args:
            seconds: how many.
            weight: the canary's share of new connections.
            width: seconds that are counted together; divides `seconds`.
        """
        extra = self._burst(seconds)
        self.at_s += seconds
        sides = (
            self._side(True, seconds, weight, extra),
            self._side(False, seconds, 1 - weight, extra),
        )
        if width > 1:
            sides = (_wider(sides[0], width), _wider(sides[1], width))
        return sides

    def failures(self, seconds: int, weight: float) -> tuple[Counts, Counts]:
        """The canary's next seconds, for who looks at nothing but requests and failures."""
        extra = self._burst(seconds)
        self.at_s += seconds
        requests = self.random.poisson(self.traffic.rate * weight, seconds)
        failed = self.random.binomial(requests, np.maximum(self.traffic.canary_errors, extra))
        return requests, failed

    def _burst(self, seconds: int) -> npt.NDArray[np.float64]:
        """Share of requests that fail in a burst, second by second."""
        extra = np.zeros(seconds)
        burst = self.traffic.burst
        if burst is None:
            return extra
        while self._burst_from < self.at_s + seconds:
            begin = max(int(self._burst_from) - self.at_s, 0)
            extra[begin : max(int(self._burst_from) + burst.seconds - self.at_s, 0)] = burst.errors
            if self._burst_from + burst.seconds > self.at_s + seconds:
                break  # goes on in the next call
            self._burst_from += burst.seconds + self.random.exponential(burst.every_s)
        return extra

    def _side(
        self, canary: bool, seconds: int, share: float, extra: npt.NDArray[np.float64]
    ) -> Side:
        traffic = self.traffic
        arrivals = self.random.poisson(traffic.rate * share / traffic.cluster, seconds)
        errors = traffic.canary_errors if canary else traffic.stable_errors
        late = self.turns_s is not None and self.at_s - seconds >= self.turns_s
        if canary and late and traffic.late_errors is not None:
            errors = traffic.late_errors
        failed = self.random.binomial(arrivals, np.maximum(errors, extra))
        places = self.random.multinomial(arrivals, self._shares[canary])
        # Row by row: at least each edge.
        slower = places[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        counted = np.column_stack((arrivals, failed, slower))
        if traffic.cluster > 1:
            counted = self._spread(canary, counted)
        return Side(counted[:, 0], counted[:, 1], counted[:, 2:])

    def _spread(self, canary: bool, arrivals: Counts) -> Counts:
        """Each connection's requests, one in each of the seconds from its arrival on."""
        before = self._open.get(canary)
        if before is None:
            before = np.zeros((self.traffic.cluster - 1, arrivals.shape[1]), dtype=np.int64)
        joined = np.concatenate((before, arrivals))
        self._open[canary] = joined[len(joined) - (self.traffic.cluster - 1) :]
        sums = np.concatenate(
            (np.zeros((1, joined.shape[1]), dtype=np.int64), joined.cumsum(axis=0))
        )
        spread: Counts = sums[self.traffic.cluster :] - sums[: -self.traffic.cluster]
        return spread


def _wider(side: Side, width: int) -> Side:
    def wide(counts: Counts) -> Counts:
        made: Counts = counts.reshape(-1, width, *counts.shape[1:]).sum(axis=1)
        return made

    return Side(wide(side.requests), wide(side.failed), wide(side.slower))


@dataclass(frozen=True)
class Ended:
    """How a rollout ended.

    Attributes:
        rolled_back: the canary was taken back; False: it was promoted, or still on its way.
        promoted: it got all the traffic (and, unless rolled back in the bake, kept it).
        at_s: when it ended, seconds after the first weight.
        requests: the canary's requests until then.
        failed: of them, failed.
        test: which test took it back; None: none.
        held: the rollout stood still at some time because the canary was worse than stable, or
            stable failing.
        turned_s: when it turned bad late; None: it did not.
        failed_before: of `failed`, before that.
    """

    rolled_back: bool
    promoted: bool
    at_s: int
    requests: int
    failed: int
    test: Test | None = None
    held: bool = False
    turned_s: int | None = None
    failed_before: int = 0


_TARGET: Final = EDGES_MS.index(TARGET_MS)


def _tally(counts: Sequence[int]) -> Tally:
    """From the row (requests, failed, at least each edge)."""
    return Tally(
        requests=counts[0],
        failed=counts[1],
        timed=counts[0],
        slow=counts[2 + _TARGET],
        slower=tuple(counts[2:]),
    )


def blocks(canary: Side, stable: Side, merge: bool = True) -> Iterator[tuple[int, bool, Block]]:
    """The seconds as blocks: how many seconds have passed after each, whether it matters, and it.

    Args:
        canary: its seconds.
        stable: the same seconds.
        merge: give neighbouring quiet seconds as one block.
    """
    c = np.column_stack((canary.requests, canary.failed, canary.slower))
    s = np.column_stack((stable.requests, stable.failed, stable.slower))
    loud = (c[:, 1] > 0) | (c[:, 2 + _TARGET] > 0)
    begin = 0
    for second in [*np.flatnonzero(loud).tolist(), len(loud)]:
        if begin < second:
            pieces = [(begin, second)] if merge else [(i, i + 1) for i in range(begin, second)]
            for a, b in pieces:
                yield (
                    b,
                    False,
                    _block(c[a:b].sum(axis=0).tolist(), s[a:b].sum(axis=0).tolist(), b - a),
                )
        if second < len(loud):
            yield second + 1, True, _block(c[second].tolist(), s[second].tolist(), 1)
        begin = second + 1


def _block(canary: list[int], stable: list[int], seconds: int) -> Block:
    return Block(at_s=0.0, seconds=seconds, canary=_tally(canary), stable=_tally(stable))


@dataclass
class Sums:
    """What the canary did so far."""

    requests: int = 0
    failed: int = 0

    def add(self, tally: Tally) -> None:
        """One more block."""
        self.requests += tally.requests
        self.failed += tally.failed


def play(
    world: World,
    judged_by: Objective,
    *,
    steps: Sequence[float] = STEPS,
    before_s: int = 0,
    horizon_s: int = HORIZON_S,
    bake_s: int = BAKE_S,
    merge: bool = True,
) -> Ended:
    """One rollout.

    Args:
        world: its traffic.
        judged_by: the objective.
        steps: weights, ascending; 1 follows.
        before_s: how long stable is watched before the canary gets its first weight.
        horizon_s: when the observer goes home, promoted or not.
        bake_s: how long the old pods stay after promotion.
        merge: see `blocks`.
    """
    evidence = Evidence(judged_by)
    if before_s:
        for _, _, block in blocks(*world.take(before_s, 0.0), merge=False):
            evidence.observe(block)
        world.at_s = 0
    weights = [*steps, 1.0]
    index, since_s, held, before = 0, 0, False, 0
    ours = Sums()

    def ended(*, rolled_back: bool, at_s: int, test: Test | None = None) -> Ended:
        turned_s = world.turns_s if world.turns_s is not None and at_s > world.turns_s else None
        promoted = index == len(steps)
        counts = ours.requests, ours.failed
        return Ended(rolled_back, promoted, at_s, *counts, test, held, turned_s, before)

    while world.at_s < horizon_s:
        baking = index == len(steps)
        began_s = world.at_s
        seconds, width = _stride(world.traffic.rate, began_s - since_s, baking)
        if world.traffic.late_errors is not None:
            width = 1
            if baking and world.turns_s is None:
                world.turns_s = since_s + LATE_S
            if world.turns_s == began_s:
                before = ours.failed
        canary, stable = world.take(seconds, weights[index], width)
        for passed, loud, block in blocks(canary, stable, merge):
            evidence.observe(block)
            ours.add(block.canary)
            if loud and evidence.fired and (bad := evidence.judge().bad) is not None:
                return ended(rolled_back=True, at_s=began_s + passed * width, test=bad.test)
        judged = evidence.judge()
        if judged.bad is not None:
            return ended(rolled_back=True, at_s=world.at_s, test=judged.bad.test)
        if baking:
            if world.at_s - since_s >= bake_s:
                return ended(rolled_back=False, at_s=world.at_s)
            continue
        if judged.worse is not None or (judged.stable_failing and not judged.proven):
            held = True
            continue
        enough = judged.proven if index + 1 == len(steps) else judged.carries >= weights[index + 1]
        if enough and world.at_s - since_s >= HOLD_S:
            index, since_s = index + 1, world.at_s
    return ended(rolled_back=False, at_s=world.at_s)


def _stride(rate: float, in_step_s: int, baking: bool) -> tuple[int, int]:
    """Seconds to take at a time, and to count together."""
    if baking:
        return 60, 10 if rate >= 50 else 1
    return (120, 1) if rate <= 2 and in_step_s >= HOLD_S else (HOLD_S, 1)


# Single tests, at a level of their own: how many of the canary's requests do they take?

SINGLE_ALPHA: Final = 0.001
SINGLE_WEIGHT: Final = 0.1
SINGLE_BASE: Final = 0.001
"""Stable's error rate, and none slow beyond it."""
_SHARES: Final = {
    # Of the budget: half, and a half by the number of the others in force.
    Test.ERRORS: 2.0,
    Test.ERRORS_AGAINST_STABLE: 6.0,
    Test.LATENCY_AGAINST_STABLE: 6.0,
}


def single(
    test: Test, traffic: Traffic, random: np.random.Generator, *, size: int = 1, most: int = 100_000
) -> int:
    """Requests of the canary until one test fires at `SINGLE_ALPHA`; `most`, if it does not.

    Args:
        test: which; what the others say is not looked at.
        traffic: the shares; its rate does not matter.
        random: where chance comes from.
        size: the canary's requests in a block; stable has nine times as many, on average.
        most: where to stop.
    """
    evidence = Evidence(objective(SINGLE_ALPHA * _SHARES[test], latency=False))
    # The rate at which a second brings the canary `size` requests.
    world = World(Traffic(**{**vars(traffic), "rate": size / SINGLE_WEIGHT}), random)
    before = Side(*(c.sum(axis=0, keepdims=True) for c in vars(world.take(60, 0.0)[1]).values()))
    nothing = Side(*(np.zeros_like(c) for c in vars(before).values()))
    if test is Test.LATENCY_AGAINST_STABLE:
        for _, _, block in blocks(nothing, before):
            evidence.observe(block)
    requests = 0
    while requests < most:
        for _, loud, block in blocks(*world.take(200, SINGLE_WEIGHT), merge=False):
            if not block.canary.requests:
                if block.stable.requests:
                    evidence.observe(block)
                continue
            evidence.observe(block)
            requests += block.canary.requests
            if loud or test is Test.LATENCY_AGAINST_STABLE:
                results = {r.test: r for r in evidence.judge().results}
                if results[test].fired:
                    return requests
    return most
