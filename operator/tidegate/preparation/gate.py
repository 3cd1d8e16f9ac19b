"""The accuracy gate: whether an optimised model is still good enough, proved on a held-out set.

The original and the candidate answer the same samples, so what is judged is the *difference*,
sample by sample, and the bound on it, not the measured drop alone: a small set passes nothing by
luck. The bound is one-sided at the stated confidence; where several candidates are tried, the
allowed chance of error is divided among them (Bonferroni).

Accuracy is judged exactly. Let b be the share of samples that were right and become wrong, and c
the share that were wrong and become right; the drop is b - c. Clopper and Pearson's bounds
(Biometrika 26, 1934) hold b from above and c from below at half the chance of error each, and so
their difference at all of it. Other metrics are judged by the paired bootstrap with a fixed seed
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: percentiles). It knows
nothing of what no sample shows, so for those a least number of samples is asked for on top.
Pure.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from tidegate.preparation.errors import PreparationError, one_line

RESAMPLES: Final = 2_000
SEED: Final = 20_160
LEAST_FOR_BOOTSTRAP: Final = 50
"""Below this, percentiles of a bootstrap promise more than they hold."""
MOST_SAMPLES: Final = 100_000_000
"""Beyond so many, no number of samples is named."""

Outcome = NDArray[Any]
Measure = Callable[[NDArray[np.intp]], tuple[float, float]]
"""From the samples' places (with repetitions) to the metric of the original and the candidate."""


class Verdict(StrEnum):
    """What the gate says."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    TOO_FEW_SAMPLES = "too few samples"


class Better(StrEnum):
    """Which way a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True)
class Allowed:
    """What a candidate may cost.

    Attributes:
        drop: how much worse the metric may become, in its own unit: 0.01 is one point of accuracy.
        confidence: of the bound on it, for all the candidates together.
        candidates: how many are tried.
    """

    drop: float
    confidence: float = 0.95
    candidates: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.drop) and self.drop >= 0.0):
            raise PreparationError(f"the allowed drop is {self.drop}: it must be 0 or more")
        if not 0.5 <= self.confidence < 1.0:
            raise PreparationError(
                f"the confidence is {self.confidence}: it must be from 0.5 to below 1"
            )
        if self.candidates < 1:
            raise PreparationError("at least one candidate is judged")

    @property
    def error(self) -> float:
        """The chance that one candidate that is worse than allowed is accepted."""
        return (1.0 - self.confidence) / self.candidates


@dataclass(frozen=True)
class Judgement:
    """The gate's verdict on one candidate.

    Attributes:
        verdict: accepted, refused, or not to be told with so few samples.
        metric: its name.
        before: the original's.
        after: the candidate's.
        drop: how much worse the candidate is; negative where it is better.
        low: the drop is above this, at the confidence.
        high: the drop is below this, at the confidence.
        allowed: what was asked for.
        samples: how many the metric was measured on.
        needed: so many would show it, were the rates those measured; None where more samples
            would not help, or where it was shown.
        method: how the bound was made.
        better: which way the metric improves; `drop`, `low` and `high` count for worse either way.
    """

    verdict: Verdict
    metric: str
    before: float
    after: float
    drop: float
    low: float
    high: float
    allowed: Allowed
    samples: int
    needed: int | None
    method: str
    better: Better = Better.HIGHER

    def sentence(self) -> str:
        """The verdict in words."""
        direction = " (lower is better)" if self.better is Better.LOWER else ""
        told = (
            f"{self.metric}{direction} {self.before:.4g} before, {self.after:.4g} after: "
            f"worse by {self.drop:.4g}, between {self.low:.4g} and {self.high:.4g} "
            f"({self.samples} samples, {self.method}); allowed {self.allowed.drop:g}"
        )
        if self.verdict is Verdict.TOO_FEW_SAMPLES:
            if self.needed is None:
                more = f"more than {MOST_SAMPLES:,} would be needed"
            else:
                more = f"about {self.needed:,} would show it"
            return f"too few samples to accept it, {more}: {told}"
        return f"{self.verdict}: {told}"


