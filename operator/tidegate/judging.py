"""What the looks at one rollout's pods come to: judgement, shares, rates, and when it is news.

The core that the operator's measuring task and the simulation share. It is told what was read and
when; reading, waiting and waking somebody are left to its caller. Pure.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import isinf
from typing import Final, NamedTuple, TypeVar

from tidegate.actions import Measure
from tidegate.analysis.block import Block
from tidegate.analysis.evidence import Evidence
from tidegate.analysis.judgement import Consequence, Judgement, Test
from tidegate.measurement import Ledger, bounds_ms, hanging_after_s
from tidegate.observed import Measured
from tidegate.resources.sidecar import TrafficClass
from tidegate.sidecar_page import NO_COUNTS, Reading

T = TypeVar("T")

FAST_S: Final = 0.25
"""Between two looks while the canary is under suspicion."""
SUSPECT_FOR_S: Final = 10.0
UNREAD_S: Final = 5.0
"""So long without an answer is worth a word; before, the pod may just be starting or leaving."""
NO_EVIDENCE: Final = 1.0 + 1e-9
"""Evidence of nothing: a mean of ones, rounded."""
EVEN_AFTER_S: Final = 15.0
"""Until requests that queued under an uneven load have been answered and pods share it anew."""
RATE_OVER_S: Final = 30.0
CARRIES_STEP: Final = 0.05
MIRRORED_STEP: Final = 50


class Asked(NamedTuple):
    """A pod that was looked at.

    Attributes:
        uid: its UID.
        name: its name.
        revision: hash of its revision.
        known: its counters are known as of now, by this look or by one just before.
    """

    uid: str
    name: str
    revision: str
    known: bool


class _Signal(NamedTuple):
    """What matters to a decision, coarse enough that it changes seldom."""

    bad: str
    worse: str
    stable_failing: bool
    proven: bool
    hanging: tuple[str, ...]
    read: bool
    silent: bool
    carries: float
    mirrored: int
    streaming: bool


class Trial:
    """The measurements of one rollout. All times are seconds since the epoch.

    Args:
        measure: what the plan asks for, with the evidence so far.

    Attributes:
        measure: what is asked for now.
        measured: what is known; None before the first look.
        resumed: some of the evidence is from before.
        all_read_s: when every pod of the canary was last known.
        first_bad_s: when the canary was not yet seen to fail or to be slow; None: it never was.
        silent: pods of the canary that have not been read for long.
    """

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.measured: Measured | None = None
        self._evidence = Evidence.load(measure.objective, measure.state)
        # A state that could not be used is no evidence: then all counts from the beginning.
        self.resumed = self._evidence.dump() != Evidence(measure.objective).dump()
        self.all_read_s: float | None = None
        self.first_bad_s: float | None = None
        self.silent: tuple[Asked, ...] = ()
        self._ledger: Ledger | None = None
        self._looked_s: float | None = None
        self._began_s = 0.0
        self._suspect_until_s = 0.0
        self._uneven: float | None = None
        self._uneven_until_s = 0.0
        self._read_s: dict[str, float] = {}
        # By UID: streams and single requests since the pod's sidecar started.
        self._started: dict[str, tuple[int, int]] = {}
        # By test: what it had counted at the last look; when that grew, first and last.
        self._counted: dict[Test, int] = {}
        self._seen = dict(measure.seen)
        # Seconds and client requests of recent looks; seconds and requests in flight a stable pod.
        self._rates: deque[tuple[float, int]] = deque()
        self._loads: deque[tuple[float, float]] = deque()
        self._told: _Signal | None = None

    def is_of(self, measure: Measure) -> bool:
        """Whether that asks for the same rollout, judged by the same objective.

        With another one evidence begins anew: what the canary's pods counted is counted again.
        """
        mine = self.measure
        return (mine.stable, mine.canary, mine.started, mine.objective) == (
            measure.stable,
            measure.canary,
            measure.started,
            measure.objective,
        )

    def want(self, measure: Measure) -> None:
        """Go on, maybe at another pace; shares of traffic are measured from a new step on."""
        if self.measure.since != measure.since and self.measured is not None:
            self.measured = replace(
                self.measured, since=measure.since, canary_arrivals=0, stable_arrivals=0
            )
        self.measure = measure

    def pause_s(self, at_s: float) -> float:
        """Until the next look."""
        pause_s = self.measure.interval_s
        return min(pause_s, FAST_S) if at_s < self._suspect_until_s else pause_s

    def look(self, at_s: float, readings: Sequence[Reading], pods: Sequence[Asked]) -> bool:
        """Take in a look; returns whether there is news for a decision.

        Args:
            at_s: when.
            readings: of pods of both revisions.
            pods: all of both revisions that were looked at.
        """
        measure = self.measure
        if self._ledger is None:
            self._ledger = self._new_ledger(readings)
        unread = [p for p in pods if not p.known]
        block = self._ledger.observe(readings, at_s=at_s, unread=[p.name for p in unread])
        self._evidence.observe(self._comparable(block))
        judgement = self._explained(self._evidence.judge())
        if self.first_bad_s is None and (block.canary.failed or block.canary.slow):
            self.first_bad_s = at_s if self._looked_s is None else self._looked_s
        if self._looked_s is None:
            self._began_s = at_s
            # Pods may have served for long, and of stable's that is not known: no share of this.
            block = replace(block, canary_arrivals=0, stable_arrivals=0)
        self._looked_s = at_s
        if block.canary.failed or block.hanging or _looks_bad(judgement):
            self._suspect_until_s = at_s + SUSPECT_FOR_S
        missing = [p for p in unread if p.revision == measure.canary]
        if not missing and any(p.revision == measure.canary for p in pods):
            self.all_read_s = at_s
        for reading in readings:
            self._read_s[reading.pod] = at_s
            self._started[reading.pod] = (
                _started(reading, TrafficClass.STREAMING),
                _started(reading, TrafficClass.CLIENT, TrafficClass.MIRRORED),
            )
        before = self.measured
        self.measured = Measured(
            stable=measure.stable,
            canary=measure.canary,
            started=measure.started,
            judgement=judgement,
            read_at=(
                None if self.all_read_s is None else datetime.fromtimestamp(self.all_read_s, UTC)
            ),
            blind_s=at_s - (self._began_s if self.all_read_s is None else self.all_read_s),
            since=measure.since,
            unread=block.unread,
            hanging=block.hanging,
            canary_arrivals=(before.canary_arrivals if before else 0) + block.canary_arrivals,
            stable_arrivals=(before.stable_arrivals if before else 0) + block.stable_arrivals,
            mirrored=(before.mirrored if before else 0) + block.mirrored,
            streams=sum(streams for streams, _ in self._started.values()),
            requests=sum(requests for _, requests in self._started.values()),
            arrivals_per_s=self._arrivals_per_s(block),
            in_flight_per_pod=self._in_flight_per_pod(block, readings),
            state=before.state if before else "",
            seen=self._sightings(judgement, at_s),
        )
        self.silent = tuple(
            p for p in missing if at_s - self._read_s.setdefault(p.uid, at_s) > UNREAD_S
        )
        return self._news(self.measured)

    def _sightings(self, judgement: Judgement, at_s: float) -> dict[str, str]:
        """By test, when the canary first and last did what it counts."""
        for result in judgement.results:
            before = self._counted.get(result.test)
            self._counted[result.test] = result.canary_count
            if before is None and self.resumed:
                continue  # counted by an earlier process
            if result.canary_count > (before or 0):
                now = _stamp(at_s)
                first = self._seen.get(result.test, now).partition("/")[0]
                self._seen[result.test] = f"{first}/{now}"
        return dict(self._seen)

    def write_down(self) -> None:
        """Put the evidence so far into `measured`, for `Measure.state` of a later process."""
        if self.measured is not None:
            self.measured = replace(self.measured, state=self._evidence.dump())

    def _new_ledger(self, readings: Iterable[Reading]) -> Ledger:
        measure = self.measure
        target_ms = measure.objective.latency_target_ms
        stable = [r for r in readings if r.revision == measure.stable]
        return Ledger(
            measure.stable,
            measure.canary,
            target_ms,
            bounds_ms(target_ms),
            hang_after_s=hanging_after_s(target_ms, stable),
            counts_from_s=epoch_of(measure.started),
            resumed=self.resumed,
        )

    def _comparable(self, block: Block) -> Block:
        """A block without what the two revisions' latencies would be compared by, if need be."""
        if self.measure.uneven is not None:
            self._uneven, self._uneven_until_s = self.measure.uneven, block.at_s + EVEN_AFTER_S
        elif block.at_s >= self._uneven_until_s:
            self._uneven = None
        if self._uneven is None:
            return block
        canary, stable = replace(block.canary, slower=()), replace(block.stable, slower=())
        return replace(block, canary=canary, stable=stable)

    def _explained(self, judgement: Judgement) -> Judgement:
        """The same, saying so where latencies are not compared."""
        if self._uneven is None:
            return judgement
        why = (
            "while stable gets no new requests"
            if isinf(self._uneven)
            else f"while a pod of it gets {self._uneven:.3g} times the requests of a stable pod"
        )
        results = tuple(
            replace(result, explanation=f"{result.explanation}; not compared {why}")
            if result.test is Test.LATENCY_AGAINST_STABLE and not result.fired
            else result
            for result in judgement.results
        )
        return replace(judgement, results=results)

    def _arrivals_per_s(self, block: Block) -> float | None:
        """Over the last looks; the first block has no length, and may hold a pod's whole life."""
        if block.seconds > 0:
            _keep(self._rates, (block.seconds, block.canary_arrivals + block.stable_arrivals))
        seconds = sum(s for s, _ in self._rates)
        return sum(n for _, n in self._rates) / seconds if seconds else None

    def _in_flight_per_pod(self, block: Block, readings: Iterable[Reading]) -> float | None:
        stable = [
            r.classes.get(TrafficClass.CLIENT, NO_COUNTS).in_flight
            for r in readings
            if r.revision == self.measure.stable
        ]
        if stable:
            _keep(self._loads, (block.seconds, sum(stable) / len(stable)))
        return sum(n for _, n in self._loads) / len(self._loads) if self._loads else None

    def _news(self, measured: Measured) -> bool:
        """Whether what matters is other than when there last was news."""
        told, judgement = self._told, measured.judgement
        carries, mirrored = judgement.carries, measured.mirrored
        if told is not None:
            if abs(carries - told.carries) <= CARRIES_STEP * told.carries:
                carries = told.carries
            # The more there are, the less a few more matter.
            if mirrored < told.mirrored + max(MIRRORED_STEP, told.mirrored // 4):
                mirrored = told.mirrored
        self._told = _Signal(
            bad=judgement.bad.test if judgement.bad else "",
            worse=judgement.worse.test if judgement.worse else "",
            stable_failing=judgement.stable_failing,
            proven=judgement.proven,
            hanging=measured.hanging,
            read=measured.read_at is not None,
            silent=bool(self.silent),
            carries=carries,
            mirrored=mirrored,
            streaming=measured.streams > measured.requests,
        )
        return self._told != told


def epoch_of(text: str) -> float | None:
    """Seconds since the epoch that RFC 3339 text says; None: it says no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _stamp(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _looks_bad(judgement: Judgement) -> bool:
    """Whether the data speak against the canary, if not loudly enough yet."""
    return any(
        result.evidence > NO_EVIDENCE and result.consequence is Consequence.ROLL_BACK
        for result in judgement.results
    )


def _started(reading: Reading, *classes: TrafficClass) -> int:
    return sum(reading.classes.get(c, NO_COUNTS).started for c in classes)


def _keep(looks: "deque[tuple[float, T]]", newest: "tuple[float, T]") -> None:
    """Append a look; drop those from before the last `RATE_OVER_S`."""
    looks.append(newest)
    while len(looks) > 1 and sum(seconds for seconds, _ in looks) > RATE_OVER_S:
        looks.popleft()
