"""How the operator runs: spread, budget, closed ports, probes."""

from typing import Any

import pytest

from helm.chart import is_hook, objects
from tests.unit.chart.test_values import EVERYTHING, only
from tidegate.api.names import MANAGED_BY, MANAGED_BY_LABEL


def pod(values: dict[str, Any]) -> dict[str, Any]:
    template: dict[str, Any] = only(objects(values), "Deployment")["spec"]["template"]
    return template


def test_every_selector_selects_the_operators_pods_and_not_the_tests() -> None:
    found = objects(EVERYTHING)
    labels = pod(EVERYTHING)["metadata"]["labels"]
    test = next(o for o in found if o["kind"] == "Pod" and is_hook(o))["metadata"]["labels"]
    selectors = {
        "Deployment": only(found, "Deployment")["spec"]["selector"]["matchLabels"],
        "PodDisruptionBudget": only(found, "PodDisruptionBudget")["spec"]["selector"][
            "matchLabels"
        ],
        "NetworkPolicy": only(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "PodMonitor": only(found, "PodMonitor")["spec"]["selector"]["matchLabels"],
        **{
            f"spread {n}": c["labelSelector"]["matchLabels"]
            for n, c in enumerate(pod(EVERYTHING)["spec"]["topologySpreadConstraints"])
        },
    }
    for name, selector in selectors.items():
        assert selector.items() <= labels.items(), name
        assert not selector.items() <= test.items(), name


def test_the_selector_holds_nothing_that_an_upgrade_changes() -> None:
    selector = only(objects(EVERYTHING), "Deployment")["spec"]["selector"]["matchLabels"]
    assert set(selector) == {
        "app.kubernetes.io/name",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/component",
    }


def test_the_operators_pods_are_never_taken_for_a_models() -> None:
    assert pod({})["metadata"]["labels"][MANAGED_BY_LABEL] != MANAGED_BY


def test_two_replicas_spread_over_nodes_and_evicted_one_by_one() -> None:
    found = objects()
    deployment = only(found, "Deployment")
    assert deployment["spec"]["replicas"] == 2
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert [(c["topologyKey"], c["whenUnsatisfiable"]) for c in spread] == [
        ("kubernetes.io/hostname", "ScheduleAnyway"),
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
    ]
    budget = only(found, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_ports_probes_and_policy_agree() -> None:
    found = objects()
    (container,) = only(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    environment = {e["name"]: e.get("value") for e in container["env"]}
    assert environment["TIDEGATE_HTTP_PORT"] == str(port["containerPort"])
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
    policy = only(found, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"ports": [{"port": port["name"], "protocol": "TCP"}]}]


def test_egress_reaches_what_is_configured_and_models_only() -> None:
    policy = only(objects(EVERYTHING), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    dns, api, prometheus, events, tracing, models = policy["egress"]
    assert [p["port"] for p in dns["ports"]] == [53, 53]
    assert [p["port"] for p in api["ports"]] == [6443]
    assert prometheus == {"ports": [{"port": 9091, "protocol": "TCP"}]}
    assert [p["port"] for p in models["ports"]] == [9091, 8000, 8002]
    assert events == {"ports": [{"port": 8081, "protocol": "TCP"}]}
    assert tracing == {"ports": [{"port": 4319, "protocol": "TCP"}]}
    assert models["to"][0]["podSelector"]["matchLabels"] == {MANAGED_BY_LABEL: MANAGED_BY}


def test_by_default_nothing_is_traced_and_no_way_out_is_opened_for_it() -> None:
    names = {e["name"] for e in pod({})["spec"]["containers"][0]["env"]}
    assert not [name for name in names if "TRACING" in name]
    closed = {"networkPolicy": {"enabled": True, "egress": {"enabled": True}}}
    assert len(only(objects(closed), "NetworkPolicy")["spec"]["egress"]) == 3


@pytest.mark.parametrize(
    ("variable", "secret"),
    [("TIDEGATE_TRACING_HEADERS", "collector"), ("TIDEGATE_EVENT_SINK_HEADERS", "broker")],
)
def test_headers_come_from_a_secret_by_reference(variable: str, secret: str) -> None:
    env = {e["name"]: e for e in pod(EVERYTHING)["spec"]["containers"][0]["env"]}
    assert env[variable]["valueFrom"] == {"secretKeyRef": {"name": secret, "key": "headers"}}


def test_every_setting_of_the_pods_arrives() -> None:
    template = pod(EVERYTHING)
    assert template["metadata"]["labels"]["x"] == "y"
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["metadata"]["annotations"]["prometheus.io/scrape"] == "true"
    spec = template["spec"]
    assert spec["serviceAccountName"] == "account"
    assert spec["imagePullSecrets"] == [{"name": "g"}, {"name": "own"}]
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["affinity"] == {"nodeAffinity": {}}
    assert [c["topologyKey"] for c in spec["topologySpreadConstraints"]] == ["rack"]
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    account = only(objects(EVERYTHING), "ServiceAccount")
    assert account["metadata"]["name"] == "account"
    assert account["metadata"]["annotations"] == {"a": "b"}
