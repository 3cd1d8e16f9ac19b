"""What each page presumes: files, objects, who types. A page that is not here presumes nothing."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from e2e.cluster import gobuild
from helm.chart import objects
from tests.contract.documentation.reader import ROOT, Reader, collection
from tests.unit.autoscaling.test_decision import loaded
from tests.unit.cli import documents as d
from tidegate.actions import Apply, WriteStatus
from tidegate.api import names
from tidegate.api.names import (
    CHILDREN_MANAGER,
    DECISION_ANNOTATION,
    DIGEST_ANNOTATION,
    LIVE_SINCE_ANNOTATION,
)
from tidegate.autoscaling.explanation import required
from tidegate.cli.planning import KINDS, path_of
from tidegate.observed import Observed, Ref
from tidegate.plan import plan
from tidegate.platform import Platform
from tidegate.record import Phase, Record

Setup = Callable[[Reader], None]


def nothing(reader: Reader) -> None:
    """As it is."""


RELEASE: Final = (
    "helm install tidegate helm/tidegate --namespace tidegate-system --create-namespace"
)
MADE: Final = KINDS[:7]
"""With HTTPRoute."""
V1, V3 = "s3://cli/magika/v1", "s3://cli/magika/v3"


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        setup: what is there before its first command.
        before: what happens before a command, by how it begins.
        instead: words of commands, and what is typed instead of them.
        ends: exit statuses other than 0, by how the command begins.
        users: who types a command, by how it begins; else an administrator.
        differs: commands of whose output only the first line is compared, and why.
    """

    setup: Setup = nothing
    before: Mapping[str, Setup] = field(default_factory=dict)
    instead: Mapping[str, str] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    differs: Mapping[str, str] = field(default_factory=dict)


# Models.

STEP: Final = copy.deepcopy(d.STEP)
STEP["status"]["rollout"]["nextDecision"] = "180 more requests"
SCALED: Final = copy.deepcopy(d.STEADY)
SCALED["status"]["scaling"] = {"reason": required(loaded(85.3, capacity_per_pod=52.5), 2, 85.3)}
SCALED["status"]["scaling"]["desired"] = 2


def spec(uri: str, **more: Any) -> dict[str, Any]:
    """That of the command line's page."""
    source = {"uri": uri, "endpoint": "http://10.96.0.30:8333", "secretName": "s3"}
    return {
        "model": {"source": source},
        "runtime": {"gpu": {"count": 0}},
        "slo": {"latency": {"quantile": "0.99", "target": "100ms"}, "maxErrorRate": "1%"},
        "traffic": {
            "gateway": {
                "parentRefs": [{"name": "public", "namespace": "gateways"}],
                "hostnames": ["magika.example.com"],
            }
        },
        "rollout": {"bake": "1m"},
        **more,
    }


def document(uri: str, name: str = "magika", **more: Any) -> str:
    """A manifest."""
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}}
    return yaml.safe_dump(body | {"spec": spec(uri, **more)})


def decided(reader: Reader, name: str) -> None:
    """One pass of the operator's plan, carried out."""
    kube, space = reader.kube, reader.namespace
    live = kube.request("GET", f"{collection(space)}/{name}")
    children: dict[Ref, Any] = {}
    for api_version, kind, plural in MADE:
        for one in kube.request("GET", path_of(api_version, plural, space))["items"]:
            owners = one["metadata"].get("ownerReferences") or ()
            if any(o["uid"] == live["metadata"]["uid"] for o in owners):
                children[Ref(api_version, kind, one["metadata"]["name"])] = one
    present = frozenset(kind for _, kind, _ in MADE)
    for action in plan(
        Observed(live, children, present_kinds=present), Platform(), datetime.now(UTC)
    ).actions:
        if isinstance(action, Apply):
            meta = {**action.manifest["metadata"], "namespace": space}
            made = {**action.manifest, "metadata": meta}
            kube.apply(made, field_manager=CHILDREN_MANAGER)
        elif isinstance(action, WriteStatus):
            status(reader, name, action.status)


