"""A law that knows the future: the rate, the service time and how long starts take.

No law can do as well for as little; it is the yardstick. It still cannot know single requests: a
Poisson process at the known rate stays one.
"""

import math
from collections.abc import Callable

from tidegate.simulation.load import Load
from tidegate.simulation.world import View


class Oracle:
    """Asks for each pod one start ahead of its need.

    Args:
        load: what will come.
        capacity: requests a second that one pod holds within the objective, at a time.
        cold_start_s: of nearly all pods.
        share: of that capacity to use.
    """

    def __init__(
        self,
        load: Load,
        capacity: Callable[[float], float],
        cold_start_s: float,
        share: float = 1.0,
    ) -> None:
        self.interval_s = 5.0
        steps = math.ceil((load.duration_s + cold_start_s) / 5.0) + 2
        need = []
        for i in range(steps):
            at = min(i * 5.0, load.duration_s - 1e-6)
            need.append(max(1, math.ceil(load.rate(at) / (share * capacity(at)))))
        ahead = math.ceil(cold_start_s / 5.0) + 1
        self._need = [max(need[i : i + ahead + 1]) for i in range(steps)]
        self.initial = self._need[0]

    def decide(self, view: View) -> int:
        """Replicas to ask for."""
        return self._need[min(len(self._need) - 1, int(view.now_s / 5.0 + 1e-9))]
