"""One manifest becomes a model that answers, and says so wherever one looks."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

import httpx
import pytest

from e2e.cluster import paths
from e2e.cluster.kube import KubeClient, wait_for
from e2e.demo import client as demo
from e2e.tests.kubectl import kubectl
from e2e.tests.load import HttpClient, ask_grpc, ask_http
from e2e.tests.space import (
    API,
    KIND,
    READY_SECONDS,
    SETTINGS,
    Space,
    condition,
    model_deployment,
    stable,
)

FILES: Final = {
    "operator/tidegate/plan.py": "python",
    "Makefile": "makefile",
    "LICENSE": "txt",
    "pyproject.toml": "toml",
    "e2e/cluster/go/deviceplugin/main.go": "go",
    "crds/modeldeployments.yaml": "yaml",
}
"""Files of this repository and what Magika's third generation says of them."""
HOST: Final = "whoami.example.test"
GATEWAY: Final = {"parentRefs": [{"name": "public", "namespace": SETTINGS.infra_namespace}]}


@pytest.fixture(scope="module")
def magika_name(space: Space, magika: dict[str, str]) -> str:
    """A Magika that serves on one GPU, with an SLO."""
    name = "magika"
    spec = {
        "runtime": {"gpu": {"count": 1}},
        "slo": {"latency": {"target": "100ms"}, "maxErrorRate": "1%"},
    }
    space.apply(model_deployment(name, magika["v3"], spec))
    space.ready(name)
    return name


@pytest.fixture(scope="module")
def whoami_name(space: Space, whoami: dict[str, str]) -> str:
    """A model that says in which pod it is: one pod, behind the gateway too."""
    name = "whoami"
    spec = {"traffic": {"gateway": GATEWAY | {"hostnames": [HOST]}}}
    space.apply(model_deployment(name, whoami["one"], spec))
    space.ready(name)
    return name


@pytest.mark.parametrize("protocol", demo.PROTOCOLS)
def test_real_files_get_their_labels(space: Space, magika_name: str, protocol: str) -> None:
    address = space.address(magika_name) if protocol == "HTTP" else space.grpc_address(magika_name)
    files = [paths.REPOSITORY / name for name in FILES]
    found = demo.PROTOCOLS[protocol](address, files, model=magika_name)
    root = Path(paths.REPOSITORY)
    assert {str(a.file.relative_to(root)): a.label for a in found} == FILES


def test_pod_sees_the_gpu_that_the_node_gave_it(space: Space, whoami: dict[str, str]) -> None:
    space.apply(model_deployment("gpu", whoami["one"], {"runtime": {"gpu": {"count": 2}}}))
    space.ready("gpu")
    ids = ask_http(space.address("gpu"), "gpu", "x")["gpus"].split(",")
    assert len(set(ids)) == 2
    assert all(ids)
    space.kube.delete(API, KIND, "gpu", space.name)


