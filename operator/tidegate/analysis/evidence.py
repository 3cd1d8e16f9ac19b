"""The evidence of one rollout: takes in blocks, keeps every test's state, and judges.

Tests and verdicts are those of `tidegate.analysis.judgement`. Each test has a share of the budget
of false alarms: half goes to the error rate against the SLO, the rest in equal parts to the others
that are in force. A test whose hypothesis is true reaches 1/share with at most that chance, however
often one looks, so all together stay within the budget whatever they have to do with each other.
Pure.
"""

from dataclasses import astuple
from functools import lru_cache
from math import exp, log
from typing import Final
from zlib import crc32

from tidegate.analysis import bound
from tidegate.analysis.block import Block
from tidegate.analysis.comparison import Baseline
from tidegate.analysis.explanation import explain
from tidegate.analysis.judgement import Consequence, Judgement, Objective, Result, Test
from tidegate.analysis.latency import MOST_BOUNDS, LatencyComparison
from tidegate.analysis.limit import Limit, Proof
from tidegate.analysis.onset import Onset
from tidegate.analysis.packing import Unpacked, packed
from tidegate.analysis.shares import ShareComparison
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
        "_alpha",
        "_canary",
        "_clients",
        "_failures",
        "_latency",
        "_limits",
        "_needed",
        "_objective",
        "_peaks",
        "_slowness",
        "_stable",
        "_stretches",
        "_tempering",
        "_values",
        "_waiting",
    )

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._alpha = max(1.0 - objective.confidence, 1e-9)
        self._needed = _needed(objective)
        # Both since the canary's first request.
        self._canary, self._stable = Sum(), Sum()
        # The canary's requests since stable's last one; weighed with the next.
        self._waiting = Sum()
        self._limits = {
            _ERRORS: Limit(objective.max_error_rate, self._needed[_ERRORS], FAILURES),
            _LATENCY: Limit(objective.slow_share, self._needed[_LATENCY], SLOWNESS),
        }
        self._failures = ShareComparison(objective.max_error_rate)
        self._clients = ShareComparison(_CLIENT_GUESS)
        self._slowness = Baseline(objective.slow_share or _SLOW_GUESS)
        self._latency = LatencyComparison()
        # What speaks against the canary lately.
        self._stretches = {
            _ERRORS: self._limits[_ERRORS].stretch,
            _AGAINST: self._failures.stretch,
            _LATENCY: self._limits[_LATENCY].stretch,
            _CLIENT: self._clients.stretch,
        }
        self._tempering = Tempering()
        self._values = [0.0] * len(_TESTS)
        self._peaks = [0.0] * len(_TESTS)

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
                self._waiting = Sum()
                changed = True
        self._failures.baseline.add(stable.failed, stable.requests)
        self._clients.baseline.add(stable.blamed, stable.blamed_of)
        self._slowness.add(stable.slow, stable.timed)
        self._latency.learn(stable.slower, stable.timed)
        if changed and self._canary:
            self._look()

    def _temper(self, canary: Sum, stable: Sum) -> bool:
        """Learn how clustered stable's outcomes are; whether an exponent is another one now."""
        tempering, started = self._tempering, bool(canary or self._canary)
        proving, accusing = tuple(tempering.proving), tuple(tempering.accusing)
        tempering.learn(stable, started=started, usual=self._latency.usual())
        if accusing != tuple(tempering.accusing) and started:
            failures, client, slowness, latencies = zip(accusing, tempering.accusing, strict=True)
            self._failures.onset.temper(*failures)
            self._limits[_ERRORS].later.temper(*failures)
            self._limits[_LATENCY].later.temper(*slowness)
            self._latency.temper(*latencies)
            self._clients.onset.temper(*client)
        return (proving, accusing) != (tuple(tempering.proving), tuple(tempering.accusing))

    def _weigh_alone(self, canary: Sum) -> None:
        """Multiply what is held against the limits, and began after the first request."""
        self._limits[_ERRORS].weigh(canary.failed, canary.requests, self._tempering)
        if self._objective.latency_target_ms is not None:
            self._limits[_LATENCY].weigh(canary.slow, canary.timed, self._tempering)

    def _weigh(self, canary: Sum, stable: Sum) -> None:
        """Multiply what compares with stable by this block's factors, guessed from earlier ones."""
        objective, accusing = self._objective, self._tempering.accusing
        failed = (canary.failed, canary.requests), (stable.failed, stable.requests)
        blamed = (canary.blamed, canary.blamed_of), (stable.blamed, stable.blamed_of)
        slow = (canary.slow, canary.timed), (stable.slow, stable.timed)
        self._failures.weigh(*failed, accusing[FAILURES])
        self._clients.weigh(*blamed, accusing[CLIENTS])
        self._latency.weigh(
            (canary.slower, canary.timed), (stable.slower, stable.timed), accusing[LATENCIES]
        )
        errors, latency = self._limits[_ERRORS], self._limits[_LATENCY]
        errors.compare(objective.margin * errors.share, self._failures.baseline.share(), *failed)
        errors.match(canary.requests, (stable.failed, stable.requests))
        if objective.latency_target_ms is not None:
            latency.compare(objective.margin * latency.share, self._slowness.share(), *slow)
        latency.match(canary.timed, (stable.slow, stable.timed))

    def _look(self) -> None:
        """Each test's evidence now, and its highest so far."""
        values, canary, tempering = self._values, self._canary, self._tempering
        values[_AGAINST] = self._failures.onset.log_evidence()
        values[_CLIENT] = self._clients.onset.log_evidence()
        values[_SLOWER] = self._latency.log_evidence()
        self._keep_peaks(_AGAINST, _CLIENT, _SLOWER)
        values[_ERRORS] = self._limits[_ERRORS].look(
            canary.failed, canary.requests, tempering, worse=self._fired(_AGAINST)
        )
        if self._objective.latency_target_ms is not None:
            values[_LATENCY] = self._limits[_LATENCY].look(
                canary.slow, canary.timed, tempering, worse=self._fired(_SLOWER)
            )
        self._keep_peaks(_ERRORS, _LATENCY)

    def _keep_peaks(self, *tests: int) -> None:
        for test in tests:
            self._peaks[test] = max(self._peaks[test], self._values[test])

    def _fired(self, test: int) -> bool:
        return self._peaks[test] >= self._needed[test]

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
        proof = self._limits[_ERRORS].proof(
            canary.failed,
            canary.requests,
            self._tempering,
            self._alpha,
            worse=self._fired(_AGAINST),
        )
        if objective.latency_target_ms is not None:
            also = self._limits[_LATENCY].proof(
                canary.slow, canary.timed, self._tempering, self._alpha, worse=self._fired(_SLOWER)
            )
            proof = Proof(
                min(proof.carried, also.carried),
                proof.proven and also.proven,
                proof.stable_fails or also.stable_fails,
            )
        proven = proof.proven and bad is None and canary.requests > 0.0
        carried = proof.carried if canary.requests else 0.0
        return Judgement(
            results=tuple(results.values()),
            bad=bad,
            worse=worse,
            stable_failing=proof.stable_fails and bad is None,
            carries=1.0 if proven else carried,
            proven=proven,
            requests=int(canary.requests),
        )

    def _verdict(self, results: dict[int, Result]) -> tuple[Result | None, Result | None]:
        """The result that says "take it back" and the one that says "hold"; None: none does."""
        bad: Result | None = None
        worse: Result | None = None
        for test in (_ERRORS, _LATENCY, _AGAINST, _CLIENT, _SLOWER):
            result = results.get(test)
            if result is None or not result.fired:
                continue
            if test in self._limits:
                telling = self._limits[test].blamed
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
            bound.lower(count / exponent, requests / exponent, self._alpha) > most
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
        if index in self._limits:
            limit = self._limits[index].share
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
        errors, latency = self._limits.values()
        numbers = [float(len(self._waiting.slower))]
        for side in (self._canary, self._stable, self._matched(), self._waiting):
            numbers += side.state()
        numbers += self._waiting.slower
        for baseline in self._baselines():
            numbers += [baseline.failed, baseline.requests]
        numbers += self._tempering.state()
        numbers += [*self._values, *self._peaks, errors.kept, latency.kept]
        numbers += [float(errors.blamed), float(latency.blamed)]
        numbers += errors.no_worse + latency.no_worse
        for onset in self._onsets():
            numbers += onset.state()
        for stretch in self._stretches.values():
            numbers += stretch.state()
        numbers += self._latency.state()
        spread = [value for each in self._tempering.learning() for value in each.values]
        return f"{_VERSION}.{_fingerprint(self._objective)}.{packed(numbers, spread)}"

    @classmethod
    def load(cls, objective: Objective, text: str) -> "Evidence":
        """The state that `dump` wrote; empty if of another version or objective, or damaged."""
        evidence = cls(objective)
        try:
            version, fingerprint, payload = text.split(".")
            if version != _VERSION or fingerprint != _fingerprint(objective):
                return evidence
            evidence._restore(Unpacked(payload))
        except (ValueError, IndexError, OverflowError):
            return cls(objective)
        return evidence

    def _restore(self, kept: Unpacked) -> None:
        errors, latency = self._limits.values()
        (slower,) = kept.take(1)
        if not 0.0 <= slower <= MOST_BOUNDS:
            raise ValueError("not a state")
        matched = Sum()
        for side in (self._canary, self._stable, matched, self._waiting):
            side.restore(kept.take_counts(6))
        errors.matched = matched.failed, matched.requests
        latency.matched = matched.slow, matched.timed
        self._waiting.slower = kept.take_counts(int(slower))
        for baseline in self._baselines():
            baseline.failed, baseline.requests = kept.take_counts(2)
        self._tempering.restore(kept.take)
        self._values, self._peaks = kept.take(len(_TESTS)), kept.take(len(_TESTS))
        errors.kept, latency.kept = kept.take(2)
        errors.blamed, latency.blamed = (bool(value) for value in kept.take(2))
        errors.no_worse = kept.take(len(errors.no_worse))
        latency.no_worse = kept.take(len(latency.no_worse))
        for onset in self._onsets():
            onset.restore(kept.take)
        for stretch in self._stretches.values():
            stretch.restore(kept.take_counts(5))
        self._latency.restore(kept.take)
        for dispersion in self._tempering.learning():
            dispersion.values = kept.take(SIZE, "f")
        kept.end()

    def _matched(self) -> Sum:
        matched = Sum()
        matched.failed, matched.requests = self._limits[_ERRORS].matched
        matched.slow, matched.timed = self._limits[_LATENCY].matched
        return matched

    def _baselines(self) -> tuple[Baseline, ...]:
        return self._failures.baseline, self._clients.baseline, self._slowness

    def _onsets(self) -> tuple[Onset, ...]:
        later = (limit.later for limit in self._limits.values())
        return self._failures.onset, self._clients.onset, *later


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
