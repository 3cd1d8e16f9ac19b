"""The beta function and its regularised incomplete form, in logarithms. Pure.

Called a few times each second for every live canary, with counts of up to millions; so what it
costs must not grow with them.
"""

from math import cos, exp, inf, lgamma, log, log1p, pi, sqrt
from typing import Final

_SMALLEST: Final = 1e-300
_PRECISION: Final = 1e-14
_QUADRATURE_FROM: Final = 60.0
"""Both parameters at least this: the tail is integrated, in constant time. Below, the continued
fraction needs some tens of terms at most."""
_DECAY: Final = 45.0
"""The integral ends where the density has fallen by about exp(-45)."""


def _gauss_legendre(order: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights on (0, 1), by Newton's method on the Legendre polynomial."""
    rule = []
    for i in range(order):
        x = cos(pi * (i + 0.75) / (order + 0.5))
        slope = 1.0
        for _ in range(8):
            before, value = 1.0, x
            for k in range(2, order + 1):
                before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
            slope = order * (x * value - before) / (x * x - 1.0)
            x -= value / slope
        rule.append(((1.0 - x) / 2.0, 1.0 / ((1.0 - x * x) * slope * slope)))
    return tuple(rule)


_RULE: Final = _gauss_legendre(24)


def log_beta(a: float, b: float) -> float:
    """Logarithm of B(a, b) for positive a and b."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def log_tails(a: float, b: float, x: float) -> tuple[float, float]:
    """Logarithms of I_x(a, b) and 1 - I_x(a, b): a Beta(a, b) variable below and above `x`.

    Both are accurate far out, where the other one is all but 1.

    Args:
        a: positive.
        b: positive.
        x: 0 to 1.
    """
    if x <= 0.0:
        return -inf, 0.0
    if x >= 1.0:
        return 0.0, -inf
    if a >= _QUADRATURE_FROM and b >= _QUADRATURE_FROM:
        upwards = x * (a + b - 2.0) > a - 1.0  # beyond the mode
        tail = _integral
    else:
        upwards = x * (a + b + 2.0) > a + 1.0  # where the continued fraction is the shorter one
        tail = _fraction
    small = tail(b, a, 1.0 - x, x) if upwards else tail(a, b, x, 1.0 - x)
    rest = log1p(-exp(small)) if small < 0.0 else -inf
    return (rest, small) if upwards else (small, rest)


def _fraction(a: float, b: float, x: float, y: float) -> float:
    """Logarithm of I_x(a, b), x not above the mean by much; y = 1 - x."""
    front = a * log(x) + b * log(y) - log_beta(a, b)
    return front - log(a) + log(_continued_fraction(a, b, x))


def _integral(a: float, b: float, x: float, y: float) -> float:
    """The same, x not above the mode: quadrature from `x` down, scaled by the density at `x`."""
    slope = max((a - 1.0) / x - (b - 1.0) / y, 0.0)
    curvature = (a - 1.0) / (x * x) + (b - 1.0) / (y * y)
    width = 2.0 * _DECAY / (slope + sqrt(slope * slope + 2.0 * _DECAY * curvature))
    width = min(width, x)
    down, up = -width / x, width / y
    a1, b1 = a - 1.0, b - 1.0
    total = 0.0
    for node, weight in _RULE:
        total += weight * exp(a1 * log1p(node * down) + b1 * log1p(node * up))
    return a1 * log(x) + b1 * log(y) - log_beta(a, b) + log(total * width)


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Lentz's method on the continued fraction of the incomplete beta function (DLMF 8.17.22)."""
    total = a + b
    c = 1.0
    d = 1.0 - total * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _SMALLEST else _SMALLEST)
    result = d
    for m in range(1, 10_000):
        even = a + 2 * m
        term = m * (b - m) * x / ((even - 1.0) * even)
        d = 1.0 + term * d
        c = 1.0 + term / c
        d = 1.0 / (d if abs(d) > _SMALLEST else _SMALLEST)
        c = c if abs(c) > _SMALLEST else _SMALLEST
        result *= d * c
        term = -(a + m) * (total + m) * x / (even * (even + 1.0))
        d = 1.0 + term * d
        c = 1.0 + term / c
        d = 1.0 / (d if abs(d) > _SMALLEST else _SMALLEST)
        c = c if abs(c) > _SMALLEST else _SMALLEST
        step = d * c
        result *= step
        if abs(step - 1.0) < _PRECISION:
            break
    return result
