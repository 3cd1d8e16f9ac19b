"""The peers' rules, on counts that a reader can follow."""

import numpy as np
import numpy.typing as npt
import pytest

from e2e.bench.peer_rules import Argo, Flagger, PeerEnded, Take

Counts = npt.NDArray[np.int64]


def steady(rate: int, failing: int, seen: list[float] | None = None) -> Take:
    """So many requests each second, and so many of them fail, whatever the weight."""

    def take(seconds: int, weight: float) -> tuple[Counts, Counts]:
        if seen is not None:
            seen.append(weight)
        return np.full(seconds, rate), np.full(seconds, failing)

    return take


STEPS = ((0.05, 60), (0.5, 60))


@pytest.mark.parametrize(
    ("limit", "failing", "ended"),
    [
        (0, 0, PeerEnded(False, 120, 0)),
        (0, 1, PeerEnded(True, 10, 10)),  # the first measurement
        (3, 1, PeerEnded(True, 40, 40)),  # more than three failed ones
        (12, 1, PeerEnded(False, 120, 120)),  # the steps run out: promoted
    ],
)
def test_argo_aborts_after_more_failed_measurements_than_the_limit(
    limit: int, failing: int, ended: PeerEnded
) -> None:
    assert Argo(STEPS, 10, 10, limit).play(steady(10, failing)) == ended


def test_argo_takes_a_window_without_requests_for_a_success() -> None:
    assert not Argo(STEPS, 10, 10, 0).play(steady(0, 0)).rolled_back


def test_argo_looks_no_further_back_than_its_window() -> None:
    failures = iter([np.array([1] + [0] * 59), np.zeros(60, dtype=int)])
    ended = Argo(STEPS, 30, 10, 0).play(lambda seconds, weight: (np.full(60, 10), next(failures)))
    assert not ended.rolled_back


def test_flagger_raises_the_weight_with_each_check_that_holds() -> None:
    weights: list[float] = []
    ended = Flagger(60, 60, 5, 0.2, 0.5).play(steady(10, 0, weights))
    assert ended == PeerEnded(False, 180, 0)
    assert weights == pytest.approx([0.2, 0.4, 0.5])


@pytest.mark.parametrize(("rate", "failing"), [(10, 1), (0, 0)], ids=["failing", "no values"])
def test_flagger_rolls_back_one_run_after_the_threshold(rate: int, failing: int) -> None:
    weights: list[float] = []
    ended = Flagger(60, 60, 2, 0.1, 0.5).play(steady(rate, failing, weights))
    assert ended == PeerEnded(True, 180, 180 * failing)
    assert set(weights) == {0.1}, "it does not advance while a check fails"


def test_flagger_stays_at_the_threshold_share() -> None:
    assert not Flagger(60, 60, 1, 0.1, 0.5).play(steady(100, 1)).rolled_back
