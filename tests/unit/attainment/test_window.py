"""What clients got in the last minutes, from cumulative counters."""

import math
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.measurement.pages import Cluster, page
from tidegate.attainment import WINDOW_S, Objective, Window, quantile_ms
from tidegate.resources.sidecar import LATENCY_EDGES_MS, latency_edges_ms
from tidegate.sidecar_page import Reading, read_page

NOW = 1_700_000_000.0
PROMISED = Objective(target_ms=120, quantile=0.99, max_error_rate=0.01)


def reading(
    clusters: Mapping[str, Cluster],
    at_s: float,
    pod: str = "a",
    uptime_s: float = 600.0,
    edges_ms: Iterable[int] = tuple(latency_edges_ms(120)),
) -> Reading:
    text = page(clusters, uptime_s, edges_ms)
    return read_page(text, pod=pod, revision="r", at_s=at_s)


def served(count: int, failed: int = 0, took_ms: int = 5, slow: int = 0) -> dict[str, Cluster]:
    took = [took_ms] * (count - slow) + [400] * slow
    return {"client_http": Cluster({200: count - failed, 500: failed}, took_ms=took)}


def test_nothing_is_known_of_one_look() -> None:
    window = Window(PROMISED)
    assert window.attained() is None
    assert window.observe(NOW, [reading(served(100), NOW)]) is None


def test_what_was_before_the_first_look_does_not_count() -> None:
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(1000, 500), NOW)])
    found = window.observe(NOW + 5, [reading(served(1200, 501, slow=2), NOW + 5, uptime_s=605)])
    assert found is not None
    assert (found.window_s, found.answered, found.failed) == (5.0, 200, 1)
    assert (found.timed, found.slow) == (200, 2)
    assert found.quantile_ms == pytest.approx(5 + 2 * 198 / 198)  # between the edges 5 and 7
    assert (found.latency_met, found.errors_met) == (True, True)


def test_all_pods_of_all_revisions_and_protocols_add_up() -> None:
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(0), NOW, "a"), reading(served(7), NOW, "b")])
    both = served(60) | {"client_grpc": Cluster(by_grpc_status={0: 30, 13: 10}, took_ms=[9] * 40)}
    found = window.observe(
        NOW + 5,
        [reading(both, NOW + 5, "a", 605), reading(served(107, 5), NOW + 5, "b", 605)],
    )
    assert found is not None
    assert (found.answered, found.failed, found.timed) == (200, 15, 200)
    assert (found.latency_met, found.errors_met) == (True, False)


def test_other_classes_are_not_clients() -> None:
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(0), NOW)])
    others = {"mirrored_http": Cluster({500: 50}), "pinned_http": Cluster({500: 50})}
    found = window.observe(NOW + 5, [reading(served(10) | others, NOW + 5, uptime_s=605)])
    assert found is not None
    assert (found.answered, found.failed) == (10, 0)


def test_refusals_are_failures_and_told_apart() -> None:
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(0), NOW)])
    now = {"client_http": Cluster({200: 300, 500: 2, 503: 20}, overflow=20)}
    found = window.observe(NOW + 5, [reading(now, NOW + 5, uptime_s=605)])
    assert found is not None
    assert (found.answered, found.failed, found.shed) == (322, 22, 20)
    assert found.errors_met is False


def test_a_window_slides() -> None:
    window = Window(PROMISED)
    for look in range(101):
        at_s = NOW + 5.0 * look
        failed = min(look, 10)  # only in the first 50 s
        found = window.observe(
            at_s, [reading(served(100 * look, failed), at_s, uptime_s=600 + 5.0 * look)]
        )
    assert found is not None
    assert found.window_s == WINDOW_S
    assert (found.answered, found.failed) == (6000, 0)


@pytest.mark.parametrize(
    ("uptime_s", "counted"),
    [(3.0, 40), (600.0, 0)],
    ids=["born since", "there before, and not read until now"],
)
def test_a_pod_that_is_seen_later(uptime_s: float, counted: int) -> None:
    window = Window(PROMISED)
    window.observe(NOW, [])
    found = window.observe(NOW + 5, [reading(served(40), NOW + 5, "new", uptime_s)])
    assert found is not None
    assert found.answered == counted


