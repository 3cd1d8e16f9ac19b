"""Knative's pod autoscaler (KPA), by concurrency.

Written from Knative's documentation ("Additional autoscaling configuration for Knative Pod
Autoscaler", "Configuring scale bounds") with its defaults: a stable window of 60 s, a panic window
of 10 % of it, panic at 200 %, at most 1000 times as many up and half as many down at a time, a
decision each 2 s. Pods that start are unknown to it.
"""

import math
from dataclasses import dataclass

from tidegate.simulation.window import Window
from tidegate.simulation.world import View


@dataclass
class Decider:
    """The rule, from two windows' concurrency.

    Attributes:
        target: concurrency of one pod.
        window_s: stable window.
        threshold: of panic, over what the ready pods hold.
        most_up, most_down: rates of one decision.
    """

    target: float
    window_s: float = 60.0
    threshold: float = 2.0
    most_up: float = 1000.0
    most_down: float = 2.0
    _panic_s: float | None = None
    _most: int = 0

    def decide(self, stable: float, panic: float, ready: int, now_s: float) -> int:
        """Replicas, from concurrency in the stable and in the panic window."""
        there = max(1, ready)
        ceiling = math.ceil(self.most_up * there)
        floor = math.floor(there / self.most_down)
        by_panic = math.ceil(panic / self.target)
        wanted = min(max(math.ceil(stable / self.target), floor), ceiling)
        if by_panic / there >= self.threshold:
            self._panic_s = now_s
        elif self._panic_s is not None and self._panic_s + self.window_s < now_s:
            self._panic_s, self._most = None, 0
        if self._panic_s is not None:
            self._most = max(self._most, wanted, min(max(by_panic, floor), ceiling))
            return self._most
        return wanted


class Kpa:
    """The law in the simulated world.

    Args:
        target: concurrency of one pod.
    """

    def __init__(self, target: float) -> None:
        self.interval_s = 2.0
        self._decider = Decider(target)
        self._window = Window(60.0)

    def decide(self, view: View) -> int:
        """Replicas to ask for."""
        if not self._window.take(view):
            return view.desired
        stable, panic = self._window.concurrency(60.0), self._window.concurrency(6.0)
        if stable is None or panic is None:
            return view.desired
        return self._decider.decide(stable, panic, view.ready, view.now_s)
