"""The quality component in the chart: off unless asked for, with two rights and no more."""

import re
from pathlib import Path
from typing import Any

import helm_python
import pytest

from helm.chart import CHART, ChartError, objects
from tests.unit.chart.test_policy import privileges, rules
from tests.unit.chart.test_values import EVERYTHING, only
from tidegate.api.status import Status
from tidegate.quality.report import ACCURATE, STEADY
from tidegate.runtime.quality.main import Settings

ON: dict[str, Any] = {"quality": {"enabled": True}}
ALL: dict[str, Any] = {
    **EVERYTHING,
    "quality": {
        "enabled": True,
        "storage": {"claimName": "counts"},
        "tls": {"secretName": "quality-tls"},
        "ingressFrom": [{"podSelector": {}}],
    },
}


def mine(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {o["kind"]: o for o in objects(values) if o["metadata"]["name"].endswith("-quality")}


def pod(values: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = mine(values)["Deployment"]["spec"]["template"]["spec"]
    return spec


def test_it_is_off_unless_asked_for() -> None:
    assert mine({}) == {}
    others = {"ServiceAccount", "Service", "Deployment", "NetworkPolicy"}
    policies = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert set(mine(ON)) == others | policies | {"ClusterRole", "ClusterRoleBinding"}


@pytest.mark.parametrize("values", [ON, ALL])
def test_it_reads_deployments_and_patches_their_status_and_no_more(values: dict[str, Any]) -> None:
    without = {**values, "quality": {"enabled": False}}
    before = [rule for _, rule in rules(objects(without))]
    more = [rule for _, rule in rules(objects(values)) if rule not in before]
    assert more == [
        {
            "apiGroups": ["tidegate.dev"],
            "resources": ["modeldeployments"],
            "verbs": ["list"],
        },
        {
            "apiGroups": ["tidegate.dev"],
            "resources": ["modeldeployments/status"],
            "verbs": ["patch"],
        },
    ] * (len(more) // 2)
    assert more
    account = mine(values)["ServiceAccount"]["metadata"]["name"]
    bound = [o for o in objects(values) if account in [s["name"] for s in o.get("subjects", [])]]
    assert {o["roleRef"]["name"] for o in bound} == {account}
    assert pod(values)["serviceAccountName"] == account
    assert privileges(list(mine(values).values())) == []


def test_all_else_of_status_is_refused_by_the_policy() -> None:
    policy = mine(ON)["ValidatingAdmissionPolicy"]["spec"]
    [account] = policy["matchConditions"]
    assert account["expression"].endswith(
        "'system:serviceaccount:tidegate-system:tidegate-quality'"
    )
    kept = set(re.findall(r"object\.\?status\.\?(\w+) ==", str(policy["validations"])))
    fields = {f.alias for f in Status.model_fields.values()}
    assert kept == fields - {"conditions", "quality"}
    first = policy["validations"][0]["expression"]
    assert first.count(str([ACCURATE, STEADY])) == 2


def test_in_role_mode_it_has_roles_in_these_namespaces_only() -> None:
    found = objects({**ON, "watchNamespaces": ["a", "b"]})
    roles = [o for o in found if o["metadata"]["name"] == "tidegate-quality"]
    kinds = sorted(
        (o["kind"], o["metadata"].get("namespace")) for o in roles if "Role" in o["kind"]
    )
    assert kinds == [("Role", "a"), ("Role", "b"), ("RoleBinding", "a"), ("RoleBinding", "b")]
    assert not [o for o in roles if o["kind"].startswith("Cluster")]


def test_without_rbac_create_it_brings_no_roles() -> None:
    found = mine({**ON, "rbac": {"create": False}, "admission": {"enabled": False}})
    assert set(found) == {"ServiceAccount", "Service", "Deployment", "NetworkPolicy"}


def test_its_pod_is_taken_for_no_other() -> None:
    labels = mine(ON)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    operator = only(objects(ON), "Deployment", "tidegate-operator")["spec"]["selector"]
    assert not operator["matchLabels"].items() <= labels.items()
    both = objects({**ON, "dashboard": {"enabled": True}})
    dashboard = only(both, "Service", "tidegate-dashboard")["spec"]["selector"]
    assert not dashboard.items() <= labels.items()
    for selector in (
        mine(ON)["Deployment"]["spec"]["selector"]["matchLabels"],
        mine(ON)["Service"]["spec"]["selector"],
        mine(ON)["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


@pytest.mark.parametrize("values", [ON, ALL])
def test_every_variable_is_one_that_it_reads(values: dict[str, Any], tmp_path: Path) -> None:
    asked = set()

    class Recording(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

    [container] = pod(values)["containers"]
    found = {e["name"]: e["value"] for e in container["env"]}
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    assert found["TIDEGATE_DATA"] in mounts
    settings = Settings.from_environment(Recording(found | {"TIDEGATE_DATA": str(tmp_path)}))
    assert set(found) <= asked
    assert (settings.tls_folder is not None) is (values is ALL)
    assert settings.namespaces == tuple(values.get("watchNamespaces", ()))
    assert container["command"] == ["tidegate-quality"]


def test_counts_outlive_the_pod_where_a_claim_is_named() -> None:
    assert "emptyDir" in pod(ON)["volumes"][0]
    assert pod(ALL)["volumes"][0]["persistentVolumeClaim"] == {"claimName": "counts"}
    assert mine(ON)["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(("values", "scheme", "port"), [(ON, "HTTP", 80), (ALL, "HTTPS", 443)])
def test_https_where_a_certificate_is_given(values: dict[str, Any], scheme: str, port: int) -> None:
    [served] = mine(values)["Service"]["spec"]["ports"]
    assert (served["name"], served["port"]) == (scheme.lower(), port)
    [container] = pod(values)["containers"]
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "web", "scheme": scheme}


def test_who_may_reach_it_cannot_be_said_where_nothing_enforces_it() -> None:
    values = {
        "quality": {"enabled": True, "ingressFrom": [{"podSelector": {}}]},
        "networkPolicy": {"enabled": False},
    }
    with pytest.raises(ChartError, match=r"quality\.ingressFrom is set"):
        objects(values)


@pytest.mark.parametrize("values", [ON, ALL])
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert [m for m in report["messages"] if m["severity"] >= 2] == []
