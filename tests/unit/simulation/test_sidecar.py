"""What the sidecar counts is what the pod did, class by class."""

from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.resources.sidecar import TrafficClass
from tidegate.simulation.pod import Ended, Pod, Server
from tidegate.simulation.sidecar import Sidecar

EDGES_S = (0.01, 0.05, 0.1, 0.5)


@settings(max_examples=60)
@given(
    gaps=st.lists(st.floats(0.0001, 0.2), min_size=1, max_size=60),
    servers=st.builds(
        Server,
        st.just(0.01),
        st.just(0.02),
        cv=st.sampled_from([0.0, 0.5]),
        instances=st.integers(1, 2),
        max_batch=st.integers(1, 4),
        queue=st.sampled_from([None, 0, 2]),
        target_s=st.just(0.1),
    ),
    failing=st.sampled_from([0.0, 0.3]),
    switches=st.lists(st.integers(0, 60), max_size=2, unique=True).map(sorted),
    dies=st.booleans(),
)
def test_both_classes_together_are_the_pods_own_counters(
    gaps: list[float], servers: Server, failing: float, switches: list[int], dies: bool
) -> None:
    arrivals = list(accumulate(gaps))
    pod = Pod("pod", servers, EDGES_S, 1, 0.0, 0.0)
    pod.ended, pod.failing = [], failing
    sidecar = Sidecar(EDGES_S, servers.target_s)
    came = {False: 0, True: 0}
    at_s = 0.0
    # In pieces, some of them clients' requests and some copies.
    cuts = [0, *[min(n, len(arrivals)) for n in switches], len(arrivals)]
    for i, (begin, end) in enumerate(pairwise(cuts)):
        piece, copies = arrivals[begin:end], bool(i % 2)
        if not piece:
            continue
        pod.queue.extend(piece)
        sidecar.arrived(len(piece), copies=copies, since_s=at_s)
        came[copies] += len(piece)
        at_s = piece[-1] + 1e-9
        pod.advance(at_s)
        sidecar.take(pod.ended)
        _same(pod, sidecar)
    if dies:
        pod.kill(at_s)
    else:
        pod.advance(at_s + 100.0)
    sidecar.take(pod.ended)
    _same(pod, sidecar)
    assert (sidecar.clients.started, sidecar.copies.started) == (came[False], came[True])
    assert sidecar.clients.in_flight == sidecar.copies.in_flight == 0


def _same(pod: Pod, sidecar: Sidecar) -> None:
    a, b, c = sidecar.clients, sidecar.copies, pod.counters
    assert a.started + b.started == c.started
    assert a.answered + b.answered == c.answered
    assert a.failed + b.failed == c.failed + c.refused
    assert a.late + b.late == c.late
    assert [x + y for x, y in zip(a.histogram, b.histogram, strict=True)] == c.histogram
    assert min(a.in_flight, b.in_flight) >= 0


def test_a_page() -> None:
    sidecar = Sidecar((0.01, 0.1), 0.1)
    sidecar.arrived(3, copies=False, since_s=0.0)
    sidecar.take([Ended(1.0, [0.95, 0.995], [0.95]), Ended(1.0, [0.9], [], served=False)])
    page = sidecar.reading(pod="p", revision="r", at_s=50.0, uptime_s=9.0)
    assert page.edges_ms == (10, 100)
    counts = page.classes[TrafficClass.CLIENT]
    assert (counts.started, counts.succeeded, counts.failed, counts.in_flight) == (3, 1, 2, 0)
    assert (counts.timed, counts.faster) == (2, (1, 2))
    assert TrafficClass.MIRRORED not in page.classes
