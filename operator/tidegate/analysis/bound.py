"""A share of requests against a fixed bound, at every look: evidence and an interval.

The number of failures among independent requests is weighed against a bound p0 by a mixture of
likelihood ratios over a Beta(1/2, 1/2) prior, truncated to one side of p0 (Howard et al. 2021,
"Time-uniform, nonparametric, nonasymptotic confidence sequences"; Robbins 1970). If the hypothesis
is true, the chance that the evidence *ever* reaches 1/alpha is at most alpha. Counts may be
fractions: requests that come in clusters are worth fewer (see `tidegate.analysis.tempering`). Pure.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, log1p, sqrt
from typing import Final

from tidegate.analysis.special import log_beta, log_tails

_PRIOR: Final = 0.5
_SMALLEST: Final = 1e-9
_LOG_PRIOR_BETA: Final = log_beta(_PRIOR, _PRIOR)


@dataclass(frozen=True)
class Bound:
    """What is needed of a bound at each look.

    Attributes:
        bound: p0.
        log_bound: ln p0.
        log_rest: ln (1 - p0).
        log_below: ln of the prior's mass below p0.
        log_above: ln of the prior's mass above p0.
    """

    bound: float
    log_bound: float
    log_rest: float
    log_below: float
    log_above: float


@lru_cache(maxsize=256)
def _bound(bound: float) -> Bound:
    bound = min(max(bound, _SMALLEST), 1.0 - _SMALLEST)
    below, above = log_tails(_PRIOR, _PRIOR, bound)
    return Bound(bound, log(bound), log1p(-bound), below, above)


def log_evidence(failed: float, requests: float, bound: float) -> tuple[float, float]:
    """Logarithms of two e-values: that the share is above the bound, and that it is below.

    The first tests "the share is at most the bound", the second "at least".

    Args:
        failed: how many did, 0 to `requests`.
        requests: out of.
        bound: 0 to 1; a billionth inside of either is the outermost.
    """
    known = _bound(bound)
    good = requests - failed
    a, b = _PRIOR + failed, _PRIOR + good
    below, above = log_tails(a, b, known.bound)
    common = log_beta(a, b) - _LOG_PRIOR_BETA - failed * known.log_bound - good * known.log_rest
    return common + above - known.log_above, common + below - known.log_below


def upper(failed: float, requests: float, alpha: float) -> float:
    """The upper end of the confidence sequence: the share is below it, at all looks, but for alpha.

    Both ends together miss with a chance of at most alpha. 1 without requests.

    Args:
        failed: how many did, 0 to `requests`.
        requests: out of.
        alpha: chance to be wrong, once or more.
    """
    good = requests - failed
    # Parts of a request, from tempering, may leave less of a good one than a share can show.
    if requests <= 0.0 or good <= 1e-12 * requests:
        return 1.0
    # S ln p + (n - S) ln (1 - p) = level, on the side where it falls. As a function of the logit t
    # it is S t - n ln (1 + e^t): concave, so Newton's method comes down to the root from above.
    level = log_beta(_PRIOR + failed, _PRIOR + good) - _LOG_PRIOR_BETA + log(alpha)
    share = failed / requests
    peak = good * log1p(-share) + (failed * log(share) if failed > 0.0 else 0.0)
    drop = max(peak - level, 1e-12)
    start = share + drop / requests + sqrt(2.0 * share * drop / requests)
    start = min(start, (share + 1.0) / 2.0) if start >= 1.0 else start
    t = log(start / (1.0 - start))
    for _ in range(60):
        grown = exp(t) if t < 700.0 else exp(700.0)
        value = failed * t - requests * log1p(grown) - level
        slope = (good * grown - failed) / (1.0 + grown)
        step = value / slope if slope > 0.0 else 4.0
        t += min(max(step, -4.0), 4.0)
        if abs(step) < 1e-10:
            break
    grown = exp(min(t, 700.0))
    return grown / (1.0 + grown)


def lower(failed: float, requests: float, alpha: float) -> float:
    """The lower end of the same confidence sequence; 0 without requests."""
    return 1.0 - upper(requests - failed, requests, alpha) if requests > 0.0 else 0.0
