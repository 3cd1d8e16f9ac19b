"""The numeric check after a conversion: what differs is found and named."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from tidegate.preparation.check import FLOAT32, Tolerance, compare, require
from tidegate.preparation.errors import PreparationError

SCORES = np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]])
LABELS = np.array([1, 0, 0])


def test_equal_answers_agree() -> None:
    found = compare({"label": LABELS, "scores": SCORES}, {"scores": SCORES, "label": LABELS})
    require(found)
    assert [(a.output, a.samples, a.largest_absolute, a.differing) for a in found] == [
        ("label", 3, 0.0, 0),
        ("scores", 3, 0.0, 0),
    ]


def test_the_tensor_and_the_sample_that_differ_most_are_named() -> None:
    other = SCORES.copy()
    other[0, 1] += 0.01
    other[2, 0] += 0.2
    with pytest.raises(PreparationError) as told:
        require(compare({"label": LABELS, "scores": SCORES}, {"label": LABELS, "scores": other}))
    message = str(told.value)
    assert "output scores" in message
    assert "2 samples differ by more, most of all sample 2 at [0]: 0.5 in the original, 0.7" in (
        message
    )
    assert "largest difference 0.2 absolute, 0.4 relative" in message


def test_small_numbers_are_measured_absolutely_and_large_ones_relatively() -> None:
    before = np.array([1e-9, 1e6])
    tolerance = Tolerance(1e-5, 1e-3)
    (near,) = compare({"y": before}, {"y": before + np.array([5e-6, 900.0])}, tolerance)
    assert near.passed
    assert near.largest_relative == pytest.approx(5_000.0)
    (far,) = compare({"y": before}, {"y": before + np.array([2e-5, 0.0])}, tolerance)
    assert (far.passed, far.worst_sample) == (False, 0)


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (np.inf, -np.inf, False),
        (1.0, np.nan, False),
        (np.nan, 1.0, False),
        (1.0, np.inf, False),
        (0.0, 0.0, True),
    ],
)
def test_what_is_no_finite_number(before: float, after: float, passed: bool) -> None:
    (found,) = compare({"y": np.array([before, 1.0])}, {"y": np.array([after, 1.0])})
    assert found.passed is passed
    assert found.worst_sample == 0 or passed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.array(["cat", "dog"]), np.array(["cat", "cow"], dtype=object)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True, False]), np.array([True, True])),
    ],
)
def test_labels_must_be_equal(before: NDArray[Any], after: NDArray[Any]) -> None:
    (same,) = compare({"label": before}, {"label": before.astype(object)})
    assert same.passed
    (found,) = compare({"label": before}, {"label": after})
    assert (found.passed, found.differing, found.worst_sample) == (False, 1, 1)
    assert "must be equal" in found.sentence()


@pytest.mark.parametrize(("gap", "passed"), [(1e-7, True), (0.01, False)])
def test_a_tie_may_fall_either_way(gap: float, passed: bool) -> None:
    scores = np.array([[0.5 + gap, 0.5], [0.9, 0.1]])
    before = {"label": np.array([0, 0]), "scores": scores}
    label, _ = compare(before, {"label": np.array([1, 0]), "scores": scores})
    assert label.passed is passed
    assert label.ties == int(passed)
    # What is no tie is never excused.
    label, _ = compare(before, {"label": np.array([1, 1]), "scores": scores})
    assert not label.passed


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ({"other": SCORES}, "output scores is missing: the converted model has other"),
        ({"scores": SCORES[:, :1]}, r"shape \[3, 1\], in the original \[3, 2\]"),
    ],
)
def test_outputs_that_cannot_be_compared(after: dict[str, NDArray[Any]], told: str) -> None:
    with pytest.raises(PreparationError, match=told):
        compare({"scores": SCORES}, after)


@given(
    arrays.arrays(np.float64, (4, 3), elements=st.floats(-1e6, 1e6)),
    arrays.arrays(np.float64, (4, 3), elements=st.floats(-1e-3, 1e-3)),
)
def test_passes_as_numpy_says(before: NDArray[np.float64], by: NDArray[np.float64]) -> None:
    (found,) = compare({"y": before}, {"y": before + by})
    close = np.isclose(before + by, before, rtol=FLOAT32.relative, atol=FLOAT32.absolute)
    assert found.differing == int((~close).any(axis=1).sum())
    assert found.passed or not close[found.worst_sample].all()
