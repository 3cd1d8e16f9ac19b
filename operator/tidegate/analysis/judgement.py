"""What the tests say: each one's numbers, and together one of three verdicts. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from tidegate.api.spec import ErrorsAgainstStable, Spec
from tidegate.api.units import duration_ms, fraction, quantile


class Test(StrEnum):
    """The tests by the names that users read."""

    __test__ = False  # no test case of pytest's

    ERRORS = "errors"
    """Error rate against ``slo.maxErrorRate``."""
    ERRORS_AGAINST_STABLE = "errorsAgainstStable"
    LATENCY = "latency"
    """Share slower than ``slo.latency.target`` against ``1 - quantile``."""
    LATENCY_AGAINST_STABLE = "latencyAgainstStable"
    CLIENT_ERRORS = "clientErrors"
    """Requests blamed on the client, given up or refused for overload, against stable only."""


class Consequence(StrEnum):
    """What a test that has fired leads to."""

    ROLL_BACK = "RollBack"
    HOLD = "Hold"


@dataclass(frozen=True)
class Objective:
    """What a canary is judged by; fixed when its rollout starts.

    Attributes:
        max_error_rate: share of requests that may fail.
        latency_target_ms: a request is slow if it is not faster; None: no objective.
        slow_share: share of requests that may be slow (1 - quantile).
        false_rollback_rate: chance that a good canary is rolled back, all tests together.
        confidence: certainty that raising the weight and promotion ask for.
        errors_against_stable: what being worse than stable leads to.
        latency_against_stable: the same for latency.
        margin: by how much of the SLO's budget it may be worse than stable.
        latency_bounds_ms: the bounds of `Tally.slower`, for explanations; empty: not named there.
    """

    max_error_rate: float
    latency_target_ms: int | None
    slow_share: float
    false_rollback_rate: float
    confidence: float
    errors_against_stable: ErrorsAgainstStable = ErrorsAgainstStable.ROLL_BACK
    latency_against_stable: ErrorsAgainstStable = ErrorsAgainstStable.HOLD
    margin: float = 0.5
    latency_bounds_ms: tuple[int, ...] = ()

    @classmethod
    def of(cls, spec: Spec) -> "Objective":
        """The objective of a spec."""
        latency, rollout = spec.slo.latency, spec.rollout
        return cls(
            max_error_rate=fraction(spec.slo.max_error_rate),
            latency_target_ms=None if latency is None else duration_ms(latency.target),
            slow_share=0.0 if latency is None else 1.0 - quantile(latency.quantile),
            false_rollback_rate=fraction(rollout.false_rollback_rate),
            confidence=fraction(rollout.confidence),
            errors_against_stable=rollout.against_stable.errors,
            latency_against_stable=rollout.against_stable.latency,
            margin=fraction(rollout.against_stable.margin),
        )


@dataclass(frozen=True)
class Result:
    """One test's numbers.

    Attributes:
        test: which.
        observed: the canary's share of what it counts; None: no request yet.
        bound: the share that it is held to: the SLO's, or stable's plus nothing.
        canary_count: what it counts, on the canary.
        canary_requests: out of.
        stable_count: the same on stable, since the canary's first request.
        stable_requests: out of.
        evidence: the e-value: how many times likelier the data are if the canary is bad.
        needed: the e-value at which it fires (1 / its share of the false-alarm budget).
        fired: it did, at some look.
        consequence: what that leads to.
        explanation: for people: "15 of 200 requests failed (7.5 %), the limit is 1 %".
        tempering: how many requests count as one for the canary, since stable's outcomes come in
            clusters; 1: independent.
        accusing: the same against it, where clusters that are only suspected count, too.
        lately: a test that fired by what the canary did lately: how many of its latest requests
            that was, out of how many; None: its whole life tells as much.
    """

    test: Test
    observed: float | None
    bound: float
    canary_count: int
    canary_requests: int
    stable_count: int
    stable_requests: int
    evidence: float
    needed: float
    fired: bool
    consequence: Consequence
    explanation: str
    tempering: float = 1.0
    accusing: float = 1.0
    lately: tuple[int, int] | None = None


@dataclass(frozen=True)
class Judgement:
    """What all tests together say now.

    Attributes:
        results: each test.
        bad: the test that says "take it back"; None: none does.
        worse: the test that says "hold": worse than stable, within the SLO.
        stable_failing: stable itself breaks the objective, so that the canary is not to blame.
        carries: the largest weight (0 to 1) that the evidence allows: upper bound x weight within
            the SLO's budget. 0 without any request.
        proven: the evidence for promotion is there: the SLO's proof, or not worse than stable.
        requests: canary requests behind it.
    """

    results: tuple[Result, ...]
    bad: Result | None
    worse: Result | None
    stable_failing: bool
    carries: float
    proven: bool
    requests: int
