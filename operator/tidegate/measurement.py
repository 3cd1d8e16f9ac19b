"""What happened between two readings of a pod's counters.

Two readings (`tidegate.sidecar_page`) of a pod give a `tidegate.analysis.block.Tally` of what lies
between; tallies of pods add up to those of a revision. The same formulas serve pages of pods and
samples of Prometheus. Pure.

Where a number cannot be known exactly (a page is not read at one instant, and a counter does not
say *which* request it counted), less is counted rather than more: evidence that is missing now
comes later, evidence that is made up rolls a good version back.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tidegate.analysis.block import Block, Tally
from tidegate.resources.sidecar import LATENCY_EDGES_MS, TrafficClass
from tidegate.sidecar_page import CLOCK_SLACK_S, NO_COUNTS, Counts, Reading

WARM_UP_REQUESTS: Final = 50
"""So many requests of each pod say nothing of its latency: caches and kernels are still cold."""
HANGING_LEAST_S: Final = 10.0
HANGING_TARGETS: Final = 20
"""A pod that owes answers and gives none for so many targets, and at least the above, hangs."""
HANGING_UNKNOWN_S: Final = 600.0
"""The same where nothing says how long an answer may take."""
USUAL_QUANTILE: Final = 0.99
"""Of stable's latency: what is usual where there is no target."""
LEAST_FOR_QUANTILE: Final = 100
"""Timed requests of stable from which on that is meaningful."""
HISTOGRAM_LAG_S: Final = 1.0
"""A histogram is behind the other counters by less than this (`STATS_FLUSH_MS`, and a busy Envoy).
"""


# Bounds.


def bounds_ms(target_ms: int | None) -> tuple[int, ...]:
    """Bounds by which the latency of both revisions is compared, ascending.

    Those of the ladder that every revision counts (`LATENCY_EDGES_MS`), up to the objective's
    target: fixed before anything is seen. The tests choose among them by what stable did earlier.
    """
    if target_ms is None:
        return LATENCY_EDGES_MS
    return LATENCY_EDGES_MS[: bisect_right(LATENCY_EDGES_MS, target_ms)]


def hanging_after_s(target_ms: int | None, stable: Iterable[Reading] = ()) -> float:
    """Seconds without any answer after which a pod that owes some hangs.

    Args:
        target_ms: the objective's target; None: stable's 99 % quantile takes its place.
        stable: readings of stable's pods.
    """
    usual_ms: float | None = target_ms
    if usual_ms is None:
        timed, faster = _latency(stable)
        if timed < LEAST_FOR_QUANTILE:
            return HANGING_UNKNOWN_S
        enough = USUAL_QUANTILE * timed
        pairs = zip(LATENCY_EDGES_MS, faster, strict=True)
        usual_ms = next((edge for edge, n in pairs if n >= enough), LATENCY_EDGES_MS[-1])
    return max(HANGING_LEAST_S, HANGING_TARGETS * usual_ms / 1000)


def _latency(readings: Iterable[Reading]) -> tuple[int, list[int]]:
    """Timed client requests, and how many of them were faster than each edge of the ladder."""
    timed, faster = 0, [0] * len(LATENCY_EDGES_MS)
    for reading in readings:
        counts = reading.classes.get(TrafficClass.CLIENT, NO_COUNTS)
        if not counts.faster:
            continue
        timed += counts.timed
        for i, edge in enumerate(LATENCY_EDGES_MS):
            faster[i] += _faster_than(edge, reading.edges_ms, counts.faster) or 0
    return timed, faster


def _faster_than(edge: int, edges_ms: Sequence[int], faster: Sequence[int]) -> int | None:
    """Answers faster than an edge, or than the next lower one that is counted; None: neither is."""
    place = bisect_right(edges_ms, edge) - 1
    return faster[place] if place >= 0 else None


# From readings to blocks.


@dataclass(frozen=True)
class _Sum:
    """What counts as evidence in one reading, classes added up.

    Attributes:
        arrivals: of class client.
        mirrored: arrivals of class mirrored.
        started: of both.
        succeeded: and so on, as in `Counts`.
        below: faster than the target (first) and each bound; None: this pod does not count so.
        shed: of all that failed, refused for overload.
        client_shed: of those, of class client.
        client_gone: requests given up, as far as one page can tell, of class client.
    """

    arrivals: int = 0
    mirrored: int = 0
    started: int = 0
    succeeded: int = 0
    client_errors: int = 0
    failed: int = 0
    in_flight: int = 0
    timed: int = 0
    below: tuple[int, ...] | None = ()
    shed: int = 0
    client_shed: int = 0
    client_gone: int = 0

    @property
    def answered(self) -> int:
        return self.succeeded + self.client_errors + self.failed

    @property
    def given_up(self) -> int:
        return self.started - self.answered - self.in_flight


