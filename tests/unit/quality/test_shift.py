"""The shift between two distributions: level at every look, power, and what the bounds are."""

from collections import Counter
from math import log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.quality.shift import BINS, MOST_LABELS, Bins, Shift, bins_of, shift

ALPHA = 0.1
COUNTS = st.lists(st.integers(0, 3000), min_size=4, max_size=4)


def counted(bins: Bins, counts: list[int]) -> dict[str, int]:
    return dict(zip(bins.names, counts, strict=True))


NUMBERS = Bins(edges=(0.0, 1.0, 2.0))
LABELS = Bins(labels=("cat", "dog", "owl"))


def looks(seed: int, moved: float, samples: int, every: int) -> list[Shift]:
    """A normal number moves by `moved` standard deviations; looked at as both sides grow."""
    random = Random(seed)
    bins = bins_of([random.gauss(0.0, 1.0) for _ in range(200)])
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    found = []
    for i in range(samples):
        before[bins.name(random.gauss(0.0, 1.0))] += 1
        after[bins.name(random.gauss(moved, 1.0))] += 1
        if (i + 1) % every == 0:
            found.append(shift(bins, before, after, ALPHA))
    return found


def test_what_did_not_move_is_not_reported_at_any_look() -> None:
    # 24 runs of 15 looks each. The union bound is far from tight: none at all is expected.
    alarms = sum(any(s.low > 0.0 for s in looks(seed, 0.0, 600, 40)) for seed in range(24))
    assert alarms <= 24 * ALPHA / 2


def test_psi_is_above_its_bound_at_no_look_where_nothing_moved() -> None:
    assert not any(s.psi_low > 0.0 for seed in range(10) for s in looks(seed, 0.0, 400, 40))


@pytest.mark.parametrize(
    # The true distance of two normal distributions that lie d apart is 2 Phi(d / 2) - 1.
    ("moved", "distance", "samples"),
    [(0.5, 0.197, 1500), (1.0, 0.383, 350), (2.0, 0.683, 100)],
)
def test_power(moved: float, distance: float, samples: int) -> None:
    """Samples of each side until the shift is shown: what the table in the guide says."""
    last = [looks(seed, moved, samples, samples)[-1] for seed in range(5)]
    assert all(s.low > 0.0 for s in last)
    assert all(s.low <= distance <= s.high + 0.05 for s in last)
    assert all(s.psi_low > 0.0 for s in last) or moved < 1.0


@given(COUNTS, COUNTS, st.sampled_from([NUMBERS, LABELS]))
def test_bounds_are_in_order_and_symmetric(a: list[int], b: list[int], bins: Bins) -> None:
    found = shift(bins, counted(bins, a), counted(bins, b), ALPHA)
    back = shift(bins, counted(bins, b), counted(bins, a), ALPHA)
    assert 0.0 <= found.low <= found.largest <= found.high <= 1.0 or not (sum(a) and sum(b))
    assert found.psi_low >= 0.0
    assert (found.low, found.high, found.largest) == pytest.approx(
        (back.low, back.high, back.largest)
    )
    assert found.psi == pytest.approx(back.psi)
    assert found.samples == min(sum(a), sum(b))


@given(COUNTS)
def test_the_same_counts_are_no_shift(a: list[int]) -> None:
    for bins in (NUMBERS, LABELS):
        found = shift(bins, counted(bins, a), counted(bins, a), ALPHA)
        assert (found.largest, found.low, found.psi, found.psi_low) == (0.0, 0.0, 0.0, 0.0)


