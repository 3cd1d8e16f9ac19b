"""A real Prometheus scrapes a page as the documentation says: the readings are the pod's own."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import yaml

from e2e.cluster import gobuild
from e2e.cluster.progress import Progress
from e2e.ports import free_ports
from tests.unit.measurement.pages import Cluster, page
from tidegate.runtime.cache import Key
from tidegate.runtime.pods import PodAt
from tidegate.runtime.prometheus import Prometheus
from tidegate.sidecar_page import Reading, read_page

pytestmark = pytest.mark.integration

KEY = Key("models", "m")
POD = PodAt("uid-c", "pod-c", "canary", "")
PAGE = page(
    {
        "client_http": Cluster({200: 90, 404: 2, 503: 3}, took_ms=[5] * 90 + [400] * 5),
        "client_grpc": Cluster(by_grpc_status={0: 7, 13: 1}, took_ms=[5] * 8, in_flight=2),
        "mirrored_http": Cluster({200: 4}, took_ms=[5] * 4),
    },
    60,
)
DEADLINE_S = 60.0


class Page(BaseHTTPRequestHandler):
    """The sidecar's page."""

    def do_GET(self) -> None:
        """Answer a scrape."""
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes the page each second, with the labels that a PodMonitor sets."""
    folder = tmp_path_factory.mktemp("prometheus")
    pod = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=pod.serve_forever, daemon=True).start()
    labels = {"namespace": "models", "pod": "pod-c", "tidegate_dev_deployment": "m"}
    target = {"targets": [f"127.0.0.1:{pod.server_port}"], "labels": labels}
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {
                "job_name": "sidecar",
                "metrics_path": "/stats/prometheus",
                "static_configs": [target],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    (port,) = free_ports(1)
    command = [
        str(gobuild.build("prometheus", Progress())),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        found = f"http://127.0.0.1:{port}"
        await_scrape(found, process, folder / "log")
        yield found
    finally:
        process.kill()
        process.wait()
        pod.shutdown()
        pod.server_close()


def await_scrape(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx.get(f"{url}/api/v1/query", params={"query": "envoy_server_uptime"})
            if answer.json()["data"]["result"]:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(log.read_text(encoding="utf-8")[-4000:])


async def asked(url: str, key: Key) -> list[Reading]:
    prometheus = Prometheus(url)
    try:
        return await prometheus.readings(key, [POD])
    finally:
        await prometheus.close()


def test_the_reading_is_the_pods_own(url: str) -> None:
    (reading,) = asyncio.run(asked(url, KEY))
    assert abs(reading.at_s - time.time()) < 30.0
    assert reading == read_page(
        PAGE, pod=POD.uid, revision=POD.revision, at_s=reading.at_s, name=POD.name
    )


def test_of_another_model_it_knows_nothing(url: str) -> None:
    assert asyncio.run(asked(url, Key("models", "other"))) == []
