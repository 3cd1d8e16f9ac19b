"""What looks at one rollout's pods come to, without a clock or a pod."""

import math
from dataclasses import dataclass, field, replace

import pytest

from tidegate.actions import Measure
from tidegate.analysis.judgement import Objective, Test
from tidegate.judging import (
    EVEN_AFTER_S,
    FAST_S,
    RATE_OVER_S,
    SUSPECT_FOR_S,
    UNREAD_S,
    Asked,
    Trial,
    epoch_of,
)
from tidegate.measurement import bounds_ms
from tidegate.observed import Measured
from tidegate.resources.sidecar import LATENCY_EDGES_MS, TrafficClass
from tidegate.sidecar_page import Counts, Reading

STABLE, CANARY = "stable", "canary"
STARTED = "2023-11-14T22:00:00Z"
MEASURE = Measure(
    stable=STABLE,
    canary=CANARY,
    started=STARTED,
    since=STARTED,
    objective=Objective(0.01, 100, 0.01, 0.05, 0.95),
    interval_s=1.0,
)
LATENCY = replace(MEASURE.objective, latency_bounds_ms=bounds_ms(100))
EDGES_MS = LATENCY_EDGES_MS
MIDDLING_MS = 50
"""What is middling took longer, yet not too long."""


@dataclass
class Pods:
    """One pod of each revision with counters that a test moves, and a trial of theirs."""

    trial: Trial = field(default_factory=lambda: Trial(MEASURE))
    at_s: float = field(default_factory=lambda: (epoch_of(STARTED) or 0.0) + 60.0)
    counts: dict[str, Counts] = field(default_factory=lambda: {STABLE: Counts(), CANARY: Counts()})
    news: bool = False

    def serve(self, revision: str, good: int = 0, failed: int = 0, middling: int = 0) -> None:
        c = self.counts[revision]
        count = good + failed + middling
        faster = [
            before + (good + failed) * (edge > 2) + middling * (edge > MIDDLING_MS)
            for edge, before in zip(EDGES_MS, c.faster or (0,) * len(EDGES_MS), strict=True)
        ]
        self.counts[revision] = replace(
            c,
            started=c.started + count,
            succeeded=c.succeeded + good + middling,
            failed=c.failed + failed,
            timed=c.timed + count,
            faster=tuple(faster),
        )

    def look(
        self, after_s: float = 1.0, *, unread: tuple[str, ...] = (), known: tuple[str, ...] = ()
    ) -> Measured:
        """A look; pods that are unread give no page, and none is missed of those that are known."""
        self.at_s += after_s
        readings = [
            Reading(pod, pod, self.at_s, EDGES_MS, {TrafficClass.CLIENT: counts})
            for pod, counts in self.counts.items()
            if pod not in (*unread, *known)
        ]
        asked = [Asked(pod, f"pod-{pod}", pod, pod not in unread) for pod in self.counts]
        self.news = self.trial.look(self.at_s, readings, asked)
        assert self.trial.measured is not None
        return self.trial.measured


def test_a_failure_is_news_and_is_looked_at_closely() -> None:
    pods = Pods()
    pods.serve(STABLE, good=100)
    assert pods.look().judgement.bad is None
    assert pods.news  # it is read
    pods.look()
    assert not pods.news
    seen_s = pods.at_s
    assert pods.trial.pause_s(pods.at_s) == MEASURE.interval_s
    pods.serve(CANARY, failed=8)
    bad = pods.look().judgement.bad
    assert bad is not None
    assert bad.test is Test.ERRORS
    assert pods.news
    # From the last look that saw none.
    assert pods.trial.first_bad_s == seen_s
    assert pods.trial.pause_s(pods.at_s) == FAST_S
    assert pods.trial.pause_s(pods.at_s + SUSPECT_FOR_S) == MEASURE.interval_s


def test_first_bad_is_the_first() -> None:
    pods = Pods()
    pods.serve(CANARY, failed=1)
    pods.look()
    first_s = pods.at_s
    for _ in range(2):
        pods.serve(CANARY, failed=1)
        pods.look()
    assert pods.trial.first_bad_s == first_s


