"""The evidence of one rollout: takes in blocks, keeps every test's state, and judges.

Tests and their verdicts are those of `tidegate.analysis.judgement`. Each has a share of the budget
of false alarms: half goes to the error rate against the SLO, the rest in equal parts to the others
that are in force. A test whose hypothesis is true reaches 1/share with at most that chance, however
often one looks, so all together stay within the budget whatever they have to do with each other.
Pure.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import astuple
from math import exp, inf, isfinite, log
from typing import Final
from zlib import crc32

from tidegate.analysis import bound, comparison
from tidegate.analysis.block import Block, Tally
from tidegate.analysis.comparison import Baseline
from tidegate.analysis.judgement import Consequence, Judgement, Objective, Result, Test
from tidegate.analysis.tempering import FLOATS, LEVELS, Dispersion
from tidegate.api.spec import ErrorsAgainstStable

_VERSION: Final = "1"
_MOST_BOUNDS: Final = 40
"""Latency bounds taken in; more are left out."""
_COMPARED_BOUNDS: Final = 8
"""Latency bounds compared, chosen by what stable did before the canary's first answers."""
_KNOWN_FROM: Final = 50.0
"""Answers of stable's that tell which bounds to compare."""
_CLIENT_GUESS: Final = 0.02
_LATENCY_GUESS: Final = 0.5
_LARGEST_LOG: Final = 690.0
_TESTS: Final = tuple(Test)
_ERRORS, _AGAINST, _LATENCY, _SLOWER, _CLIENT = range(5)
_ERROR_COUNT: Final = len(comparison.ERROR_RATIOS)
_LATENCY_COUNT: Final = len(comparison.LATENCY_RATIOS)
_SHIFTS: Final = len(comparison.NON_INFERIOR_SHIFTS)
_CONSEQUENCES: Final = {
    ErrorsAgainstStable.ROLL_BACK: Consequence.ROLL_BACK,
    ErrorsAgainstStable.HOLD: Consequence.HOLD,
}


class _Sum:
    """What one side did so far; `failed` and so on as in `Tally`, client errors with given-ups."""

    __slots__ = ("blamed", "blamed_of", "failed", "requests", "slow", "slower", "timed")

    def __init__(self) -> None:
        self.requests = self.failed = 0.0
        self.blamed = self.blamed_of = 0.0
        self.timed = self.slow = 0.0
        self.slower: list[float] = []

    def add(self, other: "_Sum", weight: float = 1.0) -> None:
        self.requests += weight * other.requests
        self.failed += weight * other.failed
        self.blamed += weight * other.blamed
        self.blamed_of += weight * other.blamed_of
        self.timed += weight * other.timed
        self.slow += weight * other.slow
        if other.slower:
            if len(self.slower) != len(other.slower):
                self.slower = [0.0] * len(other.slower)
            for i, count in enumerate(other.slower):
                self.slower[i] += weight * count


