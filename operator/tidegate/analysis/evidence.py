"""The evidence of one rollout: takes in blocks, keeps every test's state, and judges.

Tests and verdicts are those of `tidegate.analysis.judgement`. Each test has a share of the budget
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
from functools import lru_cache
from math import exp, isfinite, log
from typing import Final
from zlib import crc32

from tidegate.analysis import bound
from tidegate.analysis.block import Block
from tidegate.analysis.comparison import (
    ERROR_RATIOS,
    NON_INFERIOR_SHIFTS,
    Baseline,
    add_non_inferiority,
    add_superiority,
    log_mean,
)
from tidegate.analysis.explanation import explain
from tidegate.analysis.judgement import Consequence, Judgement, Objective, Result, Test
from tidegate.analysis.latency import MOST_BOUNDS, LatencyComparison
from tidegate.analysis.onset import SHARE_RATIOS, Onset, Stretch, share_factors
from tidegate.analysis.sums import Sum
from tidegate.analysis.tempering import CLIENTS, FAILURES, LATENCIES, SIZE, SLOWNESS, Tempering
from tidegate.api.spec import ErrorsAgainstStable

_VERSION: Final = "3"
_CLIENT_GUESS: Final = 0.02
_SLOW_GUESS: Final = 0.5
"""Of shares that nobody has seen yet."""
_LARGEST_LOG: Final = 690.0
_TESTS: Final = tuple(Test)
_ERRORS, _AGAINST, _LATENCY, _SLOWER, _CLIENT = range(5)
_EXPONENT_OF: Final = (FAILURES, FAILURES, SLOWNESS, LATENCIES, CLIENTS)
"""Which exponent divides each test's evidence."""
_CONSEQUENCES: Final = {
    ErrorsAgainstStable.ROLL_BACK: Consequence.ROLL_BACK,
    ErrorsAgainstStable.HOLD: Consequence.HOLD,
}
_NONE: Final = (0.0, 0.0)