def status(reader: Reader, name: str, found: d.Document) -> None:
    """Put a status, whole."""
    path = f"{collection(reader.namespace)}/{name}"
    live = reader.kube.request("GET", path)
    body = live | {"status": {**found, "observedGeneration": live["metadata"]["generation"]}}
    reader.kube.request("PUT", f"{path}/status", body=body)


def serving(reader: Reader) -> None:
    """Magika's v1, with all that the operator makes for it, as stable."""
    path = collection(reader.namespace)
    reader.by_hand.add("magika")
    reader.kube.delete(names.API_VERSION, names.KIND, "magika", reader.namespace)
    for version, kind, plural in MADE:
        for one in reader.kube.request("GET", path_of(version, plural, reader.namespace))["items"]:
            if (one["metadata"].get("labels") or {}).get(names.DEPLOYMENT_LABEL) == "magika":
                reader.kube.delete(version, kind, one["metadata"]["name"], reader.namespace)
    reader.kube.request("POST", path, body=yaml.safe_load(document(V1)))
    for _ in range(3):
        decided(reader, "magika")
    live = reader.kube.request("GET", f"{path}/magika")
    revisions = path_of("apps/v1", "controllerrevisions", reader.namespace)
    (kept,) = [
        r
        for r in reader.kube.request("GET", revisions)["items"]
        if r["metadata"]["labels"][names.DEPLOYMENT_LABEL] == "magika"
    ]
    meta = kept["metadata"]
    stable = {"name": meta["name"], "hash": meta["labels"][names.REVISION_LABEL]}
    # It served, so all of the traffic stays there.
    annotated(reader, meta["name"], LIVE_SINCE_ANNOTATION, "2026-01-01T00:00:00Z")
    revised = {"revisions": {"stable": stable}, "rollout": {"phase": "Promoted"}}
    status(reader, "magika", live["status"] | revised)
    # Where a rollout stands is written on the route.
    route_ = path_of(*MADE[-1][::2], reader.namespace, "magika")
    record = Record(phase=Phase.PROMOTED, stable=stable["hash"], canary="", weight=1.0)
    body = {"metadata": {"annotations": {DECISION_ANNOTATION: record.dump()}}}
    reader.kube.request("PATCH", route_, body=body, content_type="application/merge-patch+json")
    decided(reader, "magika")


def changed(reader: Reader) -> None:
    """Magika's v3 on trial against v1."""
    serving(reader)
    reader.kube.request(
        "PATCH",
        f"{collection(reader.namespace)}/magika",
        body={"spec": {"model": {"source": {"uri": V3}}}},
        content_type="application/merge-patch+json",
    )
    decided(reader, "magika")
    path = path_of("apps/v1", "controllerrevisions", reader.namespace)
    for one in reader.kube.request("GET", path)["items"]:
        digest = "sha256:" + hashlib.sha256(one["metadata"]["name"].encode()).hexdigest()
        annotated(reader, one["metadata"]["name"], DIGEST_ANNOTATION, digest)


def annotated(reader: Reader, revision: str, key: str, value: str) -> None:
    """An annotation of a ControllerRevision."""
    path = path_of("apps/v1", "controllerrevisions", reader.namespace, revision)
    body = {"metadata": {"annotations": {key: value}}}
    reader.kube.request("PATCH", path, body=body, content_type="application/merge-patch+json")


def named(reader: Reader) -> None:
    """Magika names its golden requests, as the page says."""
    reader.kube.request(
        "PATCH",
        f"{collection(reader.namespace)}/magika",
        body={"spec": {"goldenRequests": {"configMapName": "magika-golden"}}},
        content_type="application/merge-patch+json",
    )


def rolling(reader: Reader) -> None:
    """Magika in a step, with its pods."""
    reader.by_hand.discard("magika")
    reader.model(STEP)
    for one in d.PODS:
        running(reader, one["metadata"]["name"], one["metadata"]["labels"])


