"""What the chart makes of its values, and which values it refuses."""

import json
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from helm.chart import CHART, ChartError, is_hook, objects, render
from tidegate.platform import FetchPolicy, Images, Platform, Profile
from tidegate.runtime.settings import Settings, load_platform

PUBLIC_KEY = Path("tests/unit/fetch/artefacts/signed.pem").read_text()
SHA = "sha256:" + "5e" * 32
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))

EVERYTHING: dict[str, Any] = {
    "global": {"imageRegistry": "mirror.example:5000/team/", "imagePullSecrets": [{"name": "g"}]},
    "commonLabels": {"team": "ml"},
    "replicaCount": 3,
    "image": {"digest": SHA, "tag": "ignored", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "own"}],
    "images": {"triton": {"digest": SHA}, "envoy": {"tag": "v9"}, "fetch": {"repository": "x/f"}},
    "watchNamespaces": ["models", "more-models"],
    "profiles": {
        "a100": {
            "image": "triton.example/t:1",
            "imagePullSecrets": ["pull"],
            "caBundleConfigMap": "ca",
            "proxy": {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".svc"},
            "endpoint": "https://s3.example.org",
            "region": "eu-1",
            "runtimeClassName": "nvidia",
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "nodeSelector": {"pool": "gpu"},
            "env": [{"name": "A", "value": "1"}],
        }
    },
    "defaultProfile": "a100",
    "gpuToleration": False,
    "drain": {"preStopSeconds": 20, "exitTimeoutSeconds": 60},
    "fetch": {
        "allowedSchemes": ["s3", "pvc"],
        "allowedHosts": ["*.example.org"],
        "allowPrivateAddresses": ["10.0.0.0/8"],
        "allowPythonBackend": False,
        "maxBytes": 1 << 50,
        "maxFiles": 12,
        "verify": [
            {
                "keys": [PUBLIC_KEY],
                "required": False,
                "namespaces": ["prod-*"],
                "sources": ["s3://models/prod"],
            }
        ],
    },
    "admission": {"allowedServiceAccounts": ["reader"], "allowedImages": ["nvidia/"]},
    "rbac": {"clusterRead": True},
    "serviceAccount": {"name": "account", "annotations": {"a": "b"}},
    "log": {"level": "debug", "format": "console"},
    "podLabels": {"x": "y"},
    "podAnnotations": {"prometheus.io/scrape": "true"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "priorityClassName": "system-cluster-critical",
    "networkPolicy": {
        "ingressFrom": [{"namespaceSelector": {}}],
        "egress": {
            "enabled": True,
            "apiServerPorts": [6443],
            "prometheusPorts": [9091],
            "eventSinkPorts": [8081],
            "tracingPorts": [4319],
        },
    },
    "prometheus": {"url": "https://prometheus.example:9091/team"},
    "events": {"sink": "http://broker.events:8081/default", "headersSecretName": "broker"},
    "tracing": {
        "endpoint": "http://collector.monitoring:4319",
        "idleRatio": 0.05,
        "headersSecretName": "collector",
    },
    "metrics": {
        "requireApi": False,
        "namespaces": ["prometheus"],
        "podMonitor": {"enabled": True, "interval": "5s", "labels": {"release": "p"}},
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "p"},
            "runbooks": "https://docs.example/runbooks/",
        },
        "dashboards": {"enabled": True, "labels": {"find": "me"}, "annotations": {"folder": "ML"}},
    },
    "tests": {
        "inference": {
            "enabled": True,
            "url": "http://magika.models:8000",
            "model": "magika",
            "request": {"inputs": [{"name": "content", "data": ["import os\n"]}]},
            "expect": {"label": ["python"]},
        }
    },
}
NAMESPACED_ONLY: dict[str, Any] = {
    "watchNamespaces": ["models"],
    "crds": {"enabled": False},
    "admission": {"enabled": False},
    "rbac": {"aggregate": False},
}
GOOD: dict[str, dict[str, Any]] = {
    "defaults": {},
    "role mode": {"watchNamespaces": ["models", "tidegate-system"]},
    "nothing outside namespaces": NAMESPACED_ONLY,
    "everything": EVERYTHING,
    "bare": {
        "replicaCount": 1,
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "podDisruptionBudget": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "crds": {"enabled": False},
        "admission": {"enabled": False},
    },
    "own names": {"nameOverride": "gate", "fullnameOverride": "gate"},
}


