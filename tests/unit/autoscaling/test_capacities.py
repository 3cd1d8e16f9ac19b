"""Remembered capacities: close to the model, within the budget, the same each time."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from tidegate.autoscaling import capacities as capacities_module
from tidegate.autoscaling.capacities import GATHERED, KEEPING, Capacities
from tidegate.autoscaling.capacity import (
    Pod,
    Run,
    capacity,
    idle_quantile,
    latency_quantile,
    run,
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
        (Pod(8.0, 6.0, batch=8, scv=1.45, cv=0.13), 100.0),
        (Pod(90.0, 20.0, batch=4, delay=37.0, cv=0.07), 500.0),
        (Pod(8.0, 6.0, batch=8, queue=12), 500.0),  # refuses before it is late
        (Pod(8.0, 6.0, batch=8, queue=50, cv=0.25), 500.0),
    ],
)
def test_as_the_model_says(pod: Pod, target: float) -> None:
    share = settled(Capacities(ENDLESS, fine=FEWER), pod, 0.99, target)
    worked = capacity(pod, 0.99, target, arrivals=FEWER).rate / pod.throughput
    assert share == pytest.approx(worked, rel=0.06, abs=0.01)


def test_a_drift_within_a_cell_costs_nothing() -> None:
    capacities = Capacities(ENDLESS, fine=FEWER)
    settled(capacities, POD, 0.99, 103.0)
    capacities.refill()
    left = capacities.left
    for step in range(10):
        drifted = Pod(8.0 + 0.01 * step, 6.0 + 0.01 * step, batch=8)
        assert capacities.find(drifted, 0.99, 103.0) is not None
    assert capacities.left == left


def test_another_objective_at_the_same_load_costs_nothing() -> None:
    """A run tells all quantiles: whoever is at this load, whatever is wanted there."""
    capacities = Capacities(ENDLESS, fine=FEWER)
    share = settled(capacities, POD, 0.99, 103.0)
    left = capacities.left
    rate = share * POD.throughput
    for quantile in (0.9, 0.95, 0.99, 0.995):
        expected = capacities.expected_latency(POD, quantile, rate)
        assert expected is not None
        found = capacities.find(POD, quantile, expected)
        assert found is not None
        assert found.share == pytest.approx(share, rel=1e-6)
    assert capacities.left == left


@pytest.mark.parametrize(
    ("name", "first", "last", "steps"),
    [("cv", 0.05, 0.25, 40), ("scv", 1.0, 2.0, 40), ("delay", 30.0, 45.0, 25)],
)
def test_nothing_jumps_while_what_was_measured_wanders(
    name: str, first: float, last: float, steps: int
) -> None:
    """A coarse grid once made a pod hold a quarter less when the measured cv passed 0.1."""
    pod, capacities = Pod(126.0, 28.0, batch=8), Capacities(ENDLESS, fine=FEWER)
    values = [first + (last - first) * step / steps for step in range(steps + 1)]
    pods = [replace(pod, **dict[str, Any]({name: each})) for each in values]
    shares = [settled(capacities, each, 0.99, 500.0) for each in pods]
    assert max(abs(after / before - 1.0) for before, after in pairwise(shares)) < 0.035


def test_a_variation_between_those_of_the_grid() -> None:
    pod = Pod(126.0, 28.0, batch=8, cv=0.12)
    worked = capacity(pod, 0.99, 500.0, arrivals=FEWER).rate / pod.throughput
    capacities = Capacities(ENDLESS, fine=FEWER)
    assert settled(capacities, pod, 0.99, 500.0) == pytest.approx(worked, rel=0.03)
    place = Capacities(0).at(pod)
    assert place.idle_quantile(0.99) == pytest.approx(idle_quantile(pod, 0.99), rel=0.01)


def test_no_more_is_remembered_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacities_module, "KEPT", 60)
    capacities = Capacities(ENDLESS, fine=400)
    for batch in range(1, 30):
        assert capacities.find(Pod(8.0, 6.0, batch=batch), 0.99, 200.0) is not None
        assert capacities.remembered <= 60


def test_shares_rise_with_the_target_without_jumps() -> None:
    capacities = Capacities(ENDLESS, fine=FEWER)
    shares = [settled(capacities, POD, 0.99, 40.0 * 1.03**step) for step in range(24)]
    for before, after in pairwise(shares):
        assert before - 0.004 <= after <= before * 1.1 + 0.01


def test_times_in_another_unit_are_the_same_pod() -> None:
    capacities = Capacities(ENDLESS, fine=FEWER)
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
    drawn: list[int] = []

    def counted(*args: Any, arrivals: int, **how: Any) -> Run:
        worked = run(*args, arrivals=arrivals, **how)
        played.append(worked.batches)
        drawn.append(arrivals)
        return worked

    monkeypatch.setattr(capacities_module, "run", counted)
    monkeypatch.setattr(capacities_module, "COARSE", 400)
    for fine in (300, 500):  # exact at once; a short run first
        played.clear()
        drawn.clear()
        capacities = Capacities(ENDLESS, fine=fine)
        capacities.find(pod, 0.99, 100.0)
        capacities.expected_latency(pod, 0.99, 0.5 * pod.throughput)
        assert set(drawn) == {min(fine, 400), fine}
        assert ENDLESS - capacities.left == weight * sum(played) + sum(drawn) // KEEPING


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
