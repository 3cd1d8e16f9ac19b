"""What clients of a ModelDeployment got lately, beside what its objective promises them.

All revisions together, over the last minutes: the answers that failed, and the latency at the
objective's quantile. For people (status) and for conditions; replicas follow other, shorter windows
(`tidegate.autoscaling`), a rollout its evidence (`tidegate.analysis`). Pure.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tidegate.observed import Attained
from tidegate.resources.sidecar import TrafficClass, latency_edges_ms
from tidegate.sidecar_page import NO_COUNTS, Counts, Reading

WINDOW_S: Final = 300.0
SURE_OF_A_MISS: Final = 2
"""One failure alone, or one slow answer, never breaks an objective."""
_COUNTS: Final = 4


@dataclass(frozen=True)
class Objective:
    """What is promised.

    Attributes:
        target_ms: of the latency; None: nothing is promised.
        quantile: share of the answers that keep it.
        max_error_rate: share of the answers that may fail.
    """

    target_ms: int | None
    quantile: float
    max_error_rate: float


@dataclass
class _Pod:
    at_s: float
    uptime_s: float | None
    last: Counts
    edges_ms: tuple[int, ...]


class Window:
    """Adds up what pods' sidecars counted in the last `WINDOW_S`.

    Counters are taken as differences, so a restarted Envoy starts at zero; a pod that is seen for
    the first time begins with a baseline, unless it was born since the window's first look.

    Args:
        objective: what is promised.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._edges = tuple(latency_edges_ms(objective.target_ms))
        self._pods: dict[str, _Pod] = {}
        self._places: dict[tuple[int, ...], tuple[int, ...]] = {}
        # Answered, failed, shed, timed, then faster than each edge: since the first look.
        self._totals = [0] * (_COUNTS + len(self._edges))
        self._looks: deque[tuple[float, tuple[int, ...]]] = deque()
        self._began_s: float | None = None

    def observe(self, at_s: float, readings: Iterable[Reading]) -> Attained | None:
        """Take in a look at all pods; what it comes to, None while there are no two looks.

        Args:
            at_s: seconds since the epoch. A look from before the last one is passed over.
            readings: of pods of any revision; a page that is older than its pod's last is no news.
        """
        if self._looks and at_s <= self._looks[-1][0]:
            return self.attained()
        first = self._began_s is None
        if self._began_s is None:
            self._began_s = at_s
        for reading in readings:
            self._add(reading, self._began_s, baseline=first)
        self._looks.append((at_s, tuple(self._totals)))
        # The newest look that is a window old, and all since.
        while len(self._looks) > 1 and self._looks[1][0] <= at_s - WINDOW_S:
            self._looks.popleft()
        for uid in [u for u, pod in self._pods.items() if pod.at_s < at_s - WINDOW_S]:
            del self._pods[uid]
        return self.attained()

    def attained(self) -> Attained | None:
        """What the last look came to."""
        if len(self._looks) < 2:
            return None
        (from_s, before), (to_s, now) = self._looks[0], self._looks[-1]
        answered, failed, shed, timed, *faster = [n - o for n, o in zip(now, before, strict=True)]
        promised = self.objective
        slow: int | None = None
        if promised.target_ms is not None:
            slow = timed - faster[self._edges.index(promised.target_ms)]
        return Attained(
            window_s=to_s - from_s,
            answered=answered,
            failed=failed,
            shed=shed,
            timed=timed,
            slow=slow,
            quantile=promised.quantile,
            quantile_ms=quantile_ms(promised.quantile, timed, self._edges, faster),
            latency_met=None if slow is None else _met(slow, timed, 1.0 - promised.quantile),
            errors_met=_met(failed, answered, promised.max_error_rate),
        )

    def _add(self, reading: Reading, began_s: float, *, baseline: bool) -> None:
        now = reading.classes.get(TrafficClass.CLIENT, NO_COUNTS)
        pod = self._pods.get(reading.pod)
        if pod is not None and reading.at_s <= pod.at_s:
            return
        restarted = pod is not None and _restarted(pod, reading, now)
        if pod is not None and restarted and reading.is_older_than(pod.at_s):
            return
        self._pods[reading.pod] = _Pod(reading.at_s, reading.uptime_s, now, reading.edges_ms)
        if pod is None:
            born_s = reading.at_s - (math.inf if reading.uptime_s is None else reading.uptime_s)
            if baseline or born_s < began_s:
                return
            last = NO_COUNTS
        else:
            last = NO_COUNTS if restarted else pod.last
        totals = self._totals
        totals[0] += now.answered - last.answered
        totals[1] += now.failed - last.failed
        totals[2] += now.shed - last.shed
        totals[3] += now.timed - last.timed
        if not now.faster:
            return
        for index, place in enumerate(self._places_of(reading.edges_ms), _COUNTS):
            if place >= 0:
                totals[index] += now.faster[place] - (last.faster[place] if last.faster else 0)

    def _places_of(self, edges_ms: tuple[int, ...]) -> tuple[int, ...]:
        """For each of our edges the same or the next lower one that is counted; -1: there is none.

        An edited target is no edge of pods that were born before: then rather too many are slow.
        """
        places = self._places.get(edges_ms)
        if places is None:
            places = tuple(bisect_right(edges_ms, edge) - 1 for edge in self._edges)
            self._places[edges_ms] = places
        return places


def quantile_ms(
    quantile: float, timed: int, edges_ms: Iterable[int], faster: Iterable[int]
) -> float | None:
    """The latency that a share of the answers keeps, read from counts below edges.

    Linear between two edges; so it is exact at an edge, and whether it keeps a target that is one
    is, too. Beyond the last edge: that edge. None: there are no answers.

    Args:
        quantile: the share, 0 to 1.
        timed: answers.
        edges_ms: ascending.
        faster: of the answers, faster than each edge.
    """
    if timed <= 0:
        return None
    rank, below, low = quantile * timed, 0, 0
    for edge, count in zip(edges_ms, faster, strict=True):
        if count >= rank and count > below:
            return low + (edge - low) * (rank - below) / (count - below)
        below, low = max(below, count), edge
    return float(low)


def _met(bad: int, of: int, share: float) -> bool | None:
    """Whether at most that share is bad; None: too few to say."""
    if bad > share * of and bad >= SURE_OF_A_MISS:
        return False
    # With less than one allowed, none bad says little.
    return True if share * of >= 1.0 and bad <= share * of else None


def _restarted(pod: _Pod, reading: Reading, now: Counts) -> bool:
    if reading.is_of_another_envoy(pod.uptime_s):
        return True
    last = pod.last
    if now.answered < last.answered or now.failed < last.failed or now.timed < last.timed:
        return True
    if pod.edges_ms != reading.edges_ms:
        return bool(pod.edges_ms)
    return any(n < o for n, o in zip(now.faster, last.faster, strict=False))