def only(found: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    matching = [
        o
        for o in found
        if o["kind"] == kind and not is_hook(o) and name in (None, o["metadata"]["name"])
    ]
    assert len(matching) == 1, [o["metadata"]["name"] for o in matching]
    return matching[0]


def platform(values: dict[str, Any], **options: Any) -> Platform:
    found = objects(values, **options)
    config = next(o for o in found if o["kind"] == "ConfigMap" and "platform.yaml" in o["data"])
    return Platform.model_validate(yaml.safe_load(config["data"]["platform.yaml"]))


def operator(values: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any]
    (container,) = only(objects(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD.keys())
def test_every_set_of_values_renders_to_named_distinct_objects(values: dict[str, Any]) -> None:
    found = objects(values)
    keys = [
        (o["apiVersion"], o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
        for o in found
    ]
    assert len(keys) == len(set(keys))
    assert ("apps/v1", "Deployment") in {k[:2] for k in keys}
    for o in found:
        labels = o["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "tidegate", o["metadata"]["name"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm", o["metadata"]["name"]


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD.keys())
def test_the_operator_can_read_its_settings(values: dict[str, Any]) -> None:
    environment = {e["name"]: e.get("value", "from=elsewhere") for e in operator(values)["env"]}
    settings = Settings.from_environment(environment)
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))
    assert settings.log_level == values.get("log", {}).get("level", "info")
    assert settings.prometheus_url == values.get("prometheus", {}).get("url", "")
    assert settings.event_sink_url == values.get("events", {}).get("sink", "")
    headers = "headersSecretName" in values.get("events", {})
    assert bool(settings.event_sink_headers) == headers
    tracing = values.get("tracing", {})
    assert settings.tracing_endpoint == tracing.get("endpoint", "")
    assert settings.tracing_idle_ratio == tracing.get("idleRatio", 0)
    assert bool(settings.tracing_headers) == ("headersSecretName" in tracing)
    assert platform(values).operator_namespace == "tidegate-system"


def test_every_variable_of_the_chart_is_one_that_the_operator_reads() -> None:
    asked = set()

    class Recording(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    Settings.from_environment(Recording())
    assert {e["name"] for e in operator(EVERYTHING)["env"]} <= asked


def test_default_values_are_the_operators_own_defaults() -> None:
    assert platform({}) == Platform()


def test_every_value_reaches_the_platform_settings() -> None:
    assert platform(EVERYTHING, namespace="gate") == Platform(
        images=Images(
            triton=f"mirror.example:5000/team/nvidia/tritonserver@{SHA}",
            envoy="mirror.example:5000/team/envoyproxy/envoy:v9",
            fetch="mirror.example:5000/team/x/f:0.1.0",
        ),
        profiles={"a100": Profile.model_validate(EVERYTHING["profiles"]["a100"])},
        default_profile="a100",
        allowed_service_accounts=("reader",),
        fetch=FetchPolicy.model_validate(EVERYTHING["fetch"]),
        gpu_toleration=False,
        operator_namespace="gate",
        metrics_namespaces=("prometheus",),
        pre_stop_seconds=20,
        exit_timeout_seconds=60,
    )


def test_a_profile_in_the_schema_has_the_fields_of_the_type() -> None:
    fields = {f.alias for f in Profile.model_fields.values()}
    assert set(SCHEMA["definitions"]["profile"]["properties"]) == fields
    assert set(SCHEMA["properties"]["fetch"]["properties"]) == {
        f.alias for f in FetchPolicy.model_fields.values()
    }


def test_a_change_of_settings_restarts_the_operator_and_nothing_else_does() -> None:
    def checksum(values: dict[str, Any]) -> str:
        template = only(objects(values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/platform"])

    assert checksum({}) == checksum({"rbac": {"aggregate": False}})
    assert checksum({}) != checksum({"gpuToleration": False})


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({}, "tidegate/operator:0.1.0"),
        ({"tag": "1.2"}, "tidegate/operator:1.2"),
        ({"tag": "1.2", "digest": SHA}, f"tidegate/operator@{SHA}"),
        ({"repository": "mirror.example:5000/op"}, "mirror.example:5000/op:0.1.0"),
    ],
)
def test_image_names(image: dict[str, str], name: str) -> None:
    assert operator({"image": image})["image"] == name


def test_nothing_outside_namespaces_is_needed_in_role_mode() -> None:
    outside = [o for o in objects(NAMESPACED_ONLY) if "namespace" not in o["metadata"]]
    assert outside == []


def test_monitoring_objects_are_left_out_and_said_so_where_their_api_is_not_served() -> None:
    asked = {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}
    kinds = {o["kind"] for o in objects({"metrics": asked})}
    assert not kinds & {"PodMonitor", "PrometheusRule"}
    assert "does not serve\nmonitoring.coreos.com/v1" in render({"metrics": asked})["NOTES.txt"]
    kinds = {o["kind"] for o in objects({"metrics": {**asked, "requireApi": False}})}
    assert {"PodMonitor", "PrometheusRule"} <= kinds


def test_notes_warn_where_uninstalling_would_delete_models() -> None:
    assert "WARNING" not in render({})["NOTES.txt"]
    assert "every ModelDeployment" in render({"crds": {"keep": False}})["NOTES.txt"]
    assert "may not read" in render({"admission": {"enabled": False}})["NOTES.txt"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"defaultProfile": "x"},
            'defaultProfile is "x", but profiles has no such name (it has: none). Add it to '
            "profiles, or set defaultProfile to one of them.",
        ),
        (
            {"defaultProfile": "x", "profiles": {"b": {}, "a": {}}},
            'defaultProfile is "x", but profiles has no such name (it has: a, b). Add it to '
            "profiles, or set defaultProfile to one of them.",
        ),
        (
            {"serviceAccount": {"create": False}},
            "serviceAccount.create is false and serviceAccount.name is empty: the operator would "
            "run as the namespace's default account. Set serviceAccount.name to the account to "
            "use, or serviceAccount.create to true.",
        ),
        (
            {"admission": {"enabled": False, "allowedImages": ["a"]}},
            "admission.allowedImages is set and admission.enabled is false: nothing would enforce "
            "it. Set admission.enabled to true, or empty admission.allowedImages.",
        ),
        (
            {"admission": {"enabled": False, "allowedSources": ["a"]}},
            "admission.allowedSources is set and admission.enabled is false: nothing would enforce "
            "it. Set admission.enabled to true, or empty admission.allowedSources.",
        ),
        (
            {"networkPolicy": {"enabled": False, "ingressFrom": [{"podSelector": {}}]}},
            "networkPolicy.ingressFrom is set and networkPolicy.enabled is false: nothing would "
            "enforce it. Set networkPolicy.enabled to true, or empty networkPolicy.ingressFrom.",
        ),
        (
            {"networkPolicy": {"enabled": False, "egress": {"enabled": True}}},
            "networkPolicy.egress.enabled is true and networkPolicy.enabled is false: nothing "
            "would enforce it. Set networkPolicy.enabled to true, or networkPolicy.egress.enabled "
            "to false.",
        ),
        (
            {"metrics": {"prometheusRule": {"enabled": True}}},
            "metrics.prometheusRule.enabled is true and metrics.podMonitor.enabled is false: the "
            "alerts are about what that PodMonitor scrapes, and would fire for ever. Set "
            "metrics.podMonitor.enabled to true, or metrics.prometheusRule.enabled to false.",
        ),
        (
            {"metrics": {"dashboards": {"enabled": True, "labels": {"grafana_dashboard": None}}}},
            "metrics.dashboards.enabled is true and metrics.dashboards.labels is empty: Grafana's "
            "sidecar would find no dashboard. Set metrics.dashboards.labels to those that it looks "
            "for, or metrics.dashboards.enabled to false.",
        ),
        (
            {"tests": {"inference": {"enabled": True, "model": "m"}}},
            "tests.inference.enabled is true and tests.inference.url is empty: there is nothing to "
            "ask. Set tests.inference.url and tests.inference.model to those of a ModelDeployment "
            "that serves, or tests.inference.enabled to false.",
        ),
        (
            {"tests": {"inference": {"enabled": True, "url": "http://x"}}},
            "tests.inference.enabled is true and tests.inference.model is empty: there is nothing "
            "to ask. Set tests.inference.url and tests.inference.model to those of a "
            "ModelDeployment that serves, or tests.inference.enabled to false.",
        ),
        (
            {"tests": {"inference": {"expect": {"label": ["python"]}}}},
            "tests.inference.expect is set and tests.inference.request is empty: zeros would be "
            "sent and a given answer expected. Set tests.inference.request too, or empty "
            "tests.inference.expect.",
        ),
    ],
)
def test_contradictory_values_are_refused_with_the_mend(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ChartError) as refusal:
        render(values)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 2}, "additional properties 'replicas' not allowed"),
        ({"image": {"sha": "x"}}, "additional properties 'sha' not allowed"),
        ({"image": {"digest": "abc"}}, "at '/image/digest': 'abc' does not match pattern"),
        ({"replicaCount": 0}, "at '/replicaCount': minimum: got 0, want 1"),
        ({"replicaCount": "2"}, "at '/replicaCount': got string, want integer"),
        ({"log": {"level": "loud"}}, "at '/log/level': value must be one of 'debug', 'info'"),
        ({"prometheus": {"url": "prometheus:9090"}}, "at '/prometheus/url'"),
        ({"watchNamespaces": ["a", "a"]}, "at '/watchNamespaces': items at 0 and 1 are equal"),
        ({"watchNamespaces": ["A"]}, "at '/watchNamespaces/0': 'A' does not match pattern"),
        ({"watchNamespaces": "a"}, "at '/watchNamespaces': got string, want array"),
        ({"profiles": {"a": {"images": "x"}}}, "additional properties 'images' not allowed"),
        ({"profiles": {"a": {"proxy": {"http": "x"}}}}, "additional properties 'http' not allowed"),
        ({"fetch": {"allowedSchemes": ["file"]}}, "at '/fetch/allowedSchemes/0': value must be"),
        ({"fetch": {"allowedSchemes": []}}, "at '/fetch/allowedSchemes': minItems: got 0, want 1"),
        ({"fetch": {"allowPrivateAddresses": ["10.0.0.1"]}}, "does not match pattern"),
        ({"fetch": {"verify": [{"required": True}]}}, "missing property 'keys'"),
        ({"fetch": {"verify": [{"keys": []}]}}, "at '/fetch/verify/0/keys': minItems"),
        (
            {"fetch": {"verify": [{"keys": [PUBLIC_KEY.replace("PUBLIC", "PRIVATE")]}]}},
            "at '/fetch/verify/0/keys/0': '-----BEGIN PRIVATE KEY-----",
        ),
        ({"fetch": {"verify": [{"keys": [PUBLIC_KEY], "sources": ["models"]}]}}, "does not match"),
        ({"crds": {"keep": "yes"}}, "at '/crds/keep': got string, want boolean"),
    ],
)
def test_values_that_the_schema_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartError) as refusal:
        render(values)
    assert message in str(refusal.value)


