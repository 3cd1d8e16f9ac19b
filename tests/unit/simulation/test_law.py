"""The law of the cluster in the simulated world: what it is told, and that it works there."""

import pytest

from tidegate.autoscaling.capacities import Capacities
from tidegate.autoscaling.decision import Bounds, Hold
from tidegate.resources.sidecar import TrafficClass
from tidegate.simulation.law import EPOCH_S, Tidegate, look_at
from tidegate.simulation.load import Load, steady
from tidegate.simulation.pod import Pod, Server
from tidegate.simulation.world import Fault, Kind, World, simulate

SERVER = Server(0.09, 0.02, max_batch=8, queue=3, target_s=0.5)


def test_what_a_pod_tells_of_itself() -> None:
    edges = (0.1, 0.2, 0.5)
    pod = Pod("uid", SERVER, edges, 1, 0.0, 0.0)
    # One alone for 110 ms; of five more three wait, two are refused; then 150 ms for these; one
    # more comes and is being worked on.
    pod.queue.extend([1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 2.0])
    pod.advance(2.05)
    look = look_at(pod, edges, 2.05)
    assert look.reading is not None
    assert look.triton is not None
    counts = look.reading.classes[TrafficClass.CLIENT]
    assert (counts.started, counts.succeeded, counts.failed) == (7, 4, 2)
    assert (counts.in_flight, counts.timed) == (1, 4)
    assert counts.faster == (0, 1, 4)
    assert look.at_s == look.reading.at_s == EPOCH_S + 2.05
    assert look.reading.edges_ms == (100, 200, 500)
    sizes = [(b.size, b.count, round(b.busy_ms)) for b in look.triton.batches]
    assert sizes == [(1, 1, 110), (3, 1, 150)]
    assert (look.triton.items, look.triton.succeeded, look.triton.pending) == (4, 4, 0)


def test_it_finds_the_replicas_that_a_load_needs() -> None:
    # One pod holds about 22 a second.
    server = Server(0.09, 0.02, max_batch=8, target_s=0.5)
    law = Tidegate(server, Bounds(1, 20), 30.0, capacities=Capacities())
    world = World(server, steady(80.0, 400), cold_start_s=30.0, initial=3)
    outcome = simulate(world, law, 1)
    assert law.decision is not None
    assert law.decision.needed == 4
    assert outcome.moments[-1].ready >= 4
    late = sum(m.missed for m in outcome.moments if m.at_s > 300)
    assert late < 0.01 * outcome.arrived


STEP = Load("step", (20.0,) * 20 + (80.0,) * 12, 10.0)
"""From what one pod holds to what four do."""


def step(*, lag_s: float = 0.0, faults: tuple[Fault, ...] = ()) -> tuple[Tidegate, World]:
    server = Server(0.09, 0.02, max_batch=8, target_s=0.5)
    world = World(server, STEP, cold_start_s=30.0, initial=2, lag_s=lag_s, faults=faults)
    return Tidegate(server, Bounds(1, 20), 30.0, capacities=Capacities(fine=2000)), world


def test_what_it_reads_is_as_old_as_the_lag() -> None:
    raised = []
    for lag_s in (0.0, 10.0):
        law, world = step(lag_s=lag_s)
        moments = simulate(world, law, 1).moments
        raised.append(next(m.at_s for m in moments if m.at_s > 200.0 and m.desired > 2))
    assert raised[1] == raised[0] + 10.0


@pytest.mark.parametrize(
    ("lag_s", "faults"),
    [(20.0, ()), (0.0, (Fault(Kind.NO_METRICS, 190.0),))],
    ids=["too old", "lost"],
)
def test_what_it_cannot_read_moves_nothing(lag_s: float, faults: tuple[Fault, ...]) -> None:
    """Four times the load would need more pods; nobody told it."""
    law, world = step(lag_s=lag_s, faults=faults)
    outcome = simulate(world, law, 1)
    assert {m.desired for m in outcome.moments if m.at_s >= 210.0} == {2}
    assert law.decision is not None
    assert law.decision.hold is Hold.METRICS_MISSING
