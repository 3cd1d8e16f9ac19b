from itertools import product
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln
from scipy.stats import beta

from tidegate.analysis.special import log_beta, log_tails

PARAMETERS = (0.5, 1.0, 3.0, 10.5, 59.0, 60.5, 100.0, 1e3, 1e4, 1e6)
DEVIATIONS = (-30, -8, -3, -1, -0.2, 0, 0.2, 1, 3, 8, 30)


@pytest.mark.parametrize("a", PARAMETERS)
@pytest.mark.parametrize("b", PARAMETERS)
def test_log_beta_is_scipys(a: float, b: float) -> None:
    assert log_beta(a, b) == pytest.approx(float(betaln(a, b)), rel=1e-12, abs=1e-8)


@pytest.mark.parametrize("a", PARAMETERS)
def test_both_tails_are_scipys_far_out_too(a: float) -> None:
    for b, deviation in product(PARAMETERS, DEVIATIONS):
        x = a / (a + b) + deviation * (a * b / (a + b + 1.0)) ** 0.5 / (a + b)
        if not 0.0 < x < 1.0:
            continue
        expected = (float(beta.logcdf(x, a, b)), float(beta.logsf(x, a, b)))
        for found, wanted in zip(log_tails(a, b, x), expected, strict=True):
            if isfinite(wanted) and wanted > -650.0:  # beyond, scipy itself runs out of range
                assert found == pytest.approx(wanted, rel=1e-8, abs=1e-8), (a, b, x)


@pytest.mark.parametrize(("x", "tails"), [(0.0, (float("-inf"), 0.0)), (1.0, (0.0, float("-inf")))])
def test_the_ends(x: float, tails: tuple[float, float]) -> None:
    assert log_tails(2.0, 3.0, x) == tails


@given(
    a=st.floats(0.5, 1e6),
    b=st.floats(0.5, 1e8),
    x=st.floats(1e-6, 1.0 - 1e-6),
)
def test_turning_the_axis_around_swaps_the_tails(a: float, b: float, x: float) -> None:
    below, above = log_tails(a, b, x)
    mirrored_above, mirrored_below = log_tails(b, a, 1.0 - x)
    assert below == pytest.approx(mirrored_below, rel=1e-6, abs=1e-6)
    assert above == pytest.approx(mirrored_above, rel=1e-6, abs=1e-6)