def test_silence_is_told_of_after_a_while() -> None:
    pods = Pods()
    read_at = pods.look().read_at
    for _ in range(int(UNREAD_S)):
        measured = pods.look(unread=(CANARY,))
        assert measured.unread == ("pod-canary",)
        assert measured.read_at == read_at
        assert not pods.news
        assert pods.trial.silent == ()
    pods.look(unread=(CANARY,))
    assert pods.news
    assert [p.uid for p in pods.trial.silent] == [CANARY]
    assert pods.look().read_at != read_at
    assert pods.news
    assert pods.trial.silent == ()


def test_a_silent_stable_pod_does_not_matter_as_much() -> None:
    pods = Pods()
    for _ in range(10):
        measured = pods.look(unread=(STABLE,))
    assert measured.unread == ("pod-stable",)
    assert measured.read_at is not None
    assert pods.trial.silent == ()


def test_a_pod_that_another_source_knows_is_not_missed() -> None:
    pods = Pods()
    pods.look()
    for _ in range(10):
        measured = pods.look(known=(CANARY,))
    assert measured.unread == ()
    assert pods.trial.all_read_s == pods.at_s


def test_without_pods_of_the_canary_nothing_was_read() -> None:
    pods = Pods(counts={STABLE: Counts()})
    assert pods.look().read_at is None
    assert pods.trial.all_read_s is None


def test_rates_are_of_the_last_looks() -> None:
    pods = Pods()
    pods.serve(STABLE, good=10_000)
    assert pods.look().arrivals_per_s is None  # maybe a pod's whole life
    for _ in range(3):
        pods.serve(STABLE, good=30)
        pods.serve(CANARY, good=10)
        measured = pods.look(2.0)
    assert measured.arrivals_per_s == pytest.approx(20.0)
    for _ in range(int(RATE_OVER_S)):
        measured = pods.look()
    assert measured.arrivals_per_s == 0.0


def test_shares_are_counted_from_a_step_on() -> None:
    pods = Pods()
    pods.look()
    pods.serve(STABLE, good=30)
    pods.serve(CANARY, good=10)
    measured = pods.look()
    assert (measured.canary_arrivals, measured.stable_arrivals) == (10, 30)
    later = "2023-11-14T22:02:00Z"
    pods.trial.want(replace(MEASURE, since=later, interval_s=2.0))
    pods.serve(CANARY, good=5)
    measured = pods.look()
    assert (measured.since, measured.canary_arrivals, measured.stable_arrivals) == (later, 5, 0)
    assert measured.requests == 45  # of the pods, whatever the step
    assert pods.trial.pause_s(pods.at_s) == 2.0


@pytest.mark.parametrize(("uneven", "fires"), [(None, True), (2.0, False), (math.inf, False)])
def test_latencies_are_compared_only_where_pods_have_as_much_to_do(
    uneven: float | None, fires: bool
) -> None:
    pods = Pods(Trial(replace(MEASURE, objective=LATENCY, uneven=uneven)))
    for _ in range(20):
        pods.serve(STABLE, good=100)
        pods.look()
    for _ in range(20):
        pods.serve(STABLE, good=100)
        pods.serve(CANARY, good=50, middling=50)
        measured = pods.look()
    (compared,) = [r for r in measured.judgement.results if r.test is Test.LATENCY_AGAINST_STABLE]
    assert compared.fired is fires
    assert (measured.judgement.worse is not None) is fires
    assert ("not compared" in compared.explanation) is not fires
    assert measured.judgement.requests == 2000  # all the rest counts
    # Evened out: again compared, once what had queued is answered.
    pods.trial.want(replace(MEASURE, objective=LATENCY))
    for after_s in range(1, int(EVEN_AFTER_S) + 30):
        pods.serve(STABLE, good=100)
        pods.serve(CANARY, good=50, middling=50)
        worse = pods.look().judgement.worse
        assert fires or after_s >= EVEN_AFTER_S or worse is None
    assert worse is not None