def test_status_says_what_serves(space: Space, magika_name: str, magika: dict[str, str]) -> None:
    found = space.live(magika_name)
    status, revision = found["status"], stable(found)
    [pod] = space.pods(magika_name)
    assert (status["replicas"], status["readyReplicas"]) == (1, 1)
    assert revision["source"] == magika["v3"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", revision["digest"])
    assert revision["name"] == f"{magika_name}-{revision['hash']}"
    assert pod["metadata"]["labels"]["tidegate.dev/revision"] == revision["hash"]
    assert status["traffic"] == [{"revision": revision["hash"], "weight": 100}]
    assert status["url"] == f"http://{magika_name}.{space.name}.svc:8000"
    assert [h["revision"] for h in status["history"]] == [revision["hash"]]
    told = {c["type"]: c["status"] for c in status["conditions"]}
    assert told == told | {
        "Available": "True",
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "WaitingForGPU": "False",
        "RuntimeOutdated": "False",
    }
    assert {c["observedGeneration"] for c in status["conditions"]} == {
        found["metadata"]["generation"]
    }
    assert status["inactive"] == [], "every field of this spec is acted on"
    events = kubectl(space, "get", "events", "-o", "jsonpath={.items[*].reason}").split()
    assert {"RevisionCreated", "Ready"} <= set(events)


def test_kubectl_prints_one_telling_line(space: Space, magika_name: str) -> None:
    head, line = kubectl(space, "get", "mdep", magika_name).splitlines()
    assert head.split() == [
        *("NAME", "READY", "STABLE", "CANARY", "WEIGHT", "REPLICAS", "P99/SLO", "ERRORS/SLO"),
        "AGE",
    ]
    revision = stable(space.live(magika_name))
    assert line.split()[:4] == [magika_name, "True", revision["hash"], "1"]
    assert line.split()[4:6] == ["-/100ms", "-/1%"]
    wide = kubectl(space, "get", "tidegate", "-o", "wide")
    assert magika_name in wide


def test_scale_in_external_mode_moves_pods_and_balances(space: Space, whoami_name: str) -> None:
    first = space.restarts(whoami_name)
    space.patch(whoami_name, {"scaling": {"mode": "External"}})
    kubectl(space, "scale", "mdep", whoami_name, "--replicas=2")
    space.ready(whoami_name)
    found = space.live(whoami_name)
    assert found["spec"]["replicas"] == 2
    assert first.items() <= space.restarts(whoami_name).items()
    pods = {pod["metadata"]["name"] for pod in space.pods(whoami_name)}
    assert len(pods) == 2
    # A connection stays with a pod; new ones are spread.
    http = [ask_http(space.address(whoami_name), whoami_name, "x")["pod"] for _ in range(30)]
    grpc = [ask_grpc(space.grpc_address(whoami_name), whoami_name, "x")["pod"] for _ in range(30)]
    assert set(http) == set(grpc) == pods
    scale = kubectl(
        space, "get", "mdep", whoami_name, "--subresource=scale", "-o", "jsonpath={.status}"
    )
    assert '"replicas":2' in scale
    assert '"selector":"tidegate.dev/deployment=whoami"' in scale

    space.patch(whoami_name, {"scaling": {"mode": "Fixed"}, "replicas": 1})
    space.ready(whoami_name)
    space.until(whoami_name, lambda f: f["status"]["replicas"] == 1, "one replica")
    assert len(space.pods(whoami_name)) == 1


def test_gateway_serves_http_and_grpc_on_one_hostname(space: Space, whoami_name: str) -> None:
    address = gateway_address(space.kube)
    [pod] = [p["metadata"]["name"] for p in space.pods(whoami_name)]

    def by_gateway() -> bool:
        try:
            return bool(ask_http(address, whoami_name, "x", HOST)["label"] == "one")
        except httpx.HTTPStatusError:
            return False  # the gateway has not taken the route yet

    wait_for(
        by_gateway,
        f"{HOST} through the gateway",
        timeout_seconds=READY_SECONDS,
        state=lambda: kubectl(space, "get", "httproute", whoami_name, "-o", "yaml"),
    )
    assert ask_http(address, whoami_name, "x", HOST)["pod"] == pod
    assert ask_grpc(address, whoami_name, "x", HOST)["pod"] == pod
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        ask_http(address, whoami_name, "x", "other.example.test")
    assert space.live(whoami_name)["status"]["url"] == f"http://{HOST}"

    space.patch(whoami_name, {"traffic": None})
    space.until(
        whoami_name,
        lambda _: space.get("gateway.networking.k8s.io/v1", "HTTPRoute", whoami_name) is None,
        "its route is gone with traffic.gateway",
    )


def test_closed_apis_stay_closed(space: Space, whoami_name: str) -> None:
    client = HttpClient(space.address(whoami_name), whoami_name)
    client.ask("x")
    client.close()
    base = f"http://{space.address(whoami_name)}"
    for path in (
        "/v2/repository/index",
        f"/v2/repository/models/{whoami_name}/unload",
        "/v2/systemsharedmemory/region/x/register",
    ):
        answer = httpx.post(base + path, json={}, trust_env=False)
        assert answer.status_code in (403, 404), f"{path}: {answer.status_code} {answer.text}"
    assert ask_http(space.address(whoami_name), whoami_name, "x")["label"] == "one"


def test_without_sidecar(space: Space, whoami: dict[str, str]) -> None:
    name = "bare"
    runtime = {"sidecar": "Off", "env": [{"name": "GREETING", "value": "hello"}]}
    space.apply(model_deployment(name, whoami["one"], {"runtime": runtime}))
    space.ready(name)
    [pod] = space.pods(name)
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert Counter(c["name"] for c in containers) == {"fetch": 1, "triton": 1}
    assert ask_http(space.address(name), name, "x")["greeting"] == "hello"
    assert ask_grpc(space.grpc_address(name), name, "x")["label"] == "one"
    answer = httpx.post(f"http://{space.address(name)}/v2/repository/index", trust_env=False)
    assert answer.status_code == 403
    assert condition(space.live(name), "Available")["status"] == "True"


def gateway_address(kube: KubeClient) -> str:
    """``host:port`` of the Gateway of the cluster."""
    gateway = kube.get(
        "gateway.networking.k8s.io/v1", "Gateway", "public", SETTINGS.infra_namespace
    )
    assert gateway is not None
    return f"{gateway['status']['addresses'][0]['value']}:80"