@dataclass
class _Pod:
    """What is remembered of one pod.

    Attributes:
        at_s: when it was last read.
        uptime_s: Envoy's age then.
        last: the counters then.
        started: highest seen (`started` holds a gauge, and a page is not read at one instant).
        arrivals: the same.
        mirrored: the same.
        failed: the same, without those refused for overload: a refusal may be on the page before
            the answer that it is.
        given_up: requests given up that were told of.
        given_up_seen: as the last reading had it; told of when the next one confirms it.
        gone: of those, of class client.
        gone_seen: the same for them.
        history: when so many had started, oldest first; as far back as the target.
        in_flight: recent readings, as far back as a histogram may lag.
        overdue: requests that were told of as slow and have not been seen to end.
        warm_at: requests that must have ended before latency counts; None: not known yet.
        warm: whether latency counts from the last reading on.
        owing_since: since when answers are owed and none came.
    """

    at_s: float
    uptime_s: float | None
    last: _Sum
    started: int = 0
    arrivals: int = 0
    mirrored: int = 0
    failed: int = 0
    given_up: int = 0
    given_up_seen: int = 0
    gone: int = 0
    gone_seen: int = 0
    history: deque[tuple[float, int]] = field(default_factory=deque)
    in_flight: deque[tuple[float, int]] = field(default_factory=deque)
    overdue: int = 0
    warm_at: int | None = None
    warm: bool = False
    owing_since: float | None = None