def test_the_schema_is_strict_and_knows_exactly_the_values_there_are() -> None:
    loose = []

    def compare(part: dict[str, Any], values: Any, path: str) -> None:
        if "$ref" in part:
            part = SCHEMA["definitions"][part["$ref"].rpartition("/")[2]]
        if "properties" not in part:
            return
        if part.get("additionalProperties") is not False:
            loose.append(path)
        if isinstance(values, dict) and values:
            assert set(values) <= set(part["properties"]), path
            for key, below in part["properties"].items():
                if key in values:
                    compare(below, values[key], f"{path}.{key}")

    compare(SCHEMA, VALUES, "")
    assert set(SCHEMA["properties"]) == set(VALUES)
    # A parent chart may share other values under `global`.
    assert loose == [".global"]


def test_every_reading_of_a_default_survives_the_round_trip(tmp_path: Path) -> None:
    found = objects({})
    config = next(o for o in found if o["kind"] == "ConfigMap" and "platform.yaml" in o["data"])
    path = tmp_path / "platform.yaml"
    path.write_text(config["data"]["platform.yaml"], encoding="utf-8")
    assert load_platform(Settings(platform_file=path)) == Platform()


def test_the_lists_of_the_platform_stand_in_the_admission_policy() -> None:
    lists = {
        "allowedImages": ["nvidia/tritonserver", 'odd"name'],
        "allowedSources": ["s3://models", "https://*.example.org"],
        "allowedServiceAccounts": ["reader"],
    }
    policy = only(objects({"admission": lists}), "ValidatingAdmissionPolicy", "tidegate-platform")
    variables = {v["name"]: v["expression"] for v in policy["spec"]["variables"]}
    assert {key: json.loads(variables[key]) for key in lists} == lists
    assert "paramKind" not in policy["spec"]
    off = objects({"admission": {"enabled": False}})
    assert not [o for o in off if o["kind"].startswith("ValidatingAdmissionPolicy")]


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD.keys())
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert [m for m in report["messages"] if m["severity"] >= 2] == []
    assert report["errors"] == []
