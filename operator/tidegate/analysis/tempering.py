"""How clustered stable's outcomes are: by how much the evidence has to be divided. Pure.

A client that keeps its connection, or sends the same bad request over and over, makes outcomes
come in clusters: ten requests say no more than one. Stable shows how large the clusters are by its
index of dispersion: the variance of its counts over what independent requests would give.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Final

from tidegate.analysis.latency import MOST_BOUNDS
from tidegate.analysis.sums import Sum

FAILURES, CLIENTS, SLOWNESS, LATENCIES = range(4)
"""Kinds of outcomes, each with exponents of its own: failures, client errors, answers beyond the
target, and answers beyond any bound (never less than those beyond the target)."""
_TELLING: Final = (0.1, 0.5)
"""Where so large a share of stable's answers is beyond a bound, it parts requests that take longer
from others, and how clustered they are is true of those beyond the target, too. Where it is
smaller, what is beyond is the machine's doing, which says nothing of them."""
_KNOWN_FROM: Final = 50.0
"""Answers that tell the share."""
_KINDS: Final = 4
_LEVELS: Final = 6
"""Blocks are compared with their neighbours singly, in twos, in fours ... up to 32 blocks, since a
cluster may be spread over seconds."""
_FLOATS: Final = 10
"""Numbers kept of each level."""
SIZE: Final = _LEVELS * _FLOATS + 2
LARGEST: Final = 20.0
"""No exponent is larger: beyond it stable shows an incident, not its clients' ways."""
_ENOUGH_FAILURES: Final = 100.0
_ENOUGH_BLOCKS: Final = (300.0, 1_000.0)
"""Stable is known after the first number with so many failures, after the second in any case."""
FROM_FEW: Final = 10.0
"""No suspicion is larger: it may rest on an incident of stable's, after which a bad canary must not
be given a hundred times as many failures."""
_LEAST_SHARE: Final = 0.1
"""A block of a pair has at least this share of the pair's requests, or the pair says nothing."""
_SURE: Final = 4.0
"""Standard deviations by which the dispersion has to exceed that of independent requests."""
SURE_OF_MANY: Final = 2.6
_SURE_OF_FEW: Final = 3.8
"""The same where nothing is left out: the first and, divided by the root of the number of pairs,
the second."""
_SURE_OF_SLOWNESS: Final = 4.0
"""In place of the first: of slow answers there are many, so that false suspicions would be, too."""