class Ledger:
    """Remembers each pod's last reading, and says what happened since: blocks.

    A pod that vanishes keeps what it contributed. What happened on a canary's pod before its first
    reading is evidence too; a stable pod's first reading only says from where to count. Client and
    mirrored requests are the canary's evidence, client requests stable's; pinned, golden and
    streaming ones are nobody's.

    Args:
        stable: hash of the revision compared with.
        canary: hash of the revision on trial.
        target_ms: the objective's latency target; None: nothing is slow.
        bounds_ms: of the comparison, from `bounds_ms`; with a target none exceeds it.
        hang_after_s: from `hanging_after_s`.
        counts_from_s: canary pods whose Envoy is older than this begin with a baseline, too: what
            they did belongs to an earlier rollout.
        resumed: there is evidence from before this ledger began: pods that were there before its
            first look begin with a baseline.

    Raises:
        ValueError: a bound exceeds the target.
    """

    def __init__(
        self,
        stable: str,
        canary: str,
        target_ms: int | None,
        bounds_ms: Sequence[int],
        *,
        hang_after_s: float = HANGING_LEAST_S,
        counts_from_s: float | None = None,
        resumed: bool = False,
    ) -> None:
        if target_ms is not None and any(bound > target_ms for bound in bounds_ms):
            # An overdue request could be slower than the target, and not yet than such a bound.
            raise ValueError(f"bounds {list(bounds_ms)} exceed the target, {target_ms} ms")
        self.stable = stable
        self.canary = canary
        self.bounds_ms = tuple(bounds_ms)
        self._target_ms = target_ms
        self._target_s = None if target_ms is None else target_ms / 1000
        # First the target's place, also where there is no target: then it is left unread.
        self._edges = (*([] if target_ms is None else [target_ms]), *self.bounds_ms)
        self._hang_after_s = hang_after_s
        self._counts_from_s = counts_from_s
        self._resumed = resumed
        self._pods: dict[str, _Pod] = {}
        self._at_s: float | None = None
        self._places: dict[tuple[int, ...], tuple[int, ...] | None] = {}

    def observe(
        self, readings: Iterable[Reading], *, at_s: float, unread: Sequence[str] = ()
    ) -> Block:
        """What happened since the last call.

        Args:
            readings: one look at pods of both revisions; others are passed over, and so is a page
                that is older than the last one of its pod.
            at_s: when, seconds since the epoch.
            unread: names of pods that could not be read.
        """
        if self._at_s is None:
            seconds = 0.0
            if self._resumed:
                self._counts_from_s = at_s
        else:
            seconds = max(0.0, at_s - self._at_s)
        bounds = len(self.bounds_ms)
        tallies = {self.stable: _Adding(bounds), self.canary: _Adding(bounds)}
        hanging = []
        for reading in readings:
            into = tallies.get(reading.revision)
            if into is None:
                continue
            if self._observe(reading, into) and reading.revision == self.canary:
                hanging.append(reading.label)
        self._at_s = at_s
        canary, stable = tallies[self.canary], tallies[self.stable]
        return Block(
            at_s=at_s,
            seconds=seconds,
            canary=canary.tally(),
            stable=stable.tally(),
            canary_arrivals=canary.arrivals,
            stable_arrivals=stable.arrivals,
            mirrored=canary.mirrored,
            unread=tuple(unread),
            hanging=tuple(sorted(hanging)),
        )

    def _observe(self, reading: Reading, into: "_Adding") -> bool:
        """Add one reading. Returns whether the pod hangs."""
        now = self._sum(reading)
        pod = self._pods.get(reading.pod)
        if pod is None:
            pod = self._pods[reading.pod] = self._first(reading, now)
        elif reading.at_s <= pod.at_s:
            return False
        elif _restarted(pod, reading, now):
            if reading.is_older_than(pod.at_s):
                return False
            pod = self._pods[reading.pod] = _Pod(reading.at_s, reading.uptime_s, _Sum())
        self._add(pod, reading, now, into)
        pod.at_s, pod.uptime_s, pod.last = reading.at_s, reading.uptime_s, now
        return pod.owing_since is not None and reading.at_s - pod.owing_since >= self._hang_after_s

    def _first(self, reading: Reading, now: _Sum) -> _Pod:
        if reading.revision == self.canary and not self._is_baseline(reading):
            return _Pod(reading.at_s, reading.uptime_s, _Sum())
        pod = _Pod(reading.at_s, reading.uptime_s, now, now.started, now.arrivals, now.mirrored)
        pod.failed = max(0, now.failed - now.shed)
        pod.given_up = pod.given_up_seen = max(0, now.given_up)
        pod.gone = pod.gone_seen = max(0, now.client_gone)
        return pod

    def _is_baseline(self, reading: Reading) -> bool:
        if self._counts_from_s is None:
            return False
        if reading.uptime_s is None:
            return self._resumed
        born_s = reading.at_s - reading.uptime_s
        if self._resumed:
            # Envoy's age is in whole seconds: it may have been there a second earlier.
            return born_s - 1.0 < self._counts_from_s
        return born_s < self._counts_from_s - CLOCK_SLACK_S

    def _sum(self, reading: Reading) -> _Sum:
        client = reading.classes.get(TrafficClass.CLIENT, NO_COUNTS)
        if reading.revision != self.canary:
            return _Sum(
                client.started,
                0,
                client.started,
                client.succeeded,
                client.client_errors,
                client.failed,
                client.in_flight,
                client.timed,
                self._below(reading, client.faster),
                client.shed,
                client.shed,
                _gone(client),
            )
        mirrored = reading.classes.get(TrafficClass.MIRRORED, NO_COUNTS)
        pairs = zip(client.faster, mirrored.faster, strict=False)
        faster = (
            tuple([a + b for a, b in pairs])
            if client.faster and mirrored.faster
            else client.faster or mirrored.faster
        )
        return _Sum(
            client.started,
            mirrored.started,
            client.started + mirrored.started,
            client.succeeded + mirrored.succeeded,
            client.client_errors + mirrored.client_errors,
            client.failed + mirrored.failed,
            client.in_flight + mirrored.in_flight,
            client.timed + mirrored.timed,
            self._below(reading, faster),
            client.shed + mirrored.shed,
            client.shed,
            _gone(client),
        )

    def _below(self, reading: Reading, faster: tuple[int, ...]) -> tuple[int, ...] | None:
        if not faster:
            return (0,) * len(self._edges)
        places = self._places.get(reading.edges_ms, ())
        if places == () and self._edges:
            found = [bisect_right(reading.edges_ms, edge) - 1 for edge in self._edges]
            places = None if min(found) < 0 else tuple(found)
            self._places[reading.edges_ms] = places
        return None if places is None else tuple([faster[place] for place in places])

    def _add(self, pod: _Pod, reading: Reading, now: _Sum, into: "_Adding") -> None:
        last = pod.last
        failed = max(0, now.failed - now.shed - pod.failed)
        pod.failed += failed
        # A refusal says nothing of the model, nor that it lives.
        answered = now.succeeded - last.succeeded + now.client_errors - last.client_errors + failed
        seen, pod.given_up_seen = pod.given_up_seen, now.given_up
        given_up = _confirmed(seen, now.given_up, pod.given_up)
        pod.given_up += given_up
        seen, pod.gone_seen = pod.gone_seen, now.client_gone
        gone = _confirmed(seen, now.client_gone, pod.gone)
        pod.gone += gone
        into.requests += answered
        into.failed += failed
        # Copies may be refused for being too many, and a gateway drops those that are late: nobody
        # misses their answers. Whether they are slow is counted as for any request.
        into.shed += now.client_shed - last.client_shed
        into.client_errors += now.client_errors - last.client_errors
        into.given_up += gone
        into.arrivals += max(0, now.arrivals - pod.arrivals)
        into.mirrored += max(0, now.mirrored - pod.mirrored)
        pod.started = max(pod.started, now.started)
        pod.arrivals = max(pod.arrivals, now.arrivals)
        pod.mirrored = max(pod.mirrored, now.mirrored)
        self._add_latency(pod, reading.at_s, now, given_up, into)
        if now.in_flight == 0:
            pod.owing_since = None
        elif answered or pod.owing_since is None:
            pod.owing_since = reading.at_s

    def _add_latency(
        self, pod: _Pod, at_s: float, now: _Sum, given_up: int, into: "_Adding"
    ) -> None:
        counts = pod.warm
        if not pod.warm:
            # Those in flight when the last of the first requests ended may be first ones, too.
            ended = now.timed + pod.given_up
            if pod.warm_at is None and ended >= WARM_UP_REQUESTS:
                pod.warm_at = now.started
            pod.warm = pod.warm_at is not None and ended >= pod.warm_at
        if now.below is None or pod.last.below is None:
            return
        timed = now.timed - pod.last.timed
        slower = [
            timed - (below - before)
            for below, before in zip(
                now.below, pod.last.below or (0,) * len(now.below), strict=True
            )
        ]
        told = 0
        if self._target_s is not None:
            told = self._overdue_that_ended(pod, at_s, now, slower[0], given_up)
        overdue = self._newly_overdue(pod, at_s, now, self._target_s) if counts else 0
        if not counts:
            return
        pod.overdue += overdue
        # What was told of as overdue is not told of again now that it is answered.
        into.timed += timed - told + overdue
        slower = [n - told + overdue for n in slower]
        if self._target_s is not None:
            into.slow += slower.pop(0)
        for i, n in enumerate(slower):
            into.slower[i] += n

    def _overdue_that_ended(
        self, pod: _Pod, at_s: float, now: _Sum, slow: int, given_up: int
    ) -> int:
        """Take from the overdue ones those that ended; returns how many were answered, slowly."""
        told = min(pod.overdue, slow)
        pod.overdue -= told
        pod.overdue -= min(pod.overdue, given_up)
        # Some end without a latency (a connection to Triton broke): no more can be overdue than
        # were in flight just now, a histogram's lag ago at most.
        recent = pod.in_flight
        while len(recent) > 1 and recent[0][0] < at_s - HISTOGRAM_LAG_S:
            recent.popleft()
        most = max((n for _, n in recent), default=0)
        recent.append((at_s, now.in_flight))
        pod.overdue = min(pod.overdue, max(most, now.in_flight))
        return told

    def _newly_overdue(self, pod: _Pod, at_s: float, now: _Sum, target_s: float | None) -> int:
        """At least so many requests have waited longer than the target and were not told of."""
        if target_s is None:
            return 0
        history = pod.history
        history.append((at_s, pod.started))
        # The newest entry that is at least a target old; what came before it says less.
        while len(history) > 1 and history[1][0] <= at_s - target_s:
            history.popleft()
        then_s, started = history[0]
        if then_s > at_s - target_s:
            return 0
        # Had all that began since ended first, so many old ones would still be left.
        waiting = now.in_flight - (pod.started - started)
        return max(0, waiting - pod.overdue)


