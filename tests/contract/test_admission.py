"""What the API server says to a ModelDeployment: the CRD, its rules and its defaults."""

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.kube import KubeClient, KubeError, wait_for
from tests.contract.manifests import COLLECTION, manifest, overlay
from tidegate.api import crd, names, rules, spec

pytestmark = pytest.mark.contract

BAD: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("bad_manifests.yaml").read_text()
)
NEWBORN = "metadata.name=newborn"
FIRST_OF_A_WATCH = {"watch": "1", "timeoutSeconds": "1", "fieldSelector": NEWBORN}
UNCHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was "
    "invalid; correct the existing errors to complete validation"
)


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    kube.apply_all([crd.crd()])
    return kube


@pytest.fixture
def stored(api: KubeClient) -> Iterator[dict[str, Any]]:
    """A ModelDeployment that is really there."""
    yield api.request("POST", COLLECTION, body=manifest("stored"))
    api.delete(names.API_VERSION, names.KIND, "stored")


def answer(api: KubeClient, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and document that a dry run of `kubectl create` gets."""
    response = api.http.post(
        COLLECTION, json=body, params={"dryRun": "All", "fieldValidation": "Strict"}
    )
    return response.status_code, response.json()


def expected_messages(case: dict[str, Any], name: str) -> set[str]:
    if "message" in case:
        return {case["message"]}
    tail = [UNCHECKED] if case.get("blocking") else []
    head = f'ModelDeployment.tidegate.dev "{name}" is invalid: '
    if len(case["causes"] + tail) == 1:
        return {head + case["causes"][0]}
    # The API server walks a block's fields in no fixed order.
    return {
        f"{head}[{', '.join([*order, *tail])}]" for order in itertools.permutations(case["causes"])
    }


def test_the_table_is_worth_its_name() -> None:
    assert len(BAD) >= 60
    assert len({case["what"] for case in BAD}) == len(BAD)


@pytest.mark.parametrize("case", BAD, ids=lambda case: str(case["what"]))
def test_bad_manifest_is_refused_with_the_message(api: KubeClient, case: dict[str, Any]) -> None:
    body = overlay(manifest("bad"), case["set"])
    status, document = answer(api, body)
    assert status in (400, 422)
    assert document["message"] in expected_messages(case, body["metadata"]["name"])


def test_every_rule_has_a_bad_manifest(api: KubeClient) -> None:
    """A rule that nothing in the table breaks is a rule nobody has seen work."""
    seen = "\n".join(cause for case in BAD for cause in case.get("causes", ()))
    unseen = [
        rule.message
        for rule in rules.RULES
        # The longest literal part of the message must have been read by somebody.
        if max(crd.literal_parts(rule.message), key=len) not in seen and "oldSelf" not in rule.rule
    ]
    assert unseen == []


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e400"])
def test_numbers_that_are_none_never_arrive(api: KubeClient, number: str) -> None:
    text = yaml.safe_dump(manifest("bad")) + f"  replicas: {number}\n"
    response = api.http.patch(
        f"{COLLECTION}/bad",
        content=text,
        params={"fieldManager": "test", "dryRun": "All"},
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    assert response.status_code in (400, 422, 500), response.text
    assert api.get(names.API_VERSION, names.KIND, "bad") is None


def test_unknown_fields_are_told_even_without_strictness(api: KubeClient) -> None:
    """A raw client that does not ask for strict fields gets a warning, and nothing is kept."""
    response = api.http.post(
        COLLECTION, json=overlay(manifest("bad"), {"runtime.gpus": 2}), params={"dryRun": "All"}
    )
    assert response.status_code == 201
    assert r"unknown field \"spec.runtime.gpus\"" in response.headers["Warning"]
    assert "gpus" not in response.json()["spec"]["runtime"]


def test_a_bad_manifest_leaves_nothing_behind(api: KubeClient) -> None:
    with pytest.raises(KubeError, match="minReplicas 20 is above maxReplicas 10"):
        api.apply(overlay(manifest("half"), {"scaling.minReplicas": 20}))
    assert api.get(names.API_VERSION, names.KIND, "half") is None


def test_defaults_are_those_of_the_types(api: KubeClient) -> None:
    status, document = answer(api, manifest("good"))
    assert status == 201
    ours = spec.parse(manifest("good")["spec"]).model_dump(
        by_alias=True, mode="json", exclude_none=True
    )
    assert document["spec"] == without_empty(ours)
    assert "replicas" not in document["spec"], "never defaulted: an autoscaler may own it"


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        inner = {k: without_empty(v) for k, v in value.items()}
        return {k: v for k, v in inner.items() if v not in ({}, [])}
    return [without_empty(v) for v in value] if isinstance(value, list) else value


GOOD: dict[str, dict[str, Any]] = {
    "https": {"model.source.uri": "https://models.example.com:8443/a/m.tar.gz?version=3"},
    "hf": {"model.source.uri": "hf://google/magika"},
    "hf revision": {"model.source.uri": "hf://google/magika@v3/onnx"},
    "pvc": {"model.source.uri": "pvc://models/magika"},
    "pvc root": {"model.source.uri": "pvc://models"},
    "oci tag": {"model.source.uri": "oci://registry.example.com:5000/team/magika:v3"},
    "oci digest": {"model.source.uri": f"oci://registry.example.com/magika@sha256:{'a' * 64}"},
    "image": {"model.source.uri": "image:///opt/models/magika"},
    "gs": {"model.source.uri": "gs://models/magika/"},
    "as": {"model.source.uri": "as://account/models/magika"},
    "mlflow": {"model.source.uri": "mlflow://magika/3"},
    "mlflow alias": {"model.source.uri": "mlflow://magika/@champion"},
    "own store": {
        "model.source.endpoint": "http://seaweedfs.storage.svc:8333",
        "model.source.region": "eu-central-1",
        "model.source.secretName": "s3-v1",
    },
    "numbers as quantities": {"runtime.resources": {"cpu": 2, "cpuLimit": 4, "memory": 4294967296}},
    "number as headroom": {"scaling.headroom": 2},
    "replicas in SLO mode": {"slo.latency": {"target": "100ms"}, "replicas": 3},
    "no replicas": {"replicas": 0},
    "canary without sidecar": {"runtime.sidecar": "Off"},
    "mirror with blue-green": {"rollout.strategy": "BlueGreen", "rollout.mirror.mode": "Required"},
    "least target": {"slo.latency": {"target": "1ms"}},
    "target of two digits": {"slo.latency": {"target": "1s500ms"}},
    "most target": {"slo.latency": {"target": "1h"}},
    "CPU": {"runtime.gpu.count": 0, "model.config.instances": {"kind": "CPU", "count": 4}},
    "MIG": {"runtime.gpu.resource": "nvidia.com/mig-1g.10gb"},
    "DRA": {"runtime.gpu.dra": {"selectors": ["device.driver == 'gpu.nvidia.com'"]}},
    "another vendor": {"runtime.gpu.resource": "amd.com/gpu"},
    "image by digest": {"runtime.image": f"nvidia/tritonserver@sha256:{'0' * 64}"},
    "image of a registry": {"runtime.image": "Registry.example.com:5000/team/triton:24.10-py3"},
    "recommended labels": {"runtime.podLabels": {"app.kubernetes.io/part-of": "search"}},
    "drain annotation": {
        "runtime.podAnnotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    },
    "tolerations": {
        "runtime.tolerations": [
            {"operator": "Exists"},
            {"key": "dedicated", "value": "models", "effect": "NoExecute", "tolerationSeconds": 60},
        ]
    },
    "two listeners": {
        "traffic.gateway": {
            "parentRefs": [
                {"name": "public", "namespace": "infra", "sectionName": "http"},
                {"name": "public", "namespace": "infra", "sectionName": "https"},
                {"name": "public"},
            ],
            "hostnames": ["*.models.example.com"],
            "grpcHostnames": ["grpc.example.com"],
        }
    },
    "metacharacters in an override": {
        "model.config.override": 'parameters: { key: "a" value: { string_value: "{}\\n\\"é" } }'
    },
    "longest name": {"metadata.name": "m" * 40},
}


@pytest.mark.parametrize("change", GOOD.values(), ids=GOOD.keys())
def test_good_manifest_is_accepted_and_parsed(api: KubeClient, change: dict[str, Any]) -> None:
    status, document = answer(api, overlay(manifest("good"), change))
    assert status == 201, document["message"]
    spec.parse(document["spec"])


def test_the_largest_manifest_is_accepted(api: KubeClient) -> None:
    """Server-side apply bears what the 262,144 bytes of kubectl's annotation would not."""
    body = overlay(
        manifest("large"),
        {
            "runtime.env": [{"name": f"V{i}", "value": "x" * 4096} for i in range(64)],
            "runtime.podAnnotations": {f"a{i}": "y" * 4096 for i in range(16)},
            "model.config.override": "#" * 65536,
        },
    )
    stored = api.apply(body)
    assert len(str(stored["spec"])) > 390_000
    assert len(spec.parse(stored["spec"]).runtime.env) == 64
    api.delete(names.API_VERSION, names.KIND, "large")


class TestImmutable:
    def put(self, api: KubeClient, stored: dict[str, Any], change: dict[str, Any]) -> None:
        body = overlay(copy.deepcopy(stored), change)
        api.request("PUT", f"{COLLECTION}/stored", body=body, params={"dryRun": "All"})

    def test_another_model_name(self, api: KubeClient, stored: dict[str, Any]) -> None:
        with pytest.raises(KubeError) as caught:
            self.put(api, stored, {"model.name": "other"})
        assert caught.value.message == (
            'ModelDeployment.tidegate.dev "stored" is invalid: spec.model.name: Invalid value: '
            '"object": clients ask for this model as stored and the name cannot change; make '
            "another ModelDeployment for the new name"
        )

    def test_a_model_name_taken_back(self, api: KubeClient) -> None:
        path = f"{COLLECTION}/renamed"
        body = api.request(
            "POST", COLLECTION, body=overlay(manifest("renamed"), {"model.name": "magika"})
        )
        with pytest.raises(KubeError, match="clients ask for this model as magika"):
            api.request("PUT", path, body=overlay(body, {"model.name": None}))
        api.delete(names.API_VERSION, names.KIND, "renamed")

    def test_the_same_name_written_out(self, api: KubeClient, stored: dict[str, Any]) -> None:
        self.put(api, stored, {"model.name": "stored"})

    @pytest.mark.parametrize(
        "change",
        [
            {"model.source.uri": "hf://google/magika"},
            {"model.backend": "python"},
            {"runtime.sidecar": "Off"},
            {"runtime.gpu.count": 0},
            {"rollout.strategy": "BlueGreen"},
            {"scaling.mode": "External", "replicas": 2},
        ],
        ids=str,
    )
    def test_all_else_may_change(
        self, api: KubeClient, stored: dict[str, Any], change: dict[str, Any]
    ) -> None:
        self.put(api, stored, change)


class TestScale:
    @pytest.mark.parametrize(("mode", "before"), [("SLO", None), ("Fixed", None), ("External", 1)])
    def test_kubectl_scale(self, api: KubeClient, mode: str, before: int | None) -> None:
        """In SLO mode too: the operator ignores it there and says so in status."""
        change = {"slo.latency": {"target": "100ms"}, "scaling.mode": mode, "replicas": before}
        path = f"{COLLECTION}/scaled"
        api.delete(names.API_VERSION, names.KIND, "scaled")
        api.request("POST", COLLECTION, body=overlay(manifest("scaled"), change))
        # Without a look at /scale first, as kubectl does it: the API server has no scale to show
        # where replicas is absent.
        api.request(
            "PATCH",
            f"{path}/scale",
            body={"spec": {"replicas": 3}},
            content_type="application/merge-patch+json",
        )
        assert api.request("GET", path)["spec"]["replicas"] == 3
        api.request(
            "PATCH",
            f"{path}/status",
            body={"status": {"replicas": 2, "selector": "tidegate.dev/deployment=scaled"}},
            content_type="application/merge-patch+json",
        )
        assert api.request("GET", f"{path}/scale")["status"] == {
            "replicas": 2,
            "selector": "tidegate.dev/deployment=scaled",
        }
        api.delete(names.API_VERSION, names.KIND, "scaled")

    def test_an_autoscaler_can_begin(self, api: KubeClient) -> None:
        change = {"scaling.mode": "External", "replicas": 2}
        api.request("POST", COLLECTION, body=overlay(manifest("external"), change))
        scale = api.request("GET", f"{COLLECTION}/external/scale")
        assert scale["spec"] == {"replicas": 2}
        # As an HPA does it.
        api.request("PUT", f"{COLLECTION}/external/scale", body={**scale, "spec": {"replicas": 5}})
        # The manifest's own apply, which no longer names replicas, leaves them alone.
        body = overlay(manifest("external"), {"scaling.mode": "External"})
        assert api.apply(body)["spec"]["replicas"] == 5
        api.delete(names.API_VERSION, names.KIND, "external")

    def test_beyond_the_bound(self, api: KubeClient, stored: dict[str, Any]) -> None:
        with pytest.raises(KubeError, match="less than or equal to 1000"):
            api.request(
                "PATCH",
                f"{COLLECTION}/stored/scale",
                body={"spec": {"replicas": 1001}},
                content_type="application/merge-patch+json",
            )


def test_what_nobody_has_looked_at_says_so_from_its_first_moment(api: KubeClient) -> None:
    """Else kstatus, by which Flux and Helm judge, takes it for ready."""
    path = f"{COLLECTION}/newborn"
    made = api.request(
        "PATCH",
        path,
        body=manifest("newborn"),
        params={"fieldManager": "kustomize-controller"},
        content_type="application/apply-patch+yaml",
    )

    def first_event() -> str | None:
        return next(iter(api.http.get(COLLECTION, params=FIRST_OF_A_WATCH).text.splitlines()), None)

    # A busy API server may let the second of a watch go by without a word.
    first = json.loads(wait_for(first_event, "a watch's first event", timeout_seconds=120))
    (listed,) = api.request("GET", COLLECTION, params={"fieldSelector": NEWBORN})["items"]
    for found in (made, api.request("GET", path), listed, first["object"]):
        assert found["status"] == crd.UNSEEN
        assert found["status"]["observedGeneration"] < found["metadata"]["generation"]
    managers = made["metadata"]["managedFields"]
    assert ["f:status" in m["fieldsV1"] for m in managers] == [False], "nobody owns it"
    api.request("DELETE", path)


def test_status_is_a_subresource(api: KubeClient, stored: dict[str, Any]) -> None:
    body = {**stored, "status": {"url": "http://elsewhere"}}
    assert api.request("PUT", f"{COLLECTION}/stored", body=body)["status"] == crd.UNSEEN
    status = {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "ModelLoadFailed",
                "message": "Triton: unexpected shape",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "observedGeneration": 1,
            }
        ],
    }
    patched = api.request(
        "PATCH",
        f"{COLLECTION}/stored/status",
        body={"status": status, "spec": {"historyLimit": 3}},
        content_type="application/merge-patch+json",
    )
    assert patched["status"] == status
    assert patched["spec"]["historyLimit"] == 10


