"""Requests over time: from a recorded trace, or made up with a seed."""

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

SMEAR_S: Final = 1.0
"""A request that is multiplied has its copies spread over so many seconds after it."""


@dataclass(frozen=True)
class Load:
    """What clients ask for.

    Attributes:
        name: for people.
        rates: requests a second, one for each step.
        step_s: length of a step.
        scv: of the time between two requests, variance over the mean's square: 1 is Poisson, more
            is burstier.
        requests_at: exact times of requests, ascending, seconds from the start; empty: they are
            drawn from the rates.
    """

    name: str
    rates: tuple[float, ...]
    step_s: float
    scv: float = 1.0
    requests_at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.rates or self.step_s <= 0.0:
            raise ValueError("a load has at least one step, of positive length")
        if not all(0.0 <= rate < math.inf for rate in self.rates):
            raise ValueError("a rate is not negative, and finite")
        if not 0.0 < self.scv < math.inf:
            raise ValueError("scv is above 0")

    @property
    def duration_s(self) -> float:
        """How long it goes on."""
        return len(self.rates) * self.step_s

    def rate(self, at_s: float) -> float:
        """Requests a second at a time; 0 before the start and after the end."""
        if not 0.0 <= at_s < self.duration_s:
            return 0.0
        return self.rates[min(len(self.rates) - 1, int(at_s / self.step_s))]

    def scaled(self, factor: float) -> "Load":
        """The same shape with so many times the requests, drawn anew from the rates."""
        return Load(self.name, tuple(r * factor for r in self.rates), self.step_s, self.scv)

    def window(self, begin_s: float, end_s: float) -> "Load":
        """A part of it, in whole steps."""
        first, last = int(begin_s / self.step_s), math.ceil(end_s / self.step_s)
        begin, end = first * self.step_s, last * self.step_s
        at = tuple(t - begin for t in self.requests_at if begin <= t < end)
        return Load(self.name, self.rates[first:last], self.step_s, self.scv, at)

    def arrivals(self, seed: int) -> list[float]:
        """Times of requests, ascending, seconds from the start.

        Gaps of a renewal process at rate 1 (gamma; exponential where scv is 1), carried through
        the inverse of the integrated rate: a Poisson process with this rate where scv is 1.
        """
        if self.requests_at:
            return list(self.requests_at)
        chance = random.Random(seed)
        poisson, shape, scv = self.scv == 1.0, 1.0 / self.scv, self.scv
        exponential, gamma = chance.expovariate, chance.gammavariate
        made: list[float] = []
        step_s = self.step_s
        gap = exponential(1.0)
        begin = 0.0
        for rate in self.rates:
            mass = rate * step_s
            used = 0.0
            while used + gap < mass:
                used += gap
                made.append(begin + used / rate)
                gap = exponential(1.0) if poisson else gamma(shape, scv)
            gap -= mass - used
            begin += step_s
        return made


def of_requests(name: str, times: Sequence[float], *, step_s: float = 10.0) -> Load:
    """A load of exact times; the first request comes at 0.

    Raises:
        ValueError: there are none.
    """
    if not times:
        raise ValueError("no requests")
    ordered = sorted(times)
    at = tuple(t - ordered[0] for t in ordered)
    counts = [0] * (int(at[-1] / step_s) + 1)
    for t in at:
        counts[int(t / step_s)] += 1
    return Load(name, tuple(n / step_s for n in counts), step_s, requests_at=at)


def multiplied(load: Load, factor: float, seed: int) -> Load:
    """Exact requests, each so many times: the copies come within a second after it.

    A share of a copy is a copy by chance. Loads without exact times are scaled.
    """
    if not load.requests_at:
        return load.scaled(factor)
    chance = random.Random(seed)
    times = []
    for t in load.requests_at:
        copies = int(factor) + (chance.random() < factor % 1.0)
        times += [t] * min(1, copies)
        times += [t + SMEAR_S * chance.random() for _ in range(copies - 1)]
    return of_requests(load.name, times, step_s=load.step_s)


# Made up.


def _sampled(name: str, seconds: float, rate: Callable[[float], float], scv: float = 1.0) -> Load:
    step_s = 5.0
    steps = max(1, round(seconds / step_s))
    return Load(name, tuple(max(0.0, rate((i + 0.5) * step_s)) for i in range(steps)), step_s, scv)


def steady(per_s: float, seconds: float) -> Load:
    """The same rate all the time."""
    return _sampled("steady", seconds, lambda _: per_s)


def bursts(per_s: float, seconds: float, *, scv: float = 20.0) -> Load:
    """The same mean rate all the time, in bursts: gamma gaps with a high variance."""
    return _sampled("bursts", seconds, lambda _: per_s, scv)


def ramp(low: float, high: float, seconds: float) -> Load:
    """Up for a third of the time, there for a third, and down again."""

    def rate(t: float) -> float:
        third = seconds / 3
        share = min(t / third, 1.0, (seconds - t) / third)
        return low + (high - low) * max(0.0, share)

    return _sampled("ramp", seconds, rate)


def flash_crowd(per_s: float, seconds: float, *, times: float = 4.0) -> Load:
    """After a third of the time, so many times the load within 30 s, for 10 minutes at most."""
    begin, rise = seconds / 3, 30.0
    end = begin + min(600.0, seconds / 3)

    def rate(t: float) -> float:
        share = min((t - begin) / rise, (end + rise - t) / rise, 1.0)
        return per_s * (1.0 + (times - 1.0) * max(0.0, share))

    return _sampled("flash crowd", seconds, rate)


def diurnal(per_s: float, seconds: float, seed: int) -> Load:
    """A day in the given time: a wave, a second one of a third of it, noise that wanders, spikes.

    The shape of the per-minute counts that public traces of functions show.
    """
    chance = random.Random(seed)
    phase, second = chance.uniform(0, 2 * math.pi), chance.uniform(0, 2 * math.pi)
    depth = chance.uniform(0.2, 0.5)
    step_s = 60.0
    wander, rates = 0.0, []
    spike = 0.0
    for i in range(max(1, round(seconds / step_s))):
        angle = 2 * math.pi * i * step_s / seconds
        wave = 1.0 + depth * math.sin(angle + phase) + depth / 3 * math.sin(3 * angle + second)
        wander = 0.9 * wander + chance.gauss(0.0, 0.04)
        spike = spike * 0.5 if spike > 0.05 else 0.0
        if chance.random() < 0.02:
            spike = chance.uniform(0.3, 0.8)
        rates.append(max(0.05 * per_s, per_s * (wave + wander + spike)))
    return Load("diurnal", tuple(rates), step_s)


@dataclass(frozen=True)
class Drift:
    """How the service time changes: a factor that is linear between points.

    Attributes:
        points: (seconds, factor), ascending; before the first and after the last it stays.
    """

    points: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def factor(self, at_s: float) -> float:
        """At a time."""
        points = self.points
        i = bisect_right(points, (at_s, math.inf))
        if i == 0:
            return points[0][1]
        if i == len(points):
            return points[-1][1]
        (t0, f0), (t1, f1) = points[i - 1], points[i]
        return f0 + (f1 - f0) * (at_s - t0) / (t1 - t0)


CONSTANT: Final = Drift()
