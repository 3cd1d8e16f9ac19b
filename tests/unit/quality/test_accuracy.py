"""Accuracy from labels: exact chances of a wrong verdict at any look, and what it takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.analysis.test_bound import chance_of_ever
from tidegate.quality.accuracy import Answer, judge, labels_needed, measured

ALPHA = 0.05


def verdict(right: int, labels: int, least: float = 0.9) -> Answer:
    return judge(measured(right, labels, ALPHA), None, least=least, most_drop=None)


@pytest.mark.parametrize("share", [0.9, 0.95])
def test_good_enough_is_called_bad_no_more_often_than_stated_at_any_look(share: float) -> None:
    assert chance_of_ever(lambda s, n: verdict(s, n) is Answer.BAD, share, 150) <= ALPHA / 2


@pytest.mark.parametrize("share", [0.899, 0.8])
def test_too_bad_is_called_good_no_more_often_than_stated_at_any_look(share: float) -> None:
    assert chance_of_ever(lambda s, n: verdict(s, n) is Answer.GOOD, share, 150) <= ALPHA


def test_what_is_far_off_is_found() -> None:
    assert chance_of_ever(lambda s, n: verdict(s, n) is Answer.BAD, 0.6, 60) > 0.95
    assert chance_of_ever(lambda s, n: verdict(s, n) is Answer.GOOD, 0.99, 150) > 0.95


@pytest.mark.parametrize(
    ("right", "labels", "stable", "least", "most_drop", "answer"),
    [
        (0, 0, None, 0.9, None, Answer.NOT_YET),
        (95, 100, None, 0.9, None, Answer.NOT_YET),
        (990, 1000, None, 0.9, None, Answer.GOOD),
        (800, 1000, None, 0.9, None, Answer.BAD),
        (990, 1000, None, None, 0.02, Answer.NOT_YET),  # no stable to compare with
        (990, 1000, (0, 0), None, 0.02, Answer.NOT_YET),
        (9500, 10000, (9500, 10000), None, 0.02, Answer.GOOD),
        (9500, 10000, (9500, 10000), None, 0.0, Answer.NOT_YET),
        (9000, 10000, (9500, 10000), None, 0.02, Answer.BAD),
        (9500, 10000, (9500, 10000), 0.99, 0.02, Answer.BAD),  # one of the two fails
        (9500, 10000, (95, 100), 0.9, 0.02, Answer.NOT_YET),  # one of the two is open
        (9500, 10000, (9500, 10000), None, None, Answer.NOT_YET),  # nothing is asked
    ],
)
def test_verdicts(
    right: int,
    labels: int,
    stable: tuple[int, int] | None,
    least: float | None,
    most_drop: float | None,
    answer: Answer,
) -> None:
    against = None if stable is None else measured(*stable, ALPHA)
    assert (
        judge(measured(right, labels, ALPHA), against, least=least, most_drop=most_drop) is answer
    )


@given(labels=st.integers(1, 5000), wrong=st.integers(0, 5000))
def test_the_bounds_hold_what_was_counted(labels: int, wrong: int) -> None:
    found = measured(max(0, labels - wrong), labels, ALPHA)
    assert 0.0 <= found.low <= found.share <= found.high <= 1.0


@pytest.mark.parametrize(
    ("right", "labels", "expected"), [(10, 10, (30, 60)), (960, 1000, (0, 0)), (96, 100, (50, 300))]
)
def test_how_many_labels_more(right: int, labels: int, expected: tuple[int, int]) -> None:
    needed = labels_needed(measured(right, labels, ALPHA), None, ALPHA, least=0.9, most_drop=None)
    assert needed is not None
    assert expected[0] <= needed <= expected[1]
    if needed:
        share, then = right / labels, labels + needed
        assert verdict(round(share * then), then) is Answer.GOOD


def test_no_number_of_labels_makes_a_bad_one_good() -> None:
    bad = measured(80, 100, ALPHA)
    assert labels_needed(bad, None, ALPHA, least=0.9, most_drop=None) is None
    nothing = measured(0, 0, ALPHA)
    assert labels_needed(nothing, None, ALPHA, least=0.9, most_drop=None) is None
