"""The capacity model: how many requests a second one pod holds within the latency objective.

A discrete-event model of one Triton: requests arrive one by one with gamma gaps, ``c`` instances
take them from one queue in order, in batches, and a batch of n takes ``alpha + beta n``. Against a
real Triton the 99 % quantile was within 15 % (93.5 modelled, 92.8 ms measured; 128.7, 132.1).
Closed forms for batching queues miss the capacity by a factor of up to five.

Times here are in any one unit; rates are per that unit. Random numbers are the same in each run
(`tidegate.autoscaling.variates`), so the result depends on the arguments only, and is smooth in
them.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from heapq import heapreplace
from typing import Final

from tidegate.autoscaling.server import ServerModel
from tidegate.autoscaling.variates import LONGEST, arrival_times, service_factors

FINE: Final = LONGEST
"""Arrivals of one run."""
SETTLING: Final = 20
"""One in so many, the first ones, finds an emptier server than later ones and is not counted."""
HIGHEST_LOAD: Final = 0.98
"""Of the throughput; beyond it the queue has no end that a run of this length would show."""
TOLERANCE: Final = 0.006
"""Relative, of a capacity."""
SLOPE: Final = 10.0
"""By how much the logarithm of the late share usually rises with that of the rate."""
REACH: Final = 0.3
"""How far the first steps go at most, in the logarithm of the rate."""
_HOPELESS: Final = 8.0
"""A run ends early once so many times the allowed late requests have been seen."""
_MAX_PASSES: Final = 16


@dataclass(frozen=True)
class Pod:
    """One pod as a queue, in requests.

    Attributes:
        alpha: time of any batch.
        beta: time of each request in it.
        instances: batches at once.
        batch: most requests in one.
        preferred: sizes that are sent at once, ascending.
        delay: how long the oldest request waits for a fuller batch.
        queue: requests that may wait; None: no end.
        cv: of a batch's time: standard deviation over mean.
        scv: of the time between arrivals: variance over the mean's square; Poisson is 1.
    """

    alpha: float
    beta: float
    instances: int = 1
    batch: int = 1
    preferred: tuple[int, ...] = ()
    delay: float = 0.0
    queue: int | None = None
    cv: float = 0.0
    scv: float = 1.0

    def time_of(self, n: int) -> float:
        """Mean time of a batch of n requests."""
        return self.alpha + self.beta * n

    @property
    def throughput(self) -> float:
        """Requests per unit of time, all instances busy with the best batches."""
        return self.instances * self.batch / self.time_of(self.batch)


def pod_of(
    model: ServerModel,
    alpha_ms: float,
    beta_ms: float,
    *,
    cv: float = 0.0,
    scv: float = 1.0,
    items_per_request: float = 1.0,
) -> Pod:
    """A pod as a queue of requests, times in ms.

    Args:
        model: how it serves.
        alpha_ms: of any batch.
        beta_ms: of each item.
        cv: of a batch's time.
        scv: of the time between arrivals at this pod.
        items_per_request: a request of 4 items fills 4 places of a batch.
    """
    items = max(1.0, items_per_request)
    batch = max(1, int(model.max_batch / items))
    queue = model.queue_size
    if model.max_pending is not None:
        most = max(0, model.max_pending - model.instances * batch)
        queue = most if queue is None else min(queue, most)
    preferred = sorted({max(1, int(n / items)) for n in model.preferred})
    return Pod(
        alpha=alpha_ms,
        beta=beta_ms * items,
        instances=model.instances,
        batch=batch,
        preferred=tuple(n for n in preferred if n <= batch),
        delay=model.queue_delay_ms,
        queue=queue,
        cv=cv,
        scv=scv,
    )


@dataclass(frozen=True)
class Run:
    """What one run came to.

    Attributes:
        counted: requests, without the first ones.
        late: of them, slower than the target, or refused.
        batches: executions, the run's cost.
    """

    counted: int
    late: int
    batches: int

    @property
    def late_share(self) -> float:
        """Of the requests."""
        return self.late / self.counted


def run(
    pod: Pod,
    rate: float,
    target: float,
    *,
    arrivals: int = FINE,
    hopeless: float = 1.0,
    latencies: list[float] | None = None,
) -> Run:
    """Play so many arrivals.

    Args:
        pod: the server.
        rate: arrivals per unit of time, above 0.
        target: answers that take longer are late.
        arrivals: how many.
        hopeless: share of late requests at which the run may end early.
        latencies: where to put the latency of each counted request that was answered.
    """
    # One unit of time is the mean gap, so that the same arrival times serve every rate.
    scaled = replace(pod, alpha=pod.alpha * rate, beta=pod.beta * rate, delay=pod.delay * rate)
    first = arrivals // SETTLING
    result = play(
        scaled,
        arrival_times(pod.scv, arrivals),
        target * rate,
        first=first,
        most_late=hopeless * (arrivals - first),
        latencies=latencies,
    )
    if latencies is not None:
        latencies[:] = [latency / rate for latency in latencies]
    return result


def play(
    pod: Pod,
    times: list[float],
    target: float,
    *,
    first: int = 0,
    most_late: float = math.inf,
    latencies: list[float] | None = None,
) -> Run:
    """Play arrivals at these times.

    Args:
        pod: the server.
        times: ascending; not changed.
        target: answers that take longer are late.
        first: so many are not counted.
        most_late: with more late ones the run ends early.
        latencies: where to put the latency of each counted request that was answered.
    """
    alpha, beta = pod.alpha, pod.beta
    factors = service_factors(pod.cv) if pod.cv > 0.0 else None
    largest = pod.batch
    plain = not gathers(pod)
    free = [0.0] * pod.instances
    single = pod.instances == 1
    i = late = refused = batches = 0
    ready = 0.0
    end = len(times)
    # An idle server takes the first at once; it never waits in the queue.
    room = end if pod.queue is None else max(1, pod.queue)
    while i < end:
        if not single:
            ready = free[0]
        start = times[i]
        if start >= ready:
            n = 1
        else:
            start = ready
            n = bisect_right(times, start, i + 1, min(i + largest, end)) - i
        if i + room < end and times[i + room] <= start:
            if not refused:
                times = times.copy()
            gone = bisect_right(times, start, i + room) - i - room
            del times[i + room : i + room + gone]
            # Whether they were among the first ones is not worth a search: few are refused
            # where it matters.
            refused += gone
            end -= gone
            n = min(n, room)
        if not plain:
            n, start = _gather(pod, times, i, n, start)
        time = alpha + beta * n
        if factors is not None:
            time *= factors[batches % LONGEST]
        batches += 1
        done = start + time
        if i >= first:
            if times[i] < done - target:
                late += bisect_left(times, done - target, i, i + n) - i
                if late + refused > most_late:
                    return Run(max(1, i + n - first), late + refused, batches)
            if latencies is not None:
                if n == 1:
                    latencies.append(done - times[i])
                else:
                    latencies.extend([done - at for at in times[i : i + n]])
        i += n
        if single:
            ready = done
        else:
            heapreplace(free, done)
    return Run(max(1, i - first + refused), late + refused, batches)


def gathers(pod: Pod) -> bool:
    """Whether batches are put together by more than what waits: several times the work of a run."""
    return pod.delay > 0.0 or bool(pod.preferred)


def _gather(pod: Pod, times: list[float], i: int, n: int, start: float) -> tuple[int, float]:
    """The next batch of Triton's dynamic batcher, which an instance could take at ``start``.

    A preferred size that is reached goes at once, the largest of them; otherwise a batch that
    cannot grow, or whose oldest request has waited for the delay, takes all there is; otherwise
    it waits.

    Returns:
        Requests in it, and when it starts.
    """
    delay = pod.delay
    sizes = pod.preferred or ((pod.batch,) if delay > 0.0 else ())
    fitting = [size for size in sizes if size <= n]
    if fitting:
        return fitting[-1], start
    if delay == 0.0 or n >= pod.batch:
        return n, start
    end = len(times)
    until = max(start, times[i] + delay)
    aim = sizes[0]  # all of them are larger than n
    filled = times[i + aim - 1] if i + aim <= end else math.inf
    if filled <= until:
        return aim, max(start, filled)
    return bisect_right(times, until, i + 1, min(i + pod.batch, end)) - i, until


def latencies_at(pod: Pod, rate: float, *, arrivals: int = FINE) -> list[float]:
    """Latencies of answered requests at this rate, ascending."""
    latencies: list[float] = []
    run(pod, rate, math.inf, arrivals=arrivals, latencies=latencies)
    latencies.sort()
    return latencies


def quantile_of(ascending: Sequence[float], quantile: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    place = math.ceil(quantile * len(ascending) - 1e-9)
    return ascending[min(len(ascending), max(1, place)) - 1]


def latency_quantile(pod: Pod, rate: float, quantile: float, *, arrivals: int = FINE) -> float:
    """The quantile of the latency of answered requests at this rate."""
    return quantile_of(latencies_at(pod, rate, arrivals=arrivals), quantile)


def idle_quantile(pod: Pod, quantile: float, factor: float | None = None) -> float:
    """The quantile of the latency of a request that finds the pod idle.

    Args:
        pod: the server.
        quantile: 0 to 1.
        factor: of `factor_quantile`, where it is known.
    """
    waits = pod.delay if pod.batch > 1 and 1 not in pod.preferred else 0.0
    if factor is None:
        factor = factor_quantile(pod.cv, quantile)
    return waits + pod.time_of(1) * factor


@lru_cache(maxsize=256)
def factor_quantile(cv: float, quantile: float) -> float:
    """The quantile of a batch's time over its mean."""
    return quantile_of(sorted(service_factors(cv)), quantile) if cv > 0.0 else 1.0