def running(reader: Reader, name: str, labels: Mapping[str, str]) -> None:
    """A pod that is ready."""
    path = path_of("v1", "pods", reader.namespace, name)
    meta = {"name": name, "namespace": reader.namespace, "labels": dict(labels)}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
    reader.kube.apply_all(
        [made | {"spec": {"containers": [{"name": "triton", "image": "triton"}]}}]
    )
    ready = [{"type": "Ready", "status": "True"}]
    live = reader.kube.request("GET", path)
    body = live | {"status": {"phase": "Running", "conditions": ready}}
    reader.kube.request("PUT", f"{path}/status", body=body)


# Pages.


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
    room = {"cpu": "32", "memory": "128Gi", "pods": "110"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    reader.kube.apply_all([node])
    live = reader.kube.request("GET", "/api/v1/nodes/node-1")
    ready = [{"type": "Ready", "status": "True"}]
    live["spec"] = {}  # admission taints a new one
    live = reader.kube.request("PUT", "/api/v1/nodes/node-1", body=live)
    body = live | {"status": {"allocatable": room, "capacity": room, "conditions": ready}}
    reader.kube.request("PUT", "/api/v1/nodes/node-1/status", body=body)
    rolling(reader)


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


GOLDEN: Final = "docs/guide/golden-requests.md"
SIMULATED: Final = """\
apiVersion: tidegate.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: detector}}
spec:
  model:
    source: {{uri: "s3://models/detector/v{version}"}}
    config: {{maxBatchSize: 8, dynamicBatching: {{}}}}
  slo: {{latency: {{target: 100ms}}}}
  scaling: {{mode: SLO, minReplicas: 1, maxReplicas: 8}}
"""
RUNBOOKS: Final = "docs/operations/runbooks/"
MIGRATE: Final = "docs/guide/migrate.md"
BARE: Final = "no operator, gateway, node here"

PAGES: Final[Mapping[str, Page]] = {
    "README.md": Page(
        both(without_release, shown("README.md", "my-model.yaml", "name: magika")),
    ),
    "helm/tidegate/README.md": Page(without_release),
    "docs/guide/air-gapped.md": Page(
        both(of_models(), offline),
        ends={"kubectl tidegate doctor": 1},
    ),
    "docs/guide/autoscaling.md": Page(of_models(scorer=SCALED)),
    "docs/guide/cloud.md": Page(
        both(of_models(), files(key_json="{}")),
        before={
            # The page has one for each cloud.
            "kubectl create secret generic models-read -n models --from-literal": lambda r: (
                r.kube.delete("v1", "Secret", "models-read", "models")
            )
        },
    ),
    "docs/guide/command-line.md": Page(
        command_line,
        before={
            "kubectl tidegate diff": changed,
            "kubectl tidegate plan -f magika.yaml": serving,
            "kubectl tidegate load": named,
            "kubectl tidegate promote": rolling,
        },
        instead={
            " --apply": " --apply --url MODEL",
            "http://10.96.115.89:8000 --rate 20 --duration 20s": "MODEL --rate 20 --duration 1s",
            "/etc/bash_completion.d/tidegate": "completion.bash",
        },
        ends={
            "kubectl tidegate plan -f bad.yaml": 1,
            "kubectl tidegate doctor": 1,
            "kubectl tidegate promote": 1,
            "kubectl tidegate abort": 1,
        },
        users={"kubectl tidegate promote": "cy"},
        differs={
            "kubectl tidegate doctor": BARE,
            "kubectl tidegate load": "a busy machine is told that it sent late",
        },
    ),
    "docs/guide/dashboard.md": Page(both(released, of_models())),
    "docs/guide/getting-started.md": Page(
        both(
            shown("docs/guide/getting-started.md", "sentiment.yaml", "name: sentiment"),
            lambda reader: reader.space("tidegate-demo"),
            lambda reader: reader.model(d.STEADY),
            lambda reader: reader.space("default"),
        )
    ),
    "docs/guide/gitops.md": Page(
        both(
            of_models(detector=d.STEADY),
            files(
                **{
                    "chart/Chart_yaml": "apiVersion: v2\nname: models\nversion: 0.1.0\n",
                    "chart/templates/detector_yaml": document(V1, "detector"),
                }
            ),
            lambda reader: reader.kube.delete(
                names.API_VERSION, names.KIND, "detector", reader.namespace
            ),
            lambda reader: reader.must("helm install models ./chart"),
        )
    ),
    GOLDEN: Page(
        both(
            files(**{"golden/python_json": "{}", "example_py": "import os\n", "tide_png": "png"}),
        )
    ),
    "docs/guide/install.md": Page(
        both(without_release, files(values_yaml="replicaCount: 1\n")),
        before={
            "kubectl apply --server-side -f install.yaml": without_release,
            "helm upgrade": released,
        },
        # For real: tests/contract/test_chart.py. Helm would not take over what it left.
        instead={"-f install.yaml": "-f install.yaml --dry-run=server"},
    ),
    MIGRATE: Page(
        both(
            routed,
            of_models(),
            files(old_yaml=(ROOT / "docs/examples/migrate/deployment.yaml").read_text()),
        ),
        before={
            "kubectl patch httproute": lambda r: r.kube.apply_all(
                list(yaml.safe_load_all(r.block(MIGRATE, "name: ranker-cutover")))
            )
        },
    ),
    "docs/guide/own-prometheus.md": Page(
        of_models(ranker=d.STEADY), ends={"kubectl tidegate doctor": 1}
    ),
    "docs/guide/pipelines.md": Page(
        both(
            of_models(),
            lambda r: (r.folder / "overlays").symlink_to(ROOT / "docs/examples/gitops/overlays"),
        )
    ),
    "docs/guide/rollouts.md": Page(of_models(magika=d.STEP)),
    "docs/guide/traffic.md": Page(
        both(
            routed,
            of_models(ranker=d.STEP),
            lambda r: route(r, "ranker", annotations={"tidegate.dev/decision": "Canary"}),
        )
    ),
    "docs/guide/simulate.md": Page(
        both(
            files(
                detector_yaml=SIMULATED.format(version=1),
                v1_yaml=SIMULATED.format(version=1),
                v2_yaml=SIMULATED.format(version=2),
                # As long as on the page.
                day_csv="time,rps\n" + "".join(f"{60 * i},3\n" for i in range(120)),
                load_csv="time,rps\n" + "".join(f"{60 * i},1\n" for i in range(40)),
            )
        ),
        instead={
            "--runs 10": "--runs 1",
            "detector.yaml --trace load": "detector.yaml --trace day",
        },
        differs={"tidegate simulate": "another load: other lines of what was missed"},
    ),
    "docs/operations/troubleshooting.md": Page(of_models(magika=d.STALLED)),
    "docs/operations/upgrades.md": Page(
        both(released, of_models(detector=d.STEADY), files(values_yaml="replicaCount: 1\n")),
        instead={" --wait": ""},  # for pods
        ends={"kubectl tidegate doctor": 1},
    ),
    "docs/reference/events.md": Page(both(of_models(magika=d.STEADY), with_event)),
    f"{RUNBOOKS}no-leader.md": Page(with_lease),
    f"{RUNBOOKS}rolled-back.md": Page(of_models(magika=d.ROLLED_BACK)),
    f"{RUNBOOKS}waiting-for-gpu.md": Page(both(of_models(magika=d.GPU), with_node)),
}


def page_of(name: str) -> Page:
    """A page; a runbook is read with a rollout under way."""
    return PAGES.get(name) or Page(of_models(magika=STEP) if name.startswith(RUNBOOKS) else nothing)
