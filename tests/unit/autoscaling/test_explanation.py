"""The sentence that says why: exactly the numbers that were computed."""

from dataclasses import replace

import pytest

from tests.unit.autoscaling.test_decision import DEMAND, FLEET, NOW_S, loaded
from tidegate.autoscaling.decision import Bounds, replicas
from tidegate.autoscaling.demand import ServiceTime
from tidegate.autoscaling.explanation import number, percentile


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (412.4, "412"),
        (1530.2, "1530"),
        (8.0, "8"),
        (8.25, "8.25"),
        (6.004, "6"),
        (0.01449, "0.0145"),
        (0.0, "0"),
        (99.96, "100"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("quantile", "text"), [(0.99, "p99"), (0.5, "p50"), (0.999, "p99.9"), (0.9999, "p99.99")]
)
def test_percentile(quantile: float, text: str) -> None:
    assert percentile(quantile) == text


def test_the_sentence() -> None:
    decision = replicas(Bounds(1, 20), FLEET, loaded(392.0), NOW_S)
    assert decision.reason == (
        "5 replicas required: 392 req/s arriving, one pod holds 105 req/s within 100 ms p99 "
        "(service time measured as 8 + 6 n ms for a batch of n), one more as headroom"
    )
    assert (decision.desired, decision.needed, decision.spare) == (5, 4, 1)


def test_no_headroom_is_not_named() -> None:
    decision = replicas(Bounds(1, 20, spare=0), FLEET, DEMAND, NOW_S)
    assert decision.reason.endswith("for a batch of n)")


def test_what_is_not_sure_says_so() -> None:
    service = ServiceTime(0.0, 14.0, cv=0.0, error=1.0, batches=40.0, sure=False)
    reason = replicas(Bounds(1, 20), FLEET, replace(DEMAND, service=service), NOW_S).reason
    assert "service time taken as 0 + 14 n ms for a batch of n: too few batch sizes" in reason


@pytest.mark.parametrize(("share", "text"), [(0.4, ", 40 % of the answers"), (0.001, "")])
def test_the_response_cache_is_named_where_it_helps(share: float, text: str) -> None:
    demand = replace(loaded(392.0), cached_share=share)
    reason = replicas(Bounds(1, 20), FLEET, demand, NOW_S).reason
    said = f"for a batch of n{text} from the response cache)" if text else "for a batch of n)"
    assert said in reason


def test_one() -> None:
    reason = replicas(Bounds(1, 20, spare=0), FLEET, loaded(3.0), NOW_S).reason
    assert reason.startswith("1 replica required: 3 req/s arriving")
