"""Arrivals of several pods: rates, dispersion, and by how much the load grows."""

import math
from collections.abc import Sequence

import pytest

from tidegate.autoscaling.arrivals import Arrivals, Growth, higher_of
from tidegate.autoscaling.latency import quantile_ms, share_slower
from tidegate.autoscaling.server import LAW

PODS = frozenset({"a", "b"})


def ticks(arrivals: Arrivals, counts: Sequence[tuple[float, float]], pods: frozenset[str]) -> None:
    """So many requests at pods a and b in each tick."""
    for tick, pair in enumerate(counts):
        start_s, end_s = 5.0 * tick, 5.0 * tick + 5.0
        arrivals.begin(start_s, end_s, pods)
        for pod, count in zip("ab", pair, strict=True):
            arrivals.add(pod, start_s, end_s, count, ready=True)


def test_rates_of_the_windows() -> None:
    arrivals = Arrivals(LAW)
    ticks(arrivals, [(10, 20)] * 12 + [(30, 30)] * 3, PODS)
    assert arrivals.rate(15.0) == pytest.approx(12.0)
    assert arrivals.rate(60.0) == pytest.approx((9 * 30 + 3 * 60) / 60.0)


def test_nothing_known_is_not_nothing() -> None:
    arrivals = Arrivals(LAW)
    assert arrivals.rate(60.0) is None
    arrivals.begin(0.0, 5.0, PODS)
    assert arrivals.rate(60.0) is None
    arrivals.add("a", 0.0, 5.0, 0.0, ready=True)
    assert arrivals.rate(60.0) == 0.0


def test_half_of_the_pods_count_for_all() -> None:
    arrivals = Arrivals(LAW)
    for tick in range(12):
        arrivals.begin(5.0 * tick, 5.0 * tick + 5.0, PODS)
        arrivals.add("a", 5.0 * tick, 5.0 * tick + 5.0, 10.0, ready=True)
    assert arrivals.rate(60.0) == pytest.approx(4.0)


def test_a_late_count_is_spread_over_its_time() -> None:
    arrivals = Arrivals(LAW)
    for tick in range(4):
        arrivals.begin(5.0 * tick, 5.0 * tick + 5.0, PODS)
        arrivals.add("a", 5.0 * tick, 5.0 * tick + 5.0, 10.0, ready=True)
    arrivals.add("b", 0.0, 20.0, 40.0, ready=True)
    assert arrivals.rate(5.0) == pytest.approx(4.0)
    assert arrivals.rate(20.0) == pytest.approx(4.0)


def test_regular_arrivals_are_taken_as_poisson() -> None:
    arrivals = Arrivals(LAW)
    ticks(arrivals, [(10, 10)] * 60, PODS)
    assert arrivals.dispersion() == 1.0


def test_alternating_counts_are_bursts() -> None:
    arrivals = Arrivals(LAW)
    ticks(arrivals, [(10, 10), (18, 18)] * 40, PODS)
    assert arrivals.dispersion() > 2.0


def test_a_pod_that_joins_is_no_burst() -> None:
    """Each pod's share is 100 and 80 by turns: too little for an outlier, too much for chance."""
    arrivals = Arrivals(LAW)
    for tick in range(60):
        pods = frozenset("abcde"[: 4 + tick % 2])
        arrivals.begin(5.0 * tick, 5.0 * tick + 5.0, pods)
        for pod in sorted(pods):
            arrivals.add(pod, 5.0 * tick, 5.0 * tick + 5.0, 400 / len(pods), ready=True)
    assert arrivals.dispersion() == 1.0


def test_the_short_window_counts_less_its_error() -> None:
    assert higher_of(100.0, 105.0, 15.0, 1.0) == pytest.approx(105 - math.sqrt(7))
    assert higher_of(100.0, 102.0, 15.0, 1.0) == 100.0
    assert higher_of(100.0, 105.0, 15.0, 6.0) == 100.0


def grown(rates: list[float]) -> dict[float, float]:
    """The growth after these rates, one each 15 s."""
    growth = Growth()
    for i, rate in enumerate(rates):
        before = rates[max(0, i - 4) : i + 1]
        growth.add(15.0 * i, rate, sum(before) / len(before), 1.0)
    return dict(growth.known)


def test_a_steady_load_does_not_grow() -> None:
    assert set(grown([100.0] * 200).values()) == {1.0}


def test_chance_is_no_growth() -> None:
    assert max(grown([100.0 + (0.7 if i % 3 else -1.4) for i in range(200)]).values()) < 1.03


def test_a_ramp_is_foretold_once_the_trend_has_proved_itself() -> None:
    ramp = [100.0 + 2.0 * i for i in range(60)]
    factors = grown(ramp)
    for seconds in (30.0, 60.0, 120.0):
        ahead = 1.0 + seconds * 2.0 / 15.0 / ramp[-1]
        assert factors[seconds] == pytest.approx(ahead, rel=0.03)
    assert max(grown(ramp[:6]).values()) == 1.0


def test_a_flash_crowd_is_not_drawn_out() -> None:
    """The trend foretold nothing before, so what it says in the jump is not believed."""
    assert max(grown([100.0] * 60 + [400.0] * 3).values()) == 1.0


def test_what_the_load_does_now_and_then_is_kept_in_store() -> None:
    """Every ten minutes it rises by half within a minute: known after half an hour."""
    waves = ([100.0] * 20 + [150.0] * 20) * 6
    factors = grown(waves)
    assert factors[15.0] <= factors[60.0] <= factors[300.0]
    assert 1.3 < factors[120.0] < 1.6


def test_a_gap_is_no_jump() -> None:
    growth = Growth()
    for i in range(150):
        growth.add(15.0 * i, 100.0, 100.0, 1.0)
    growth.add(15.0 * 400, 300.0, 300.0, 1.0)
    assert max(factor for _, factor in growth.known) == 1.0


EDGES = (10, 20, 50, 100)


@pytest.mark.parametrize(
    ("target", "share"), [(20, 0.1), (50, 0.01), (10, 0.5), (100, 0.0), (5, 0.7071), (200, 0.0)]
)
def test_share_slower(target: float, share: float) -> None:
    assert share_slower(EDGES, (500, 900, 990, 1000), 1000, target) == pytest.approx(
        share, abs=1e-3
    )


def test_slower_than_all_edges_is_not_known() -> None:
    assert share_slower(EDGES, (0, 0, 500, 900), 1000, 200) is None
    assert share_slower(EDGES, (0, 0, 0, 0), 0, 50) is None


@pytest.mark.parametrize(
    ("quantile", "ms"), [(0.5, 10), (0.9, 20), (0.99, 50), (0.999, 95), (0.25, 4.15)]
)
def test_quantile_ms(quantile: float, ms: float) -> None:
    assert quantile_ms(EDGES, (500, 900, 990, 1000), 1000, quantile) == pytest.approx(ms, rel=0.01)


def test_a_quantile_beyond_the_edges_is_at_least_the_last_one() -> None:
    assert quantile_ms(EDGES, (0, 0, 500, 900), 1000, 0.99) == 100
    assert quantile_ms(EDGES, (0, 0, 0, 0), 0, 0.99) is None
