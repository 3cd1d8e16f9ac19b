import math
import random

import pytest

from tests.unit.analysis.simulation import quantiles
from tidegate.analysis.latency import LatencyComparison

BOUNDS_MS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 5_000)


def slower(source: random.Random, requests: int, factor: float) -> tuple[int, ...]:
    """Log-normal answers of 50 ms on stable."""
    took = [factor * 50.0 * math.exp(source.gauss(0.0, 0.5)) for _ in range(requests)]
    return tuple(sum(ms >= bound for ms in took) for bound in BOUNDS_MS)


def seasoned(source: random.Random) -> LatencyComparison:
    comparison = LatencyComparison()
    for _ in range(20):
        comparison.learn(slower(source, 50, 1.0), 50)
    return comparison


# Median canary requests until the evidence reaches 1000, at 10 % weight, times 1.2.
@pytest.mark.parametrize(
    ("factor", "most", "runs"),
    [(1.1, 1.2 * 2480, 5), (1.5, 1.2 * 123, 40), (2.0, 1.2 * 54, 100), (4.0, 1.2 * 15, 100)],
)
def test_how_many_requests_it_takes(factor: float, most: float, runs: int) -> None:
    lengths = []
    for seed in range(runs):
        source, requests = random.Random(seed), 0
        comparison = seasoned(source)
        while comparison.log_evidence() < math.log(1000.0) and requests < 10_000:
            requests += 1
            stable = slower(source, 9, 1.0)
            comparison.weigh((slower(source, 1, factor), 1), (stable, 9))
            comparison.learn(stable, 9)
        lengths.append(requests)
    assert quantiles(lengths)[0] <= most


def test_the_same_latency_and_a_faster_canary_raise_no_alarm() -> None:
    for seed in range(20):
        source = random.Random(seed)
        comparison = seasoned(source)
        for _ in range(60):
            stable = slower(source, 18, 1.0)
            comparison.weigh((slower(source, 2, 0.8 if seed % 2 else 1.0), 2), (stable, 18))
            comparison.learn(stable, 18)
            assert comparison.log_evidence() < math.log(1000.0)


def test_bounds_are_chosen_where_stable_has_answers_on_both_sides() -> None:
    source = random.Random(1)
    comparison = seasoned(source)
    comparison.weigh((slower(source, 1, 1.0), 1), (slower(source, 9, 1.0), 9))
    chosen = [BOUNDS_MS[i] for i in comparison.compared]
    assert chosen == sorted({*chosen})
    assert 20 <= chosen[0] < 50 < chosen[-1] <= 300


@pytest.mark.parametrize("ms", [0, 10, 10_000])
def test_a_stable_whose_answers_all_take_the_same_still_compares(ms: int) -> None:
    def all_at(requests: int, took: int) -> tuple[int, ...]:
        return tuple(requests * (took >= bound) for bound in BOUNDS_MS)

    comparison = LatencyComparison()
    comparison.learn(all_at(100, ms), 100)
    for _ in range(30):
        comparison.weigh((all_at(2, ms), 2), (all_at(18, ms), 18))
        comparison.learn(all_at(18, ms), 18)
    assert comparison.compared
    assert comparison.log_evidence() < 0.1
    if ms == 10:
        for _ in range(10):
            comparison.weigh((all_at(2, 20), 2), (all_at(18, 10), 18))
        assert comparison.log_evidence() > math.log(1000.0)


def test_nothing_is_compared_before_stable_is_known() -> None:
    source = random.Random(1)
    comparison = LatencyComparison()
    for _ in range(5):
        stable = slower(source, 9, 1.0)
        comparison.weigh((slower(source, 1, 50.0), 1), (stable, 9))
        comparison.learn(stable, 9)
    assert comparison.compared == ()
    assert comparison.log_evidence() == pytest.approx(0.0)


def test_other_bounds_in_between_are_left_out() -> None:
    source = random.Random(1)
    comparison = seasoned(source)
    comparison.learn((1, 1), 2)
    comparison.weigh(((1, 1), 1), ((9, 9), 9))
    assert comparison.compared == ()
    comparison.weigh((slower(source, 1, 1.0), 1), (slower(source, 9, 1.0), 9))
    assert comparison.compared
    comparison.weigh((slower(source, 1, 1.0), 1), ((), 9))
    assert comparison.canary_timed == 2
    assert comparison.stable_timed == 9


def test_the_state_comes_back() -> None:
    source = random.Random(1)
    for comparison in (LatencyComparison(), seasoned(source)):
        for _ in range(3):
            state = comparison.state()
            copy = LatencyComparison()
            rest = iter(state)
            copy.restore(lambda count, rest=rest: [next(rest) for _ in range(count)])  # type: ignore[misc]
            assert list(rest) == []
            assert copy.state() == state
            assert copy.log_evidence() == comparison.log_evidence()
            comparison.weigh((slower(source, 5, 2.0), 5), (slower(source, 9, 1.0), 9))
