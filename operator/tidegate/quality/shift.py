"""How far one distribution lies from another, with bounds that hold at every look. Pure.

A field of the samples, a number or a label, is counted in bins that are fixed before counting
begins. For numbers the shift is the largest difference of the two distribution functions at the
bins' edges (the Kolmogorov-Smirnov distance, on a grid), for labels the largest difference of one
label's share. Beside it stands the population stability index, PSI = sum (p - q) ln (p / q).

Each share has a confidence sequence (`tidegate.analysis.bound`); together, by the union bound, all
of them hold at all looks but for a chance of alpha. Against the Dvoretzky-Kiefer-Wolfowitz bound
with alpha spent over looks at growing counts, this is as narrow in the middle of a distribution,
narrower at its ends, and needs no plan of the looks.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, nextafter
from typing import Final

from tidegate.analysis import bound

CALIBRATION: Final = 200
"""The first samples of a field set its bins and are counted nowhere."""
BINS: Final = 10
MOST_LABELS: Final = 20
"""Labels that are counted apart; the others together are one."""
OTHER: Final = ""
"""That one."""


@dataclass(frozen=True)
class Bins:
    """How a field is counted.

    Attributes:
        edges: of a number, ascending: bin i holds edges[i - 1] <= value < edges[i].
        labels: of a text, sorted; one of the two is empty.
    """

    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the bins, in order."""
        if self.labels:
            return (*self.labels, OTHER)
        return tuple(str(i) for i in range(len(self.edges) + 1))

    def name(self, value: float | str) -> str:
        """The bin of a value."""
        if isinstance(value, str):
            return value if value in self.labels else OTHER
        return str(bisect_right(self.edges, value))


def bins_of(values: Sequence[float | str]) -> Bins:
    """Bins for values like these: numbers by their deciles, labels by how often they come.

    A value that many have (a flag, a default, a count) is a bin of its own: else what lies above
    it could not be told from it.

    Args:
        values: all numbers, or all texts; at least one.
    """
    texts = [v for v in values if isinstance(v, str)]
    if texts:
        often = sorted(set(texts), key=lambda t: (-texts.count(t), t))
        return Bins(labels=tuple(sorted(often[:MOST_LABELS])))
    numbers = sorted(v for v in values if not isinstance(v, str))
    deciles = {numbers[len(numbers) * i // BINS] for i in range(1, BINS)}
    often_had = {d for d in deciles if BINS * numbers.count(d) > len(numbers)}
    return Bins(edges=tuple(sorted(deciles | {nextafter(d, inf) for d in often_had})))


@dataclass(frozen=True)
class Shift:
    """How far two distributions differ.

    Attributes:
        largest: the shift as counted, 0 to 1.
        low: the shift is above this, at all looks, but for a chance of alpha together with
        high: the same, below.
        where: what differs most: ``below 0.8``, ``up to 0`` (a value that many have), or a label.
        reference: its share there in the reference, as counted.
        current: the same now.
        psi: the index as counted, half a sample added to each bin.
        psi_low: it is above this; part of the same alpha.
        samples: of the smaller side.
    """

    largest: float
    low: float
    high: float
    where: str
    reference: float
    current: float
    psi: float
    psi_low: float
    samples: int


def shift(
    bins: Bins, reference: Mapping[str, int], current: Mapping[str, int], alpha: float
) -> Shift:
    """The shift from one set of counts to another.

    Args:
        bins: of both.
        reference: counts by bin; a bin without samples may be missing.
        current: the same.
        alpha: chance that any of the bounds is wrong, once or more.
    """
    names = bins.names
    before, after = ([counts.get(n, 0) for n in names] for counts in (reference, current))
    n, m = sum(before), sum(after)
    if bins.labels:
        places = [
            (name or "other labels", b, a) for name, b, a in zip(names, before, after, strict=True)
        ]
        each = alpha / (2.0 * len(names))
        slices = each
    else:
        places = [
            (_place(bins.edges, i), sum(before[: i + 1]), sum(after[: i + 1]))
            for i in range(len(bins.edges))
        ]
        # Half for the edges, half for the bins.
        each = alpha / (4.0 * len(places))
        slices = alpha / (4.0 * len(names))
    found = [(_difference(b, n, a, m, each), where, b, a) for where, b, a in places]
    (largest, _, _), where, b, a = max(found, key=lambda f: f[0][0])
    pairs = list(zip(before, after, strict=True))
    return Shift(
        largest=largest,
        low=max(f[0][1] for f in found),
        high=max(f[0][2] for f in found),
        where=where,
        reference=b / n if n else 0.0,
        current=a / m if m else 0.0,
        psi=sum(_psi(*(_smooth(c, t, len(names)) for c, t in ((x, n), (y, m)))) for x, y in pairs)
        if n and m
        else 0.0,
        psi_low=sum(_least_psi(x, n, y, m, slices) for x, y in pairs),
        samples=min(n, m),
    )


def _place(edges: Sequence[float], index: int) -> str:
    edge = edges[index]
    if index and edge == nextafter(edges[index - 1], inf):
        return f"up to {edges[index - 1]:.4g}"
    return f"below {edge:.4g}"


def _difference(b: int, n: int, a: int, m: int, alpha: float) -> tuple[float, float, float]:
    """The difference of two shares, counted, at least and at most."""
    counted = abs(a / m - b / n) if n and m else 0.0
    b_low, b_high = bound.lower(b, n, alpha), bound.upper(b, n, alpha)
    a_low, a_high = bound.lower(a, m, alpha), bound.upper(a, m, alpha)
    return counted, max(0.0, a_low - b_high, b_low - a_high), max(a_high - b_low, b_high - a_low)


def _smooth(count: int, total: int, bins: int) -> float:
    return (count + 0.5) / (total + 0.5 * bins)


def _psi(p: float, q: float) -> float:
    return (p - q) * log(p / q) if p > 0.0 and q > 0.0 else (0.0 if p == q else inf)


def _least_psi(b: int, n: int, a: int, m: int, alpha: float) -> float:
    """A bin's part of the index, at least: it grows as the two shares move apart."""
    b_low, b_high = bound.lower(b, n, alpha), bound.upper(b, n, alpha)
    a_low, a_high = bound.lower(a, m, alpha), bound.upper(a, m, alpha)
    if a_low > b_high:
        return _psi(a_low, b_high)
    return _psi(b_low, a_high) if b_low > a_high else 0.0
