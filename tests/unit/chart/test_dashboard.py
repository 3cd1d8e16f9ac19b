"""The dashboard in the chart: off unless asked for, and with no rights and no token of its own."""

from typing import Any

import helm_python
import pytest

from helm.chart import CHART, ChartError, objects
from tests.unit.chart.test_policy import privileges, rules
from tests.unit.chart.test_values import EVERYTHING, only
from tidegate.dashboard.settings import Settings

NAME = "tidegate-dashboard"
ON: dict[str, Any] = {"dashboard": {"enabled": True}}
ALL: dict[str, Any] = {
    **EVERYTHING,
    "dashboard": {
        "enabled": True,
        "measure": False,
        "tls": {"secretName": "dashboard-tls"},
        "ingressFrom": [{"podSelector": {}}],
    },
}


def mine(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {o["kind"]: o for o in objects(values) if o["metadata"]["name"].endswith("-dashboard")}


def environment(values: dict[str, Any]) -> dict[str, str]:
    [container] = mine(values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return {e["name"]: e["value"] for e in container["env"]}


def test_it_is_off_unless_asked_for() -> None:
    assert mine({}) == {}
    assert set(mine(ON)) == {"ServiceAccount", "Service", "Deployment", "NetworkPolicy"}


@pytest.mark.parametrize("values", [ON, ALL])
def test_it_has_no_rights_and_no_token(values: dict[str, Any]) -> None:
    without = {**values, "dashboard": {"enabled": False}}
    assert list(rules(objects(values))) == list(rules(objects(without)))
    account = mine(values)["ServiceAccount"]["metadata"]["name"]
    for binding in objects(values):
        assert account not in [s["name"] for s in binding.get("subjects", [])]
    spec = mine(values)["Deployment"]["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == account
    assert spec["automountServiceAccountToken"] is False
    assert mine(values)["ServiceAccount"]["automountServiceAccountToken"] is False
    assert not [v for v in spec["volumes"] if "projected" in v]
    assert privileges(list(mine(values).values())) == []


def test_its_pod_is_not_taken_for_the_operators() -> None:
    found = objects(ON)
    labels = mine(ON)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    operator = only(found, "Deployment", "tidegate-operator")["spec"]["selector"]["matchLabels"]
    assert not operator.items() <= labels.items()
    for selector in (
        mine(ON)["Deployment"]["spec"]["selector"]["matchLabels"],
        mine(ON)["Service"]["spec"]["selector"],
        mine(ON)["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


@pytest.mark.parametrize("values", [ON, ALL])
def test_every_variable_is_one_that_it_reads(values: dict[str, Any]) -> None:
    asked = set()

    class Recording(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    found = environment(values)
    settings = Settings.from_environment(
        Recording({**found, "KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    )
    assert set(found) <= asked
    assert settings.measure is (values is ON)
    assert (settings.tls_certificate is not None) is (values is ALL)
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))


@pytest.mark.parametrize(("values", "scheme", "port"), [(ON, "HTTP", 80), (ALL, "HTTPS", 443)])
def test_https_where_a_certificate_is_given(values: dict[str, Any], scheme: str, port: int) -> None:
    [served] = mine(values)["Service"]["spec"]["ports"]
    assert (served["name"], served["port"]) == (scheme.lower(), port)
    [container] = mine(values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["scheme"] == scheme


def test_who_may_reach_it_cannot_be_said_where_nothing_enforces_it() -> None:
    values = {
        "dashboard": {"enabled": True, "ingressFrom": [{"podSelector": {}}]},
        "networkPolicy": {"enabled": False},
    }
    with pytest.raises(ChartError, match=r"dashboard\.ingressFrom is set"):
        objects(values)


@pytest.mark.parametrize("values", [ON, ALL])
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert [m for m in report["messages"] if m["severity"] >= 2] == []
