"""The tests against a bound, checked exactly: all ways that requests can turn out are added up."""

from collections.abc import Callable
from math import comb, exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.analysis.simulation import quantiles, run_lengths
from tidegate.analysis.bound import log_evidence, lower, upper


def chance_of_ever(crossed: Callable[[int, int], bool], share: float, requests: int) -> float:
    """The chance that some look at 1 to `requests` requests crosses, by dynamic programming."""
    alive = {0: 1.0}
    crossing = 0.0
    for n in range(1, requests + 1):
        after: dict[int, float] = {}
        for failed, chance in alive.items():
            after[failed] = after.get(failed, 0.0) + chance * (1.0 - share)
            after[failed + 1] = after.get(failed + 1, 0.0) + chance * share
        alive = {}
        for failed, chance in after.items():
            if crossed(failed, n):
                crossing += chance
            elif chance > 1e-12:
                alive[failed] = chance
    return crossing


@pytest.mark.parametrize("bound", [0.01, 0.2])
@pytest.mark.parametrize("requests", [1, 3, 12, 40])
def test_the_mean_of_the_evidence_is_at_most_1_if_the_hypothesis_is_true(
    bound: float, requests: int
) -> None:
    def mean(share: float, side: int) -> float:
        return sum(
            comb(requests, failed)
            * share**failed
            * (1.0 - share) ** (requests - failed)
            * exp(log_evidence(failed, requests, bound)[side])
            for failed in range(requests + 1)
        )

    assert mean(bound, 0) == pytest.approx(1.0)
    assert mean(bound, 1) == pytest.approx(1.0)
    assert mean(bound / 2, 0) < 1.0
    assert mean(bound * 2, 1) < 1.0
    assert mean(bound * 2, 0) > 1.0
    assert mean(bound / 2, 1) > 1.0


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_looking_after_each_request_raises_no_more_false_alarms(share: float) -> None:
    alarm = chance_of_ever(lambda s, n: log_evidence(s, n, 0.1)[0] >= log(20.0), share, 150)
    assert 0.0 < alarm <= 0.05


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_looking_after_each_request_proves_no_more_bad_versions(share: float) -> None:
    proof = chance_of_ever(lambda s, n: log_evidence(s, n, 0.1)[1] >= log(20.0), share, 150)
    assert 0.0 < proof <= 0.05


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_the_interval_holds_at_all_looks(share: float) -> None:
    def misses(failed: int, n: int) -> bool:
        return not lower(failed, n, 0.1) <= share <= upper(failed, n, 0.1)

    assert 0.0 < chance_of_ever(misses, share, 120) <= 0.1


def test_no_failure_in_377_requests_proves_1_percent_at_95_percent() -> None:
    assert log_evidence(0, 376, 0.01)[1] < log(20.0) <= log_evidence(0, 377, 0.01)[1]


def test_two_failures_of_two_are_enough_for_a_false_alarm_rate_of_a_thousandth() -> None:
    assert log_evidence(2, 2, 0.01)[0] >= log(2.0 / 0.001)
    assert exp(log_evidence(2, 2, 0.01)[0]) == pytest.approx(4006, rel=1e-3)


# Median requests until the evidence reaches 1000, times 1.2: tests in the literature's simulations.
@pytest.mark.parametrize(
    ("share", "most", "runs"),
    [(0.02, 1.2 * 2575, 25), (0.05, 1.2 * 201, 120), (0.1, 1.2 * 52, 300), (1.0, 2, 1)],
)
def test_how_many_requests_it_takes(share: float, most: float, runs: int) -> None:
    def run(failures: Callable[[int, float], int]) -> int:
        failed = requests = 0
        step = max(1, int(0.05 / share))
        while log_evidence(failed, requests, 0.01)[0] < log(1000.0):
            requests += step
            failed += failures(step, share)
        return requests

    median, _ = quantiles(run_lengths(run, runs))
    assert median <= most


@given(
    requests=st.integers(1, 10**7),
    part=st.floats(0.0, 1.0),
    bound=st.sampled_from([0.001, 0.01, 0.05, 0.5]),
)
def test_more_failures_never_speak_for_the_canary(requests: int, part: float, bound: float) -> None:
    failed = int(part * (requests - 1))
    slack = 1e-6 + 1e-9 * requests
    against, in_favour = log_evidence(failed, requests, bound)
    more_against, less_in_favour = log_evidence(failed + 1, requests, bound)
    assert more_against >= against - slack
    assert less_in_favour <= in_favour + slack
    assert upper(failed + 1, requests, 0.05) >= upper(failed, requests, 0.05)
    assert lower(failed + 1, requests, 0.05) >= lower(failed, requests, 0.05)


@given(
    requests=st.floats(0.01, 1e8),
    part=st.floats(0.0, 1.0),
    alpha=st.sampled_from([0.3, 0.05, 1e-6]),
)
def test_the_interval_holds_what_was_observed(requests: float, part: float, alpha: float) -> None:
    failed = part * requests
    share = failed / requests
    assert 0.0 <= lower(failed, requests, alpha) <= share + 1e-9
    assert share - 1e-9 <= upper(failed, requests, alpha) <= 1.0


def test_without_requests_nothing_is_known() -> None:
    assert (lower(0, 0, 0.05), upper(0, 0, 0.05)) == (0.0, 1.0)
    assert log_evidence(0, 0, 0.01) == pytest.approx((0.0, 0.0))
