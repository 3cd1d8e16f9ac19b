"""The simulated pod against `ciw`, a simulator of queueing networks, and against closed forms.

Fed with ciw's own arrivals and service times it must answer each request at the very same moment;
with random numbers of its own, waiting times must have the quantiles of M/M/c and M/D/c.
"""

import math
from collections.abc import Callable, Iterator

import ciw  # type: ignore[import-untyped]
import pytest

from tidegate.simulation.load import steady
from tidegate.simulation.pod import Ended, Pod, Server

EDGES_S = (0.1, 1.0, 10.0)
SAME = 1_500
"""Requests of which each is compared."""
REQUESTS = 50_000
SEED = 5
QUANTILES = {0.5: 0.05, 0.9: 0.05, 0.99: 0.1}
"""And by how much each may differ, relative to it: what so few requests leave to chance."""


class Drawn:
    """Service times that somebody else drew."""

    def __init__(self, times: list[float]) -> None:
        self._times: Iterator[float] = iter(times)

    def gammavariate(self, alpha: float, beta: float) -> float:
        return next(self._times)


def played(server: Server, arrivals: list[float], times: list[float] | None = None) -> list[Ended]:
    """What became of the requests."""
    # Another seed than the arrivals': the same one would have gaps and service times agree.
    pod = Pod("pod", server, EDGES_S, SEED + 1, 0.0, 0.0)
    if times is not None:
        pod._chance = Drawn(times)  # type: ignore[assignment]
    pod.ended = []
    pod.queue.extend(arrivals)
    pod.advance(arrivals[-1] + 1e6)
    assert pod.idle
    return pod.ended


@pytest.mark.parametrize(
    ("servers", "rate", "service", "queue"),
    [
        (1, 0.8, ciw.dists.Exponential(1.0), None),
        (3, 2.5, ciw.dists.Exponential(1.0), None),
        (2, 1.7, ciw.dists.Deterministic(1.0), None),
        (2, 2.4, ciw.dists.Exponential(1.0), 3),
    ],
    ids=["M/M/1", "M/M/3", "M/D/2", "M/M/2/5"],
)
def test_each_request_is_answered_when_ciw_says(
    servers: int, rate: float, service: ciw.dists.Distribution, queue: int | None
) -> None:
    ciw.seed(SEED)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate)],
        service_distributions=[service],
        number_of_servers=[servers],
        queue_capacities=[math.inf if queue is None else queue],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(SAME)
    records = sorted(simulation.get_all_records(), key=lambda r: r.arrival_date)
    # What arrived last may have waited for requests that ciw had not finished, so has no record of.
    sure = [r.arrival_date for r in records][: SAME - 50]
    served = [r for r in records if r.record_type == "service"]
    # The factor on the mean time, in the order in which they are begun: of arrival.
    times = [r.service_time for r in served]
    server = Server(1.0, 0.0, cv=1.0, instances=servers, queue=queue)
    ended = played(server, [r.arrival_date for r in records], [*times, *[1.0] * SAME])
    answered = {e.came[0]: e.at_s for e in ended if e.served}
    expected = {r.arrival_date: r.exit_date for r in served}
    assert [at in answered for at in sure] == [at in expected for at in sure]
    both = [at for at in sure if at in expected]
    assert [answered[at] for at in both] == pytest.approx([expected[at] for at in both], abs=1e-6)
    assert (queue is None) == (len(served) == len(records))


def erlang_c(servers: int, offered: float) -> float:
    """Probability of having to wait in M/M/c."""
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked / (1.0 - offered / servers * (1.0 - blocked))


def longer_in_m_m_c(servers: int, offered: float) -> Callable[[float], float]:
    """Probability that wait and service, of mean 1, together take longer than a time."""
    waits, spare = erlang_c(servers, offered), servers - 1 - offered

    def longer(t: float) -> float:
        return math.exp(-t) * (1.0 + waits / spare * (1.0 - math.exp(-t * spare)))

    return longer


def longer_in_m_d_c(servers: int, offered: float) -> Callable[[float], float]:
    """Probability that the wait takes longer than a time; service takes 1.

    Franx, "A simple solution for the M/D/c waiting time distribution" (2001), from the distribution
    of the number in the system, which is found by iteration (Crommelin, 1932).
    """
    size = 120
    came = [math.exp(-offered + n * math.log(offered) - math.lgamma(n + 1)) for n in range(size)]
    there = [1.0, *[0.0] * (size - 1)]
    for _ in range(200):
        left = [sum(there[: servers + 1]), *there[servers + 1 :]]
        there = [
            sum(left[k] * came[n - k] for k in range(min(n + 1, len(left)))) for n in range(size)
        ]
    total = sum(there)

    def at_most_waiting(n: int) -> float:
        return sum(there[: servers + n + 1]) / total

    def longer(t: float) -> float:
        k = int(t) + 1
        mean = offered * (k - t)
        terms = (
            at_most_waiting(k * servers - 1 - j) * mean**j / math.factorial(j)
            for j in range(k * servers)
        )
        return 1.0 - math.exp(-mean) * sum(terms)

    return longer


def quantile_of(longer: Callable[[float], float], q: float) -> float:
    """Where a falling probability is 1 - q."""
    low, high = 0.0, 60.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if longer(middle) > 1.0 - q else (low, middle)
    return low


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (2, 0.7), (4, 0.8)])
def test_quantiles_of_m_m_c(servers: int, load: float) -> None:
    offered = servers * load
    arrivals = steady(offered, REQUESTS / offered).arrivals(SEED)
    ended = played(Server(1.0, 0.0, cv=1.0, instances=servers), arrivals)
    times = sorted(e.at_s - e.came[0] for e in ended)
    longer = longer_in_m_m_c(servers, offered)
    for q, tolerance in QUANTILES.items():
        found = times[int(q * len(times))]
        assert found == pytest.approx(quantile_of(longer, q), rel=tolerance), q


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (3, 0.8)])
def test_quantiles_of_the_wait_in_m_d_c(servers: int, load: float) -> None:
    offered = servers * load
    arrivals = steady(offered, REQUESTS / offered).arrivals(SEED)
    ended = played(Server(1.0, 0.0, instances=servers), arrivals)
    waits = sorted(e.at_s - e.came[0] - 1.0 for e in ended)
    longer = longer_in_m_d_c(servers, offered)
    assert longer(0.0) > 0.3
    for q, tolerance in QUANTILES.items():
        expected = quantile_of(longer, q)
        assert waits[int(q * len(waits))] == pytest.approx(expected, rel=tolerance, abs=0.02), q