def test_the_distance_of_kolmogorov_and_smirnov_and_the_index() -> None:
    found = shift(
        NUMBERS, counted(NUMBERS, [10, 20, 30, 40]), counted(NUMBERS, [40, 30, 20, 10]), ALPHA
    )
    assert found.largest == pytest.approx(0.4)  # 0.1, 0.3, 0.6 against 0.4, 0.7, 0.9
    assert found.where == "below 1"
    assert (found.reference, found.current) == pytest.approx((0.3, 0.7))
    exact = 2 * (0.3 * log(4.0) + 0.1 * log(1.5))
    assert found.psi == pytest.approx(exact, rel=0.05)
    assert found.psi_low <= exact
    before, after = (
        counted(NUMBERS, [1000 * n for n in c]) for c in ([10, 20, 30, 40], [40, 30, 20, 10])
    )
    close = shift(NUMBERS, before, after, ALPHA)
    assert close.low == pytest.approx(0.4, abs=0.03)
    assert close.psi_low == pytest.approx(exact, rel=0.1)


def test_a_label_that_comes_more_often_is_named() -> None:
    found = shift(LABELS, {"cat": 700, "dog": 300}, {"cat": 400, "dog": 310, "owl": 290}, ALPHA)
    assert found.where == "cat"
    assert (found.reference, found.current) == pytest.approx((0.7, 0.4))
    other = shift(LABELS, {"cat": 700, "dog": 300}, {"cat": 350, "dog": 150, "": 500}, ALPHA)
    assert other.where == "other labels"


def test_without_samples_nothing_is_known() -> None:
    found = shift(NUMBERS, {}, {}, ALPHA)
    assert (found.low, found.high, found.samples) == (0.0, 1.0, 0)
    assert shift(NUMBERS, {"0": 50}, {}, ALPHA).low == 0.0


class TestBins:
    def test_numbers_by_deciles(self) -> None:
        bins = bins_of([float(i) for i in range(100)])
        assert bins.edges == (10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0)
        assert len(bins.names) == BINS
        assert [bins.name(v) for v in (-5.0, 9.9, 10.0, 95.0, 1e9)] == ["0", "0", "1", "9", "9"]

    def test_few_values_make_few_bins(self) -> None:
        constant = bins_of([3.0] * 100)
        assert [constant.name(v) for v in (2.9, 3.0, 3.1)] == ["0", "1", "2"]
        flag = bins_of([0.0] * 30 + [1.0] * 70)
        assert [flag.name(v) for v in (-1.0, 0.0, 0.5, 1.0, 2.0)] == ["0", "1", "2", "3", "4"]

    @pytest.mark.parametrize(
        ("first", "before", "after", "where"),
        [
            # A flag that was nearly never set.
            ([0.0] * 190 + [1.0] * 10, {0.0: 950, 1.0: 50}, {0.0: 500, 1.0: 500}, "up to 0"),
            ([0.0] * 10 + [1.0] * 190, {0.0: 50, 1.0: 950}, {0.0: 500, 1.0: 500}, "below 1"),
            # A default that is no longer sent.
            ([3.0] * 200, {3.0: 1000}, {9.0: 1000}, "up to 3"),
            ([3.0] * 200, {3.0: 1000}, {2.0: 1000}, "below 3"),
        ],
    )
    def test_what_leaves_a_common_value_is_seen_on_either_side(
        self, first: list[float], before: dict[float, int], after: dict[float, int], where: str
    ) -> None:
        bins = bins_of(first)
        old, new = (Counter[str](), Counter[str]())
        for counts, values in ((old, before), (new, after)):
            for value, count in values.items():
                counts[bins.name(value)] += count
        found = shift(bins, old, new, ALPHA)
        assert found.where == where
        assert found.low > 0.3

    def test_rare_labels_are_one(self) -> None:
        values = [f"l{i:02}" for i in range(40) for _ in range(100 - i)]
        bins = bins_of(values)
        assert len(bins.labels) == MOST_LABELS
        assert bins.name("l00") == "l00"
        assert bins.name("l39") == bins.name("never seen") == ""

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
    def test_every_number_has_a_bin(self, values: list[float]) -> None:
        bins = bins_of(values)
        assert {bins.name(v) for v in values} <= set(bins.names)
        assert list(bins.edges) == sorted(set(bins.edges))
