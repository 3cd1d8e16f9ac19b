"""The accuracy gate: a worse model passes no oftener than stated, a small set passes nothing."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta, binomtest

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.gate import (
    LEAST_FOR_BOOTSTRAP,
    Allowed,
    Better,
    Judgement,
    Verdict,
    f1,
    judge_accuracy,
    judge_by_bootstrap,
    least_samples,
    numbered,
    rmse,
    share_bounds,
)

Flags = NDArray[np.int64]


def judged(samples: int, lost: int, won: int, allowed: Allowed) -> Judgement:
    """Of ``samples``, so many right answers became wrong, and so many wrong ones right."""
    labels: Flags = np.ones(samples, np.int64)
    before, after = labels.copy(), labels.copy()
    after[:lost] = 0
    before[lost : lost + won] = 0
    return judge_accuracy(before, after, labels, allowed)


@pytest.mark.parametrize(
    ("samples", "lost", "won", "drop", "verdict"),
    [
        (10_000, 0, 0, 0.01, Verdict.ACCEPTED),
        (10_000, 30, 25, 0.01, Verdict.ACCEPTED),
        (10_000, 90, 0, 0.01, Verdict.TOO_FEW_SAMPLES),
        (10_000, 101, 0, 0.01, Verdict.REFUSED),
        (10_000, 500, 0, 0.01, Verdict.REFUSED),
        (10_000, 500, 520, 0.01, Verdict.ACCEPTED),
        # Nothing wrong was seen, but on twenty samples that says little.
        (20, 0, 0, 0.01, Verdict.TOO_FEW_SAMPLES),
        (1, 0, 0, 0.01, Verdict.TOO_FEW_SAMPLES),
        (1, 1, 0, 0.5, Verdict.REFUSED),
        (300, 0, 0, 1.0, Verdict.ACCEPTED),
    ],
)
def test_verdicts(samples: int, lost: int, won: int, drop: float, verdict: Verdict) -> None:
    found = judged(samples, lost, won, Allowed(drop))
    assert found.verdict is verdict
    assert (found.needed is not None) == (verdict is Verdict.TOO_FEW_SAMPLES)
    assert verdict in found.sentence()


@pytest.mark.parametrize("drop", [0.001, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("candidates", [1, 6])
def test_the_least_number_of_samples_is_exact(drop: float, candidates: int) -> None:
    allowed = Allowed(drop, candidates=candidates)
    least = least_samples(allowed)
    assert judged(least, 0, 0, allowed).verdict is Verdict.ACCEPTED
    short = judged(least - 1, 0, 0, allowed)
    assert short.verdict is Verdict.TOO_FEW_SAMPLES
    assert short.needed == least


@given(
    samples=st.integers(1, 3_000),
    lost=st.integers(0, 40),
    won=st.integers(0, 40),
    drop=st.floats(0.001, 0.5),
)
@settings(max_examples=150)
def test_so_many_samples_at_these_rates_are_accepted(
    samples: int, lost: int, won: int, drop: float
) -> None:
    if lost + won > samples:
        return
    allowed = Allowed(drop)
    found = judged(samples, lost, won, allowed)
    assert found.low <= found.drop <= found.high
    assert (found.verdict is Verdict.ACCEPTED) == (found.high <= drop)
    if found.needed is not None:
        assert found.needed > samples
        if found.needed < 100_000:
            lost_then = math.ceil(lost / samples * found.needed)
            won_then = math.floor(won / samples * found.needed)
            assert judged(found.needed, lost_then, won_then, allowed).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(("hits", "samples"), [(0, 10), (3, 10), (10, 10), (1, 5_000), (40, 600)])
def test_bounds_on_a_share_are_scipys(hits: int, samples: int) -> None:
    found = binomtest(hits, samples).proportion_ci(0.9, method="exact")
    assert share_bounds(hits, samples, 0.05) == pytest.approx((found.low, found.high))
    low, _ = share_bounds(hits, samples, 0.05)
    if hits:
        assert low == pytest.approx(float(beta.ppf(0.05, hits, samples - hits + 1)))


def test_a_model_worse_than_allowed_is_seldom_accepted() -> None:
    """At the very edge of what is allowed, in all mixtures of lost and won answers."""
    random = np.random.default_rng(1)
    allowed = Allowed(0.02)
    for won in (0.0, 0.01, 0.05):
        for samples in (200, 2_000):
            shares = [won + allowed.drop, won, 1.0 - 2.0 * won - allowed.drop]
            draws = random.multinomial(samples, shares, size=4_000)
            seen, counts = np.unique(draws, axis=0, return_counts=True)
            accepted = sum(
                int(count)
                for (lost, gained, _), count in zip(seen, counts, strict=True)
                if judged(samples, int(lost), int(gained), allowed).verdict is Verdict.ACCEPTED
            )
            assert accepted / 4_000 <= 1.0 - allowed.confidence


def noisy(share: float, samples: int = 2_000, seed: int = 0) -> tuple[Flags, Flags, Flags]:
    """Labels, a model that is right on 0.9 of them, and another that differs on this share."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, samples)
    before = np.where(random.random(samples) < 0.9, labels, (labels + 1) % 3)
    after = np.where(random.random(samples) < share, (before + 1) % 3, before)
    return labels, before, after