class Evidence:
    """The state of all tests of one rollout.

    Args:
        objective: what the canary is judged by; fixed.
    """

    __slots__ = (
        "_against",
        "_baseline",
        "_blamed_baseline",
        "_blamed_dispersion",
        "_blames",
        "_bounds",
        "_canary",
        "_client",
        "_compared",
        "_dispersion",
        "_exponents",
        "_latency_dispersion",
        "_matched",
        "_needed",
        "_no_slower",
        "_no_worse",
        "_objective",
        "_peaks",
        "_slow_baseline",
        "_slower",
        "_slower_baselines",
        "_stable",
        "_typical",
        "_typical_dispersion",
        "_values",
    )

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._needed = _needed(objective)
        self._canary, self._stable = _Sum(), _Sum()
        self._matched = _Sum()
        """Stable's counts, each block weighted as if it had seen the canary's requests."""
        self._baseline = Baseline(objective.max_error_rate)
        self._blamed_baseline = Baseline(_CLIENT_GUESS)
        self._slow_baseline = Baseline(objective.slow_share or _LATENCY_GUESS)
        self._slower_baselines: list[Baseline] = []
        self._against = [0.0] * _ERROR_COUNT
        self._client = [0.0] * _ERROR_COUNT
        self._no_worse = [0.0] * _SHIFTS
        self._no_slower = [0.0] * _SHIFTS
        self._bounds = 0
        self._compared: tuple[int, ...] = ()
        self._slower: list[list[float]] = []
        self._dispersion, self._blamed_dispersion = Dispersion(), Dispersion()
        self._latency_dispersion, self._typical_dispersion = Dispersion(), Dispersion()
        self._typical = -1
        # Of failures, client errors, latency. 0: not fixed yet.
        self._exponents = [0.0, 0.0, 0.0]
        self._values = [0.0] * 5
        self._peaks = [0.0] * 5
        self._blames = [False, False]

    # Taking in

    def observe(self, block: Block) -> None:
        """Take in the next block; one without a canary, too: it shows what is usual."""
        canary, stable = _sum(block.canary), _sum(block.stable)
        if not (canary.blamed_of or canary.timed or stable.blamed_of or stable.timed):
            return
        self._learn_bounds(stable if stable.slower else canary)
        self._learn_exponents(canary, stable)
        if canary.blamed_of or canary.timed or self._canary.blamed_of:
            self._weigh(canary, stable)
            self._canary.add(canary)
            self._stable.add(stable)
            self._match(canary, stable)
        self._learn_stable(stable)
        if canary.blamed_of or canary.timed or stable.blamed_of:
            self._look()

    def _learn_bounds(self, side: _Sum) -> None:
        if side.slower and not self._bounds:
            self._bounds = len(side.slower)
            self._slower_baselines = [Baseline(_LATENCY_GUESS) for _ in side.slower]

    def _learn_exponents(self, canary: _Sum, stable: _Sum) -> None:
        """The exponents are fixed before anything speaks against the canary.

        Until its first failure stable's dispersion may be learned; later, an exponent could follow
        the verdict.
        """
        fixed = self._exponents
        if not fixed[0] and canary.failed:
            fixed[0] = self._dispersion.exponent()
        if not fixed[1] and canary.blamed:
            fixed[1] = self._blamed_dispersion.exponent()
        if not fixed[2] and canary.timed:
            fixed[2] = max(self._latency_dispersion.exponent(), self._typical_dispersion.exponent())
        if not fixed[0] and stable.requests:
            self._dispersion.add(stable.failed, stable.requests)
        if not fixed[1] and stable.blamed_of:
            self._blamed_dispersion.add(stable.blamed, stable.blamed_of)
        if not fixed[2] and stable.timed:
            self._latency_dispersion.add(stable.slow, stable.timed)
            if self._typical < 0 and stable.slower:
                middle = stable.timed / 4.0
                self._typical = min(
                    range(len(stable.slower)), key=lambda i: abs(stable.slower[i] - middle)
                )
            if 0 <= self._typical < len(stable.slower):
                self._typical_dispersion.add(stable.slower[self._typical], stable.timed)

    def _weigh(self, canary: _Sum, stable: _Sum) -> None:
        """Multiply what compares with stable by this block's factors, guessed from earlier ones."""
        objective = self._objective
        guess = self._baseline.share()
        ours, theirs = (canary.failed, canary.requests), (stable.failed, stable.requests)
        comparison.add_superiority(self._against, comparison.ERROR_RATIOS, guess, ours, theirs)
        margin = objective.margin * objective.max_error_rate
        if margin > 0.0:
            comparison.add_non_inferiority(self._no_worse, margin, guess, ours, theirs)
        comparison.add_superiority(
            self._client,
            comparison.ERROR_RATIOS,
            self._blamed_baseline.share(),
            (canary.blamed, canary.blamed_of),
            (stable.blamed, stable.blamed_of),
        )
        if not (canary.timed and stable.timed):
            return
        margin = objective.margin * objective.slow_share
        if objective.latency_target_ms is not None and margin > 0.0:
            comparison.add_non_inferiority(
                self._no_slower,
                margin,
                self._slow_baseline.share(),
                (canary.slow, canary.timed),
                (stable.slow, stable.timed),
            )
        if len(canary.slower) != self._bounds or len(stable.slower) != self._bounds:
            return
        if not self._compared:
            self._choose()
        for i, log_ratios in zip(self._compared, self._slower, strict=True):
            comparison.add_superiority(
                log_ratios,
                comparison.LATENCY_RATIOS,
                self._slower_baselines[i].share(),
                (canary.slower[i], canary.timed),
                (stable.slower[i], stable.timed),
            )

    def _choose(self) -> None:
        """Choose the bounds to compare, once: those that some of stable passes, but not all."""
        baselines = self._slower_baselines
        if not baselines or baselines[0].requests < _KNOWN_FROM:
            return
        telling = [i for i, b in enumerate(baselines) if 0.002 <= b.share() <= 0.9]
        if telling and telling[-1] + 1 < len(baselines):
            telling.append(telling[-1] + 1)
        if not telling:
            fast = [i for i, b in enumerate(baselines) if b.share() < 0.5]
            telling = [fast[0] if fast else len(baselines) - 1]
        count = min(len(telling), _COMPARED_BOUNDS)
        last = max(count - 1, 1)
        self._compared = tuple(telling[i * (len(telling) - 1) // last] for i in range(count))
        self._slower = [[0.0] * _LATENCY_COUNT for _ in self._compared]

    def _match(self, canary: _Sum, stable: _Sum) -> None:
        matched = self._matched
        if canary.requests and stable.requests:
            weight = min(1.0, canary.requests / stable.requests)
            matched.requests += weight * stable.requests
            matched.failed += weight * stable.failed
        if canary.timed and stable.timed:
            weight = min(1.0, canary.timed / stable.timed)
            matched.timed += weight * stable.timed
            matched.slow += weight * stable.slow

    def _learn_stable(self, stable: _Sum) -> None:
        self._baseline.add(stable.failed, stable.requests)
        self._blamed_baseline.add(stable.blamed, stable.blamed_of)
        self._slow_baseline.add(stable.slow, stable.timed)
        if len(stable.slower) == self._bounds:
            for baseline, count in zip(self._slower_baselines, stable.slower, strict=True):
                baseline.add(count, stable.timed)

    def _look(self) -> None:
        """Each test's evidence now, and its highest so far."""
        objective, canary = self._objective, self._canary
        failures, client, latency = self._tempering()
        values = self._values
        values[_AGAINST] = comparison.log_mean(self._against, failures)
        values[_CLIENT] = comparison.log_mean(self._client, client)
        values[_ERRORS] = bound.log_evidence(
            canary.failed / failures, canary.requests / failures, objective.max_error_rate
        )[0]
        if objective.latency_target_ms is not None:
            values[_LATENCY] = bound.log_evidence(
                canary.slow / latency, canary.timed / latency, objective.slow_share
            )[0]
        if self._slower:
            values[_SLOWER] = comparison.log_mean(
                [comparison.log_mean(ratios, latency) for ratios in self._slower]
            )
        for i in range(5):
            self._peaks[i] = max(self._peaks[i], values[i])
        if values[_ERRORS] >= self._needed[_ERRORS] and not self._blames[0]:
            self._blames[0] = not self._stable_fails() or self._fired(_AGAINST)
        if values[_LATENCY] >= self._needed[_LATENCY] and not self._blames[1]:
            self._blames[1] = not self._stable_slow() or self._fired(_SLOWER)

    def _tempering(self) -> tuple[float, float, float]:
        failures, client, latency = self._exponents
        return (
            failures or self._dispersion.exponent(),
            client or self._blamed_dispersion.exponent(),
            latency
            or max(self._latency_dispersion.exponent(), self._typical_dispersion.exponent()),
        )

    def _fired(self, test: int) -> bool:
        return self._peaks[test] >= self._needed[test]

    def _stable_lower(self) -> float:
        exponent = self._tempering()[0]
        return bound.lower(
            self._matched.failed / exponent, self._matched.requests / exponent, self._alpha()
        )

    def _stable_slow_lower(self) -> float:
        exponent = self._tempering()[2]
        return bound.lower(
            self._matched.slow / exponent, self._matched.timed / exponent, self._alpha()
        )

    def _stable_fails(self) -> bool:
        limit = self._objective.max_error_rate
        if self._matched.failed <= limit * self._matched.requests:
            return False
        return self._stable_lower() > limit

    def _stable_slow(self) -> bool:
        limit = self._objective.slow_share
        if self._matched.slow <= limit * self._matched.timed:
            return False
        return self._stable_slow_lower() > limit

    def _alpha(self) -> float:
        return max(1.0 - self._objective.confidence, 1e-9)

    # Judging

    def judge(self) -> Judgement:
        """What all tests together say now."""
        objective, canary = self._objective, self._canary
        failures, client, latency = self._tempering()
        has_latency = objective.latency_target_ms is not None
        alpha = self._alpha()
        errors_worse, slower_worse = self._fired(_AGAINST), self._fired(_SLOWER)
        stable_fails = self._stable_fails() and not errors_worse
        stable_slow = has_latency and self._stable_slow() and not slower_worse

        failed_upper = bound.upper(canary.failed / failures, canary.requests / failures, alpha)
        errors_better = stable_fails and failed_upper < self._stable_lower()
        errors_proven = (
            self._below(canary.failed, canary.requests, objective.max_error_rate, failures)
            or self._reached(self._no_worse, failures)
            or errors_better
        )
        carries = 0.0
        if canary.requests:
            carries = min(1.0, objective.max_error_rate / failed_upper)
        latency_proven = True
        slow_better = False
        if has_latency:
            slow_upper = bound.upper(canary.slow / latency, canary.timed / latency, alpha)
            slow_better = stable_slow and slow_upper < self._stable_slow_lower()
            latency_proven = (
                self._below(canary.slow, canary.timed, objective.slow_share, latency)
                or self._reached(self._no_slower, latency)
                or slow_better
            )
            if carries:
                carries = min(carries, objective.slow_share / slow_upper)
        proven = canary.requests > 0.0 and errors_proven and latency_proven
        if proven:
            carries = 1.0

        results = self._results((failures, failures, latency, latency, client))
        bad, worse = self._verdict(results)
        return Judgement(
            results=tuple(results.values()),
            bad=bad,
            worse=worse,
            stable_failing=bad is None
            and ((stable_fails and not errors_better) or (stable_slow and not slow_better)),
            carries=carries,
            proven=proven and bad is None,
            requests=int(canary.requests),
        )

    def _below(self, failed: float, requests: float, limit: float, exponent: float) -> bool:
        if not requests or failed >= limit * requests:
            return False
        below = bound.log_evidence(failed / exponent, requests / exponent, limit)[1]
        return below >= -log(self._alpha())

    def _reached(self, log_ratios: Sequence[float], exponent: float) -> bool:
        return comparison.log_mean(log_ratios, exponent) >= -log(self._alpha())

    def _verdict(self, results: dict[Test, Result]) -> tuple[Result | None, Result | None]:
        """The result that says "take it back" and the one that says "hold"; None: none does."""
        bad: Result | None = None
        worse: Result | None = None
        for i in (_ERRORS, _LATENCY, _AGAINST, _CLIENT, _SLOWER):
            result = results.get(_TESTS[i])
            if result is None or not result.fired:
                continue
            if i == _ERRORS:
                telling = self._blames[0]
            elif i == _LATENCY:
                telling = self._blames[1]
            elif i == _SLOWER:
                telling = True
            else:
                telling = self._beyond_margin(result)
            if not telling:
                continue
            if result.consequence is Consequence.ROLL_BACK:
                bad = bad or result
            else:
                worse = worse or result
        return bad, worse

    def _beyond_margin(self, result: Result) -> bool:
        limit = self._objective.margin * self._objective.max_error_rate
        exponent = result.tempering
        lowest = bound.lower(
            result.canary_count / exponent, result.canary_requests / exponent, self._alpha()
        )
        return lowest > limit

    def _results(self, exponents: Sequence[float]) -> dict[Test, Result]:
        objective, canary, stable = self._objective, self._canary, self._stable
        results: dict[Test, Result] = {}

        def add(
            i: int, mine: tuple[float, float], theirs: tuple[float, float], limit: float | None
        ) -> None:
            count, requests = int(mine[0]), int(mine[1])
            stable_count, stable_requests = int(theirs[0]), int(theirs[1])
            if limit is None:
                limit = stable_count / stable_requests if stable_requests else 0.0
            fired = self._fired(i)
            test = _TESTS[i]
            results[test] = Result(
                test=test,
                observed=count / requests if requests else None,
                bound=limit,
                canary_count=count,
                canary_requests=requests,
                stable_count=stable_count,
                stable_requests=stable_requests,
                evidence=_exp(self._peaks[i] if fired else self._values[i]),
                needed=_exp(self._needed[i]),
                fired=fired,
                consequence=_consequence(objective, test),
                explanation=_explanation(
                    objective, test, count, requests, stable_count, stable_requests
                ),
                tempering=exponents[i],
            )

        none = (0.0, 0.0)
        add(_ERRORS, (canary.failed, canary.requests), none, objective.max_error_rate)
        errors_count = objective.errors_against_stable is not ErrorsAgainstStable.IGNORE
        if errors_count:
            add(
                _AGAINST,
                (canary.failed, canary.requests),
                (stable.failed, stable.requests),
                None,
            )
        if objective.latency_target_ms is not None:
            add(_LATENCY, (canary.slow, canary.timed), none, objective.slow_share)
        if objective.latency_against_stable is not ErrorsAgainstStable.IGNORE:
            at = self._worst_bound()
            add(
                _SLOWER,
                (canary.slower[at] if at < len(canary.slower) else 0.0, canary.timed),
                (stable.slower[at] if at < len(stable.slower) else 0.0, stable.timed),
                None,
            )
        if errors_count:
            add(
                _CLIENT,
                (canary.blamed, canary.blamed_of),
                (stable.blamed, stable.blamed_of),
                None,
            )
        return results

    def _worst_bound(self) -> int:
        """Index of the latency bound that speaks most against the canary."""
        if not self._compared:
            return 0
        exponent = self._tempering()[2]
        values = [comparison.log_mean(ratios, exponent) for ratios in self._slower]
        return self._compared[values.index(max(values))]

    # Keeping

    def dump(self) -> str:
        """The state as text, at most 4,096 characters."""
        counts = [float(self._bounds), float(self._typical), float(len(self._compared))]
        counts += [float(i) for i in self._compared]
        for side in (self._canary, self._stable, self._matched):
            counts += [side.requests, side.failed, side.blamed, side.blamed_of]
            counts += [side.timed, side.slow]
        for side in (self._canary, self._stable):
            counts += side.slower or [0.0] * self._bounds
        for baseline in (self._baseline, self._blamed_baseline, self._slow_baseline):
            counts += [baseline.failed, baseline.requests]
        counts += [b.failed for b in self._slower_baselines]
        counts.append(self._slower_baselines[0].requests if self._slower_baselines else 0.0)
        counts += self._exponents + self._values + self._peaks
        counts += [float(blame) for blame in self._blames]
        counts += self._against + self._client + self._no_worse + self._no_slower
        for ratios in self._slower:
            counts += ratios
        spread: list[float] = []
        for exponent, dispersions in zip(self._exponents, self._dispersions(), strict=True):
            if not exponent:
                for dispersion in dispersions:
                    spread += dispersion.values
        packed = struct.pack(f"<{len(counts)}d{len(spread)}f", *counts, *spread)
        text = base64.b64encode(packed).decode("ascii")
        return f"{_VERSION}.{_fingerprint(self._objective)}.{text}"

    @classmethod
    def load(cls, objective: Objective, text: str) -> "Evidence":
        """The state that `dump` wrote; empty if of another version or objective, or damaged."""
        try:
            version, fingerprint, payload = text.split(".")
            if version != _VERSION or fingerprint != _fingerprint(objective):
                return cls(objective)
            evidence = cls(objective)
            evidence._restore(base64.b64decode(payload, validate=True))
        except (ValueError, IndexError, struct.error, binascii.Error, OverflowError):
            return cls(objective)
        return evidence

    def _dispersions(self) -> tuple[tuple[Dispersion, ...], ...]:
        return (
            (self._dispersion,),
            (self._blamed_dispersion,),
            (self._latency_dispersion, self._typical_dispersion),
        )

    def _restore(self, packed: bytes) -> None:
        at = 0

        def take(count: int, kind: str = "d") -> list[float]:
            nonlocal at
            found = struct.unpack_from(f"<{count}{kind}", packed, at)
            at += struct.calcsize(f"<{count}{kind}")
            if not all(isfinite(value) for value in found):
                raise ValueError("not a number")
            return list(found)

        bounds, typical, compared = (int(value) for value in take(3))
        if not (0 <= bounds <= _MOST_BOUNDS and 0 <= compared <= _COMPARED_BOUNDS):
            raise ValueError("not a state")
        self._bounds, self._typical = bounds, typical
        self._compared = tuple(int(value) for value in take(compared))
        if not (typical < max(bounds, 1) and all(0 <= i < bounds for i in self._compared)):
            raise ValueError("not a state")
        for side in (self._canary, self._stable, self._matched):
            side.requests, side.failed, side.blamed, side.blamed_of, side.timed, side.slow = take(6)
        for side in (self._canary, self._stable):
            side.slower = take(bounds)
        for baseline in (self._baseline, self._blamed_baseline, self._slow_baseline):
            baseline.failed, baseline.requests = take(2)
        self._slower_baselines = [Baseline(_LATENCY_GUESS) for _ in range(bounds)]
        for baseline, failed in zip(self._slower_baselines, take(bounds), strict=True):
            baseline.failed = failed
        (timed,) = take(1)
        for baseline in self._slower_baselines:
            baseline.requests = timed
        self._exponents, self._values, self._peaks = take(3), take(5), take(5)
        self._blames = [bool(value) for value in take(2)]
        self._against, self._client = take(_ERROR_COUNT), take(_ERROR_COUNT)
        self._no_worse, self._no_slower = take(_SHIFTS), take(_SHIFTS)
        self._slower = [take(_LATENCY_COUNT) for _ in self._compared]
        for exponent, dispersions in zip(self._exponents, self._dispersions(), strict=True):
            if not exponent:
                for dispersion in dispersions:
                    dispersion.values = take(LEVELS * FLOATS, "f")
        if at != len(packed) or any(value < 0.0 for value in self._exponents):
            raise ValueError("not a state")


def _sum(tally: Tally) -> _Sum:
    """A block's tally, made consistent: nothing negative, no more failed than there were."""
    result = _Sum()
    result.requests = float(max(tally.requests, 0))
    result.failed = float(min(max(tally.failed, 0), result.requests))
    given_up = max(tally.given_up, 0)
    result.blamed_of = result.requests + given_up
    result.blamed = min(max(tally.client_errors, 0) + given_up, result.blamed_of)
    result.timed = float(max(tally.timed, 0))
    result.slow = float(min(max(tally.slow, 0), result.timed))
    result.slower = [
        float(min(max(count, 0), result.timed)) for count in tally.slower[:_MOST_BOUNDS]
    ]
    return result


def _needed(objective: Objective) -> list[float]:
    """For each test the logarithm of the e-value at which it fires."""
    rate = min(max(objective.false_rollback_rate, 1e-12), 1.0)
    errors = objective.errors_against_stable is not ErrorsAgainstStable.IGNORE
    others = 2 * errors + (objective.latency_target_ms is not None)
    others += objective.latency_against_stable is not ErrorsAgainstStable.IGNORE
    needed = [-log(rate / 2.0 / max(others, 1))] * 5
    needed[_ERRORS] = -log(rate / 2.0)
    return needed


def _consequence(objective: Objective, test: Test) -> Consequence:
    if test in (Test.ERRORS, Test.LATENCY):
        return Consequence.ROLL_BACK
    if test is Test.LATENCY_AGAINST_STABLE:
        return _CONSEQUENCES[objective.latency_against_stable]
    return _CONSEQUENCES[objective.errors_against_stable]


def _explanation(
    objective: Objective,
    test: Test,
    count: int,
    requests: int,
    stable_count: int,
    stable_requests: int,
) -> str:
    """For people; leads with what was counted."""
    if not requests:
        return "no requests yet"
    share = percent(count / requests)
    if test is Test.ERRORS:
        limit = percent(objective.max_error_rate)
        return f"{count} of {requests} requests failed ({share}), the limit is {limit}"
    if test is Test.LATENCY:
        target, limit = objective.latency_target_ms, percent(objective.slow_share)
        return (
            f"{count} of {requests} requests took {target} ms or more ({share}), "
            f"the limit is {limit}"
        )
    what = {
        Test.ERRORS_AGAINST_STABLE: "requests failed",
        Test.LATENCY_AGAINST_STABLE: "requests were slower than a bound",
    }.get(test, "requests were refused as the client's fault or given up")
    if not stable_requests:
        return f"{count} of {requests} {what} ({share}), stable had none to compare with"
    theirs = percent(stable_count / stable_requests)
    return (
        f"{count} of {requests} {what} ({share}), "
        f"of stable's {stable_count} of {stable_requests} ({theirs})"
    )


def percent(share: float) -> str:
    """A share for people, with two significant digits: "7.5 %"."""
    value = share * 100.0
    if value <= 0.0:
        return "0 %"
    if value >= 10.0:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2g}" if value >= 0.0001 else f"{value:.1e}"
    if "." in text and "e" not in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} %"


def _fingerprint(objective: Objective) -> str:
    return f"{crc32(repr(astuple(objective)).encode()):08x}"


def _exp(value: float) -> float:
    return exp(min(value, _LARGEST_LOG)) if value > -inf else 0.0
