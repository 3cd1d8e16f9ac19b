"""The same counters by way of Prometheus: the same readings, and so the same blocks."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from tests.unit.measurement.pages import Cluster, page, samples
from tests.unit.runtime.server import Answer, answers, hang, serving
from tidegate.measurement import Ledger
from tidegate.runtime.cache import Key
from tidegate.runtime.pods import PodAt, ReadError
from tidegate.runtime.prometheus import STALE_S, Prometheus, query, readings
from tidegate.sidecar_page import Reading, read_page

NOW = 1_700_000_000.0
KEY = Key("models", "m")
CANARY = PodAt("uid-c", "pod-c", "canary", "")
STABLE = PodAt("uid-s", "pod-s", "stable", "")
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Clusters = dict[str, Cluster]


def scraped(
    of: PodAt, clusters: Clusters, at_s: float, uptime_s: float = 60, **labels: str
) -> list[dict[str, Any]]:
    """What Prometheus has of a pod that it scraped twice: a matrix's series."""
    target = {
        "namespace": "models",
        "pod": of.name,
        "tidegate_dev_deployment": "m",
        "instance": "10.0.0.1:9091",
        "job": "models/m",
        **labels,
    }
    return [
        {
            "metric": {"__name__": name, **dict(_LABEL.findall(inner)), **target},
            "values": [[at_s - 15.0, "0"], [at_s, value]],
        }
        for name, inner, value in samples(clusters, uptime_s)
        if name == "envoy_server_uptime" or "envoy_cluster" in inner
    ]


def direct(pod: PodAt, clusters: Clusters, at_s: float, uptime_s: float = 60) -> Reading:
    text = page(clusters, uptime_s)
    return read_page(text, pod=pod.uid, revision=pod.revision, at_s=at_s, name=pod.name)


def life(failed: int, served: int, in_flight: int) -> Clusters:
    """Some counters of every kind."""
    return {
        "client_http": Cluster(
            {200: served, 404: 2, 500: failed, 503: 1},
            took_ms=[5] * served + [400] * failed,
            in_flight=in_flight,
            pending=min(1, in_flight),
            given_up=1,
            overflow=1,
        ),
        "client_grpc": Cluster(by_grpc_status={0: served, 13: failed, 1: 2, 3: 1}),
        "mirrored_http": Cluster({200: served}, took_ms=[20] * served),
    }


def test_both_sources_say_the_same() -> None:
    books = [Ledger("stable", "canary", 100, (50, 100)) for _ in range(2)]
    for look in range(6):
        at_s, uptime_s = NOW + 15.0 * look, 60.0 + 15.0 * look
        canary, stable = life(3 * look, 80 + 20 * look, look), life(look, 900 + 500 * look, 2)
        answer = scraped(CANARY, canary, at_s, uptime_s) + scraped(STABLE, stable, at_s, uptime_s)
        from_pods = [
            direct(CANARY, canary, at_s, uptime_s),
            direct(STABLE, stable, at_s, uptime_s),
        ]
        elsewhere = readings(answer, "models", (CANARY, STABLE), at_s + 2)
        assert elsewhere == from_pods
        blocks = [
            book.observe(some, at_s=at_s)
            for book, some in zip(books, (from_pods, elsewhere), strict=True)
        ]
        assert blocks[0] == blocks[1]
        assert blocks[0].canary.requests > 0
    assert blocks[0].canary.failed == 6


def test_values_as_prometheus_writes_them() -> None:
    answer = scraped(CANARY, {"client_http": Cluster({200: 1})}, NOW)
    for series in answer:
        if series["metric"]["__name__"] == "envoy_cluster_upstream_rq_total":
            series["values"][-1][1] = "1.5e+06"
    [reading] = readings(answer, "models", (CANARY,), NOW)
    assert next(iter(reading.classes.values())).started == 1_500_000


def test_stale_samples_are_no_data() -> None:
    answer = scraped(CANARY, life(1, 1, 0), NOW)
    assert len(readings(answer, "models", (CANARY,), NOW + STALE_S)) == 1
    assert readings(answer, "models", (CANARY,), NOW + STALE_S + 1) == []