def by_f1(share: float, samples: int, drop: float) -> Judgement:
    labels, before, after = noisy(share, samples)
    return judge_by_bootstrap(
        "F1",
        lambda p: (f1(before[p], labels[p]), f1(after[p], labels[p])),
        samples,
        Allowed(drop),
    )


def test_a_metric_that_ends_the_program_is_told_of() -> None:
    def leaves(places: object) -> tuple[float, float]:
        raise SystemExit(3)

    with pytest.raises(PreparationError, match="metric mine raised SystemExit: 3"):
        judge_by_bootstrap("mine", leaves, 100, Allowed(0.1))


def test_other_metrics_by_the_bootstrap() -> None:
    assert by_f1(0.0, 400, 0.01).verdict is Verdict.ACCEPTED
    assert by_f1(0.2, 400, 0.01).verdict is Verdict.REFUSED
    doubtful = by_f1(0.01, 400, 0.02)
    assert doubtful.verdict is Verdict.TOO_FEW_SAMPLES
    assert doubtful.needed is not None
    assert doubtful.needed > 400


@pytest.mark.parametrize("samples", [5, 40])
def test_a_small_set_without_any_difference_is_not_enough(samples: int) -> None:
    """The bootstrap alone would say: between 0 and 0."""
    found = by_f1(0.0, samples, 0.01)
    assert found.high == 0.0
    assert found.verdict is Verdict.TOO_FEW_SAMPLES
    assert found.needed == least_samples(Allowed(0.01))
    assert "too few samples" in found.sentence()


def test_errors_get_worse_upwards() -> None:
    random = np.random.default_rng(3)
    truth = random.normal(size=1_000)
    before = truth + random.normal(scale=0.1, size=1_000)

    def judged_with(scale: float, drop: float, samples: int = 1_000) -> Judgement:
        after = before + random.normal(scale=scale, size=1_000)
        return judge_by_bootstrap(
            "RMSE",
            lambda p: (rmse(before[p], truth[p]), rmse(after[p], truth[p])),
            samples,
            Allowed(drop),
            better=Better.LOWER,
            bounded=False,
        )

    assert judged_with(0.001, 0.01).verdict is Verdict.ACCEPTED
    worse = judged_with(0.1, 0.01)
    assert worse.verdict is Verdict.REFUSED
    assert worse.drop == pytest.approx(0.1 * (math.sqrt(2.0) - 1.0), rel=0.2)
    few = judged_with(0.0, 0.01, samples=LEAST_FOR_BOOTSTRAP - 1)
    assert few.verdict is Verdict.TOO_FEW_SAMPLES


def test_the_same_judgement_again() -> None:
    assert by_f1(0.01, 300, 0.02) == by_f1(0.01, 300, 0.02)


def test_f1_is_the_mean_over_classes() -> None:
    # Class 0: 1 hit, 1 missed, none false: 2/3. Class 1: 1 hit, none missed, 1 false: 2/3.
    assert f1(np.array([0, 1, 1]), np.array([0, 0, 1])) == pytest.approx(2.0 / 3.0)
    assert f1(np.array([0, 0, 0]), np.array([0, 0, 1])) == pytest.approx((4.0 / 5.0 + 0.0) / 2.0)


def test_classes_by_number() -> None:
    before, after, labels = numbered(
        np.array(["cat", "dog"]), np.array(["cow", "cat"]), np.array(["dog", "dog"])
    )
    assert (before.tolist(), after.tolist(), labels.tolist()) == ([0, 2], [1, 0], [2, 2])


def raising(places: NDArray[np.intp]) -> tuple[float, float]:
    raise KeyError("no column of ages")


def nothing(places: NDArray[np.intp]) -> tuple[float, float]:
    return math.nan, 0.0


def fragile(places: NDArray[np.intp]) -> tuple[float, float]:
    # Needs a sample that a resample often lacks.
    return (1.0, 1.0) if 0 in places else (math.nan, math.nan)


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        (lambda: judge_by_bootstrap("mine", raising, 100, Allowed(0.1)), "mine raised KeyError"),
        (lambda: judge_by_bootstrap("mine", nothing, 100, Allowed(0.1)), "no finite number"),
        (lambda: judge_by_bootstrap("mine", fragile, 100, Allowed(0.1)), "needs more samples"),
        (lambda: judge_by_bootstrap("mine", nothing, 0, Allowed(0.1)), "is empty"),
        (lambda: judged(0, 0, 0, Allowed(0.1)), "is empty"),
        (lambda: judged(100, 0, 0, Allowed(0.0)), "allow a little"),
        (lambda: Allowed(-0.1), "must be 0 or more"),
        (lambda: Allowed(0.1, confidence=1.0), "below 1"),
        (lambda: Allowed(0.1, candidates=0), "at least one"),
        (
            lambda: judge_accuracy(np.zeros(3), np.zeros(3), np.zeros(4), Allowed(0.1)),
            "labels of [4]",
        ),
        (
            lambda: judge_accuracy(
                np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)), Allowed(1)
            ),
            "one answer and one label",
        ),
    ],
)
def test_bad_input(judge: Callable[[], object], told: str) -> None:
    with pytest.raises(PreparationError, match=told.replace("[", r"\[")):
        judge()