@dataclass
class _Adding:
    """A tally under way."""

    bounds: int
    requests: int = 0
    failed: int = 0
    client_errors: int = 0
    given_up: int = 0
    timed: int = 0
    slow: int = 0
    arrivals: int = 0
    mirrored: int = 0
    shed: int = 0
    slower: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.slower = [0] * self.bounds

    def tally(self) -> Tally:
        return Tally(
            self.requests,
            self.failed,
            self.client_errors,
            self.given_up,
            self.timed,
            self.slow,
            tuple(self.slower),
            self.shed,
        )


def _gone(counts: Counts) -> int:
    """Requests of a class that were given up, as far as one page can tell."""
    return counts.started - counts.answered - counts.in_flight


def _confirmed(seen: int, now: int, told: int) -> int:
    """Requests given up that two readings in a row agree on, and that were not told of.

    The page has statuses before gauges: a request that ends in between looks given up, once.
    """
    return max(0, min(seen, now) - told)


def _restarted(pod: _Pod, reading: Reading, now: _Sum) -> bool:
    if reading.is_of_another_envoy(pod.uptime_s):
        return True
    last = pod.last
    fell = (
        now.succeeded < last.succeeded
        or now.client_errors < last.client_errors
        or now.failed < last.failed
        or now.shed < last.shed
        or now.timed < last.timed
    )
    if fell or not now.below or not last.below:
        return fell
    return any(n < before for n, before in zip(now.below, last.below, strict=True))
