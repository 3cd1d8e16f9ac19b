"""Evidence from every moment on, checked exactly for short histories, and how fast it is."""

from collections.abc import Callable
from itertools import product
from math import exp, log, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.analysis.simulation import quantiles, run_lengths
from tidegate.analysis.comparison import ERROR_RATIOS, add_superiority
from tidegate.analysis.onset import (
    FIRST,
    SHARE_RATIOS,
    Onset,
    Stretch,
    begun,
    share_factors,
)

LIMIT = 0.01


def after(failures: tuple[int, ...], each: float = 40.0, exponent: float = 1.0) -> Onset:
    """One request a block; `each` makes moments begin as if blocks were larger."""
    onset = Onset(len(SHARE_RATIOS))
    for failed in failures:
        onset.weigh(share_factors(failed, 1, LIMIT), each, exponent)
    return onset


@pytest.mark.parametrize("shares", [[LIMIT] * 10, [0.0, LIMIT] * 5, [0.002] * 10])
def test_a_share_that_was_never_above_the_limit_yields_no_evidence(shares: list[float]) -> None:
    """The mean over all that can happen, whatever the shares did meanwhile."""
    expected = 0.0
    for failures in product((0, 1), repeat=len(shares)):
        chance = prod(p if failed else 1.0 - p for p, failed in zip(shares, failures, strict=True))
        expected += chance * exp(after(failures).log_evidence())
    assert expected <= 1.0 + 1e-9
    if shares == [LIMIT] * 10:
        assert expected == pytest.approx(1.0, abs=1e-9)


def test_a_canary_never_worse_than_stable_yields_no_evidence() -> None:
    """Two requests of each a block; stable's share and the guess of it change in between."""
    stable, guesses = (0.02, 0.3, 0.02), (0.02, 0.02, 0.1)
    expected = 0.0
    for history in product(product((0, 1, 2), repeat=2), repeat=3):
        onset, chance = Onset(len(ERROR_RATIOS)), 1.0
        for (s1, s0), share, guess in zip(history, stable, guesses, strict=True):
            for failed in (s1, s0):
                chance *= (1, 2, 1)[failed] * share**failed * (1.0 - share) ** (2 - failed)
            factors = [0.0] * len(ERROR_RATIOS)
            add_superiority(factors, ERROR_RATIOS, guess, (s1, 2), (s0, 2))
            onset.weigh(factors, 100.0)
        expected += chance * exp(onset.log_evidence())
    assert expected <= 1.0 + 1e-9


def test_the_moments_have_all_the_weight_there_is() -> None:
    counts = [0, 1, 10, 1e3, 1e6, 1e12]
    weights = [FIRST + begun(count) for count in counts]
    assert weights == sorted(weights)
    assert weights[0] == FIRST
    assert weights[-1] < 1.0
    assert Onset(3).log_evidence() == pytest.approx(0.0)


def test_how_often_chance_reaches_the_level() -> None:
    """A share at the limit for 20,000 requests, at a level of 5 %: at most 5 % of 100 do."""

    def run(failures: Callable[[int, float], int]) -> int:
        onset = Onset(len(SHARE_RATIOS))
        for _ in range(800):
            onset.weigh(share_factors(failures(25, LIMIT), 25, LIMIT), 25)
            if onset.log_evidence() >= log(20.0):
                return 1
        return 0

    # 11 or more would have a chance of 1 %.
    assert sum(run_lengths(run, 100)) < 11


# Median failures until the evidence reaches 2000, ten requests a block, after so many good ones.
@pytest.mark.parametrize(
    ("share", "good", "most"),
    [(0.05, 1_000, 25), (0.2, 1_000, 10), (0.2, 100_000, 14), (1.0, 10_000, 10)],
)
def test_a_late_turn_is_found_whatever_was_before(share: float, good: int, most: int) -> None:
    def run(failures: Callable[[int, float], int]) -> int:
        onset, failed = Onset(len(SHARE_RATIOS), 0.0), 0
        for _ in range(good // 100):
            onset.weigh(share_factors(0, 100, LIMIT), 100)
        while onset.log_with(-50.0) < log(2000.0):
            bad = failures(10, share)
            failed += bad
            onset.weigh(share_factors(bad, 10, LIMIT), 10)
        assert onset.outweighs(-50.0)
        return failed

    assert quantiles(run_lengths(run, 60))[0] <= most


@given(
    failures=st.lists(st.integers(0, 1), min_size=1, max_size=12),
    before=st.floats(1.0, 20.0),
    more=st.floats(1.0, 20.0),
)
def test_a_larger_exponent_brings_evidence_nearer_to_none(
    failures: list[int], before: float, more: float
) -> None:
    divided = after(tuple(failures), exponent=before)
    highest = divided.later
    divided.temper(before, before * more)
    assert divided.later <= max(highest, 1.0) + 1e-9
    assert divided.later >= after(tuple(failures), exponent=before * more).later * (1.0 - 1e-9)


def test_what_is_forgotten_is_no_evidence_and_what_follows_is() -> None:
    onset = after((1,) * 6)
    assert onset.log_evidence() > 5.0
    onset.forget()
    assert onset.log_evidence() < 0.0
    for _ in range(6):
        onset.weigh(share_factors(1, 1, LIMIT), 1)
    assert onset.log_evidence() > 5.0


def test_no_evidence_is_too_large_to_keep() -> None:
    onset = Onset(len(SHARE_RATIOS))
    for _ in range(100):
        onset.weigh(share_factors(1000, 1000, LIMIT), 1000)
    assert onset.log_evidence() < 600.0
    copy = Onset(len(SHARE_RATIOS))
    rest = iter(onset.state())
    copy.restore(lambda count: [next(rest) for _ in range(count)])
    assert copy.state() == onset.state()
    onset.weigh(share_factors(0, 10_000_000, LIMIT), 10_000_000)
    assert onset.later == 0.0


@pytest.mark.parametrize("limit", [0.0, 1e-12, 0.01, 0.5, 1.0])
def test_any_limit_can_be_asked_for(limit: float) -> None:
    assert all(value <= 0.0 for value in share_factors(0, 10, limit))
    assert share_factors(10, 10, limit) == sorted(share_factors(10, 10, limit))


def test_a_stretch_begins_where_the_failures_do() -> None:
    stretch = Stretch()
    for _ in range(100):
        stretch.add(0, 100, LIMIT)
        stretch.add_stable(1, 100)
    assert (stretch.requests, stretch.stable_requests) == (0, 0)
    for failed in (2, 0, 3):
        stretch.add(failed, 10, LIMIT)
        stretch.add_stable(0, 20)
    assert (stretch.count, stretch.requests, stretch.stable_requests) == (5, 30, 60)
    assert not stretch.shared(LIMIT)
    stretch.add_stable(3, 20)
    assert stretch.shared(LIMIT)
    stretch.add(0, 1000, LIMIT)
    assert stretch.requests == stretch.stable_requests == 0
