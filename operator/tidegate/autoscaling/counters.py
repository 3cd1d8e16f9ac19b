"""What happened in one pod between two looks, from counters that may start over.

A counter that fell started over: what it shows now happened since, if the sidecar's age says that
it started within this interval; otherwise the interval is no sample at all. So neither negative
numbers nor a whole day's requests at once come out of it.
"""

import math
from typing import Final, NamedTuple

from tidegate.autoscaling.reading import Look, SidecarReading, TritonStats

LATENCY_CLASSES: Final = ("client", "pinned", "mirrored")
"""Traffic whose latency counts: a stream's means nothing, golden requests find a cold server."""
CLOCK_SLACK_S: Final = 5.0
"""By which two clocks, and Envoy's age in whole seconds, may disagree."""


class Served(NamedTuple):
    """What a sidecar counted in an interval.

    Attributes:
        since_s, until_s: the interval, seconds since the epoch.
        arrivals: requests that started, refused ones included.
        timed: answers with a known latency.
        faster: of them, in less than each edge.
        edges_ms: the edges, ascending.
    """

    since_s: float
    until_s: float
    arrivals: int
    timed: int
    faster: tuple[int, ...]
    edges_ms: tuple[int, ...]


class Ran(NamedTuple):
    """What a Triton counted in an interval.

    Attributes:
        since_s, until_s: the interval, seconds since the epoch.
        succeeded, failed, cached, items: as in `TritonStats`.
        queued: change of the pending ones; 0 where they are not known.
        batches: size, executions and their milliseconds in all.
    """

    since_s: float
    until_s: float
    succeeded: int
    failed: int
    cached: int
    items: int
    queued: int
    batches: tuple[tuple[int, int, float], ...]


class _Totals(NamedTuple):
    """A sidecar's counters, classes added up."""

    at_s: float
    uptime_s: float | None
    started: int
    ended: tuple[int, ...]
    timed: int
    faster: tuple[int, ...]
    edges_ms: tuple[int, ...]
    in_flight: int

    def fell(self, before: "_Totals") -> bool:
        ages = (before.uptime_s, self.uptime_s)
        if ages[0] is not None and ages[1] is not None and ages[1] < ages[0]:
            return True
        return any(now < then for now, then in zip(self.ended, before.ended, strict=True))


def _totals(reading: SidecarReading) -> _Totals:
    started = succeeded = client_errors = failed = in_flight = timed = 0
    width = len(reading.edges_ms)
    faster = [0] * width
    all_timed = 0
    for traffic, counts in reading.classes.items():
        started += counts.started
        succeeded += counts.succeeded
        client_errors += counts.client_errors
        failed += counts.failed
        in_flight += counts.in_flight
        all_timed += counts.timed
        if traffic in LATENCY_CLASSES and len(counts.faster) == width:
            timed += counts.timed
            for i, n in enumerate(counts.faster):
                faster[i] += n
    ended = (succeeded, client_errors, failed, all_timed)
    return _Totals(
        reading.at_s,
        reading.uptime_s,
        started,
        ended,
        timed,
        tuple(faster),
        reading.edges_ms,
        in_flight,
    )


class PodCounters:
    """One pod's last counters.

    Attributes:
        sidecar_at_s: of the last reading of the sidecar; None: none yet.
        triton_at_s: the same of Triton.
        in_flight: requests that the sidecar had not answered then.
        pending: requests in Triton's queue then; None: not known.
    """

    def __init__(self) -> None:
        self.sidecar_at_s: float | None = None
        self.triton_at_s: float | None = None
        self.in_flight = 0
        self.pending: int | None = None
        self._totals: _Totals | None = None
        self._started = 0
        self._stats: TritonStats | None = None

    @property
    def at_s(self) -> float:
        """Of the newest of both."""
        return max(self.sidecar_at_s or -math.inf, self.triton_at_s or -math.inf)

    def served(self, look: Look, *, known_since_s: float | None) -> Served | None:
        """What the sidecar counted since the last look; None: no sample.

        Args:
            look: the present one.
            known_since_s: a sidecar that started later than this was seen from its start; None:
                this is the first look at all.
        """
        reading = look.reading
        if reading is None or not math.isfinite(reading.at_s):
            return None
        before = self._totals
        if before is not None and reading.at_s <= before.at_s:
            return None
        now = _totals(reading)
        since_s = None if before is None else before.at_s
        if before is not None and now.fell(before):
            elapsed_s = now.at_s - before.at_s
            if now.uptime_s is not None and now.uptime_s > elapsed_s + CLOCK_SLACK_S:
                return None  # an older page: Prometheus' clock is not ours
            since_s = before.at_s if now.uptime_s is not None else None
            before, self._started = None, 0
        elif before is None and now.uptime_s is not None and known_since_s is not None:
            born_s = now.at_s - now.uptime_s
            if born_s > known_since_s:
                since_s = min(born_s, now.at_s - 1e-3)
        arrivals = max(0, now.started - self._started)
        self._started = max(self._started, now.started)
        self._totals, self.sidecar_at_s, self.in_flight = now, now.at_s, now.in_flight
        if since_s is None:
            return None
        timed, faster = now.timed, now.faster
        if before is not None:
            if before.edges_ms != now.edges_ms:
                # An edge without a single answer is not on the page; it comes with the first.
                old = dict(zip(before.edges_ms, before.faster, strict=True))
                if before.faster and not set(old) <= set(now.edges_ms):
                    timed, faster = 0, (0,) * len(now.faster)
                else:
                    timed -= before.timed
                    faster = tuple(
                        n - old.get(edge, 0)
                        for n, edge in zip(now.faster, now.edges_ms, strict=True)
                    )
            else:
                timed -= before.timed
                faster = tuple([n - m for n, m in zip(now.faster, before.faster, strict=True)])
            if timed < 0 or min(faster, default=0) < 0:
                timed, faster = 0, (0,) * len(now.faster)
        return Served(since_s, now.at_s, arrivals, timed, faster, now.edges_ms)

    def ran(self, look: Look) -> Ran | None:
        """What Triton counted since the last look; None: no sample."""
        now = look.triton
        if now is None or not math.isfinite(look.at_s):
            return None
        before, before_s = self._stats, self.triton_at_s
        if before_s is not None and look.at_s <= before_s:
            return None
        self._stats, self.triton_at_s, self.pending = now, look.at_s, now.pending
        if before is None or before_s is None:
            return None
        old = {batch.size: batch for batch in before.batches}
        batches = []
        fell = (
            now.succeeded < before.succeeded
            or now.failed < before.failed
            or now.cached < before.cached
            or now.items < before.items
        )
        for batch in now.batches:
            then = old.get(batch.size)
            count, busy_ms = batch.count, batch.busy_ms
            if then is not None:
                count, busy_ms = count - then.count, busy_ms - then.busy_ms
            if count < 0 or busy_ms < 0.0 or not math.isfinite(busy_ms):
                fell = True
            elif count and (then is not None or before.batches or not before.items):
                batches.append((batch.size, count, busy_ms))
        if fell:
            return None
        queued = 0
        if now.pending is not None and before.pending is not None:
            queued = now.pending - before.pending
        return Ran(
            before_s,
            look.at_s,
            now.succeeded - before.succeeded,
            now.failed - before.failed,
            now.cached - before.cached,
            now.items - before.items,
            queued,
            tuple(batches),
        )
