"""What pages presume, in pieces: objects of the cluster, files, the chart."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from e2e.cluster import gobuild
from helm.chart import objects
from tests.contract.documentation.kubelet import ADDRESS
from tests.contract.documentation.models import V1, V3, document, rolling, running
from tests.contract.documentation.reader import Reader, collection
from tests.unit.cli import documents as d
from tidegate.api import names
from tidegate.cli.planning import path_of

Setup = Callable[[Reader], None]
RELEASE: Final = (
    "helm install tidegate helm/tidegate --namespace tidegate-system --create-namespace"
)


def nothing(reader: Reader) -> None:
    """As it is."""


def of_models(**found: d.Document) -> Setup:
    """ModelDeployments in the namespace models, which is the context's."""

    def setup(reader: Reader) -> None:
        reader.space("models")
        for name, one in found.items():
            reader.model(one, name)

    return setup


def files(**texts: str) -> Setup:
    """Files; in their names ``_`` stands for the dot before the ending."""

    def setup(reader: Reader) -> None:
        for name, text in texts.items():
            reader.write(name.replace("_", "."), text)

    return setup


def shown(page: str, name: str, contains: str) -> Setup:
    """A manifest of the page, in a file."""
    return lambda reader: reader.write(name, reader.block(page, contains))


def both(*setups: Setup) -> Setup:
    """One after the other."""

    def setup(reader: Reader) -> None:
        for one in setups:
            one(reader)

    return setup


def is_released(reader: Reader) -> bool:
    """Whether Helm knows the release."""
    path, labels = path_of("v1", "secrets", "tidegate-system"), "owner=helm,name=tidegate"
    return bool(reader.kube.request("GET", path, params={"labelSelector": labels})["items"])


def released(reader: Reader) -> None:
    """The chart is installed."""
    if not is_released(reader):
        reader.must(RELEASE)
    with_values(reader, {})


def without_release(reader: Reader) -> None:
    """The cluster before Tidegate comes."""
    if is_released(reader):
        reader.must("helm uninstall tidegate --namespace tidegate-system")


def with_values(reader: Reader, values: Mapping[str, Any]) -> None:
    """What the operator and `plan` go by is as with these values; quicker than an upgrade."""
    found = [o for o in objects(values) if o["metadata"]["name"] == "tidegate-platform"]
    reader.kube.apply_all([o for o in found if o["kind"] == "ConfigMap"])


def offline(reader: Reader) -> None:
    """The values and the manifest of the page, the first in force."""
    page = "docs/guide/air-gapped.md"
    reader.write("values.yaml", reader.block(page, "imageRegistry"))
    reader.write("ranker.yaml", reader.block(page, "name: ranker"))
    released(reader)
    with_values(reader, yaml.safe_load(reader.block(page, "imageRegistry")))


def routed(reader: Reader) -> None:
    """Gateway API's HTTPRoutes are there."""
    folder = (
        gobuild.module_folder("envoy-gateway", "sigs.k8s.io/gateway-api") / "config/crd/standard"
    )
    text = (folder / "gateway.networking.k8s.io_httproutes.yaml").read_text(encoding="utf-8")
    reader.kube.apply_all([yaml.safe_load(text)])


def route(reader: Reader, name: str, **meta: Any) -> None:
    """A route between two Services."""
    refs = [{"name": f"{name}-{n}", "port": 8000, "weight": w} for n, w in (("a", 95), ("b", 5))]
    body = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": reader.namespace, **meta},
        "spec": {"parentRefs": [{"name": "public"}], "rules": [{"backendRefs": refs}]},
    }
    reader.kube.apply_all([body])


def with_node(reader: Reader) -> None:
    """One node, which has room."""
    state: dict[str, Any]
    room = {"cpu": "32", "memory": "128Gi", "pods": "110"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    reader.kube.apply_all([node])
    live = reader.kube.request("GET", "/api/v1/nodes/node-1")
    ready = [{"type": "Ready", "status": "True"}]
    live["spec"] = {}  # admission taints a new one
    live = reader.kube.request("PUT", "/api/v1/nodes/node-1", body=live)
    state = {"allocatable": room, "capacity": room, "conditions": ready}
    if reader.kubelet:
        state["addresses"] = [{"type": "InternalIP", "address": ADDRESS}]
        state["daemonEndpoints"] = {"kubeletEndpoint": {"Port": reader.kubelet}}
    reader.kube.request("PUT", "/api/v1/nodes/node-1/status", body=live | {"status": state})


def with_logs(reader: Reader) -> None:
    """A rollout under way, and an operator, on a node whose kubelet gives their logs."""
    of_models()(reader)
    with_node(reader)
    rolling(reader)
    labels = {"app.kubernetes.io/component": "operator"}
    running(reader, "operator", labels, space="tidegate-system", containers=("operator",))


def with_event(reader: Reader) -> None:
    """Something was said of magika."""
    live = reader.kube.request("GET", f"{collection(reader.namespace)}/magika")
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    about = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "magika"}
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "magika.", "namespace": reader.namespace},
        "involvedObject": about | {"namespace": reader.namespace, "uid": live["metadata"]["uid"]},
        "type": "Normal",
        "reason": "Promoted",
        "message": "it serves",
        "action": "Promoted",
        "reportingComponent": names.GROUP,
        "reportingInstance": "test",
        "eventTime": stamp,
    }
    reader.kube.request("POST", f"/api/v1/namespaces/{reader.namespace}/events", body=body)


def with_lease(reader: Reader) -> None:
    """An operator led."""
    meta = {"name": "tidegate-operator", "namespace": "tidegate-system"}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
    reader.kube.apply_all([lease | {"spec": {"holderIdentity": "operator-x"}}])


def command_line(reader: Reader) -> None:
    """Three models; a node; cy, who may change them and ask no verb; a model's files; inputs."""
    both(released, routed, of_models(detector=d.ROLLED_BACK, ranker=d.STEADY))(reader)
    with_node(reader)
    rolling(reader)
    api = "rbac.authorization.k8s.io"
    meta = {"name": "cy", "namespace": "models"}
    rule = {"apiGroups": [names.GROUP], "resources": [names.PLURAL]}
    rule["verbs"] = ["get", "list", "watch", "patch"]
    reader.kube.apply_all(
        [
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": api, "kind": "Role", "name": "cy"},
                "subjects": [{"kind": "User", "name": "cy", "apiGroup": api}],
            },
        ]
    )
    config = 'name: "magika"\nbackend: "python"\nmax_batch_size: 8\n'
    reader.write("repositories/v1/magika/config.pbtxt", config)
    reader.write("repositories/v1/magika/1/model.py", "class TritonPythonModel: ...\n")
    reader.write("repositories/v1/magika/1/model.onnx", bytes(1024 * 1024))
    reader.write("repositories/v1/magika/1/labels.json", "[]" * 10_000)
    reader.write("magika.yaml", document(V3))
    reader.write("bad.yaml", document(V1, slo={"maxErrorRate": "200%"}))
    for name, text in (("python", "import os"), ("mail", "write to ada@example.com")):
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
        reader.write(f"inputs/{name}.json", json.dumps({"inputs": [tensor]}))
