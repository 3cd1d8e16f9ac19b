"""Kubernetes' HorizontalPodAutoscaler, and KEDA, which drives one.

Written from the documentation of Kubernetes ("Horizontal Pod Autoscaling": algorithm details,
configurable scaling behavior) and of KEDA ("Scaling Deployments", "Prometheus scaler"). Where that
leaves something open it is taken in their favour: metrics are as fresh as everybody's.

- ``desired = ceil(ready * value / target)``; within 10 % nothing changes. Pods that are not ready
  are left out at first; if the rest asks for more, they count as idle, and if that turns the
  decision round, nothing changes.
- An external metric with an average target: ``desired = ceil(value / target)``; that is KEDA's
  way. An absent value changes nothing in an HPA (KEDA can be told to take it as 0; not here).
- Each 15 s. Up: at most to twice as many, or 4 more, in 15 s. Down: the highest recommendation of
  the last 300 s.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tidegate.simulation.window import Window
from tidegate.simulation.world import View

SYNC_S: Final = 15.0
TOLERANCE: Final = 0.1
DOWN_WINDOW_S: Final = 300.0


def of_pods(values: Sequence[float], unready: int, target: float, current: int) -> int:
    """Replicas by a metric of each ready pod, such as its utilisation."""
    if not values:
        return current
    ratio = sum(values) / len(values) / target
    if not (unready and ratio > 1.0):
        return current if abs(ratio - 1.0) <= TOLERANCE else math.ceil(ratio * len(values))
    everyone = len(values) + unready
    with_idle = sum(values) / everyone / target
    if with_idle <= 1.0 or abs(with_idle - 1.0) <= TOLERANCE:
        return current
    return max(current, math.ceil(with_idle * everyone))


def of_value(value: float, ready: int, target: float, current: int) -> int:
    """Replicas by one value, such as a latency, that is to be at the target."""
    ratio = value / target
    return current if abs(ratio - 1.0) <= TOLERANCE else math.ceil(ratio * ready)


def of_average(value: float, target: float, current: int) -> int:
    """Replicas by one value that is to be shared out, so much to each."""
    ratio = value / (target * current) if current else math.inf
    return current if abs(ratio - 1.0) <= TOLERANCE else math.ceil(value / target)


@dataclass
class Behavior:
    """How fast an HPA may move.

    Attributes:
        up_share, up_pods: per `up_period_s`; the larger one counts.
        up_window_s: the lowest recommendation over so long is the way up.
        down_window_s: the highest over so long is the way down.
        down_pods: at most so many per `down_period_s`; None: all.
    """

    up_share: float = 1.0
    up_pods: int = 4
    up_period_s: float = 15.0
    up_window_s: float = 0.0
    down_window_s: float = DOWN_WINDOW_S
    down_pods: int | None = None
    down_period_s: float = 15.0
    _asked: deque[tuple[float, int]] = field(default_factory=deque)
    _set: deque[tuple[float, int]] = field(default_factory=deque)

    def limited(self, wanted: int, current: int, now_s: float) -> int:
        """What may be set now."""
        asked, done = self._asked, self._set
        if not done:
            done.append((-math.inf, current))
        asked.append((now_s, wanted))
        horizon = max(self.up_window_s, self.down_window_s)
        while asked[0][0] <= now_s - horizon and len(asked) > 1:
            asked.popleft()
        up = min(n for t, n in asked if t > now_s - self.up_window_s or t == now_s)
        down = max(n for t, n in asked if t > now_s - self.down_window_s or t == now_s)
        result = max(min(current, down), up) if up > current else min(current, down)
        if result > current:
            begin = self._at(now_s - self.up_period_s, current)
            most = max(math.ceil(begin * (1.0 + self.up_share)), begin + self.up_pods)
            result = min(result, max(most, current))
        elif result < current and self.down_pods is not None:
            begin = self._at(now_s - self.down_period_s, current)
            result = max(result, min(current, begin - self.down_pods))
        done.append((now_s, result))
        while len(done) > 1 and done[1][0] <= now_s - max(self.up_period_s, self.down_period_s):
            done.popleft()
        return result

    def _at(self, then_s: float, current: int) -> int:
        """Replicas as they were set at a time."""
        found = current
        for t, n in reversed(self._set):
            found = n
            if t <= then_s:
                break
        return found


class Metric(StrEnum):
    """What an HPA goes by."""

    UTILISATION = "utilisation"
    """Busy share of the GPU, 0 to 1."""
    LATENCY = "latency"
    """The objective's quantile, in seconds."""
    RPS = "requests a second per pod"
    CONCURRENCY = "requests in flight per pod"


class Hpa:
    """An HPA with one metric.

    Args:
        metric: which.
        target: of it.
        window_s: over how long the metric is taken.
        quantile: of the latency.
    """

    def __init__(
        self, metric: Metric, target: float, *, window_s: float = 60.0, quantile: float = 0.99
    ) -> None:
        if not 0.0 < target < math.inf:
            raise ValueError(f"the target is {target:g}; it is above 0")
        self.interval_s = SYNC_S
        self._metric = metric
        self._target = target
        self._window_s = window_s
        self._quantile = quantile
        self._window = Window(window_s)
        self._behavior = Behavior()

    def decide(self, view: View) -> int:
        """Replicas to ask for."""
        current = view.desired
        wanted = self._wanted(view) if self._window.take(view) else None
        return self._behavior.limited(current if wanted is None else wanted, current, view.now_s)

    def _wanted(self, view: View) -> int | None:
        window, seconds, current = self._window, self._window_s, view.desired
        if self._metric is Metric.UTILISATION:
            value = window.utilisation(seconds)
            if value is None:
                return None
            return of_pods([value] * view.ready, view.starting, self._target, current)
        if self._metric is Metric.LATENCY:
            value = window.latency_s(self._quantile, seconds)
            return None if value is None else of_value(value, view.ready, self._target, current)
        if self._metric is Metric.RPS:
            value = window.arrivals_per_s(seconds)
        else:
            value = window.concurrency(seconds)
        return None if value is None else of_average(value, self._target, current)
