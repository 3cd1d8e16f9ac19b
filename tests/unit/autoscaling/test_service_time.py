"""The service time learned from batch statistics."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.autoscaling.demand import ServiceTime
from tidegate.autoscaling.service_time import SETTLING, ServiceTimes
from tidegate.autoscaling.variates import unit_gammas

NOISE = unit_gammas(0.04, 3, 4000)
"""Of one execution: 20 %."""


class Learned:
    """Feeds one look after another."""

    def __init__(self, largest: int = 8) -> None:
        self.times = ServiceTimes(largest)
        self.drawn = 0

    def look(self, sizes: dict[int, int], alpha: float, beta: float, *, noise: bool = True) -> None:
        for n, count in sizes.items():
            busy = 0.0
            for _ in range(count):
                self.drawn += 1
                factor = NOISE[self.drawn % len(NOISE)] if noise else 1.0
                busy += (alpha + beta * n) * factor
            self.times.add(n, count, busy)
        self.times.end_interval()

    def known(self) -> ServiceTime:
        estimate = self.times.estimate()
        assert estimate is not None
        return estimate


MIX = {1: 40, 2: 30, 3: 15, 4: 6, 5: 3, 8: 1}


@pytest.mark.parametrize(("alpha", "beta"), [(8.0, 6.0), (90.0, 20.0), (2.0, 0.1), (0.0, 10.0)])
def test_recovered_within_three_per_cent(alpha: float, beta: float) -> None:
    learned = Learned()
    for _ in range(60):
        learned.look(MIX, alpha, beta)
    known = learned.known()
    assert known.sure
    for n in (1, 2, 4, 8):
        assert known.of(n) == pytest.approx(alpha + beta * n, rel=0.03)
    assert known.cv == pytest.approx(0.2, rel=0.35)


def test_few_executions_tell_nothing() -> None:
    learned = Learned()
    assert learned.times.estimate() is None
    learned.look({1: 4}, 8, 6)
    assert learned.times.estimate() is None


def test_one_size_only_batching_is_not_relied_on() -> None:
    learned = Learned()
    for _ in range(20):
        learned.look({1: 50}, 8, 6, noise=False)
    known = learned.known()
    assert not known.sure
    assert known.alpha_ms == 0.0
    assert known.beta_ms == pytest.approx(14.0)


def test_a_short_reach_is_believed_in_part() -> None:
    """Sizes 1 and 2 only, few of them, and a largest batch of 64: between the two extremes."""
    learned = Learned(64)
    for _ in range(3):
        learned.look({1: 30, 2: 1}, 8, 6, noise=False)
    known = learned.known()
    assert not known.sure
    assert 1.2 * (8 + 6 * 64) < known.of(64) < 64 * 14
    assert known.of(1) == pytest.approx(14, rel=0.01)


def test_without_batching_one_size_is_all_there_is() -> None:
    learned = Learned(1)
    learned.look({1: 200}, 8, 6)
    known = learned.known()
    assert known.sure
    assert known.of(1) == pytest.approx(14, rel=0.03)


def test_a_change_is_noticed_within_half_a_minute() -> None:
    learned = Learned()
    for _ in range(120):
        learned.look(MIX, 8, 6)
    for _ in range(6):
        learned.look(MIX, 8 * 1.4, 6 * 1.4)
    assert learned.known().of(8) == pytest.approx(56 * 1.4, rel=0.1)


def test_a_change_is_no_variation_of_single_executions() -> None:
    """Neither before it is noticed nor while the line is still off."""
    learned, few = Learned(), dict.fromkeys(range(1, 9), 4)
    for _ in range(120):
        learned.look(few, 8, 6)
    varied = learned.known().cv
    for _ in range(SETTLING):
        learned.look(few, 8 * 1.4, 6 * 1.4)
        assert 0.9 * varied < learned.known().cv < 1.35 * varied
    assert learned.known().of(8) == pytest.approx(56 * 1.4, rel=0.05)
    assert learned.known().cv == pytest.approx(varied, rel=0.05)


def test_other_batch_sizes_are_no_change() -> None:
    """Times that are no straight line: the mean moves with the sizes, nothing else did."""
    learned = Learned()

    def look(sizes: dict[int, int]) -> None:
        for n, count in sizes.items():
            learned.times.add(n, count, count * (10.0 + 0.5 * n * n))
        learned.times.end_interval()

    for _ in range(200):
        look({1: 50, 2: 30, 8: 5})
    before = learned.known().batches
    look({8: 60})
    assert learned.known().batches > 0.9 * before


@pytest.mark.parametrize(
    ("size", "count", "busy_ms"),
    [
        (1, 0, 5.0),
        (1, -3, 5.0),
        (0, 3, 5.0),
        (1, 3, float("nan")),
        (1, 3, -1.0),
        (1, 3, float("inf")),
    ],
)
def test_what_is_no_sample(size: int, count: int, busy_ms: float) -> None:
    learned = Learned()
    learned.look({1: 100}, 8, 6, noise=False)
    before = learned.known()
    learned.times.add(size, count, busy_ms)
    assert learned.known() == before


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.integers(1, 100), st.floats(0.0, 1e5)),
        min_size=1,
        max_size=20,
    )
)
def test_never_negative(samples: list[tuple[int, int, float]]) -> None:
    times = ServiceTimes(8)
    for size, count, busy_ms in samples:
        times.add(size, count, busy_ms)
        times.end_interval()
        known = times.estimate()
        if known is not None:
            assert known.alpha_ms >= 0.0
            assert known.beta_ms >= 0.0
            assert known.of(8) > 0.0
            assert known.cv >= 0.0