class Dispersion:
    """An estimate of the cluster size, from pairs of neighbouring blocks of stable's.

    Of the m failures of a pair of blocks, independent requests put a Binomial number into the
    first; (x - its mean)^2 over its variance per failure is m on average, and m c for clusters
    of c. Neighbours share whatever drifts, so a slow change of the rate is no dispersion. The
    largest two pairs of a level are left out: an incident begins once and ends once.

    Attributes:
        values: the state, `SIZE` numbers.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        # Each level: waiting (0 or 1), its failed, its requests; sums of d^2, m, 2 m (m - 1);
        # the largest and second-largest d^2 with their m.
        # At the end: failures and blocks taken in.
        self.values = [0.0] * SIZE

    @property
    def settled(self) -> bool:
        """Whether enough was seen; more would only add incidents."""
        failures, blocks = self.values[-2:]
        few, many = _ENOUGH_BLOCKS
        return blocks >= many or (blocks >= few and failures >= _ENOUGH_FAILURES)

    def add(self, failed: float, requests: float) -> bool:
        """Take in the next block; whether that can have changed `exponent`."""
        changed = False
        values = self.values
        values[-2] += failed
        values[-1] += 1.0
        for level in range(_LEVELS):
            at = level * _FLOATS
            if values[at] == 0.0:
                values[at : at + 3] = (1.0, failed, requests)
                return changed
            before, out_of = values[at + 1], values[at + 2]
            values[at] = 0.0
            m, n = before + failed, out_of + requests
            share = out_of / n if n else 0.0
            # One failure in a block that has next to none of the pair's requests would weigh much.
            if m >= 2.0 and _LEAST_SHARE <= share <= 1.0 - _LEAST_SHARE:
                # Hypergeometric: where nearly all fail, there is little left to vary.
                room = 1.0 - (m - 1.0) / (n - 1.0) if n > m else 0.0
                d2 = (before - m * share) ** 2 / (share * (1.0 - share))
                expected = m * room
                changed = True
                values[at + 3] += d2
                values[at + 4] += expected
                values[at + 5] += 2.0 * expected * max(expected - 1.0, 0.0)
                if d2 > values[at + 6]:
                    values[at + 8], values[at + 9] = values[at + 6], values[at + 7]
                    values[at + 6], values[at + 7] = d2, expected
                elif d2 > values[at + 8]:
                    values[at + 8], values[at + 9] = d2, expected
            failed, requests = m, n
        return changed

    def exponent(self) -> float:
        """The cluster size that the blocks show beyond doubt; 1 for independent requests."""
        result = 1.0
        values = self.values
        for level in range(_LEVELS):
            at = level * _FLOATS
            squares = values[at + 3] - values[at + 6] - values[at + 8]
            expected = values[at + 4] - values[at + 7] - values[at + 9]
            spread = sqrt(max(values[at + 5], 0.0))
            if expected > 0.5 and squares - expected > _SURE * spread:
                result = max(result, squares / expected)
        return min(result, LARGEST)

    def suspected(self, sure_of_many: float = SURE_OF_MANY) -> float:
        """The same, nothing left out: what may be, before much is known; at least `exponent`.

        The first cluster that stable shows is all the warning there is before a canary has one.

        Args:
            sure_of_many: standard deviations that are asked for where there are many pairs.
        """
        result = 1.0
        values = self.values
        for level in range(_LEVELS):
            at = level * _FLOATS
            squares, expected = values[at + 3], values[at + 4]
            if expected <= 0.5:
                continue
            # Of n pairs alike the spread is sqrt(2 / n) of what is expected. The fewer there are,
            # the longer is the tail of what independent requests give (of chi-squared, here).
            spread = sqrt(max(values[at + 5], 0.0))
            sure = sure_of_many + _SURE_OF_FEW * spread / (expected * sqrt(2.0))
            if squares - expected > sure * spread:
                result = max(result, squares / expected)
        return max(min(result, FROM_FEW), self.exponent())


class Tempering:
    """The exponents of each kind of outcome: `FAILURES`, `CLIENTS`, `SLOWNESS`, `LATENCIES`.

    From the canary's first request on an exponent may only rise, and only until stable has shown
    enough. To rise is safe at any time: it makes every e-value above 1 smaller, also the proof for
    promotion. What is only suspected counts in the canary's favour alone: it is not taken back for
    what may be one client's failures, and goes on as before.

    Attributes:
        proving: divide the evidence for the canary.
        accusing: divide the evidence against it; none is smaller than in `proving`.
    """

    __slots__ = (
        "_beyond",
        "_clusters",
        "_dispersions",
        "_fixed",
        "_timed",
        "_typical",
        "accusing",
        "proving",
    )

    def __init__(self) -> None:
        self.proving = [1.0] * _KINDS
        self.accusing = [1.0] * _KINDS
        self._fixed = [False] * _KINDS
        # Of the last kind: answers beyond a bound that is typical.
        self._dispersions = (Dispersion(), Dispersion(), Dispersion(), Dispersion())
        self._typical = -1
        # Answers beyond it; out of.
        self._beyond = self._timed = 0.0
        # What follows from `_dispersions`, worked out where they changed.
        self._clusters: dict[int, tuple[float, float]] = {}

    def learn(
        self, stable: Sum, *, started: bool, usual: tuple[Sequence[float], float] = ((), 0.0)
    ) -> None:
        """Take in a block of stable's.

        Args:
            stable: what it did.
            started: the canary had its first request.
            usual: stable's answers beyond each bound in earlier blocks, out of how many.
        """
        self._choose(*usual)
        counts = (
            (stable.failed, stable.requests),
            (stable.blamed, stable.blamed_of),
            (stable.slow, stable.timed),
            self._beyond_typical(stable),
        )
        for i, (count, requests) in enumerate(counts):
            if requests and not self._fixed[i] and self._dispersions[i].add(count, requests):
                self._clusters.pop(i, None)
        telling = self._telling()
        for i, (_, requests) in enumerate(counts):
            if self._fixed[i] or not requests:
                continue
            exponent, suspected = self._clustered(i)
            if i == LATENCIES or (i == SLOWNESS and telling):
                other = self._clustered(SLOWNESS + LATENCIES - i)
                exponent, suspected = max(exponent, other[0]), max(suspected, other[1])
            if started:
                exponent = max(self.proving[i], exponent)
                suspected = max(self.accusing[i], suspected)
            self.proving[i], self.accusing[i] = exponent, suspected
            self._fixed[i] = started and self._dispersions[i].settled
        both = self._fixed[SLOWNESS] and self._fixed[LATENCIES]
        self._fixed[SLOWNESS] = self._fixed[LATENCIES] = both

    def _clustered(self, kind: int) -> tuple[float, float]:
        """Exponent and suspected exponent of one kind's counts."""
        found = self._clusters.get(kind)
        if found is None:
            dispersion = self._dispersions[kind]
            sure = _SURE_OF_SLOWNESS if kind in (SLOWNESS, LATENCIES) else SURE_OF_MANY
            found = dispersion.exponent(), dispersion.suspected(sure)
            self._clusters[kind] = found
        return found

    def _choose(self, slower: Sequence[float], timed: float) -> None:
        """The typical bound: the one that is nearest to a quarter of stable's answers.

        Next to no answer may be beyond the target, and then it does not show how they cluster.
        """
        if self._typical < 0 and timed >= _KNOWN_FROM and slower:
            distances = [abs(count - timed / 4.0) for count in slower]
            self._typical = distances.index(min(distances))

    def _beyond_typical(self, stable: Sum) -> tuple[float, float]:
        """Stable's answers beyond the typical bound, out of how many."""
        if not 0 <= self._typical < len(stable.slower):
            return 0.0, 0.0
        beyond = stable.slower[self._typical]
        self._beyond += beyond
        self._timed += stable.timed
        return beyond, stable.timed

    def _telling(self) -> bool:
        """Whether the typical bound parts requests that take longer from others."""
        low, high = _TELLING
        return self._timed >= _KNOWN_FROM and low <= self._beyond / self._timed <= high

    def learning(self) -> list[Dispersion]:
        """Those whose exponent is not fixed yet: a state is not complete without them."""
        return [d for d, done in zip(self._dispersions, self._fixed, strict=True) if not done]

    def state(self) -> list[float]:
        """All that `restore` needs, besides what is in `learning`."""
        fixed = [float(each) for each in self._fixed]
        seen = self._beyond, self._timed
        return [float(self._typical), *seen, *self.proving, *self.accusing, *fixed]

    def restore(self, take: Callable[[int], list[float]]) -> None:
        """Take back what `state` gave; ValueError if it cannot be."""
        typical, self._beyond, self._timed = take(3)
        self.proving, self.accusing = take(_KINDS), take(_KINDS)
        self._fixed = [bool(value) for value in take(_KINDS)]
        if not -1.0 <= typical < MOST_BOUNDS or not 0.0 <= self._beyond <= self._timed:
            raise ValueError("not a state")
        if min(self.proving + self.accusing) < 1.0:
            raise ValueError("not a state")
        self._typical = int(typical)
