"""Remembered capacities: close to the model, within the budget, the same each time."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tidegate.autoscaling import capacities as capacities_module
from tidegate.autoscaling.capacities import GATHERED, Capacities
from tidegate.autoscaling.capacity import (
    Capacity,
    Pod,
    capacity,
    idle_quantile,
    latency_quantile,
)

POD = Pod(8.0, 6.0, batch=8)
ENDLESS = 10**9
FEWER = 4_000
"""Arrivals of a run, where it is enough that all runs have as many."""


def settled(capacities: Capacities, pod: Pod, quantile: float, target: float) -> float:
    """What is found once it is exact."""
    for _ in range(3):
        found = capacities.find(pod, quantile, target)
        assert found is not None
        capacities.refill()
    found = capacities.find(pod, quantile, target)
    assert found is not None
    assert found.exact
    return found.share


@pytest.mark.parametrize(
    ("pod", "target"),
    [
        (POD, 100.0),
        (POD, 30.0),
        (Pod(90.0, 20.0, batch=8), 500.0),
        (Pod(10.0, 0.0), 50.0),
        (Pod(8.0, 2.0, instances=4, batch=32), 100.0),
        (Pod(8.0, 6.0, batch=8, scv=2.0), 100.0),
    ],
)
def test_as_the_model_says(pod: Pod, target: float) -> None:
    share = settled(Capacities(ENDLESS, fine=FEWER), pod, 0.99, target)
    worked = capacity(pod, 0.99, target, arrivals=FEWER).rate / pod.throughput
    assert share == pytest.approx(worked, rel=0.06, abs=0.01)


def test_a_drift_within_a_cell_costs_nothing() -> None:
    capacities = Capacities(ENDLESS)
    settled(capacities, POD, 0.99, 100.0)
    capacities.refill()
    left = capacities.left
    for step in range(10):
        drifted = Pod(8.0 + 0.01 * step, 6.0 + 0.01 * step, batch=8)
        assert capacities.find(drifted, 0.99, 100.0) is not None
    assert capacities.left == left


def test_shares_rise_with_the_target_without_jumps() -> None:
    capacities = Capacities(ENDLESS, fine=FEWER)
    shares = [settled(capacities, POD, 0.99, 40.0 * 1.03**step) for step in range(24)]
    for before, after in pairwise(shares):
        assert before - 0.004 <= after <= before * 1.1 + 0.01


def test_times_in_another_unit_are_the_same_pod() -> None:
    capacities = Capacities(ENDLESS)
    one = settled(capacities, POD, 0.99, 100.0)
    left = capacities.left
    other = capacities.find(Pod(0.008, 0.006, batch=8), 0.99, 0.1)
    assert other is not None
    assert other.share == pytest.approx(one)
    assert capacities.left == left


def test_without_a_budget_nothing_is_worked_out() -> None:
    capacities = Capacities(0)
    assert capacities.find(POD, 0.99, 100.0) is None
    assert capacities.expected_latency(POD, 0.99, 0.05) is None


def test_a_budget_is_kept_and_work_goes_on_in_the_next_round() -> None:
    capacities = Capacities(6_000)
    rounds = 0
    while True:
        found = capacities.find(POD, 0.99, 100.0)
        assert capacities.left > -60_000
        if found is not None and found.exact:
            break
        rounds += 1
        assert rounds < 50
        capacities.refill()
    assert rounds > 1


@pytest.mark.parametrize(
    ("pod", "weight"),
    [
        (POD, 1),
        (replace(POD, queue=50), 1),
        (replace(POD, delay=2.0), GATHERED),
        (replace(POD, preferred=(4, 8)), GATHERED),
        (replace(POD, delay=2.0, preferred=(4, 8), queue=50), GATHERED),
    ],
)
def test_batches_that_wait_cost_more_of_the_budget(
    pod: Pod, weight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is spent is what was played, by the work in it."""
    played: list[int] = []

    def counted(*args: Any, **how: Any) -> Capacity:
        worked = capacity(*args, **how)
        played.append(worked.batches)
        return worked

    monkeypatch.setattr(capacities_module, "capacity", counted)
    monkeypatch.setattr(capacities_module, "COARSE", 400)
    for fine in (300, 500):  # exact at once; a short run first
        played.clear()
        capacities = Capacities(ENDLESS, fine=fine)
        capacities.find(pod, 0.99, 100.0)
        assert len(played) == 4
        assert ENDLESS - capacities.left == weight * sum(played)
        left = capacities.left
        capacities.expected_latency(pod, 0.99, 0.5 * pod.throughput)
        assert left - capacities.left == weight * fine * 4


def test_what_no_idle_request_meets_is_nothing_at_once() -> None:
    capacities = Capacities(0)
    found = capacities.find(POD, 0.99, 13.0)
    assert found is not None
    assert found.share == 0.0
    assert idle_quantile(POD, 0.99) == 14.0


@pytest.mark.parametrize("load", [0.2, 0.5, 0.8])
def test_expected_latency(load: float) -> None:
    rate = load * POD.throughput
    expected = Capacities(ENDLESS).expected_latency(POD, 0.99, rate)
    assert expected == pytest.approx(latency_quantile(POD, rate, 0.99), rel=0.08)


@pytest.mark.parametrize("load", [0.97, 1.0, 3.0, -1.0, math.nan])
def test_no_latency_is_expected_of_an_overloaded_pod(load: float) -> None:
    assert Capacities(ENDLESS).expected_latency(POD, 0.99, load * POD.throughput) is None