def share_bounds(hits: int, samples: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's bounds on a share, each one-sided with this chance of error."""
    low = 0.0 if hits == 0 else float(betaincinv(hits, samples - hits + 1, error))
    high = 1.0 if hits == samples else float(betaincinv(hits + 1, samples - hits, 1.0 - error))
    return low, high


def least_samples(allowed: Allowed) -> int:
    """So many samples accept a candidate with no answer changed for the worse; fewer, never.

    Raises:
        PreparationError: an allowed drop of 0 can be shown by no number of samples.
    """
    if allowed.drop == 0.0:
        raise PreparationError(
            "an allowed drop of 0 cannot be shown by any number of samples: allow a little"
        )
    if allowed.drop >= 1.0:
        return 1
    return math.ceil(math.log(allowed.error / 2.0) / math.log1p(-allowed.drop))


def judge_accuracy(before: Outcome, after: Outcome, labels: Outcome, allowed: Allowed) -> Judgement:
    """Judge by the share of right answers.

    Args:
        before: the original's answers, one a sample.
        after: the candidate's.
        labels: the truth.
        allowed: the drop, as a share.

    Raises:
        PreparationError: they differ in length, are none, or the allowed drop is 0.
    """
    samples = _length(before, after, labels)
    least_samples(allowed)  # refuses a drop of 0
    right_before, right_after = before == labels, after == labels
    lost = int((right_before & ~right_after).sum())
    won = int((~right_before & right_after).sum())
    drop = (lost - won) / samples
    low, high = _drop_bounds(lost, won, samples, allowed.error)
    verdict = _verdict(drop, high, allowed)
    needed = None
    if verdict is Verdict.TOO_FEW_SAMPLES:
        needed = _needed_for_accuracy(lost / samples, won / samples, samples, allowed)
    return Judgement(
        verdict=verdict,
        metric="accuracy",
        before=float(right_before.mean()),
        after=float(right_after.mean()),
        drop=drop,
        low=low,
        high=high,
        allowed=allowed,
        samples=samples,
        needed=needed,
        method=f"exact on {lost} lost and {won} won",
    )


def judge_by_bootstrap(
    name: str,
    measure: Measure,
    samples: int,
    allowed: Allowed,
    *,
    better: Better = Better.HIGHER,
    bounded: bool = True,
) -> Judgement:
    """Judge by any metric of a set of samples.

    Args:
        name: of the metric.
        measure: gives it for both models on the samples at these places.
        samples: how many there are.
        allowed: the drop, in the metric's unit; of an error, the rise.
        better: LOWER for errors.
        bounded: the metric lies within 0 and 1 as F1 does, or may; RMSE does not.

    Raises:
        PreparationError: the metric raised or gave no finite number on all the samples, or on so
            many resamples that no bound can be had; or the allowed drop is 0.
    """
    if samples == 0:
        raise PreparationError("the held-out set is empty")
    least = max(LEAST_FOR_BOOTSTRAP, least_samples(allowed) if bounded else 0)
    sign = 1.0 if better is Better.HIGHER else -1.0
    before, after = _measured(name, measure, np.arange(samples))
    if not (math.isfinite(before) and math.isfinite(after)):
        raise PreparationError(
            f"the metric {name} is {before} before and {after} after on the held-out set: "
            "no finite number"
        )
    drop = sign * (before - after)
    random = np.random.default_rng(SEED)
    drops = np.array(
        [
            sign * (was - now)
            for was, now in (
                _measured(name, measure, random.integers(0, samples, samples))
                for _ in range(RESAMPLES)
            )
        ]
    )
    drops = drops[np.isfinite(drops)]
    if len(drops) < RESAMPLES * 0.99:
        raise PreparationError(
            f"the metric {name} is no finite number on {RESAMPLES - len(drops)} of {RESAMPLES} "
            "resamples of the held-out set: it needs more samples, of every class"
        )
    error = max(allowed.error, 10.0 / RESAMPLES)
    low, high = (float(q) for q in np.quantile(drops, [error, 1.0 - error]))
    verdict = _verdict(drop, high, allowed)
    needed = None
    if verdict is Verdict.ACCEPTED and samples < least:
        verdict, needed = Verdict.TOO_FEW_SAMPLES, least
    elif verdict is Verdict.TOO_FEW_SAMPLES and drop < allowed.drop:
        # The width of the bound falls with the root of the samples.
        ratio = (high - drop) / (allowed.drop - drop)
        needed = max(least, math.ceil(samples * ratio * ratio))
        needed = needed if needed <= MOST_SAMPLES else None
    return Judgement(
        verdict=verdict,
        metric=name,
        before=before,
        after=after,
        drop=drop,
        low=low,
        high=high,
        allowed=allowed,
        samples=samples,
        needed=needed,
        method=f"paired bootstrap, {RESAMPLES} resamples, seed {SEED}",
        better=better,
    )


def f1(found: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The mean over the labels' classes of 2 TP / (2 TP + FP + FN) (macro F1).

    Both are classes by number, from 0 (`numbered`).
    """
    count = int(max(found.max(), labels.max())) + 1
    hits = np.bincount(labels[found == labels], minlength=count)
    there = np.bincount(labels, minlength=count)
    both = there + np.bincount(found, minlength=count)
    seen = there > 0
    return float((2.0 * hits[seen] / both[seen]).mean())


def numbered(*answers: Outcome) -> list[NDArray[np.int64]]:
    """The same classes as numbers from 0, in all of them alike."""
    _, numbers = np.unique(np.concatenate(answers), return_inverse=True)
    return np.split(numbers.astype(np.int64), np.cumsum([len(a) for a in answers])[:-1])


def rmse(found: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean(np.square(found - labels))))


def mae(found: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """The mean absolute error."""
    return float(np.mean(np.abs(found - labels)))


def _length(before: Outcome, after: Outcome, labels: Outcome) -> int:
    if not before.shape == after.shape == labels.shape or before.ndim != 1:
        raise PreparationError(
            f"one answer and one label a sample are compared: there are answers of shape "
            f"{list(before.shape)} before, {list(after.shape)} after, "
            f"labels of {list(labels.shape)}"
        )
    if len(labels) == 0:
        raise PreparationError("the held-out set is empty")
    return len(labels)


def _drop_bounds(lost: int, won: int, samples: int, error: float) -> tuple[float, float]:
    lost_low, lost_high = share_bounds(lost, samples, error / 2.0)
    won_low, won_high = share_bounds(won, samples, error / 2.0)
    return lost_low - won_high, lost_high - won_low


def _verdict(drop: float, high: float, allowed: Allowed) -> Verdict:
    if high <= allowed.drop:
        return Verdict.ACCEPTED
    return Verdict.REFUSED if drop > allowed.drop else Verdict.TOO_FEW_SAMPLES


def _needed_for_accuracy(lost: float, won: float, samples: int, allowed: Allowed) -> int | None:
    """The fewest samples that accept, were the shares of lost and won answers those measured."""

    def enough(n: int) -> bool:
        bounds = _drop_bounds(math.ceil(lost * n), math.floor(won * n), n, allowed.error)
        return bounds[1] <= allowed.drop

    low, high = samples, max(2 * samples, least_samples(allowed))
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _measured(name: str, measure: Measure, places: NDArray[np.intp]) -> tuple[float, float]:
    try:
        return measure(places)
    except PreparationError:
        raise
    except (Exception, SystemExit) as problem:
        raise PreparationError(
            f"the metric {name} raised {type(problem).__name__}: {one_line(problem)}"
        ) from problem