class Evidence:
    """The state of all tests of one rollout.

    Args:
        objective: what the canary is judged by; fixed.
    """

    __slots__ = (
        "_against",
        "_baselines",
        "_blames",
        "_canary",
        "_client",
        "_latency",
        "_later",
        "_matched",
        "_needed",
        "_no_slower",
        "_no_worse",
        "_objective",
        "_peaks",
        "_proofs",
        "_stable",
        "_stretches",
        "_tempering",
        "_values",
        "_waiting",
    )

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._needed = _needed(objective)
        # Both since the canary's first request.
        self._canary, self._stable = Sum(), Sum()
        # Stable's counts as if each block of it had as many requests as the canary's: what the
        # canary would have looked like. An incident that both share weighs the same in both.
        self._matched = Sum()
        # The canary's requests since stable's last one; weighed with the next.
        self._waiting = Sum()
        self._baselines = (
            Baseline(objective.max_error_rate),
            Baseline(_CLIENT_GUESS),
            Baseline(objective.slow_share or _SLOW_GUESS),
        )
        self._against, self._client = Onset(len(ERROR_RATIOS)), Onset(len(ERROR_RATIOS))
        # Against the limits, from each moment after the first request on: errors; latency.
        self._later = (Onset(len(SHARE_RATIOS), 0.0), Onset(len(SHARE_RATIOS), 0.0))
        # What speaks against the canary lately, by test: errors, against stable, latency, client.
        self._stretches = {test: Stretch() for test in (_ERRORS, _AGAINST, _LATENCY, _CLIENT)}
        self._no_worse = [0.0] * len(NON_INFERIOR_SHIFTS)
        self._no_slower = [0.0] * len(NON_INFERIOR_SHIFTS)
        self._latency = LatencyComparison()
        self._tempering = Tempering()
        self._values = [0.0] * len(_TESTS)
        self._peaks = [0.0] * len(_TESTS)
        self._proofs = [0.0, 0.0]
        self._blames = [False, False]

    # Taking in

    def observe(self, block: Block) -> None:
        """Take in the next block; one without a canary, too: it shows what is usual."""
        canary, stable = Sum.of(block.canary), Sum.of(block.stable)
        if not canary and not stable:
            return
        changed = self._temper(canary, stable) or bool(canary)
        if canary or self._canary:
            self._canary.add(canary)
            self._stable.add(stable)
            self._weigh_alone(canary)
            self._waiting.add(canary)
            self._waiting.add_slower(canary)
            if self._waiting and stable:
                self._weigh(self._waiting, stable)
                self._match(self._waiting, stable)
                self._waiting = Sum()
                changed = True
        failures, client, slowness = self._baselines
        failures.add(stable.failed, stable.requests)
        client.add(stable.blamed, stable.blamed_of)
        slowness.add(stable.slow, stable.timed)
        self._latency.learn(stable.slower, stable.timed)
        if changed and self._canary:
            self._look()

    def _temper(self, canary: Sum, stable: Sum) -> bool:
        """Learn how clustered stable's outcomes are; whether an exponent is another one now."""
        tempering, started = self._tempering, bool(canary or self._canary)
        proving, accusing = tuple(tempering.proving), tuple(tempering.accusing)
        tempering.learn(stable, started=started)
        if accusing != tuple(tempering.accusing) and started:
            failures, client, slowness, latencies = zip(accusing, tempering.accusing, strict=True)
            self._against.temper(*failures)
            self._later[0].temper(*failures)
            self._later[1].temper(*slowness)
            self._latency.temper(*latencies)
            self._client.temper(*client)
        return (proving, accusing) != (tuple(tempering.proving), tuple(tempering.accusing))

    def _weigh_alone(self, canary: Sum) -> None:
        """Multiply what is held against the limits, and began after the first request."""
        for test, count, requests in (
            (_ERRORS, canary.failed, canary.requests),
            (_LATENCY, canary.slow, canary.timed),
        ):
            limit = self._limit(test)
            if requests and (test == _ERRORS or self._objective.latency_target_ms is not None):
                self._later[test == _LATENCY].weigh(
                    share_factors(count, requests, limit),
                    requests,
                    self._tempering.accusing[_EXPONENT_OF[test]],
                )
                self._stretches[test].add(count, requests, limit)

    def _weigh(self, canary: Sum, stable: Sum) -> None:
        """Multiply what compares with stable by this block's factors, guessed from earlier ones."""
        objective = self._objective
        failures, client, slowness = self._baselines
        guess = failures.share()
        ours, theirs = (canary.failed, canary.requests), (stable.failed, stable.requests)
        factors = [0.0] * len(ERROR_RATIOS)
        add_superiority(factors, ERROR_RATIOS, guess, ours, theirs)
        self._against.weigh(factors, canary.requests, self._tempering.accusing[FAILURES])
        self._stretches[_AGAINST].add(*ours, guess)
        margin = objective.margin * objective.max_error_rate
        if margin > 0.0:
            add_non_inferiority(self._no_worse, margin, guess, ours, theirs)
        guess = client.share()
        ours, theirs = (canary.blamed, canary.blamed_of), (stable.blamed, stable.blamed_of)
        factors = [0.0] * len(ERROR_RATIOS)
        add_superiority(factors, ERROR_RATIOS, guess, ours, theirs)
        self._client.weigh(factors, canary.blamed_of, self._tempering.accusing[CLIENTS])
        self._stretches[_CLIENT].add(*ours, guess)
        margin = objective.margin * objective.slow_share
        if objective.latency_target_ms is not None and margin > 0.0:
            add_non_inferiority(
                self._no_slower,
                margin,
                slowness.share(),
                (canary.slow, canary.timed),
                (stable.slow, stable.timed),
            )
        self._latency.weigh(
            (canary.slower, canary.timed),
            (stable.slower, stable.timed),
            self._tempering.accusing[LATENCIES],
        )

    def _match(self, canary: Sum, stable: Sum) -> None:
        matched = self._matched
        if canary.requests and stable.requests:
            weight = min(1.0, canary.requests / stable.requests)
            like_it = weight * stable.failed, weight * stable.requests
            matched.failed += like_it[0]
            matched.requests += like_it[1]
            self._stretches[_ERRORS].add_stable(*like_it)
        if canary.timed and stable.timed:
            weight = min(1.0, canary.timed / stable.timed)
            like_it = weight * stable.slow, weight * stable.timed
            matched.slow += like_it[0]
            matched.timed += like_it[1]
            self._stretches[_LATENCY].add_stable(*like_it)

    def _look(self) -> None:
        """Each test's evidence now, its highest so far, and whether the canary is to blame."""
        objective, canary = self._objective, self._canary
        values, peaks = self._values, self._peaks
        values[_AGAINST] = self._against.log_evidence()
        values[_CLIENT] = self._client.log_evidence()
        values[_SLOWER] = self._latency.log_evidence()
        for test in (_AGAINST, _CLIENT, _SLOWER):
            peaks[test] = max(peaks[test], values[test])
        whole = self._against_limit(_ERRORS, canary.failed, canary.requests)
        self._blame(_ERRORS, whole, _AGAINST)
        if objective.latency_target_ms is not None:
            whole = self._against_limit(_LATENCY, canary.slow, canary.timed)
            self._blame(_LATENCY, whole, _SLOWER)

    def _against_limit(self, test: int, count: float, requests: float) -> float:
        """Keep the proof that the canary keeps a limit; returns the evidence that it does not."""
        limit, kind = self._limit(test), _EXPONENT_OF[test]
        proving, accusing = self._tempering.proving[kind], self._tempering.accusing[kind]
        broken, kept = bound.log_evidence(count / proving, requests / proving, limit)
        self._proofs[int(test == _LATENCY)] = kept
        if accusing != proving:
            broken, _ = bound.log_evidence(count / accusing, requests / accusing, limit)
        return broken

    def _blame(self, test: int, log_whole: float, against: int) -> None:
        """Evidence that a limit is broken, since when, and whether by the canary alone.

        Args:
            test: `_ERRORS` or `_LATENCY`.
            log_whole: logarithm of the evidence of the canary's whole life.
            against: the test against stable that says the canary is to blame whatever stable did.
        """
        number = int(test == _LATENCY)
        later, stretch = self._later[number], self._stretches[test]
        alone = self._fired(against)
        value = later.log_with(log_whole)
        if value >= self._needed[test] and later.outweighs(log_whole) and not alone:
            if stretch.shared(self._limit(test)):
                # An incident of both; when it is over nobody is to blame for it.
                later.forget()
                value = later.log_with(log_whole)
            elif stretch.telling() or value >= 4.0 * self._needed[test]:
                alone = True
            else:
                # Few clients are left with stable, and one look more may show it failing, too.
                value = min(value, 0.99 * self._needed[test])
        if value >= self._needed[test]:
            alone = alone or not self._stable_above(test)
            self._blames[number] = self._blames[number] or alone
        self._values[test] = value
        self._peaks[test] = max(self._peaks[test], value)

    def _fired(self, test: int) -> bool:
        return self._peaks[test] >= self._needed[test]

    def _stable_lower(self, test: int) -> float:
        """What stable's share surely is, in the canary's blocks: `_ERRORS` or `_LATENCY`."""
        matched, exponent = self._matched, self._tempering.proving[_EXPONENT_OF[test]]
        count, requests = (
            (matched.failed, matched.requests) if test == _ERRORS else (matched.slow, matched.timed)
        )
        limit = self._limit(test)
        if count <= limit * requests:
            return 0.0  # cheaper, and no lower than anybody asks
        return bound.lower(count / exponent, requests / exponent, self._alpha())

    def _stable_above(self, test: int) -> bool:
        """Whether stable did no better than the limit in the canary's blocks, as observed.

        Asked for before the canary is blamed alone. Surely above would be too much to ask: in an
        incident that hits both alike it is chance whose count tells first.
        """
        matched = self._matched
        count, requests = (
            (matched.failed, matched.requests) if test == _ERRORS else (matched.slow, matched.timed)
        )
        return count > self._limit(test) * requests

    def _stable_breaks(self, test: int) -> bool:
        return self._stable_lower(test) > self._limit(test)

    def _limit(self, test: int) -> float:
        objective = self._objective
        return objective.max_error_rate if test == _ERRORS else objective.slow_share

    def _alpha(self) -> float:
        return max(1.0 - self._objective.confidence, 1e-9)

    # Judging

    @property
    def fired(self) -> bool:
        """Whether any test has fired; what follows from it, if anything, `judge` says."""
        return any(self._fired(test) for test in range(len(_TESTS)))

    def judge(self) -> Judgement:
        """What all tests together say now."""
        objective, canary = self._objective, self._canary
        results = self._results()
        bad, worse = self._verdict(results)
        carried, proven, failing = self._proof(
            _ERRORS, canary.failed, canary.requests, self._no_worse
        )
        if objective.latency_target_ms is not None:
            also_carried, also_proven, also_failing = self._proof(
                _LATENCY, canary.slow, canary.timed, self._no_slower
            )
            carried = min(carried, also_carried)
            proven, failing = proven and also_proven, failing or also_failing
        if not canary.requests:
            carried, proven = 0.0, False
        proven = proven and bad is None
        return Judgement(
            results=tuple(results.values()),
            bad=bad,
            worse=worse,
            stable_failing=failing and bad is None,
            carries=1.0 if proven else carried,
            proven=proven,
            requests=int(canary.requests),
        )

    def _proof(
        self, test: int, count: float, requests: float, no_worse: Sequence[float]
    ) -> tuple[float, bool, bool]:
        """For `_ERRORS` or `_LATENCY`: weight carried, proven or not, stable to blame or not."""
        limit, alpha = self._limit(test), self._alpha()
        exponent = self._tempering.proving[_EXPONENT_OF[test]]
        highest = bound.upper(count / exponent, requests / exponent, alpha)
        carried = min(1.0, limit / highest)
        needed = -log(alpha)
        stable_lower = self._stable_lower(test)
        better = stable_lower > limit and highest < stable_lower
        proven = (
            better
            or self._proofs[0 if test == _ERRORS else 1] >= needed
            or log_mean(no_worse, exponent) >= needed
        )
        worse = self._fired(_AGAINST if test == _ERRORS else _SLOWER)
        return carried, proven, stable_lower > limit and not better and not worse

    def _verdict(self, results: dict[int, Result]) -> tuple[Result | None, Result | None]:
        """The result that says "take it back" and the one that says "hold"; None: none does."""
        bad: Result | None = None
        worse: Result | None = None
        for test in (_ERRORS, _LATENCY, _AGAINST, _CLIENT, _SLOWER):
            result = results.get(test)
            if result is None or not result.fired:
                continue
            if test in (_ERRORS, _LATENCY):
                telling = self._blames[0 if test == _ERRORS else 1]
            else:
                telling = test == _SLOWER or self._beyond_margin(result)
            if telling and result.consequence is Consequence.ROLL_BACK:
                bad = bad or result
            elif telling:
                worse = worse or result
        return bad, worse

    def _beyond_margin(self, result: Result) -> bool:
        """Whether what is more than stable's is also more than may pass unseen.

        Of all requests, or of the latest ones where these tell. That it is worse at all was found
        before, within the budget of false alarms; this only asks by how much.
        """
        exponent, most = result.tempering, self._objective.margin * self._objective.max_error_rate
        counts = [(result.canary_count, result.canary_requests)]
        if result.lately is not None:
            counts.append(result.lately)
        return any(
            bound.lower(count / exponent, requests / exponent, self._alpha()) > most
            for count, requests in counts
        )

    def _results(self) -> dict[int, Result]:
        """By index of the test, those that are in force."""
        objective, canary, stable = self._objective, self._canary, self._stable
        failed = (canary.failed, canary.requests), (stable.failed, stable.requests)
        results = {_ERRORS: self._result(_ERRORS, *failed)}
        count_errors = objective.errors_against_stable is not ErrorsAgainstStable.IGNORE
        if count_errors:
            results[_AGAINST] = self._result(_AGAINST, *failed)
        if objective.latency_target_ms is not None:
            results[_LATENCY] = self._result(
                _LATENCY, (canary.slow, canary.timed), (stable.slow, stable.timed)
            )
        if objective.latency_against_stable is not ErrorsAgainstStable.IGNORE:
            latency, ours, theirs = self._latency, _NONE, _NONE
            worst = latency.worst()
            if worst is not None:
                ours = (latency.canary[worst], latency.canary_timed)
                theirs = (latency.stable[worst], latency.stable_timed)
            shown = None if worst is None else latency.compared[worst]
            results[_SLOWER] = self._result(_SLOWER, ours, theirs, shown)
        if count_errors:
            results[_CLIENT] = self._result(
                _CLIENT, (canary.blamed, canary.blamed_of), (stable.blamed, stable.blamed_of)
            )
        return results

    def _result(
        self,
        index: int,
        canary: tuple[float, float],
        stable: tuple[float, float],
        shown: int | None = None,
    ) -> Result:
        objective, test, fired = self._objective, _TESTS[index], self._fired(index)
        count, requests = int(canary[0]), int(canary[1])
        lately = self._lately(index, count, requests) if fired else None
        stable_count, stable_requests = int(stable[0]), int(stable[1])
        if index in (_ERRORS, _LATENCY):
            limit = self._limit(index)
        else:
            limit = stable_count / stable_requests if stable_requests else 0.0
        return Result(
            test=test,
            observed=count / requests if requests else None,
            bound=limit,
            canary_count=count,
            canary_requests=requests,
            stable_count=stable_count,
            stable_requests=stable_requests,
            evidence=_exp(self._peaks[index] if fired else self._values[index]),
            needed=_exp(self._needed[index]),
            fired=fired,
            consequence=_consequence(objective, index),
            explanation=explain(
                objective,
                test,
                lately or (count, requests),
                (stable_count, stable_requests),
                shown,
                lately=lately is not None,
            ),
            tempering=self._tempering.proving[_EXPONENT_OF[index]],
            accusing=self._tempering.accusing[_EXPONENT_OF[index]],
            lately=lately,
        )

    def _lately(self, test: int, count: int, requests: int) -> tuple[int, int] | None:
        """The latest requests by themselves, where they tell more than all of them; or None."""
        stretch = self._stretches.get(test)
        if stretch is None or not 0 < stretch.requests < requests / 2.0:
            return None
        if stretch.count * requests < 1.5 * count * stretch.requests:
            return None
        return int(stretch.count), int(stretch.requests)

    # Keeping

    def dump(self) -> str:
        """The state as text, at most 4,096 characters."""
        numbers = [float(len(self._waiting.slower))]
        for side in (self._canary, self._stable, self._matched, self._waiting):
            numbers += side.state()
        numbers += self._waiting.slower
        for baseline in self._baselines:
            numbers += [baseline.failed, baseline.requests]
        numbers += self._tempering.state()
        numbers += self._values + self._peaks + self._proofs
        numbers += [float(blame) for blame in self._blames]
        numbers += self._no_worse + self._no_slower
        for onset in self._onsets():
            numbers += onset.state()
        for stretch in self._stretches.values():
            numbers += stretch.state()
        numbers += self._latency.state()
        spread = [value for each in self._tempering.learning() for value in each.values]
        packed = struct.pack(f"<{len(numbers)}d{len(spread)}f", *numbers, *spread)
        text = base64.b64encode(packed).decode("ascii")
        return f"{_VERSION}.{_fingerprint(self._objective)}.{text}"

    @classmethod
    def load(cls, objective: Objective, text: str) -> "Evidence":
        """The state that `dump` wrote; empty if of another version or objective, or damaged."""
        evidence = cls(objective)
        try:
            version, fingerprint, payload = text.split(".")
            if version != _VERSION or fingerprint != _fingerprint(objective):
                return evidence
            evidence._restore(base64.b64decode(payload, validate=True))
        except (ValueError, IndexError, OverflowError, struct.error, binascii.Error):
            return cls(objective)
        return evidence

    def _onsets(self) -> tuple[Onset, ...]:
        return (self._against, self._client, *self._later)

    def _restore(self, packed: bytes) -> None:
        at = 0

        def take(count: int, kind: str = "d") -> list[float]:
            nonlocal at
            found = struct.unpack_from(f"<{count}{kind}", packed, at)
            at += struct.calcsize(f"<{count}{kind}")
            if not all(isfinite(value) for value in found):
                raise ValueError("not a number")
            return list(found)

        def take_counts(count: int) -> list[float]:
            found = take(count)
            if found and min(found) < 0.0:
                raise ValueError("a negative count")
            return found

        (slower,) = take(1)
        if not 0.0 <= slower <= MOST_BOUNDS:
            raise ValueError("not a state")
        for side in (self._canary, self._stable, self._matched, self._waiting):
            side.restore(take_counts(6))
        self._waiting.slower = take_counts(int(slower))
        for baseline in self._baselines:
            baseline.failed, baseline.requests = take_counts(2)
        self._tempering.restore(take)
        self._values, self._peaks, self._proofs = take(5), take(5), take(2)
        self._blames = [bool(value) for value in take(2)]
        self._no_worse, self._no_slower = take(len(self._no_worse)), take(len(self._no_slower))
        for onset in self._onsets():
            onset.restore(take)
        for stretch in self._stretches.values():
            stretch.restore(take_counts(5))
        self._latency.restore(take)
        for dispersion in self._tempering.learning():
            dispersion.values = take(SIZE, "f")
        if at != len(packed):
            raise ValueError("too long")


def _needed(objective: Objective) -> list[float]:
    """For each test the logarithm of the e-value at which it fires."""
    rate = min(max(objective.false_rollback_rate, 1e-12), 1.0)
    others = int(objective.latency_target_ms is not None)
    others += 2 * (objective.errors_against_stable is not ErrorsAgainstStable.IGNORE)
    others += objective.latency_against_stable is not ErrorsAgainstStable.IGNORE
    needed = [-log(rate / 2.0 / max(others, 1))] * len(_TESTS)
    needed[_ERRORS] = -log(rate / 2.0)
    return needed


def _consequence(objective: Objective, index: int) -> Consequence:
    if index in (_ERRORS, _LATENCY):
        return Consequence.ROLL_BACK
    if index == _SLOWER:
        return _CONSEQUENCES[objective.latency_against_stable]
    return _CONSEQUENCES[objective.errors_against_stable]


@lru_cache(maxsize=256)
def _fingerprint(objective: Objective) -> str:
    return f"{crc32(repr(astuple(objective)).encode()):08x}"


def _exp(value: float) -> float:
    return exp(min(value, _LARGEST_LOG))