def test_a_restarted_sidecar_begins_at_zero() -> None:
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(1000), NOW)])
    found = window.observe(NOW + 5, [reading(served(30), NOW + 5, uptime_s=2)])
    assert found is not None
    assert found.answered == 30
    found = window.observe(NOW + 10, [reading(served(50), NOW + 10, uptime_s=7)])
    assert found is not None
    assert found.answered == 50


def test_an_older_page_with_a_later_time_is_no_restart() -> None:
    """Prometheus' clock may be ahead."""
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(1000), NOW)])
    window.observe(NOW + 5, [reading(served(1010), NOW + 5, uptime_s=605)])
    found = window.observe(NOW + 10, [reading(served(1005), NOW + 6, uptime_s=602)])
    assert found is not None
    assert found.answered == 10


def test_the_same_page_again_is_no_news() -> None:
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(10), NOW)])
    once = reading(served(30), NOW + 5, uptime_s=605)
    for at_s in (NOW + 5, NOW + 10, NOW + 15):
        found = window.observe(at_s, [once])
    assert found is not None
    assert found.answered == 20
    assert window.observe(NOW + 3, [reading(served(900), NOW + 20)]) == found  # time goes one way


def test_pods_that_count_below_other_edges() -> None:
    """Born before the target was 120 ms: what took 100 to 120 ms is rather called slow."""
    window = Window(PROMISED)
    born_so = LATENCY_EDGES_MS
    window.observe(NOW, [reading({"client_http": Cluster({200: 0})}, NOW, edges_ms=born_so)])
    now = {"client_http": Cluster({200: 200}, took_ms=[20] * 197 + [110, 110, 500])}
    found = window.observe(NOW + 5, [reading(now, NOW + 5, uptime_s=605, edges_ms=born_so)])
    assert found is not None
    assert (found.timed, found.slow) == (200, 3)
    assert found.latency_met is False


def test_no_target_no_latency_objective() -> None:
    window = Window(Objective(None, 0.99, 0.01))
    window.observe(NOW, [reading(served(0), NOW)])
    found = window.observe(NOW + 5, [reading(served(300, slow=300), NOW + 5, uptime_s=605)])
    assert found is not None
    assert (found.slow, found.latency_met) == (None, None)
    assert found.quantile_ms is not None


@pytest.mark.parametrize(
    ("count", "failed", "met"),
    [
        (0, 0, None),
        (20, 0, None),  # not even one is allowed yet
        (20, 1, None),  # bad luck, maybe
        (20, 2, False),
        (100, 0, True),
        (100, 1, True),
        (100, 2, False),
        (100_000, 1000, True),
        (100_000, 1001, False),
    ],
)
def test_when_an_objective_is_kept(count: int, failed: int, met: bool | None) -> None:
    window = Window(PROMISED)
    window.observe(NOW, [reading(served(0), NOW)])
    found = window.observe(NOW + 5, [reading(served(count, failed), NOW + 5, uptime_s=605)])
    assert found is not None
    assert found.errors_met is met


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=300), st.sampled_from((0.5, 0.9, 0.99)))
def test_a_quantile_lies_between_the_edges_of_the_true_one(took_ms: list[int], q: float) -> None:
    faster = [sum(ms < edge for ms in took_ms) for edge in LATENCY_EDGES_MS]
    found = quantile_ms(q, len(took_ms), LATENCY_EDGES_MS, faster)
    assert found is not None
    true = sorted(took_ms)[max(0, math.ceil(q * len(took_ms) - 1e-9) - 1)]
    low = max((e for e in LATENCY_EDGES_MS if e <= true), default=0)
    high = min(e for e in LATENCY_EDGES_MS if e > true)
    assert low <= found <= high


def test_beyond_the_last_edge_there_is_no_more() -> None:
    assert quantile_ms(0.99, 0, (10, 20), (0, 0)) is None
    assert quantile_ms(0.5, 10, (10, 20), (0, 0)) == 20.0
    assert quantile_ms(0.99, 100, (10, 20), (99, 100)) == 10.0
