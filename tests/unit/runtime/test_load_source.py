"""What is asked of one pod, and what its answers and silences come to."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from tests.unit.measurement.pages import Cluster, page
from tests.unit.runtime.server import serving
from tidegate.autoscaling.reading import Batch, TritonStats
from tidegate.resources.sidecar import TrafficClass
from tidegate.runtime import load_source
from tidegate.runtime.load_source import PAGE, LoadPages, LoadPod, in_flight
from tidegate.runtime.pods import PodAt, ReadError

NOW = 1_700_000_000.0
STATS = {
    "model_stats": [
        {
            "name": "net",
            "version": "1",
            "inference_count": 7,
            "execution_count": 3,
            "inference_stats": {"success": {"count": 5, "ns": 1}, "fail": {"count": 1, "ns": 1}},
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": {"count": 1, "ns": 1_000_000},
                    "compute_infer": {"count": count, "ns": count * 20_000_000},
                    "compute_output": {"count": 1, "ns": 0},
                }
                for size, count in ((1, 1), (3, 2))
            ],
        }
    ]
}
BATCHES = (Batch(1, 1, 21.0), Batch(3, 2, 41.0))
METRICS = """
nv_inference_request_success{model="net",version="1"} 6
nv_inference_count{model="net",version="1"} 8
nv_inference_exec_count{model="net",version="1"} 4
nv_inference_pending_request_count{model="net",version="1"} 2
"""


@dataclass
class Served:
    """A pod's doors, all at one."""

    texts: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def pod(self, *, sidecar: bool = True) -> LoadPod:
        return LoadPod(PodAt("uid", "pod", "r1", f"127.0.0.1:{self.port}"), sidecar)


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    given = Served(
        {
            "/stats/prometheus": page({"client_http": Cluster({200: 3}, in_flight=2)}),
            "/v2/models/net/stats": json.dumps(STATS),
            "/v2/models/net/config": json.dumps({"max_batch_size": 8}),
            "/metrics": METRICS,
        }
    )

    async def answer(request: web.Request) -> web.Response:
        given.asked.append(request.raw_path)
        text = given.texts.get(request.path)
        return web.Response(status=503) if text is None else web.Response(text=text)

    async with serving(answer) as address:
        given.port = int(address.rpartition(":")[2])
        for name in ("TRITON_HTTP_PORT", "TRITON_METRICS_PORT"):
            monkeypatch.setattr(load_source, name, given.port)
        yield given


@pytest.fixture
async def pages() -> AsyncIterator[LoadPages]:
    made = LoadPages()
    yield made
    await made.close()


async def test_the_sidecars_page_and_tritons_statistics(served: Served, pages: LoadPages) -> None:
    look = await pages.look(served.pod(), "net", lambda: NOW)
    assert served.asked == [PAGE, "/v2/models/net/stats"]
    assert (look.pod, look.at_s) == ("uid", NOW)
    assert look.reading is not None
    assert look.reading.classes[TrafficClass.CLIENT].succeeded == 3
    assert look.triton == TritonStats(BATCHES, succeeded=5, failed=1, items=7)
    assert in_flight(look) == 2


async def test_without_a_model_only_the_sidecar_is_asked(served: Served, pages: LoadPages) -> None:
    look = await pages.look(served.pod(), "", lambda: NOW)
    assert served.asked == [PAGE]
    assert look.triton is None


@pytest.mark.parametrize(
    "text",
    [None, "<html>", "[]", '{"model_stats": []}', '{"model_stats": [{"inference_stats": 1}]}'],
)
async def test_a_model_that_is_not_there_yet(
    served: Served, pages: LoadPages, text: str | None
) -> None:
    del served.texts["/v2/models/net/stats"]
    if text is not None:
        served.texts["/v2/models/net/stats"] = text
    look = await pages.look(served.pod(), "net", lambda: NOW)
    assert look.reading is not None
    assert look.triton is None


@pytest.mark.parametrize("text", [None, "nothing of Envoy's", "envoy_server_uptime{} -1"])
async def test_a_sidecar_that_does_not_answer(
    served: Served, pages: LoadPages, text: str | None
) -> None:
    del served.texts["/stats/prometheus"]
    if text is not None:
        served.texts["/stats/prometheus"] = text
    with pytest.raises(ReadError):
        await pages.look(served.pod(), "net", lambda: NOW)
    assert len(served.asked) == 1  # none is asked again


async def test_without_a_sidecar_triton_is_asked_itself(served: Served, pages: LoadPages) -> None:
    look = await pages.look(served.pod(sidecar=False), "net", lambda: NOW)
    assert served.asked == ["/metrics", "/v2/models/net/stats"]
    # The counts are the metrics' own: what waits belongs to them. Only the batches are not there.
    assert look.triton == TritonStats(BATCHES, succeeded=6, items=8, pending=2)
    assert look.reading is None
    assert in_flight(look) == 2
    del served.texts["/v2/models/net/stats"]
    look = await pages.look(served.pod(sidecar=False), "net", lambda: NOW)
    assert look.triton == TritonStats((), succeeded=6, items=8, pending=2)
    with pytest.raises(ReadError, match="without the sidecar"):
        await pages.look(served.pod(sidecar=False), "", lambda: NOW)
    del served.texts["/metrics"]
    with pytest.raises(ReadError):
        await pages.look(served.pod(sidecar=False), "net", lambda: NOW)


async def test_the_models_configuration(served: Served, pages: LoadPages) -> None:
    for sidecar in (True, False):
        found = await pages.config(served.pod(sidecar=sidecar), "net")
        assert found == {"max_batch_size": 8}
    served.texts["/v2/models/net/config"] = "[]"
    with pytest.raises(ReadError, match="object"):
        await pages.config(served.pod(), "net")