STATUS: dict[str, Any] = {
    "replicas": 4,
    "readyReplicas": 3,
    "url": "http://magika.models.svc:8000",
    "conditions": [
        {
            "type": "Ready",
            "status": "False",
            "reason": "RollingOut",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "revisions": {
        "stable": {"name": "stored-aaaaaaaaaa", "hash": "aaaaaaaaaa"},
        "canary": {"name": "stored-bbbbbbbbbb", "hash": "bbbbbbbbbb"},
    },
    "rollout": {"phase": "Canary", "weight": "5%"},
    "slo": {"latency": "83ms/100ms", "errorRate": "0.2%/1%"},
    "scaling": {"desired": 4, "reason": "Fixed"},
}


def test_printer_columns(api: KubeClient, stored: dict[str, Any]) -> None:
    api.request(
        "PATCH",
        f"{COLLECTION}/stored/status",
        body={"status": STATUS},
        content_type="application/merge-patch+json",
    )
    table = api.http.get(
        f"{COLLECTION}/stored",
        headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"},
    ).json()
    columns = [c["name"] for c in table["columnDefinitions"]]
    wide = [c["name"] for c in table["columnDefinitions"] if c["priority"] == 1]
    row = dict(zip(columns, table["rows"][0]["cells"], strict=True))
    assert columns[:9] == [
        *("Name", "READY", "STABLE", "CANARY", "WEIGHT", "REPLICAS", "P99/SLO", "ERRORS/SLO", "AGE")
    ]
    assert wide == ["REASON", "PHASE", "DESIRED", "PODS READY", "SOURCE", "URL"]
    assert row.pop("AGE").endswith("s")
    assert row == {
        "Name": "stored",
        "READY": "False",
        "STABLE": "aaaaaaaaaa",
        "CANARY": "bbbbbbbbbb",
        "WEIGHT": "5%",
        "REPLICAS": 4,
        "P99/SLO": "83ms/100ms",
        "ERRORS/SLO": "0.2%/1%",
        "REASON": "RollingOut",
        "PHASE": "Canary",
        "DESIRED": 4,
        "PODS READY": 3,
        "SOURCE": "s3://models/magika/v3",
        "URL": "http://magika.models.svc:8000",
    }


def test_short_name_category_and_subresources(api: KubeClient) -> None:
    resources = {
        r["name"]: r for r in api.request("GET", "/apis/tidegate.dev/v1alpha1")["resources"]
    }
    assert resources[names.PLURAL]["shortNames"] == ["mdep"]
    assert resources[names.PLURAL]["categories"] == ["tidegate"]
    assert resources[names.PLURAL]["namespaced"] is True
    assert {f"{names.PLURAL}/status", f"{names.PLURAL}/scale"} < resources.keys()


def test_server_side_apply_merges_lists_by_their_keys(api: KubeClient) -> None:
    """Two parties may each own an environment variable of the same ModelDeployment."""
    for manager, variable in (("one", "A"), ("two", "B")):
        body = overlay(manifest("shared"), {"runtime.env": [{"name": variable, "value": manager}]})
        merged = api.apply(body, field_manager=manager)
    assert [v["name"] for v in merged["spec"]["runtime"]["env"]] == ["A", "B"]
    api.delete(names.API_VERSION, names.KIND, "shared")
