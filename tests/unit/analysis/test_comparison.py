"""The tests against stable, checked exactly for small blocks, and how fast they are."""

from collections.abc import Callable
from itertools import product
from math import comb, exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.analysis.simulation import quantiles, run_lengths
from tidegate.analysis.comparison import (
    ERROR_RATIOS,
    NON_INFERIOR_SHIFTS,
    Baseline,
    add_non_inferiority,
    add_superiority,
    log_mean,
)

Weigh = Callable[[float, tuple[float, float], tuple[float, float]], float]


def superiority(guess: float, canary: tuple[float, float], stable: tuple[float, float]) -> float:
    log_ratios = [0.0] * len(ERROR_RATIOS)
    add_superiority(log_ratios, ERROR_RATIOS, guess, canary, stable)
    return exp(log_mean(log_ratios))


def non_inferiority(margin: float) -> Weigh:
    def weigh(guess: float, canary: tuple[float, float], stable: tuple[float, float]) -> float:
        log_ratios = [0.0] * len(NON_INFERIOR_SHIFTS)
        add_non_inferiority(log_ratios, margin, guess, canary, stable)
        return exp(log_mean(log_ratios))

    return weigh


def mean(weigh: Weigh, guess: float, n1: int, p1: float, n0: int, p0: float) -> float:
    """The expectation over all ways in which a block can turn out."""

    def chance(failed: int, requests: int, share: float) -> float:
        return comb(requests, failed) * share**failed * (1.0 - share) ** (requests - failed)

    return sum(
        chance(s1, n1, p1) * chance(s0, n0, p0) * weigh(guess, (s1, n1), (s0, n0))
        for s1, s0 in product(range(n1 + 1), range(n0 + 1))
    )


BLOCKS = [(1, 1), (1, 9), (5, 3), (2, 40), (12, 12)]
SHARES = [0.0, 0.001, 0.01, 0.1, 0.5, 0.9]


@pytest.mark.parametrize(("n1", "n0"), BLOCKS)
@pytest.mark.parametrize("guess", [0.0005, 0.02, 0.4])
def test_a_canary_that_is_not_worse_yields_no_evidence_that_it_is(
    n1: int, n0: int, guess: float
) -> None:
    for p1, p0 in product(SHARES, SHARES):
        if p1 <= p0:
            assert mean(superiority, guess, n1, p1, n0, p0) <= 1.0 + 1e-9, (p1, p0)
    assert mean(superiority, guess, n1, 0.9, n0, guess) > 1.05


@pytest.mark.parametrize(("n1", "n0"), BLOCKS)
@pytest.mark.parametrize("guess", [0.0005, 0.02, 0.4])
@pytest.mark.parametrize("margin", [0.005, 0.1])
def test_a_canary_worse_by_the_margin_yields_no_evidence_that_it_is_not(
    n1: int, n0: int, guess: float, margin: float
) -> None:
    weigh = non_inferiority(margin)
    for p0, worse in product(SHARES, (1.0, 1.5, 4.0)):
        p1 = p0 + worse * margin
        if p1 <= 1.0:
            assert mean(weigh, guess, n1, p1, n0, p0) <= 1.0 + 1e-7, (p1, p0)
    assert mean(weigh, guess, n1, guess, n0, guess) > 1.0


def test_a_block_with_one_side_only_says_nothing() -> None:
    assert superiority(0.01, (3, 3), (0, 0)) == pytest.approx(1.0)
    assert superiority(0.01, (0, 0), (3, 3)) == pytest.approx(1.0)
    assert non_inferiority(0.01)(0.01, (0, 9), (0, 0)) == pytest.approx(1.0)


@given(
    n1=st.integers(1, 500),
    n0=st.integers(1, 5000),
    part=st.floats(0.0, 1.0),
    stable=st.floats(0.0, 1.0),
    guess=st.floats(1e-5, 0.99),
)
def test_more_failures_of_the_canary_never_speak_for_it(
    n1: int, n0: int, part: float, stable: float, guess: float
) -> None:
    s1, s0 = int(part * (n1 - 1)), int(stable * n0)

    def worse(failed: int) -> float:
        log_ratios = [0.0] * len(ERROR_RATIOS)
        add_superiority(log_ratios, ERROR_RATIOS, guess, (failed, n1), (s0, n0))
        return log_mean(log_ratios)

    def no_worse(failed: int) -> float:
        log_ratios = [0.0] * len(NON_INFERIOR_SHIFTS)
        add_non_inferiority(log_ratios, 0.005, guess, (failed, n1), (s0, n0))
        return log_mean(log_ratios)

    assert worse(s1 + 1) >= worse(s1) - 1e-9
    assert no_worse(s1 + 1) <= no_worse(s1) + 1e-9


@given(
    shares=st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=12), exponent=st.floats(1.0, 50.0)
)
def test_tempering_brings_evidence_nearer_to_none(shares: list[float], exponent: float) -> None:
    assert log_mean(shares) == pytest.approx(log(sum(map(exp, shares)) / len(shares)), abs=1e-9)
    top = max(shares)
    assert log_mean(shares, exponent) <= max(top / exponent, top) + 1e-9


# Median canary requests until the evidence reaches 1000, at 10 % weight against 0.1 %, times 1.2.
@pytest.mark.parametrize(
    ("share", "most", "runs"),
    [(0.01, 1.2 * 709, 25), (0.05, 1.2 * 110, 120), (0.5, 1.2 * 9, 200), (1.0, 1.2 * 5, 50)],
)
def test_how_many_requests_it_takes(share: float, most: float, runs: int) -> None:
    def run(failures: Callable[[int, float], int]) -> int:
        baseline, log_ratios, requests = Baseline(0.01), [0.0] * len(ERROR_RATIOS), 0
        while log_mean(log_ratios) < log(1000.0):
            requests += 1
            stable = (failures(9, 0.001), 9)
            canary = (failures(1, share), 1)
            add_superiority(log_ratios, ERROR_RATIOS, baseline.share(), canary, stable)
            baseline.add(*stable)
        return requests

    median, _ = quantiles(run_lengths(run, runs))
    assert median <= most


def test_rates_and_weights_that_change_cause_no_false_alarms() -> None:
    def run(failures: Callable[[int, float], int]) -> int:
        baseline, log_ratios = Baseline(0.01), [0.0] * len(ERROR_RATIOS)
        for block in range(400):
            share = 0.3 if block % 100 < 10 else 0.002  # an incident that both share
            canary_requests = 1 + block // 20
            stable = (failures(21 - canary_requests, share), 21 - canary_requests)
            canary = (failures(canary_requests, share), canary_requests)
            add_superiority(log_ratios, ERROR_RATIOS, baseline.share(), canary, stable)
            baseline.add(*stable)
            if log_mean(log_ratios) >= log(20.0):
                return 1
        return 0

    # At most 5 % of 60; 7 or more would have a chance of 4 %.
    assert sum(run_lengths(run, 60)) < 7
