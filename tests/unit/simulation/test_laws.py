"""Other tools' laws, against vectors of their own.

- Kubernetes: cases of pkg/controller/podautoscaler/replica_calculator_test.go (kubernetes/
  kubernetes); the names here are theirs without "TestReplicaCalc".
- Knative: cases of pkg/autoscaler/scaling/autoscaler_test.go (knative/serving), with its settings
  (at most 10 times as many, a tenth as many, panic at 2).
- llm-d publishes no vectors: worked by hand from the formula of its guide.
"""

import pytest

from e2e.bench.laws import kpa, llmd
from e2e.bench.laws.oracle import Oracle
from tidegate.simulation.hpa import Behavior, Hpa, Metric, of_average, of_pods, of_value
from tidegate.simulation.load import Load


@pytest.mark.parametrize(
    ("case", "values", "unready", "target", "current", "expected"),
    [
        ("ScaleUp", [30, 50, 70], 0, 30, 3, 5),
        ("ScaleUpUnreadyLessScale", [50, 70], 1, 30, 3, 4),
        ("ScaleUpUnreadyNoScale", [40], 2, 30, 3, 3),
        ("ScaleUpIgnoresFailedPods", [50, 70], 0, 30, 2, 4),
        ("ScaleUpCM", [20, 10, 30], 0, 15, 3, 4),
        ("ScaleDown", [10, 30, 50, 25, 25], 0, 50, 5, 3),
        ("ScaleDownCM", [12] * 5, 0, 20, 5, 3),
        ("ScaleDownIncludeUnreadyPods", [10, 30, 50], 2, 50, 5, 2),
    ],
)
def test_hpa_by_a_metric_of_each_pod(
    case: str, values: list[float], unready: int, target: float, current: int, expected: int
) -> None:
    assert of_pods(values, unready, target, current) == expected, case


@pytest.mark.parametrize(
    ("case", "value", "ready", "target", "expected"),
    [
        ("ScaleUpCMObject", 20_000, 3, 15_000, 4),
        ("ScaleUpCMObjectIgnoresUnreadyPods", 50_000, 1, 10_000, 5),
        ("ScaleUpCMExternal", 8600, 1, 4400, 2),
        ("ScaleUpCMExternalIgnoresUnreadyPods", 8600, 1, 4400, 2),
        ("ScaleDownCMExternal", 8600, 5, 14_334, 3),
        ("ScaleDownCMObject", 12_000, 5, 20_000, 3),
    ],
)
def test_hpa_by_one_value(
    case: str, value: float, ready: int, target: float, expected: int
) -> None:
    assert of_value(value, ready, target, 3 if ready == 1 else ready) == expected, case


@pytest.mark.parametrize(
    ("case", "value", "target", "current", "expected"),
    [
        ("ScaleUpPerPodCMExternal", 8600, 2150, 3, 4),
        ("ScaleUpCMPerPodObject", 20_000, 5000, 3, 4),
        ("ScaleDownPerPodCMExternal", 8600, 2867, 5, 3),
        ("ScaleDownPerPodCMObject", 6000, 2000, 5, 3),
    ],
)
def test_hpa_by_a_value_that_is_shared_out(
    case: str, value: float, target: float, current: int, expected: int
) -> None:
    assert of_average(value, target, current) == expected, case


def test_within_the_tolerance_nothing_changes() -> None:
    assert of_pods([0.76, 0.76], 0, 0.7, 2) == 2
    assert of_value(0.109, 3, 0.1, 3) == 3
    assert of_average(109, 50, 2) == 2
    assert of_pods([], 3, 0.7, 3) == 3


def test_the_documentations_default_behavior() -> None:
    """Up: 100 % or 4 pods in 15 s; down: the highest recommendation of 300 s."""
    behavior = Behavior()
    assert behavior.limited(50, 1, 0) == 5
    assert behavior.limited(50, 5, 15) == 10
    assert behavior.limited(50, 10, 30) == 20
    assert behavior.limited(3, 20, 45) == 20
    assert [behavior.limited(3, 20, t) for t in (300, 329)] == [20, 20]
    assert behavior.limited(3, 20, 331) == 3


