"""llm-d's SLO-aware law for KEDA.

Written from llm-d's guide "SLO-Aware Autoscaling with KEDA and Predicted Latency" (llm-d/llm-d,
guides/workload-autoscaling): the 90 % quantile over 1 minute by the target, capped at 2, averaged
over 45 s, is the saturation s. Above 0.55: ``n + ceil(n (s r/n / 0.55 - 1))`` with r of n replicas
ready; below 0.40: ``n - floor(n (1 - s / 0.40))``; between them n. The HPA behind it goes up by at
most 100 % or 4 pods in 60 s, by the lowest recommendation of 30 s, and down by one pod in 120 s,
by the highest of 180 s. Latency here is measured, not predicted. No traffic counts as 0.
"""

import math
from collections import deque

from tidegate.simulation.hpa import SYNC_S, Behavior
from tidegate.simulation.window import Window
from tidegate.simulation.world import View

CAP = 2.0
UP = 0.55
DOWN = 0.40


def desired(s: float, n: int, ready: int, up: float = UP, down: float = DOWN) -> int:
    """Replicas by the formula."""
    if s > up:
        credit = ready / n if 0 < ready < n else 1.0
        return n + math.ceil(n * (s * credit / up - 1.0) - 1e-9)
    if s < down:
        return n - math.floor(n * (1.0 - s / down) + 1e-9)
    return n


class Llmd:
    """The law in the simulated world.

    Args:
        target_s: of the latency objective.
        up: its upper threshold; the lower one keeps the guide's ratio to it.
    """

    def __init__(self, target_s: float, up: float = UP) -> None:
        self.interval_s = SYNC_S
        self._target_s = target_s
        self._up, self._down = up, up * DOWN / UP
        self._window = Window(60.0)
        self._signals: deque[float] = deque(maxlen=3)
        self._behavior = Behavior(
            up_period_s=60.0,
            up_window_s=30.0,
            down_window_s=180.0,
            down_pods=1,
            down_period_s=120.0,
        )

    def decide(self, view: View) -> int:
        """Replicas to ask for."""
        if not self._window.take(view):
            return view.desired
        latency = self._window.latency_s(0.9, 60.0)
        self._signals.append(0.0 if latency is None else min(CAP, latency / self._target_s))
        s = sum(self._signals) / len(self._signals)
        wanted = desired(s, view.desired, view.ready, self._up, self._down)
        return self._behavior.limited(wanted, view.desired, view.now_s)