@dataclass(frozen=True)
class Capacity:
    """How much one pod holds.

    Attributes:
        rate: requests per unit of time; 0: not even one that finds it idle.
        batches: executions played to find out, the cost.
    """

    rate: float
    batches: int


def capacity(
    pod: Pod,
    quantile: float,
    target: float,
    *,
    arrivals: int = FINE,
    guess: float | None = None,
) -> Capacity:
    """The highest rate at which no more than ``1 - quantile`` of the requests are late.

    Args:
        pod: the server.
        quantile: of the objective.
        target: of the objective.
        arrivals: of one run; fewer are quicker and less exact.
        guess: a rate that should be close, from fewer arrivals or a similar pod.
    """
    if idle_quantile(pod, quantile) > target:
        return Capacity(0.0, 0)
    allowed = 1.0 - quantile
    highest = HIGHEST_LOAD * pod.throughput
    spent = 0

    def excess(rate: float) -> float:
        """Logarithm of late requests against allowed ones: nearly linear in the rate."""
        nonlocal spent
        result = run(pod, rate, target, arrivals=arrivals, hopeless=_HOPELESS * allowed)
        spent += result.batches
        return math.log((result.late + 0.5) / (allowed * result.counted + 0.5))

    # A bracket: at its lower end the objective holds, at its upper end it does not.
    low, high = 0.0, math.inf
    f_low = f_high = 0.0
    rate = min(highest, guess) if guess else 0.7 * highest
    reach = REACH
    for _ in range(_MAX_PASSES):
        f = excess(rate)
        if f <= 0.0:
            low, f_low = rate, f
            if rate >= highest:
                break
        else:
            high, f_high = rate, f
        if high < math.inf and high - low <= TOLERANCE * high:
            break
        if low > 0.0 and high < math.inf:
            # Secant between the ends, kept off them so that both move.
            share = f_low / (f_low - f_high) if f_high > f_low else 0.5
            rate = low + (high - low) * min(0.85, max(0.15, share))
            continue
        # One end only: along the usual slope, and a little further so as to find the other.
        away = min(reach, max(TOLERANCE, 1.2 * abs(f) / SLOPE))
        reach *= 2.0
        rate = min(highest, rate * math.exp(away if f <= 0.0 else -away))
        if rate < 1e-6 * highest:
            break
    return Capacity(low if low > 0.0 else rate, spent)