def test_one_pod_less_in_two_minutes() -> None:
    behavior = Behavior(down_window_s=0.0, down_pods=1, down_period_s=120.0)
    current, seen = 5, []
    for t in range(0, 300, 15):
        current = behavior.limited(1, current, t)
        seen.append(current)
    assert seen == [4] * 8 + [3] * 8 + [2] * 4


def knative(target: float) -> kpa.Decider:
    return kpa.Decider(target, most_up=10.0, most_down=10.0)


@pytest.mark.parametrize(
    ("case", "target", "stable", "panic", "ready", "expected"),
    [
        ("NoDataAtZeroNoAutoscale", 10, 0, 0, 1, 0),
        ("StableModeUnlimitedTBC", 181, 21, 26, 1, 1),
        ("StableModeNoChange", 10, 50, 50, 1, 5),
        ("StableModeNoChangeAlreadyScaled", 10, 50, 50, 5, 5),
        ("PanicModeDoublePodCount", 10, 50, 100, 1, 10),
        ("RateLimitScaleUp", 10, 1000, 1001, 1, 10),
        ("RateLimitScaleDown", 10, 1, 1, 100, 10),
        ("UseOnePodAsMinimumIfEndpointsNotFound", 10, 1000, 888, 0, 10),
        ("StableModeIncreaseWithConcurrencyDefault", 10, 50, 10, 1, 5),
        ("StableModeDecrease", 10, 100, 100, 8, 10),
    ],
)
def test_knative(
    case: str, target: float, stable: float, panic: float, ready: int, expected: int
) -> None:
    assert knative(target).decide(stable, panic, ready, 0.0) == expected, case


def test_knative_with_small_rates() -> None:
    slow_up = kpa.Decider(1, most_up=1.1, most_down=10.0)
    assert slow_up.decide(3, 3.1, 2, 0.0) == 3
    slow_down = kpa.Decider(10, most_up=10.0, most_down=1.1)
    assert slow_down.decide(1, 1, 100, 0.0) == 90


def test_knative_panics_and_calms_down() -> None:
    """PanicThenUnPanicScaleDown, UnpanicAfterSlowIncrease, ExtendPanicWindow."""
    d = knative(10)
    assert d.decide(100, 100, 1, 0.0) == 10
    assert d.decide(100, 1000, 10, 1.0) == 100
    assert d.decide(1, 1, 10, 31.0) == 100
    assert d.decide(1, 1, 10, 62.0) == 1
    d = knative(1)
    assert d.decide(11, 25, 10, 0.0) == 25
    assert d.decide(30, 41, 40, 30.0) == 41
    assert d.decide(50, 56, 55, 62.0) == 50
    d = knative(1)
    assert d.decide(11, 25, 10, 0.0) == 25
    assert d.decide(30, 80, 40, 30.0) == 80


@pytest.mark.parametrize(
    ("s", "n", "ready", "expected"),
    [
        (1.1, 4, 4, 8),
        (0.6, 4, 4, 5),
        (2.0, 3, 3, 11),
        (1.1, 8, 4, 8),
        (2.0, 8, 4, 15),
        (0.5, 4, 4, 4),
        (0.2, 4, 4, 2),
        (0.3, 4, 4, 3),
        (0.0, 4, 4, 0),
        (0.2, 4, 2, 2),
    ],
)
def test_llmd(s: float, n: int, ready: int, expected: int) -> None:
    assert llmd.desired(s, n, ready) == expected


def test_an_hpa_needs_a_target() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Hpa(Metric.RPS, 0.0)


def test_the_oracle_asks_one_start_ahead() -> None:
    load = Load("step", (10.0,) * 10 + (50.0,) * 10, 10.0)
    oracle = Oracle(load, lambda _: 10.0, 30.0)
    assert oracle.initial == 1
    assert [oracle._need[i] for i in (0, 12, 13, 14, 20)] == [1, 1, 5, 5, 5]
