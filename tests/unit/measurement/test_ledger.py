"""From readings to blocks: what is counted, what is not, and nothing twice."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.measurement.pages import Cluster, page
from tidegate.analysis.block import Block, Tally
from tidegate.measurement import WARM_UP_REQUESTS, Ledger, bounds_ms, hanging_after_s
from tidegate.resources.sidecar import LATENCY_EDGES_MS
from tidegate.sidecar_page import Reading, read_page

TARGET_MS = 100


@dataclass
class Pod:
    """A pod whose counters a test moves."""

    uid: str
    revision: str = "canary"
    born_s: float = 0.0
    clusters: dict[str, Cluster] = field(default_factory=dict)
    edges_ms: tuple[int, ...] = LATENCY_EDGES_MS

    def of(self, name: str = "client_http") -> Cluster:
        return self.clusters.setdefault(name, Cluster())

    def served(self, count: int, ms: int = 5, code: int = 200, name: str = "client_http") -> "Pod":
        cluster = self.of(name)
        cluster.by_status[code] = cluster.by_status.get(code, 0) + count
        cluster.took_ms += [ms] * count
        return self

    def read(self, at_s: float) -> Reading:
        text = page(self.clusters, int(at_s - self.born_s), self.edges_ms)
        return read_page(text, pod=self.uid, revision=self.revision, at_s=at_s, name=self.uid)


def ledger(**changes: object) -> Ledger:
    given_ = {"target_ms": TARGET_MS, "bounds_ms": (50, 100)} | changes
    return Ledger("stable", "canary", **given_)  # type: ignore[arg-type]


def look(book: Ledger, at_s: float, *pods: Pod) -> Block:
    return book.observe([pod.read(at_s) for pod in pods], at_s=at_s)


def warm(book: Ledger, pod: Pod, at_s: float = 1.0) -> None:
    """Get a pod past its first requests; the next look is at 3 s."""
    pod.served(WARM_UP_REQUESTS)
    look(book, at_s, pod)
    look(book, at_s + 1, pod)


def test_a_canarys_whole_life_is_evidence_and_stables_is_not() -> None:
    canary, stable = Pod("c").served(3, code=500), Pod("s", "stable").served(7, code=500)
    block = look(ledger(), 10.0, canary, stable)
    assert block.canary == Tally(requests=3, failed=3, slower=(0, 0))
    assert (block.canary_arrivals, block.stable_arrivals) == (3, 0)
    assert block.stable == Tally(slower=(0, 0))
    assert (block.at_s, block.seconds) == (10.0, 0.0)


def test_what_happened_in_between_is_counted_once() -> None:
    book, canary, stable = ledger(), Pod("c"), Pod("s", "stable")
    look(book, 1.0, canary, stable)
    canary.served(2).served(1, code=503).served(4, code=404)
    stable.served(9)
    block = look(book, 2.5, canary, stable)
    assert (block.canary.requests, block.canary.failed, block.canary.client_errors) == (7, 1, 4)
    assert (block.stable.requests, block.stable.failed) == (9, 0)
    assert (block.canary_arrivals, block.stable_arrivals, block.seconds) == (7, 9, 1.5)
    again = look(book, 3.5, canary, stable)
    assert again.canary == again.stable == Tally(slower=(0, 0))


def test_classes_of_traffic() -> None:
    book, canary, stable = ledger(), Pod("c"), Pod("s", "stable")
    look(book, 1.0, canary, stable)
    for name in ("client", "mirrored", "pinned", "golden", "streaming"):
        for pod in (canary, stable):
            pod.served(2, code=500, name=f"{name}_http")
    canary.of("mirrored_grpc").by_grpc_status[13] = 1
    block = look(book, 2.0, canary, stable)
    assert (block.canary.failed, block.canary_arrivals, block.mirrored) == (5, 2, 3)
    assert (block.stable.failed, block.stable_arrivals) == (2, 2)


def test_a_request_refused_for_overload_is_no_failure_of_the_model() -> None:
    book, canary, stable = ledger(), Pod("c"), Pod("s", "stable")
    look(book, 1.0, canary, stable)
    for pod in (canary, stable):
        pod.served(4).served(2, code=500)
        pod.of().by_status[503] = 5  # three for overload, two for want of Triton
        pod.of().overflow, pod.of().unconnected = 3, 2
    canary.of("mirrored_http").by_status[503] = 7
    canary.of("mirrored_http").overflow = 7
    block = look(book, 2.0, canary, stable)
    for seen in (block.canary, block.stable):
        assert (seen.requests, seen.failed, seen.shed) == (8, 4, 3)
    assert (block.canary_arrivals, block.stable_arrivals, block.mirrored) == (11, 11, 7)
    assert look(book, 3.0, canary, stable).canary == Tally(slower=(0, 0))


def test_a_refusal_that_is_on_the_page_before_its_answer_takes_no_failure_back() -> None:
    book, canary = ledger(), Pod("c").served(5, code=500)
    look(book, 1.0, canary)
    canary.of().overflow = 1
    early = look(book, 2.0, canary).canary
    canary.of().by_status[503] = 1
    late = look(book, 3.0, canary).canary
    assert (early.failed, early.requests, early.shed) == (0, 0, 1)
    assert (late.failed, late.requests, late.shed) == (0, 0, 0)
    canary.served(1, code=500)
    assert look(book, 4.0, canary).canary.failed == 1


def test_a_pod_that_only_refuses_hangs() -> None:
    book, pod = ledger(), Pod("c").served(200)
    pod.of().in_flight = 2
    for second in range(1, 15):
        pod.of().overflow += 3
        pod.of().by_status[503] = pod.of().overflow
        seen = look(book, float(second), pod).hanging
    assert seen == ("c",)


def test_a_restart_counts_from_zero() -> None:
    book, canary = ledger(), Pod("c").served(20)
    look(book, 10.0, canary)
    canary.born_s, canary.clusters = 10.5, {}
    canary.served(2, code=500)
    block = look(book, 11.0, canary)
    assert (block.canary.requests, block.canary.failed) == (2, 2)


def test_counters_that_fell_are_a_restart_without_an_uptime_too() -> None:
    book, canary = ledger(), Pod("c").served(20)
    first = canary.read(10.0)
    book.observe([Reading(**{**vars(first), "uptime_s": None})], at_s=10.0)
    canary.clusters = {}
    second = canary.served(2, code=500).read(11.0)
    block = book.observe([Reading(**{**vars(second), "uptime_s": None})], at_s=11.0)
    assert (block.canary.requests, block.canary.failed) == (2, 2)


def test_an_older_page_is_passed_over() -> None:
    """Such as Prometheus has, whose clock is not ours."""
    book, canary = ledger(), Pod("c").served(20)
    older = canary.read(900.0)
    canary.served(20)
    look(book, 910.0, canary)
    for at_s in (900.0, 910.0, 911.0):
        late = Reading(**{**vars(older), "at_s": at_s})
        assert book.observe([late], at_s=912.0).canary.requests == 0
    canary.served(1)
    assert look(book, 913.0, canary).canary.requests == 1


def test_readings_out_of_order_are_passed_over() -> None:
    """Also where nothing but their time tells."""
    book, canary = ledger(), Pod("c").served(20)
    early = Reading(**{**vars(canary.read(10.0)), "uptime_s": None})
    canary.served(20)
    late = Reading(**{**vars(canary.read(20.0)), "uptime_s": None})
    seen = [book.observe([r], at_s=21.0).canary.requests for r in (late, early, late)]
    assert seen == [40, 0, 0]


def test_arrivals_that_a_reading_missed_are_not_counted_twice() -> None:
    """One that got its connection between two lines of the page is in neither counter."""
    book, canary = ledger(), Pod("c")
    cluster = canary.of()
    seen = []
    for at_s, in_flight in ((1.0, 10), (2.0, 9), (3.0, 10), (4.0, 12)):
        cluster.in_flight = in_flight
        seen.append(look(book, at_s, canary).canary_arrivals)
    assert seen == [10, 0, 0, 2]


def test_pods_that_vanish_and_come_back() -> None:
    book, one, two = ledger(), Pod("a").served(5), Pod("b").served(6)
    assert look(book, 1.0, one, two).canary.requests == 11
    assert look(book, 2.0, two).canary.requests == 0
    one.served(2)
    assert look(book, 3.0, one, two).canary.requests == 2


def test_pods_of_other_revisions_are_passed_over() -> None:
    assert look(ledger(), 1.0, Pod("x", "old").served(5)) == Block(
        1.0, 0.0, Tally(slower=(0, 0)), Tally(slower=(0, 0))
    )


def test_after_an_operators_restart_old_pods_begin_with_a_baseline() -> None:
    book = ledger(resumed=True)
    old, new = Pod("old", born_s=50.0).served(9, code=500), Pod("new", born_s=100.5)
    assert look(book, 100.0, old).canary.requests == 0
    old.served(1, code=500)
    new.served(4)
    block = look(book, 103.0, old, new)
    assert (block.canary.requests, block.canary.failed) == (5, 1)


def test_a_pod_that_may_have_been_there_at_the_restart_begins_with_a_baseline() -> None:
    book, young = ledger(resumed=True), Pod("young", born_s=99.9).served(9, code=500)
    look(book, 100.0)
    assert look(book, 100.8, young).canary.requests == 0


def test_what_pods_did_before_the_rollout_is_no_evidence() -> None:
    """A revision is tried again while its pods are kept."""
    book = ledger(counts_from_s=100.0)
    old, new = Pod("old", born_s=50.0).served(9, code=500), Pod("new", born_s=100.0).served(2)
    assert look(book, 110.0, old, new).canary == Tally(requests=2, slower=(0, 0))


def test_the_first_requests_leave_no_latency_but_errors() -> None:
    book, pod = ledger(), Pod("c")
    pod.served(WARM_UP_REQUESTS - 1, ms=900)
    look(book, 1.0, pod)
    pod.served(5, ms=900).served(3, ms=900, code=500)  # straddles: left out whole
    block = look(book, 2.0, pod)
    assert (block.canary.requests, block.canary.failed, block.canary.timed) == (8, 3, 0)
    look(book, 3.0, pod)
    pod.served(4, ms=900).served(6)
    block = look(book, 4.0, pod)
    assert (block.canary.timed, block.canary.slow, block.canary.slower) == (10, 4, (4, 4))


def test_slow_first_requests_that_end_last_leave_no_latency() -> None:
    book, pod = ledger(), Pod("c")
    pod.of().in_flight = 30
    pod.served(WARM_UP_REQUESTS)
    look(book, 1.0, pod)
    pod.of().in_flight = 0
    pod.served(30, ms=4000)
    assert look(book, 2.0, pod).canary.timed == 0
    pod.served(1)
    assert look(book, 3.0, pod).canary.timed == 1


def test_latency_counts_by_target_and_bounds() -> None:
    book, pod = ledger(), Pod("c")
    warm(book, pod)
    pod.served(3, ms=49).served(2, ms=50).served(4, ms=99).served(5, ms=100)
    tally = look(book, 3.0, pod).canary
    assert (tally.timed, tally.slow, tally.slower) == (14, 5, (11, 5))


def test_a_target_that_is_no_edge_uses_the_next_lower_one() -> None:
    book, pod = ledger(target_ms=120), Pod("c")
    warm(book, pod)
    pod.served(1, ms=99).served(1, ms=110)
    assert look(book, 3.0, pod).canary.slow == 1
    book, pod = ledger(target_ms=120), Pod("c", edges_ms=(*LATENCY_EDGES_MS[:12], 120, 150))
    warm(book, pod)
    pod.served(1, ms=99).served(1, ms=110)
    assert look(book, 3.0, pod).canary.slow == 0


def test_overdue_requests_are_slow_once() -> None:
    book, pod = ledger(), Pod("c")
    warm(book, pod)
    pod.of().in_flight = 4
    assert look(book, 3.0, pod).canary.slow == 0  # young
    tally = look(book, 3.5, pod).canary
    assert (tally.requests, tally.timed, tally.slow, tally.slower) == (0, 4, 4, (4, 4))
    assert look(book, 4.0, pod).canary.timed == 0
    pod.of().in_flight = 1
    pod.served(3, ms=1100).served(2)  # three of them end, two others are quick
    tally = look(book, 4.5, pod).canary
    assert (tally.requests, tally.timed, tally.slow, tally.slower) == (5, 2, 0, (0, 0))
    pod.of().in_flight = 0
    pod.served(1, ms=2000, code=500)
    tally = look(book, 5.0, pod).canary
    assert (tally.requests, tally.failed, tally.timed, tally.slow) == (1, 1, 0, 0)


def test_overdue_requests_that_end_without_a_latency_make_room_for_others() -> None:
    """Such as when the connection to Triton breaks: a 503 that no histogram has."""
    book, pod = ledger(), Pod("c")
    warm(book, pod)
    cluster = pod.of()
    slow = 0
    for i in range(10):
        cluster.in_flight = 3
        slow += look(book, 10.0 + 10 * i, pod).canary.slow
        slow += look(book, 11.0 + 10 * i, pod).canary.slow
        cluster.in_flight = 0
        cluster.by_status[503] = cluster.by_status.get(503, 0) + 3
        look(book, 12.0 + 10 * i, pod)
        look(book, 14.0 + 10 * i, pod)
    assert slow == 30


def test_a_busy_pod_is_not_an_overdue_one() -> None:
    """Always 4 in flight, but others each time."""
    book, pod = ledger(), Pod("c")
    warm(book, pod)
    pod.of().in_flight = 4
    for i in range(20):
        pod.served(40)
        assert look(book, 3.0 + i, pod).canary.slow == 0


def test_overdue_requests_that_are_given_up_make_room_for_others() -> None:
    book, pod = ledger(), Pod("c")
    warm(book, pod)
    slow = given_up = 0
    for i in range(12):
        cluster = pod.of()
        cluster.given_up += cluster.in_flight  # the clients' patience ends, others come
        cluster.in_flight = 3
        for half in (0.0, 0.5):
            tally = look(book, 3.0 + i + half, pod).canary
            slow += tally.slow
            given_up += tally.given_up
    assert given_up == 33
    assert 30 <= slow <= 36


def test_given_up_needs_two_readings() -> None:
    """The page has statuses before gauges, so that one reading alone may be a little wrong."""
    book, pod = ledger(), Pod("c")
    look(book, 1.0, pod)
    pod.of().given_up = 2
    assert look(book, 2.0, pod).canary.given_up == 0
    pod.of().given_up = 0
    pod.served(2)
    assert look(book, 3.0, pod).canary == Tally(requests=2, slower=(0, 0))
    pod.of().given_up = 3
    look(book, 4.0, pod)
    assert look(book, 5.0, pod).canary.given_up == 3
    assert look(book, 6.0, pod).canary.given_up == 0


def test_copies_that_the_gateway_drops_are_given_up_by_nobody() -> None:
    """It ends late copies when their originals are answered; no client waits for them."""
    book, pod = ledger(), Pod("c")
    look(book, 1.0, pod)
    pod.served(20, name="mirrored_http").served(20)
    pod.of("mirrored_http").given_up = 3
    pod.of("mirrored_grpc").given_up = 2
    pod.of().given_up = 1
    first = look(book, 2.0, pod).canary
    second = look(book, 3.0, pod).canary
    assert first.given_up + second.given_up == 1
    assert first.requests == 40


@pytest.mark.parametrize(
    ("answers", "hangs"), [(0, True), (1, False)], ids=["no answer", "an answer now and then"]
)
def test_a_pod_that_owes_answers_and_gives_none_hangs(answers: int, hangs: bool) -> None:
    book, pod = ledger(), Pod("c")
    pod.served(200)
    pod.of().in_flight = 2
    seen = []
    for second in range(25):
        if second % 8 == 7:
            pod.served(answers)
        seen.append(look(book, 1.0 + second, pod).hanging)
    assert (seen[9], seen[10]) == ((), ("c",) if hangs else ())
    assert seen[-1] == (("c",) if hangs else ())


def test_an_idle_pod_and_a_stable_one_do_not_hang() -> None:
    book, idle, stable = ledger(), Pod("c").served(9), Pod("s", "stable").served(9)
    stable.of().in_flight = 5
    assert {look(book, float(second), idle, stable).hanging for second in range(1, 60)} == {()}


def test_unread_pods_are_named() -> None:
    assert ledger().observe([], at_s=1.0, unread=["b", "a"]).unread == ("b", "a")


def test_bounds_are_of_the_ladder_and_do_not_exceed_the_target() -> None:
    assert bounds_ms(12) == (1, 2, 3, 5, 7, 10)
    assert bounds_ms(100)[-1] == 100
    assert bounds_ms(None) == LATENCY_EDGES_MS
    with pytest.raises(ValueError, match="exceed the target"):
        ledger(target_ms=40)


def test_when_a_pod_hangs() -> None:
    stable = Pod("s", "stable").served(990, ms=40).served(20, ms=1800)
    assert hanging_after_s(100) == 10.0
    assert hanging_after_s(2000) == 40.0
    assert hanging_after_s(None) == 600.0
    assert hanging_after_s(None, [Pod("s").served(20).read(1.0)]) == 600.0
    assert hanging_after_s(None, [stable.read(1.0)]) == 40.0


MOVES = st.lists(
    st.tuples(
        st.integers(0, 4),  # requests that arrive
        st.integers(0, 4),  # of those in flight, answered
        st.integers(0, 3),  # of those in flight, given up
        st.sampled_from([0.02, 0.25, 1.0, 3.0]),
        st.sampled_from([5, 60, 400]),
        st.sampled_from([200, 404, 500]),
    ),
    max_size=60,
)


@given(moves=MOVES, cold=st.booleans())
def test_nothing_is_counted_twice_and_each_block_is_consistent(
    moves: list[tuple[int, int, int, float, int, int]], cold: bool
) -> None:
    """Whatever happens, and whenever one looks."""
    book, pod, at_s = ledger(), Pod("c"), 1.0
    if not cold:
        warm(book, pod)
        at_s = 2.0
    cluster = pod.of()
    total = {"requests": 0, "failed": 0, "timed": 0, "slow": 0, "given_up": 0, "arrivals": 0}
    before = len(cluster.took_ms)
    arrived, long_ones = 0, []
    for arrive, answer, give_up, passed_s, ms, code in moves:
        at_s += passed_s
        arrived += arrive
        cluster.in_flight += arrive
        done = min(answer, cluster.in_flight)
        cluster.in_flight -= done
        pod.served(done, ms=ms, code=code)
        gone = min(give_up, cluster.in_flight)
        cluster.in_flight -= gone
        cluster.given_up += gone
        block = look(book, at_s, pod)
        tally = block.canary
        assert 0 <= tally.failed + tally.client_errors <= tally.requests
        assert 0 <= tally.slow <= tally.timed
        assert tally.slow <= min(tally.slower, default=tally.slow)
        assert max(tally.slower) <= tally.timed
        for name in ("requests", "failed", "timed", "slow", "given_up"):
            total[name] += getattr(tally, name)
        total["arrivals"] += block.canary_arrivals
        long_ones.append(total["slow"])
        # What was overdue is in flight, was given up, or has ended slowly.
        ended_slowly = sum(ms >= TARGET_MS for ms in cluster.took_ms[before:])
        assert total["slow"] <= ended_slowly + cluster.in_flight + cluster.given_up + done
    assert total["arrivals"] == arrived or cold
    assert total["given_up"] <= cluster.given_up
    assert total["requests"] == len(cluster.took_ms) - (0 if cold else before)
    assert total["timed"] <= arrived
