"""Accuracy of a revision from labels that come later, with bounds that hold at every look. Pure.

Right answers among independent labels are a share, so the bounds are those of
`tidegate.analysis.bound`: a confidence sequence by a Beta mixture. The chance that the true
accuracy *ever* lies outside is at most alpha, however often one looks and whenever one stops.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tidegate.analysis import bound

MOST_LABELS: Final = 100_000_000
"""More labels than this is never."""


class Answer(StrEnum):
    """What the labels say."""

    GOOD = "Good"
    BAD = "Bad"
    NOT_YET = "NotYet"


@dataclass(frozen=True)
class Accuracy:
    """Right answers of a revision.

    Attributes:
        right: how many were.
        labels: out of; at least `right`.
        low: the accuracy is above this, at all looks, but for a chance of alpha together with
        high: the same, below.
    """

    right: int
    labels: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The measured accuracy; 0 without labels."""
        return self.right / self.labels if self.labels else 0.0


def measured(right: int, labels: int, alpha: float) -> Accuracy:
    """The accuracy that so many labels show.

    Args:
        right: answers that were right, 0 to `labels`.
        labels: answers that were compared.
        alpha: chance that the bounds are wrong, once or more.
    """
    return Accuracy(
        right, labels, bound.lower(right, labels, alpha), bound.upper(right, labels, alpha)
    )


def judge(
    accuracy: Accuracy,
    stable: Accuracy | None,
    *,
    least: float | None,
    most_drop: float | None,
) -> Answer:
    """Whether a revision is as accurate as asked.

    Good if every condition is shown to hold, Bad if one is shown not to. All bounds are used at
    once, so the chance of a wrong verdict, ever, is at most the sum of their alphas.

    Args:
        accuracy: of the revision.
        stable: of the one that it is compared with; None: nothing to compare with.
        least: the accuracy asked for; None: any.
        most_drop: how much lower than stable's it may be, as a share; None: not compared.
    """
    # How far above what is needed it lies, at least and at most.
    spans = [] if least is None else [(accuracy.low - least, accuracy.high - least)]
    if most_drop is not None:
        low, high = (0.0, 1.0) if stable is None else (stable.low, stable.high)
        spans.append((accuracy.low - high + most_drop, accuracy.high - low + most_drop))
    if not spans:
        return Answer.NOT_YET
    if any(high < 0.0 for _, high in spans):
        return Answer.BAD
    if all(low >= 0.0 for low, _ in spans):
        return Answer.GOOD
    return Answer.NOT_YET


def labels_needed(
    accuracy: Accuracy,
    stable: Accuracy | None,
    alpha: float,
    *,
    least: float | None,
    most_drop: float | None,
) -> int | None:
    """Labels still missing until `judge` says Good, if they go on as observed.

    Returns:
        0: it does; None: never, as it goes, or nothing is known yet.

    Args:
        accuracy: of the revision.
        stable: as for `judge`; taken as it is.
        alpha: of the revision's bounds.
        least: as for `judge`.
        most_drop: as for `judge`.
    """
    if not accuracy.labels:
        return None

    def enough(labels: int) -> bool:
        then = measured(round(accuracy.share * labels), labels, alpha)
        return judge(then, stable, least=least, most_drop=most_drop) is Answer.GOOD

    if enough(accuracy.labels):
        return 0
    low, high = accuracy.labels, 2 * accuracy.labels
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_LABELS:
            return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high - accuracy.labels
