"""What one page of an Envoy's counters says."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.measurement.pages import Cluster, page
from tidegate import sidecar_page
from tidegate.resources.sidecar import LATENCY_EDGES_MS, TrafficClass
from tidegate.sidecar_page import Counts, Reading, read_page, read_samples


def read(clusters: dict[str, Cluster], **changes: object) -> Reading:
    text = page(clusters, **changes)  # type: ignore[arg-type]
    return read_page(text, pod="uid", revision="r", at_s=5.0, name="pod-1")


def client(cluster: Cluster, protocol: str = "http") -> Counts:
    reading = read({f"client_{protocol}": cluster})
    return reading.classes[TrafficClass.CLIENT]


def test_who_and_when() -> None:
    reading = read({"client_http": Cluster({200: 1}, took_ms=[3])}, uptime_s=12)
    assert (reading.pod, reading.revision, reading.at_s) == ("uid", "r", 5.0)
    assert (reading.uptime_s, reading.name) == (12.0, "pod-1")
    assert reading.edges_ms == LATENCY_EDGES_MS


@pytest.mark.parametrize(
    ("code", "counted"),
    [
        (200, "succeeded"),
        (204, "succeeded"),
        (302, "succeeded"),
        (400, "client_errors"),
        (404, "client_errors"),
        (429, "client_errors"),
        (499, ""),
        (500, "failed"),
        (503, "failed"),
        (504, "failed"),
    ],
)
def test_http_statuses(code: int, counted: str) -> None:
    counts = client(Cluster({code: 4}))
    assert counts.started == 4
    for name in ("succeeded", "client_errors", "failed"):
        assert getattr(counts, name) == (4 if name == counted else 0), name


@pytest.mark.parametrize("code", range(17))
def test_grpc_statuses(code: int) -> None:
    counts = client(Cluster(by_grpc_status={code: 4}), "grpc")
    blamed = {3, 5, 6, 7, 9, 11, 16}
    assert counts.started == 4
    assert counts.succeeded == (4 if code == 0 else 0)
    assert counts.client_errors == (4 if code in blamed else 0)
    assert counts.failed == (0 if code in blamed | {0, 1} else 4)
    assert counts.answered == (0 if code == 1 else 4)  # cancelled: given up


def test_refused_requests_arrived_and_failed() -> None:
    counts = client(Cluster({200: 5, 503: 5}, overflow=3, unconnected=2))
    assert (counts.started, counts.succeeded, counts.failed, counts.shed) == (10, 5, 5, 3)


def test_in_flight_counts_those_that_wait_for_a_connection() -> None:
    counts = client(Cluster({200: 1}, in_flight=5, pending=2, given_up=3))
    assert (counts.started, counts.in_flight, counts.answered) == (9, 5, 1)


def test_both_protocols_of_a_class_add_up() -> None:
    reading = read(
        {
            "client_http": Cluster({200: 2, 500: 1}, took_ms=[5, 30, 60], in_flight=1),
            "client_grpc": Cluster(by_grpc_status={0: 3, 13: 1}, took_ms=[5, 5, 200, 40]),
            "mirrored_http": Cluster({200: 7}, took_ms=[1] * 7),
            "golden_http": Cluster({200: 9}),
        }
    )
    counts = reading.classes[TrafficClass.CLIENT]
    assert (counts.started, counts.succeeded, counts.failed, counts.in_flight) == (8, 5, 2, 1)
    assert counts.timed == 7
    faster = dict(zip(reading.edges_ms, counts.faster, strict=True))
    assert (faster[5], faster[7], faster[50], faster[70], faster[300]) == (0, 3, 5, 6, 7)
    assert reading.classes[TrafficClass.MIRRORED].succeeded == 7
    assert reading.classes[TrafficClass.GOLDEN].started == 9
    assert TrafficClass.PINNED not in reading.classes


def test_a_pod_without_requests_is_read() -> None:
    reading = read_page(
        "# TYPE envoy_server_uptime gauge\nenvoy_server_uptime{} 4\n\n",
        pod="uid",
        revision="r",
        at_s=1.0,
    )
    assert (dict(reading.classes), reading.edges_ms, reading.uptime_s) == ({}, (), 4.0)
    assert reading.label == "uid"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no envoy_server_uptime"),
        ("<html><body>504 Gateway Time-out</body></html>", "no envoy_server_uptime"),
        ('nv_inference_request_success{model="m"} 3\n', "no envoy_server_uptime"),
        (
            'envoy_cluster_upstream_rq_total{envoy_cluster_name="client_http"} many\n',
            "'many' is no number",
        ),
        (
            'envoy_cluster_upstream_rq_total{envoy_cluster_name="client_http"} -1\n',
            "never negative",
        ),
        (
            'envoy_cluster_upstream_rq_total{envoy_cluster_name="client_http"} +Inf\n',
            "no number",
        ),
    ],
)
def test_what_is_no_such_page_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_page(text, pod="uid", revision="r", at_s=1.0)


def test_strange_lines_are_passed_over() -> None:
    strange = (
        'envoy_cluster_upstream_rq_total{envoy_cluster_name="nobody_http"} 3\n'
        'envoy_cluster_upstream_rq{envoy_response_code="x",envoy_cluster_name="client_http"} 3\n'
        'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="client_http",le="?"} 3\n'
        "envoy_cluster_upstream_rq_total\n"
        "}{\n"
        "envoy_server_uptime{} 4.0\n"
    )
    reading = read_page(strange, pod="uid", revision="r", at_s=1.0)
    assert (dict(reading.classes), reading.uptime_s) == ({}, 4.0)


TIMES = st.lists(st.integers(0, 20_000), max_size=5)
CLUSTERS = st.dictionaries(
    st.sampled_from(("client_http", "client_grpc", "mirrored_http", "golden_http", "other_http")),
    st.builds(
        Cluster,
        by_status=st.dictionaries(st.sampled_from((200, 404, 503)), st.integers(0, 9)),
        by_grpc_status=st.dictionaries(st.sampled_from((0, 3, 13)), st.integers(0, 9)),
        took_ms=TIMES,
        in_flight=st.integers(0, 3),
    ),
    max_size=4,
)


def one_by_one(text: str) -> Reading:
    """The same page without what is remembered of pages."""
    samples = [line.rpartition(" ") for line in text.split("\n")]
    return read_samples(samples, pod="uid", revision="r", at_s=5.0, name="pod-1")


@given(CLUSTERS, CLUSTERS, st.integers(0, 99))
def test_a_page_that_is_laid_out_as_one_before(
    first: Mapping[str, Cluster], second: Mapping[str, Cluster], uptime_s: int
) -> None:
    """By the places of the counters it says what its samples say one by one."""
    sidecar_page._layouts.clear()
    for clusters in (first, first, second, first, second):
        text = page(clusters, uptime_s)
        reading = read_page(text, pod="uid", revision="r", at_s=5.0, name="pod-1")
        assert reading == one_by_one(text)


def test_a_known_layout_is_used() -> None:
    sidecar_page._layouts.clear()
    for count in (1, 2, 3):
        assert read({"client_http": Cluster({200: count})}).uptime_s == 60.0
    assert len(sidecar_page._layouts) == 1


@pytest.mark.parametrize("value", ["many", "-1", "+Inf", ""])
def test_a_known_layout_with_a_strange_value(value: str) -> None:
    text = page({"client_http": Cluster({200: 9}, took_ms=[3] * 9)})
    expected = one_by_one(text)
    assert read_page(text, pod="uid", revision="r", at_s=5.0, name="pod-1") == expected
    line = next(line for line in text.split("\n") if "upstream_rq_total" in line and "{" in line)
    spoilt = text.replace(line, f"{line.rpartition(' ')[0]} {value}")
    with pytest.raises(ValueError, match=r"upstream_rq_total.*(no number|never negative)"):
        read_page(spoilt, pod="uid", revision="r", at_s=5.0)


def test_a_count_that_is_written_as_a_fraction() -> None:
    text = page({"client_http": Cluster({200: 9})})
    assert one_by_one(text) == one_by_one(text.replace("} 9\n", "} 9.0\n"))
    for each in (text, text.replace("} 9\n", "} 9.0\n"), text):
        reading = read_page(each, pod="uid", revision="r", at_s=5.0, name="pod-1")
        assert reading == one_by_one(text)
