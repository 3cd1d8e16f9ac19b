"""Two shares of requests against each other, block by block: is one larger, or surely not.

Both are products of e-variables, one a block: the likelihood of what the block holds under a
guess made *before* it, over its likelihood under the nearest point of the hypothesis (Turner, Ly,
Grünwald 2024, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping"; Turner, Grünwald 2023 for convex hypotheses). If the hypothesis is true in every block,
whatever the shares are and however they and the split of the traffic change from block to block,
the chance that the product ever reaches 1/alpha is at most alpha.

Why that holds for whole blocks: the expectation of a block's factor is f1(p1)^n1 f0(p0)^n0, with f
affine, so its logarithm is concave in (p1, p0). It is 0 at the projected point, where its gradient
is minus that of the divergence that the projection minimises; so it falls towards every other
point of a convex hypothesis. Pure.
"""

from collections.abc import Sequence
from math import acos, copysign, cos, exp, log, log1p, pi, sqrt
from typing import Final

ERROR_RATIOS: Final = tuple(1.5 * 200.0 ** (i / 11) for i in range(12))
"""Odds ratios that count as worse, for failures: 1.5 to 300."""
_FLOOR: Final = 1e-9
_STEPS: Final = 50
_PRIOR: Final = 0.5


def log_mean(log_values: Sequence[float], tempering: float = 1.0) -> float:
    """Logarithm of the mean of exp(v / tempering)."""
    top = max(log_values)
    scale = 1.0 / tempering
    total = 0.0
    for value in log_values:
        total += exp((value - top) * scale)
    return top * scale + log(total / len(log_values))


class Baseline:
    """What stable's share was so far: the mean of a Beta distribution.

    Attributes:
        failed: how many of stable's requests did, in the blocks before.
        requests: out of.
    """

    __slots__ = ("_a", "_b", "failed", "requests")

    def __init__(self, guess: float) -> None:
        guess = min(max(guess, _FLOOR), 1.0 - _FLOOR)
        self._a = _PRIOR
        self._b = _PRIOR * (1.0 - guess) / guess
        self.failed = 0.0
        self.requests = 0.0

    def share(self) -> float:
        """The guess for the next block."""
        return (self._a + self.failed) / (self._a + self._b + self.requests)

    def add(self, failed: float, requests: float) -> None:
        """Learn from a block, after it was weighed."""
        self.failed += failed
        self.requests += requests


def add_superiority(
    log_ratios: list[float],
    ratios: Sequence[float],
    guess: float,
    canary: tuple[float, float],
    stable: tuple[float, float],
    first: int = 0,
) -> None:
    """Weigh one block against "the canary's share is at most stable's"; adds to `log_ratios`.

    Args:
        log_ratios: the running sum for each of `ratios`.
        ratios: odds ratios, above 1.
        guess: stable's share, from earlier blocks.
        canary: how many failed, out of how many.
        stable: the same.
        first: where in `log_ratios` the sums for `ratios` begin.
    """
    (s1, n1), (s0, n0) = canary, stable
    if n1 <= 0.0 or n0 <= 0.0:
        return  # both sides of the ratio are the same
    failed = s1 + s0
    good = n1 + n0 - failed
    w1 = n1 / (n1 + n0)
    rest = 1.0 - guess
    # With d = 1 - guess + guess r: p1 = guess r / d, 1 - p1 = (1 - guess) / d.
    base = failed * log(guess) + good * log(rest)
    if failed:
        for i, ratio in enumerate(ratios, first):
            d = rest + guess * ratio
            mixed = guess + w1 * (guess * ratio / d - guess)
            log_ratios[i] += (
                base + s1 * log(ratio) - n1 * log(d) - failed * log(mixed) - good * log(1.0 - mixed)
            )
    else:
        for i, ratio in enumerate(ratios, first):
            d = rest + guess * ratio
            mixed = guess + w1 * (guess * ratio / d - guess)
            log_ratios[i] += base - n1 * log(d) - good * log(1.0 - mixed)


NON_INFERIOR_SHIFTS: Final = (0.0, 0.3, 0.6)
"""Guesses of the canary's share: stable's, plus this part of the margin."""


def add_non_inferiority(
    log_ratios: list[float],
    margin: float,
    guess: float,
    canary: tuple[float, float],
    stable: tuple[float, float],
) -> None:
    """Weigh one block against "the canary's share is at least stable's + margin".

    An e-variable rather than two confidence sequences: their ends add up, which asks for about
    twice the requests, and they pool blocks whose shares and splits differ.

    Args:
        log_ratios: the running sum for each of `NON_INFERIOR_SHIFTS`.
        margin: above 0.
        guess: stable's share, from earlier blocks.
        canary: how many failed, out of how many.
        stable: the same.
    """
    (s1, n1), (s0, n0) = canary, stable
    if n1 <= 0.0 or n0 <= 0.0:
        return
    for i, shift in enumerate(NON_INFERIOR_SHIFTS):
        p1 = min(guess + shift * margin, 1.0 - _FLOOR)
        q0 = _projected(p1, n1, guess, n0, margin)
        q1 = q0 + margin
        if q0 <= 0.0 or q1 >= 1.0:
            continue
        log_ratios[i] += (
            (s1 * log(p1 / q1) if s1 else 0.0)
            + (n1 - s1) * (log1p(-p1) - log1p(-q1))
            + (s0 * log(guess / q0) if s0 else 0.0)
            + (n0 - s0) * (log1p(-guess) - log1p(-q0))
        )


def _projected(p1: float, n1: float, p0: float, n0: float, margin: float) -> float:
    """The q that minimises n1 KL(p1 || q + margin) + n0 KL(p0 || q).

    A root of a cubic, by Farrington and Manning (1990), "Test statistics and sample size formulae
    for comparative binomial trials", polished by Newton's method since small shares cancel there.
    """
    low, high = max(p1 - margin, 0.0), min(p0, 1.0 - margin)
    if low >= high:
        return high
    theta = n0 / n1
    a = 1.0 + theta
    b = -(a + p1 + theta * p0 + margin * (theta + 2.0)) / (3.0 * a)
    c = (margin * margin + margin * (2.0 * p1 + a) + p1 + theta * p0) / (3.0 * a)
    d = -p1 * margin * (1.0 + margin) / (2.0 * a)
    v = b * b * b - 1.5 * b * c + d
    u = copysign(sqrt(max(b * b - c, 1e-300)), v)
    turn = min(max(v / (u * u * u), -1.0), 1.0)
    q = 2.0 * u * cos((pi + acos(turn)) / 3.0) - b - margin
    for _ in range(_STEPS):
        if not low < q < high:
            q = 0.5 * (low + high)
        q1 = q + margin
        v1, v0 = q1 * (1.0 - q1), q * (1.0 - q)
        r1, r0 = (q1 - p1) / v1, (q - p0) / v0
        slope = n1 * r1 + n0 * r0
        if slope > 0.0:
            high = q
        else:
            low = q
        # The derivative of (q - p) / (q (1 - q)) is ((q - p)^2 + p (1 - p)) / (q (1 - q))^2.
        curvature = n1 * (r1 * r1 + p1 * (1.0 - p1) / (v1 * v1))
        curvature += n0 * (r0 * r0 + p0 * (1.0 - p0) / (v0 * v0))
        step = slope / curvature
        q -= step
        if abs(step) <= 1e-10 * q:
            break
    return q
