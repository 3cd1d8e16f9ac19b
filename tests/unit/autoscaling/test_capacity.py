"""The capacity model against closed forms and hand-made cases."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.autoscaling.capacity import (
    Pod,
    capacity,
    idle_quantile,
    latency_quantile,
    play,
    pod_of,
    run,
)
from tidegate.autoscaling.server import ServerModel
from tidegate.autoscaling.variates import LONGEST, arrival_times, service_factors, unit_gammas


def md1_wait_share(load: float, wait: float) -> float:
    """P(W <= wait) of M/D/1, wait in service times (Erlang 1909; Franx 2001, (1))."""
    return (1.0 - load) * math.fsum(
        math.exp(load * (wait - k)) * (-load * (wait - k)) ** k / math.factorial(k)
        for k in range(math.floor(wait) + 1)
    )


def md1_capacity(quantile: float, target: float) -> float:
    """Load at which the latency quantile of M/D/1 is the target, in service times."""
    low, high = 0.0, 0.98
    for _ in range(50):
        load = (low + high) / 2.0
        if md1_wait_share(load, target - 1.0) >= quantile:
            low = load
        else:
            high = load
    return low


@pytest.mark.parametrize(("quantile", "target"), [(0.9, 3), (0.95, 5), (0.99, 4), (0.99, 8)])
def test_md1_as_in_the_closed_form(quantile: float, target: float) -> None:
    worked = capacity(Pod(1.0, 0.0), quantile, target)
    assert worked.rate == pytest.approx(md1_capacity(quantile, target), rel=0.05)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_md1_mean_wait(load: float) -> None:
    """Pollaczek and Khinchine: load / (2 (1 - load))."""
    latencies: list[float] = []
    run(Pod(1.0, 0.0), load, math.inf, latencies=latencies)
    mean = math.fsum(latencies) / len(latencies)
    assert mean == pytest.approx(1.0 + load / (2.0 * (1.0 - load)), rel=0.03)


@pytest.mark.parametrize("cv", [0.5, 1.0])
def test_mg1_mean_wait(cv: float) -> None:
    latencies: list[float] = []
    run(Pod(1.0, 0.0, cv=cv), 0.5, math.inf, latencies=latencies)
    mean = math.fsum(latencies) / len(latencies)
    assert mean == pytest.approx(1.0 + 0.5 * (1.0 + cv * cv), rel=0.05)


def test_mm2_mean_latency() -> None:
    """M/M/2 at half load: the mean latency is 1 / (1 - 1/4) (Erlang C)."""
    latencies: list[float] = []
    run(Pod(1.0, 0.0, instances=2, cv=1.0), 1.0, math.inf, latencies=latencies)
    assert math.fsum(latencies) / len(latencies) == pytest.approx(4.0 / 3.0, rel=0.05)


def played(pod: Pod, times: list[float]) -> list[float]:
    latencies: list[float] = []
    play(pod, times, math.inf, latencies=latencies)
    return [round(each, 9) for each in latencies]


@pytest.mark.parametrize(
    ("pod", "times", "latencies"),
    [
        pytest.param(Pod(8, 2), [0, 100], [10, 10], id="idle"),
        pytest.param(Pod(8, 2), [0, 4, 6], [10, 16, 24], id="one by one"),
        pytest.param(Pod(8, 2, batch=4), [0, 4, 6], [10, 18, 16], id="two wait, one batch"),
        pytest.param(
            Pod(8, 2, batch=2), [0, 1, 2, 3], [10, 21, 20, 29], id="no more than a batch holds"
        ),
        pytest.param(Pod(8, 2, instances=2), [0, 1, 2], [10, 10, 18], id="two instances"),
        pytest.param(
            Pod(8, 2, batch=4, delay=5), [0, 100], [15, 15], id="waits for a fuller batch"
        ),
        pytest.param(
            Pod(8, 2, batch=4, delay=5), [0, 1, 2, 3], [19, 18, 17, 16], id="full before the delay"
        ),
        pytest.param(
            Pod(8, 2, batch=4, preferred=(2,), delay=5), [0, 3, 4], [15, 12, 21], id="preferred"
        ),
        pytest.param(
            Pod(8, 2, batch=4, preferred=(2,)), [0, 1, 2, 3], [10, 21, 20, 29], id="largest fitting"
        ),
        pytest.param(Pod(8, 2, queue=1), [0, 1, 2, 100], [10, 19, 10], id="one refused"),
    ],
)
def test_by_hand(pod: Pod, times: list[float], latencies: list[float]) -> None:
    assert played(pod, times) == latencies


def test_refused_requests_are_late_ones() -> None:
    times = [0.0, 1.0, 2.0, 100.0]
    assert play(Pod(8, 2, queue=1), times, 50.0).late == 1
    assert times == [0.0, 1.0, 2.0, 100.0]  # others play them, too


def test_a_bounded_queue_holds_no_more_than_an_endless_one() -> None:
    pod = Pod(8, 6, batch=8)
    endless = capacity(pod, 0.99, 100).rate
    bounded = capacity(Pod(8, 6, batch=8, queue=4), 0.99, 100).rate
    assert 0.0 < bounded < endless
    assert capacity(Pod(8, 6, batch=8, queue=10_000), 0.99, 100).rate == pytest.approx(endless)


def test_known_case() -> None:
    """The one in the documentation: 8 + 6 n ms, batches of 8, 99 % within 100 ms."""
    pod = Pod(8.0, 6.0, batch=8)
    rate = capacity(pod, 0.99, 100.0).rate
    assert 1000 * rate == pytest.approx(103, rel=0.03)
    assert latency_quantile(pod, rate, 0.99) == pytest.approx(100, rel=0.03)
    # With a guess it ends in the same place, in fewer runs.
    again = capacity(pod, 0.99, 100.0, guess=rate * 1.05)
    assert again.rate == pytest.approx(rate, rel=0.01)
    assert again.batches < capacity(pod, 0.99, 100.0).batches


def test_what_no_idle_request_meets() -> None:
    assert idle_quantile(Pod(8, 6, batch=8, delay=5), 0.99) == 19
    assert capacity(Pod(8, 6, batch=8), 0.99, 13.9).rate == 0.0


shapes = st.builds(
    Pod,
    alpha=st.floats(0.0, 50.0),
    beta=st.floats(0.5, 20.0),
    instances=st.integers(1, 4),
    batch=st.integers(1, 16),
    scv=st.sampled_from([1.0, 2.0, 4.0]),
)


@settings(max_examples=40)
@given(shapes, st.floats(1.2, 20.0))
def test_capacity_lies_below_the_throughput_and_rises_with_the_target(
    pod: Pod, slack: float
) -> None:
    target = slack * pod.time_of(1)
    less = capacity(pod, 0.95, target, arrivals=300).rate
    more = capacity(pod, 0.95, 1.5 * target, arrivals=300).rate
    assert 0.0 <= less <= 0.98 * pod.throughput + 1e-9
    assert more >= less * 0.97
    scaled = Pod(pod.alpha * 10, pod.beta * 10, pod.instances, pod.batch, scv=pod.scv)
    assert capacity(scaled, 0.95, 10 * target, arrivals=300).rate * 10 == pytest.approx(
        less, rel=0.01
    )


def test_requests_of_several_items_fill_a_batch_sooner() -> None:
    model = ServerModel(instances=2, max_batch=8, preferred=(2, 4), max_pending=40)
    pod = pod_of(model, 8.0, 6.0, items_per_request=4.0)
    assert (pod.batch, pod.alpha, pod.beta, pod.preferred) == (2, 8.0, 24.0, (1,))
    assert pod.queue == 36
    assert pod.throughput == pytest.approx(pod_of(model, 8.0, 6.0).throughput / 4)


@pytest.mark.parametrize("scv", [0.25, 1.0, 2.0])
def test_variates_have_their_moments(scv: float) -> None:
    values = unit_gammas(scv)
    mean = math.fsum(values) / LONGEST
    assert mean == pytest.approx(1.0)
    assert math.fsum((v - 1.0) ** 2 for v in values) / LONGEST == pytest.approx(scv, rel=0.1)
    assert min(values) >= 0.0
    assert arrival_times(scv, LONGEST)[-1] == pytest.approx(LONGEST)
    assert service_factors(0.5) != unit_gammas(0.25)


def test_the_same_numbers_in_every_process() -> None:
    assert [round(v, 6) for v in unit_gammas(2.0, 1, 4)] == [0.149719, 2.504587, 0.113203, 1.232491]
    assert [round(v, 6) for v in unit_gammas(1.0, 1, 4)] == [0.145784, 2.270253, 1.070831, 0.513132]
