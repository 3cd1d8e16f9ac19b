"""How much faster or slower a candidate is here than what it was made of: a first look.

Both run in turn, in this process, with one thread, so that what else the machine does meets both.
What counts is measured on a real server under load; this says in seconds whether that is worth it.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.samples import Samples

ROUNDS: Final = 21
ROUND_S: Final = 0.02
"""How long each side runs in a round, at least one call."""
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Speed:
    """A candidate's time a call over the original's.

    Attributes:
        before_ms: the original's median.
        after_ms: the candidate's.
        ratio: median over the rounds of the candidate's time over the original's.
        low: the median ratio is above this, with high at 95 %.
        high: the median ratio is below this.
        batch: samples a call.
    """

    before_ms: float
    after_ms: float
    ratio: float
    low: float
    high: float
    batch: int

    def sentence(self) -> str:
        """In words."""
        if self.high < 1.0:
            told = f"faster: {self.ratio:.2f} of the time"
        elif self.low > 1.0:
            told = f"slower: {self.ratio:.2f} times as long"
        else:
            told = f"no difference shown: {self.ratio:.2f} of the time"
        return (
            f"{told} ({self.low:.2f} to {self.high:.2f}), {self.before_ms:.3f} ms before and "
            f"{self.after_ms:.3f} ms after for a batch of {self.batch} on one thread here"
        )


def compare(original: Candidate, candidate: Candidate, samples: Samples, batch: int = 1) -> Speed:
    """Time both ONNX candidates on the first samples.

    Raises:
        PreparationError: one of them is not ONNX, does not load or does not take the samples.
    """
    calls = [_call(one, samples.take(slice(0, batch))) for one in (original, candidate)]
    times_s: tuple[list[float], list[float]] = ([], [])
    for call in calls:
        call()
    for turn in range(ROUNDS):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            begun, count = time.perf_counter(), 0
            while count == 0 or time.perf_counter() - begun < ROUND_S:
                calls[side]()
                count += 1
            times_s[side].append((time.perf_counter() - begun) / count)
    return speed(*times_s, batch=batch)


def _call(one: Candidate, samples: Samples) -> Callable[[], object]:
    if one.platform != "onnxruntime":
        raise PreparationError(f"{one.name} is for {one.platform}: only ONNX is timed here")
    opened, taken = session.opened(one.path), session.fitted(one.inputs, samples)
    return lambda: opened.run(None, taken)


def speed(before_s: list[float], after_s: list[float], *, batch: int) -> Speed:
    """What paired times say; the interval of the median is by order statistics (sign test)."""
    ratios = sorted(after / before for before, after in zip(before_s, after_s, strict=True))
    count = len(ratios)
    # The largest k with P(Binomial(count, 1/2) < k) <= half of what may go wrong.
    below, k = 0.0, 0
    while below + math.comb(count, k) / 2.0**count <= (1.0 - CONFIDENCE) / 2.0:
        below += math.comb(count, k) / 2.0**count
        k += 1
    low, high = (ratios[k - 1], ratios[count - k]) if k else (0.0, math.inf)
    return Speed(
        before_ms=float(np.median(before_s)) * 1000.0,
        after_ms=float(np.median(after_s)) * 1000.0,
        ratio=float(np.median(ratios)),
        low=low,
        high=high,
        batch=batch,
    )