def test_samples_of_an_earlier_scrape_are_left_out() -> None:
    """A series that the last scrape did not have."""
    answer = scraped(CANARY, life(5, 5, 0), NOW)
    for series in answer:
        if series["metric"].get("envoy_response_code") == "500":
            del series["values"][-1]
    [reading] = readings(answer, "models", (CANARY,), NOW)
    assert sum(c.failed for c in reading.classes.values()) == 1 + 5  # 503, and gRPC's


def test_a_pod_that_is_scraped_twice_is_read_once() -> None:
    older, newer = life(1, 10, 0), life(2, 20, 0)
    answer = [
        *scraped(CANARY, newer, NOW, 70, prometheus="b"),
        *scraped(CANARY, older, NOW - 5.0, 65, prometheus="a"),
    ]
    assert readings(answer, "models", (CANARY,), NOW) == [direct(CANARY, newer, NOW, 70)]


@pytest.mark.parametrize(
    "labels",
    [{"namespace": "others"}, {"pod": "pod-x"}, {"pod": ""}],
    ids=["of another namespace", "of another name", "of no name"],
)
def test_other_pods_are_left_out(labels: dict[str, str]) -> None:
    answer = scraped(CANARY, life(1, 1, 0), NOW, 60, **labels)
    assert readings(answer, "models", (CANARY,), NOW) == []


@pytest.mark.parametrize(
    "answer",
    [
        [1],
        [{}],
        [{"metric": {"pod": "pod-c", "namespace": "models"}}],
        [
            {
                "metric": {
                    "__name__": "envoy_server_uptime",
                    "pod": "pod-c",
                    "namespace": "models",
                },
                "values": [],
            }
        ],
    ],
)
def test_an_answer_of_another_shape_is_an_error(answer: list[Any]) -> None:
    with pytest.raises(ReadError, match="not Prometheus'"):
        readings(answer, "models", (CANARY,), NOW)


def test_labels_are_escaped() -> None:
    text = query(Key('a"} or vector(1) #', "b\\c\nd"))
    assert r'namespace="a\"} or vector(1) #"' in text
    assert r'tidegate_dev_deployment="b\\c\nd"' in text
    assert text.endswith("[30s]")


# Over HTTP.


def _ok(data: dict[str, Any]) -> Answer:
    return answers(200, json.dumps({"status": "success", "data": data}))


@dataclass
class Served:
    """An HTTP server in Prometheus' place."""

    answer: Answer = hang
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    given = Served()

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.method == "POST"
        given.asked.append((request.path, str((await request.post())["query"])))
        return await given.answer(request)

    async with serving(handle) as address:
        given.url = f"http://{address}/team/"
        yield given


async def test_one_model_deployment(served: Served) -> None:
    counters = life(1, 3, 0)
    data = {"resultType": "matrix", "result": scraped(CANARY, counters, NOW - 4)}
    served.answer = _ok(data)
    prometheus = Prometheus(served.url, now=lambda: NOW)
    assert await prometheus.readings(KEY, (CANARY, STABLE)) == [direct(CANARY, counters, NOW - 4)]
    assert served.asked == [("/team/api/v1/query", query(KEY))]
    await prometheus.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (answers(400, '{"status": "error", "error": "parse error"}'), "parse error"),
        (answers(503, "no upstream"), "status 503"),
        (answers(200, "<html>"), "no answer of Prometheus'"),
        (answers(200, "[]"), "no answer of Prometheus'"),
        (_ok({"resultType": "vector", "result": []}), "not the answer to a range"),
        (_ok({"resultType": "matrix", "result": {}}), "not the answer to a range"),
        (hang, "no answer within 0.2 s"),
    ],
)
async def test_what_cannot_be_read_is_an_error_and_not_asked_again(
    served: Served, answer: Answer, told: str
) -> None:
    served.answer = answer
    prometheus = Prometheus(served.url, timeout_s=0.2 if answer is hang else 5.0)
    with pytest.raises(ReadError, match=told):
        await prometheus.readings(KEY, (CANARY,))
    assert len(served.asked) == 1
    await prometheus.close()


async def test_nobody_there_is_an_error() -> None:
    prometheus = Prometheus("http://127.0.0.1:1")
    with pytest.raises(ReadError, match="api/v1/query"):
        await prometheus.readings(KEY, (CANARY,))
    await prometheus.close()