def test_evidence_goes_on_from_what_was_written_down() -> None:
    pods = Pods()
    pods.look()
    pods.serve(CANARY, failed=2, good=200)
    assert pods.look().state == ""
    pods.trial.write_down()
    before = pods.trial.measured
    assert before is not None
    again = Pods(Trial(replace(MEASURE, state=before.state)), pods.at_s, pods.counts)
    assert again.trial.resumed
    assert again.look().judgement.results == before.judgement.results


@pytest.mark.parametrize("state", ["", "{", "nonsense"])
def test_a_state_of_no_use_is_none(state: str) -> None:
    assert not Trial(replace(MEASURE, state=state)).resumed


@pytest.mark.parametrize("part", ["stable", "canary", "started"])
def test_which_rollout(part: str) -> None:
    other = {part: "other"}
    assert not Trial(MEASURE).is_of(replace(MEASURE, **other))  # type: ignore[arg-type]
    assert Trial(MEASURE).is_of(replace(MEASURE, since="2023-11-14T22:02:00Z"))


def times(pods: Pods, test: Test = Test.ERRORS) -> tuple[float, float] | None:
    """When it was first and last seen, in seconds after the beginning."""
    text = pods.look(0.0).seen.get(test)
    if text is None:
        return None
    first, last = (epoch_of(part) for part in text.split("/"))
    assert first is not None
    assert last is not None
    begun = epoch_of(STARTED) or 0.0
    return first - begun, last - begun


def test_when_failures_were_first_and_last_seen() -> None:
    pods = Pods()
    pods.serve(CANARY, good=10)
    pods.look()
    assert times(pods) is None
    for failed in (1, 0, 2, 0, 0):
        pods.serve(CANARY, good=10, failed=failed)
        pods.look(10.0)
    assert times(pods) == (71.0, 91.0)


@pytest.mark.parametrize("kept", [True, False], ids=["evidence kept", "evidence lost"])
def test_a_later_process_goes_on_from_what_was_seen(kept: bool) -> None:
    pods = Pods()
    pods.look()
    pods.serve(CANARY, good=10, failed=1)
    before = pods.look()
    pods.trial.write_down()
    assert pods.trial.measured is not None
    state = pods.trial.measured.state if kept else ""
    pods.trial = Trial(replace(MEASURE, state=state, seen=before.seen))
    pods.look(10.0)
    first = 62.0
    assert times(pods) == (first, first if kept else 72.0)
    pods.serve(CANARY, failed=1)
    pods.look(10.0)
    assert times(pods) == (first, 82.0)


def test_another_objective_begins_anew_and_counts_again_what_the_canary_did() -> None:
    pods = Pods()
    for _ in range(3):
        pods.serve(STABLE, good=100)
        pods.serve(CANARY, good=99, failed=2)
        assert pods.look().judgement.bad is None
    stricter = replace(MEASURE.objective, max_error_rate=0.001)
    asked = replace(MEASURE, objective=stricter)
    assert not pods.trial.is_of(asked)
    pods.trial.write_down()
    assert pods.trial.measured is not None
    pods.trial = Trial(replace(asked, state=pods.trial.measured.state))
    pods.look()
    bad = pods.look().judgement.bad
    assert bad is not None
    assert (bad.canary_count, bad.canary_requests, bad.bound) == (6, 303, 0.001)


def test_shares_of_the_traffic_leave_out_what_was_before_the_first_look() -> None:
    """An operator that begins in the middle knows the canary's requests since its pods began."""
    pods = Pods()
    pods.serve(STABLE, good=900)
    pods.serve(CANARY, good=100)
    measured = pods.look()
    assert (measured.canary_arrivals, measured.stable_arrivals) == (0, 0)
    assert measured.judgement.requests == 100
    pods.serve(STABLE, good=95)
    pods.serve(CANARY, good=5)
    measured = pods.look()
    assert (measured.canary_arrivals, measured.stable_arrivals) == (5, 95)


def test_how_long_nobody_could_look() -> None:
    pods = Pods()
    assert pods.look(unread=(CANARY,)).blind_s == 0.0
    assert pods.look(7.0, unread=(CANARY,)).blind_s == 7.0
    assert pods.look(1.0).blind_s == 0.0
    assert pods.look(4.0, unread=(CANARY,)).blind_s == 4.0
