"""The simulated pod against queueing theory, and against the capacity model for what has none."""

import math
from dataclasses import replace

import pytest

from tidegate.autoscaling.capacity import Pod as Modelled
from tidegate.autoscaling.capacity import latency_quantile
from tidegate.simulation.load import Load, bursts, steady
from tidegate.simulation.pod import Server
from tidegate.simulation.world import Balancing, Outcome, View, World, simulate

REQUESTS = 50_000


class Fixed:
    """So many replicas, always."""

    interval_s = 50.0

    def __init__(self, number: int = 1) -> None:
        self.number = number
        self.area_s = 0.0

    def decide(self, view: View) -> int:
        self.area_s = view.totals.area_s
        return self.number


def played(
    server: Server, rate: float, *, pods: int = 1, requests: int = REQUESTS
) -> tuple[Outcome, float]:
    """What became of Poisson arrivals, and the mean time in the system."""
    law = Fixed(pods)
    world = World(server, steady(rate, requests / rate), initial=pods)
    outcome = simulate(world, law, 3)
    return outcome, law.area_s / outcome.arrived


def erlang_c(servers: int, offered: float) -> float:
    """Probability of having to wait in M/M/c."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


def wait_with_constant_service(servers: int, rate: float, service_s: float) -> float:
    """Mean wait in M/D/c: what is there one service time later is what did not go, and what came.

    The stationary distribution of that chain (Crommelin, 1932), by iteration, and Little's law.
    """
    mean, size = rate * service_s, 80
    came = [math.exp(-mean + n * math.log(mean) - math.lgamma(n + 1)) for n in range(size)]
    there = [1.0, *[0.0] * (size - 1)]
    for _ in range(150):
        left = [sum(there[: servers + 1]), *there[servers + 1 :]]
        there = [
            sum(left[k] * came[n - k] for k in range(min(n + 1, len(left)))) for n in range(size)
        ]
    waiting = sum(max(0, n - servers) * p for n, p in enumerate(there)) / sum(there)
    return waiting / rate


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (2, 0.7), (4, 0.8)])
def test_mean_time_in_m_m_c(servers: int, load: float) -> None:
    rate = servers * load
    expected = 1.0 + erlang_c(servers, rate) / (servers - rate)
    _, mean = played(Server(1.0, 0.0, cv=1.0, instances=servers, target_s=10.0), rate)
    assert mean == pytest.approx(expected, rel=0.04)


def test_the_tail_of_m_m_1() -> None:
    # Time in the system is exponential with rate mu - lambda.
    outcome, _ = played(Server(1.0, 0.0, cv=1.0, target_s=5.0), 0.6)
    assert outcome.late / outcome.arrived == pytest.approx(math.exp(-0.4 * 5.0), rel=0.05)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (3, 0.8)])
def test_mean_wait_in_m_d_c(servers: int, load: float) -> None:
    rate = servers * load
    _, mean = played(Server(1.0, 0.0, instances=servers, target_s=10.0), rate, requests=100_000)
    assert mean - 1.0 == pytest.approx(wait_with_constant_service(servers, rate, 1.0), rel=0.04)


def test_the_reference_for_m_d_1_is_pollaczek_and_khinchine() -> None:
    assert wait_with_constant_service(1, 0.7, 1.0) == pytest.approx(0.7 / (2 * 0.3), rel=0.001)


def test_loss_of_m_m_1_with_a_bounded_queue() -> None:
    # M/M/1/K with K = 4: one in service and three that wait.
    load, places = 0.9, 4
    outcome, _ = played(Server(1.0, 0.0, cv=1.0, queue=places - 1, target_s=10.0), load)
    expected = load**places * (1 - load) / (1 - load ** (places + 1))
    assert outcome.refused / outcome.arrived == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(
    "server",
    [
        Server(0.09, 0.02, max_batch=8, target_s=0.5),
        Server(0.04, 0.025, max_batch=4, preferred=(2, 4), delay_s=0.02, target_s=0.3),
        Server(0.02, 0.02, max_batch=4, instances=2, delay_s=0.03, target_s=0.3),
        Server(0.06, 0.0, cv=0.35, instances=2, target_s=0.25),
    ],
)
@pytest.mark.parametrize("load", [0.7])
def test_batching_as_the_capacity_model_has_it(server: Server, load: float) -> None:
    """Two programs that were written apart: their 99 % quantiles differ by less than a tenth."""
    rate = load * server.throughput
    modelled = latency_quantile(
        Modelled(
            server.alpha_s,
            server.beta_s,
            server.instances,
            server.max_batch,
            server.preferred,
            server.delay_s,
            server.queue,
            server.cv,
        ),
        rate,
        0.99,
    )
    shares = []
    for factor in (0.9, 1.1):
        outcome, _ = played(replace(server, target_s=factor * modelled), rate, requests=40_000)
        shares.append(outcome.late / outcome.arrived)
    assert shares[0] > 0.01 > shares[1]


def test_random_routing_makes_independent_queues_and_least_request_shorter_ones() -> None:
    server = Server(1.0, 0.0, cv=1.0, target_s=5.0)
    _, mean = played(server, 4 * 0.7, pods=4, requests=80_000)
    assert mean == pytest.approx(1 / 0.3, rel=0.04)
    law = Fixed(4)
    world = World(server, steady(2.8, 5_000), initial=4, balancing=Balancing.LEAST_REQUEST)
    outcome = simulate(world, law, 3)
    assert law.area_s / outcome.arrived < 0.75 / 0.3


def test_arrivals_have_the_rate_and_the_burstiness() -> None:
    for load, dispersion in ((steady(50, 4000), 1.0), (bursts(50, 4000, scv=8.0), 8.0)):
        times = load.arrivals(5)
        assert times == sorted(times)
        assert len(times) == pytest.approx(200_000, rel=0.02)
        counts = [0] * 400
        for t in times:
            counts[int(t / 10)] += 1
        mean = sum(counts) / 400
        variance = sum((n - mean) ** 2 for n in counts) / 399
        assert variance / mean == pytest.approx(dispersion, rel=0.25)


def test_arrivals_follow_a_changing_rate() -> None:
    load = Load("two", (10.0, 0.0, 30.0), 1000.0)
    times = load.arrivals(1)
    counts = [sum(i * 1000 <= t < (i + 1) * 1000 for t in times) for i in range(3)]
    assert counts[1] == 0
    assert counts[0] == pytest.approx(10_000, rel=0.05)
    assert counts[2] == pytest.approx(30_000, rel=0.05)
