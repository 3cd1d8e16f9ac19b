"""`doctor` asks a real Prometheus through a real API server, which proxies to its Service."""

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

from e2e.cluster import gobuild
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.kube import KubeClient, wait_for
from e2e.cluster.progress import Progress
from e2e.ports import free_ports
from tests.contract.manifests import manifest
from tests.contract.test_command_line import tidegate
from tests.unit.cli import documents as d
from tidegate.api import crd, names
from tidegate.cli.scraping import LABEL

pytestmark = pytest.mark.contract

SYSTEM = "tidegate-system"
SPACE = "scraped"
COLLECTION = f"/apis/{names.API_VERSION}/namespaces/{SPACE}/{names.PLURAL}"
URL = f"http://prometheus.{SPACE}:9090"


def own_address() -> str:
    """Of this machine, and no loopback: the API server proxies to none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # of documentation, RFC 5737; nothing is sent
        return str(probe.getsockname()[0])


PAGES = {
    "/stats/prometheus": b"# TYPE envoy_server_uptime gauge\nenvoy_server_uptime{} 60\n",
    "/metrics": b"# TYPE tidegate_leader gauge\ntidegate_leader 1\n"
    b"# TYPE tidegate_modeldeployment_condition gauge\n"
    b'tidegate_modeldeployment_condition{namespace="a",modeldeployment="b",condition="Ready"} 1\n',
}


class Page(BaseHTTPRequestHandler):
    """As much of a sidecar's page and of the operator's as says that there is a pod."""

    def do_GET(self) -> None:
        body = PAGES[self.path]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Prometheus:
    """One that runs, and what it is to scrape.

    Attributes:
        address: of it; no loopback.
        port: of it.
        file: its configuration.
        page: address of the pages.
    """

    address: str
    port: int
    file: Path
    page: str

    def scrape(self, *jobs: dict[str, Any]) -> None:
        """From now on these jobs, the models' besides."""
        model = {"namespace": SPACE, "pod": "known-1", LABEL: "known"}
        other = {"namespace": SPACE, "pod": "gateway-1"}
        pods = [self.job("sidecar", **model), self.job("a-gateway", **other)]
        for one in pods:
            one["metrics_path"] = "/stats/prometheus"
        times = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        text = yaml.safe_dump({"global": times, "scrape_configs": [*pods, *jobs]})
        self.file.write_text(text, encoding="utf-8")

    def job(self, name: str, at: str = "", **labels: str) -> dict[str, Any]:
        """A job that scrapes one page."""
        targets = [{"targets": [at or self.page], "labels": labels}]
        return {"job_name": name, "static_configs": targets}

    def reload(self) -> None:
        """Have it read its configuration."""
        httpx.post(f"http://{self.address}:{self.port}/-/reload").raise_for_status()

    def value(self, query: str) -> str:
        """Of a query with one answer; '' where there is none, or nobody answers."""
        try:
            answer = httpx.get(
                f"http://{self.address}:{self.port}/api/v1/query", params={"query": query}
            )
        except httpx.TransportError:
            return ""
        found = answer.json()["data"]["result"] if answer.status_code == 200 else []
        return str(found[0]["value"][1]) if found else ""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes a pod of the model *known*, and another Envoy."""
    folder, address = tmp_path_factory.mktemp("prometheus"), own_address()
    pod = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=pod.serve_forever, daemon=True).start()
    (port,) = free_ports(1, address)
    found = Prometheus(address, port, folder / "prometheus.yml", f"127.0.0.1:{pod.server_port}")
    found.scrape()
    command = [
        str(gobuild.build("prometheus", Progress())),
        f"--config.file={found.file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}:{port}",
        "--web.enable-lifecycle",
    ]

    def has_scraped() -> bool:
        return found.value("count(envoy_server_uptime)") == "2"

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(has_scraped, f"a scrape (log: {folder / 'log'})", timeout_seconds=60)
        yield found
    finally:
        process.kill()
        process.wait()
        pod.shutdown()
        pod.server_close()


@pytest.fixture(scope="module")
def cluster(kube: KubeClient, prometheus: Prometheus) -> Iterator[KubeClient]:
    """An operator that is told to ask it, by the name of a Service; two models that serve."""
    address, port = prometheus.address, prometheus.port
    meta = {"name": "prometheus", "namespace": SPACE}
    label = {"app": "operator"}
    operator = {"name": "tidegate-operator", "namespace": SYSTEM}
    env = [
        {"name": "TIDEGATE_LEASE_NAME", "value": "tidegate-operator"},
        {"name": "TIDEGATE_PROMETHEUS_URL", "value": URL},
    ]
    container = {"name": "operator", "image": "operator", "env": env}
    at = {"ip": address, "targetRef": {"kind": "Pod", **meta}}
    made: list[dict[str, Any]] = [
        *(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            for name in (SPACE, SYSTEM)
        ),
        crd.crd(),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"ports": [{"port": 9090, "targetPort": port}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {"containers": [{"name": "prometheus", "image": "prometheus"}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": meta,
            "subsets": [{"addresses": [at], "ports": [{"port": port}]}],
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**operator, "labels": {"app.kubernetes.io/component": "operator"}},
            "spec": {
                "selector": {"matchLabels": label},
                "template": {"metadata": {"labels": label}, "spec": {"containers": [container]}},
            },
        },
    ]
    kube.apply_all(made)
    # The API server proxies to addresses of pods only.
    path = f"/api/v1/namespaces/{SPACE}/pods/prometheus"
    pod = kube.request("GET", path)
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    kube.request("PUT", f"{path}/status", body=pod | {"status": status})
    yield kube
    kube.delete("apps/v1", "Deployment", operator["name"], SYSTEM)


def serving(kube: KubeClient, *wanted: str) -> None:
    """These models, and no others, serve in the namespace."""
    for one in kube.request("GET", COLLECTION)["items"]:
        kube.delete(names.API_VERSION, names.KIND, one["metadata"]["name"], SPACE)
    for name in wanted:
        made = kube.request("POST", COLLECTION, body=manifest(name))
        body = made | {"status": d.STEADY["status"] | {"observedGeneration": 1}}
        kube.request("PUT", f"{COLLECTION}/{name}/status", body=body)


def metrics(config: Path, check: str = "metrics") -> tuple[str, str]:
    """Result and words of a line about Prometheus. No operator runs, so doctor ends with 1."""
    done = tidegate(config, "doctor", "-o", "json", "-n", SPACE, code=1)
    (found,) = [f for f in json.loads(done.stdout)["items"] if f["check"] == check]
    return found["result"], found["message"]


def await_words(config: Path, result: str, said: str, check: str = "metrics") -> None:
    """Wait for what `doctor` is to say: a role is in force some moments after it is written.

    On a busy machine a scrape may fail, too, and Prometheus knows nothing until the next one.
    """
    last = ("", "")

    def is_said() -> bool:
        nonlocal last
        last = metrics(config, check)
        return last[0] == result and said in last[1]

    wait_for(is_said, f"{result}: {said}", timeout_seconds=120, state=lambda: repr(last))


@pytest.fixture
def reader(control_plane: ControlPlane, cluster: KubeClient) -> Path:
    """Somebody who may look at this namespace, at the operator, and ask Services here."""
    api = "rbac.authorization.k8s.io"
    look = ["get", "list"]
    rules = {
        SPACE: [
            {"apiGroups": [names.GROUP], "resources": [names.PLURAL], "verbs": look},
            {"apiGroups": [""], "resources": ["services/proxy"], "verbs": look},
        ],
        SYSTEM: [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": look}],
    }
    for space, some in rules.items():
        meta = {"name": "prom-reader", "namespace": space}
        cluster.apply_all(
            [
                {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": some},
                {
                    "apiVersion": f"{api}/v1",
                    "kind": "RoleBinding",
                    "metadata": meta,
                    "roleRef": {"apiGroup": api, "kind": "Role", "name": "prom-reader"},
                    "subjects": [{"kind": "User", "name": "prom-reader", "apiGroup": api}],
                },
            ]
        )
    return control_plane.kubeconfig_for("prom-reader", ["system:authenticated"])


def test_it_knows_all_that_serve(cluster: KubeClient, reader: Path) -> None:
    serving(cluster, "known")
    await_words(reader, "ok", f"{URL} knows the pods of all 1 that serve")


def test_one_that_is_not_scraped_is_named(cluster: KubeClient, reader: Path) -> None:
    serving(cluster, "known", "unknown")
    said = f"{URL} answers, and knows nothing of 1 of 2 models that serve: {SPACE}/unknown"
    await_words(reader, "warning", said)


NOWHERE = "127.0.0.1:1"
"""Nobody listens there."""


@pytest.mark.parametrize(
    ("at", "more", "query", "result", "said"),
    [
        (None, {}, "absent(tidegate_leader)", "warning", "does not scrape the operator: alerts"),
        ("", {}, "tidegate_leader", "ok", "scrapes all 1 of the operator's replicas"),
        (
            "",
            {"namespace": SYSTEM},
            'count(tidegate_modeldeployment_condition{exported_namespace="a"})',
            "warning",
            "has the models' namespace as exported_namespace",
        ),
        (NOWHERE, {}, "count(up == 0)", "warning", f"does not reach the operator at {NOWHERE}"),
    ],
    ids=["not scraped", "scraped", "labels renamed", "away"],
)
def test_the_operators_own(
    prometheus: Prometheus,
    cluster: KubeClient,
    reader: Path,
    at: str | None,
    more: dict[str, str],
    query: str,
    result: str,
    said: str,
) -> None:
    """The job is named as by the chart's PodMonitor."""
    serving(cluster, "known")
    job = f"{SYSTEM}/tidegate-operator"
    prometheus.scrape(*([] if at is None else [prometheus.job(job, at, **more)]))
    prometheus.reload()
    wait_for(lambda: prometheus.value(query) == "1", f"{query} is 1", timeout_seconds=120)
    await_words(reader, result, said, check="operator's metrics")


def test_one_that_is_away(control_plane: ControlPlane, cluster: KubeClient, reader: Path) -> None:
    path = f"/api/v1/namespaces/{SPACE}/endpoints/prometheus"
    cluster.request("PUT", path, body=cluster.request("GET", path) | {"subsets": []})
    said = "is not to be reached through the API server: no endpoints available for service"
    await_words(reader, "warning", f'{URL} {said} "prometheus"')


def test_without_the_right_to_ask_it(cluster: KubeClient, reader: Path) -> None:
    role = cluster.request(
        "GET", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SPACE}/roles/prom-reader"
    )
    cluster.apply_all(
        [
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": {"name": "prom-reader", "namespace": SPACE},
                "rules": role["rules"][:1],
            }
        ]
    )
    await_words(reader, "unknown", f"services/proxy in {SPACE}, to ask {URL}")
