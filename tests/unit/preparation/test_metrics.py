"""Which way a metric improves, and that the gate's verdict does not hang on how it is written."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.gate import Allowed, Better, Judgement, Verdict, judge_by_bootstrap
from tidegate.preparation.metrics import direction, judge_answers

LOWER, HIGHER = Better.LOWER, Better.HIGHER


@pytest.mark.parametrize(
    ("metric", "said", "way"),
    [
        ("accuracy", "", HIGHER),
        ("f1", "higher", HIGHER),
        ("rmse", "", LOWER),
        ("mae", "lower", LOWER),
        ("mine.py:share", "", HIGHER),
        ("mine.py:share", "lower", LOWER),
        ("mine.py:log_loss", "lower", LOWER),
        ("mine.py:log_loss", "higher", HIGHER),
        ("mine.py:neg_log_loss", "", HIGHER),
        ("mine.py:negativeLogLoss", "", HIGHER),
        ("loss.py:glossary", "", HIGHER),
    ],
)
def test_the_direction_of_a_metric(metric: str, said: str, way: Better) -> None:
    assert direction(metric, said) is way


@pytest.mark.parametrize(
    ("metric", "said", "told"),
    [
        ("accuracy", "lower", "accuracy is better higher, not lower: leave it out"),
        ("rmse", "higher", "rmse is better lower, not higher: leave it out"),
        ("mine.py:share", "up", "up is no direction: a metric is better higher or lower"),
        # What would be accepted for getting worse.
        ("mine.py:log_loss", "", "log_loss sounds like an error: say --better lower"),
        ("mine.py:wordErrorRate", "", "wordErrorRate sounds like an error"),
        ("mine.py:RMSE", "", "RMSE sounds like an error"),
    ],
)
def test_a_direction_that_cannot_be(metric: str, said: str, told: str) -> None:
    with pytest.raises(PreparationError, match=told):
        direction(metric, said)


FUNCTIONS = """
import numpy as np

def sum_of_squares(labels, outputs):
    return float(np.square(outputs["score"] - labels).mean())

def turned(labels, outputs):
    return -sum_of_squares(labels, outputs)
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("metrics") / "mine.py"
    path.write_text(FUNCTIONS)
    return path


def judged(
    metric: str, better: str, noise: float, allowed: Allowed, *, samples: int = 400, seed: int = 0
) -> Judgement:
    """A model whose error has this spread is judged against one whose error has 0.1."""
    random = np.random.default_rng(seed)
    labels = random.normal(size=samples)
    before = {"score": labels + random.normal(scale=0.1, size=samples)}
    after = {"score": labels + random.normal(scale=noise, size=samples)}
    return judge_answers(before, after, labels, allowed, metric=metric, better=better)


@given(
    noise=st.floats(0.0, 0.5),
    drop=st.floats(0.001, 0.3),
    samples=st.sampled_from([20, 60, 400]),
    seed=st.integers(0, 3),
)
@settings(max_examples=6, deadline=None)
def test_an_error_and_its_negative_are_judged_alike(
    mine: Path, noise: float, drop: float, samples: int, seed: int
) -> None:
    allowed = Allowed(drop)
    error = judged(f"{mine}:sum_of_squares", "lower", noise, allowed, samples=samples, seed=seed)
    turned = judged(f"{mine}:turned", "", noise, allowed, samples=samples, seed=seed)
    assert (error.verdict, error.needed) == (turned.verdict, turned.needed)
    assert (error.drop, error.low, error.high) == (turned.drop, turned.low, turned.high)
    assert (error.before, error.after) == (-turned.before, -turned.after)
    assert (error.better, turned.better) == (LOWER, HIGHER)


@pytest.mark.parametrize(
    ("metric", "noise", "allowed", "verdict"),
    [
        # The error falls: better, whatever is allowed.
        ("mae", 0.01, 0.001, Verdict.ACCEPTED),
        ("rmse", 0.01, 0.001, Verdict.ACCEPTED),
        ("mae", 0.1, 0.05, Verdict.ACCEPTED),
        # It rises by more than is allowed.
        ("mae", 0.4, 0.05, Verdict.REFUSED),
        ("rmse", 0.4, 0.05, Verdict.REFUSED),
        # It rises by 0.066, and by 0.086; the bound is beyond what is allowed.
        ("mae", 0.2, 0.07, Verdict.TOO_FEW_SAMPLES),
        ("rmse", 0.2, 0.09, Verdict.TOO_FEW_SAMPLES),
    ],
)
def test_errors_of_numbers(metric: str, noise: float, allowed: float, verdict: Verdict) -> None:
    found = judged(metric, "", noise, Allowed(allowed))
    assert found.verdict is verdict, found
    assert found.drop == pytest.approx(found.after - found.before)
    assert found.low <= found.drop <= found.high
    assert f"{metric.upper()} (lower is better)" in found.sentence()


def test_the_mean_absolute_error() -> None:
    labels = np.repeat([1.0, 2.0], 50)
    found = judge_answers(
        {"y": labels + 0.5}, {"y": labels - 0.75}, labels, Allowed(1.0), metric="mae"
    )
    assert (found.before, found.after, found.drop) == (0.5, 0.75, 0.25)


@given(
    before=st.floats(-5, 5),
    slope=st.floats(-2, 2),
    drop=st.floats(0.001, 1.0),
    bounded=st.booleans(),
)
@settings(max_examples=6, deadline=None)
def test_the_bootstrap_knows_no_other_difference(
    before: float, slope: float, drop: float, bounded: bool
) -> None:
    values = np.random.default_rng(1).normal(size=120)

    def by(sign: float, better: Better) -> Judgement:
        return judge_by_bootstrap(
            "mine",
            lambda p: (sign * before, sign * (before + slope * float(values[p].mean()))),
            len(values),
            Allowed(drop),
            better=better,
            bounded=bounded,
        )

    one, other = by(1.0, HIGHER), by(-1.0, LOWER)
    assert one.verdict is other.verdict
    assert math.isclose(one.high, other.high, abs_tol=1e-12)
    assert math.isclose(one.low, other.low, abs_tol=1e-12)
