"""What the chart may never contain, whatever its values: rights, privileges."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from helm.chart import objects
from tests.unit.chart.test_values import GOOD, only
from tidegate.runtime.kinds import CHILDREN, LEASE, MODEL_DEPLOYMENT, POD

READ = {"get", "list", "watch"}
OWN = READ | {"create", "patch", "delete"}

EXPECTED: dict[tuple[str, str], set[str]] = {
    ("tidegate.dev", "modeldeployments"): READ,
    ("tidegate.dev", "modeldeployments/status"): {"get", "patch"},
    ("tidegate.dev", "modeldeployments/finalizers"): {"update"},
    ("apps", "deployments"): OWN,
    ("apps", "deployments/scale"): {"patch"},
    ("apps", "controllerrevisions"): OWN,
    ("", "services"): OWN,
    ("", "configmaps"): OWN,
    ("", "pods"): READ | {"patch", "delete"},
    ("", "events"): {"get", "list", "create"},
    ("policy", "poddisruptionbudgets"): OWN,
    ("networking.k8s.io", "networkpolicies"): OWN,
    ("gateway.networking.k8s.io", "httproutes"): OWN,
    ("gateway.networking.k8s.io", "grpcroutes"): OWN,
    ("resource.k8s.io", "resourceclaimtemplates"): OWN,
    ("batch", "cronjobs"): OWN,
    ("monitoring.coreos.com", "podmonitors"): OWN,
}
"""Every right of the operator in a namespace that it serves."""

FORBIDDEN_RESOURCES = re.compile(
    r"\*|secrets|serviceaccounts|roles|rolebindings|clusterroles|clusterrolebindings"
    r"|.*/(exec|attach|portforward|proxy|token|ephemeralcontainers)|certificatesigningrequests"
    r"|.*webhookconfigurations|validatingadmissionpolicies|customresourcedefinitions|namespaces"
)
FORBIDDEN_VERBS = {"*", "escalate", "bind", "impersonate"}


def rules(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for o in found:
        if o["kind"] in ("Role", "ClusterRole"):
            for rule in o["rules"]:
                yield o["metadata"]["name"], rule


def grants(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    granted: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted.setdefault((group, resource), set()).update(rule["verbs"])
    return granted


def breaches(found: list[dict[str, Any]]) -> list[str]:
    """Every rule that breaks the policy, in words."""
    seen = []
    for name, rule in rules(found):
        for group in rule.get("apiGroups", []):
            if group == "*":
                seen.append(f"{name}: group *")
        for resource in rule.get("resources", []):
            if FORBIDDEN_RESOURCES.fullmatch(resource):
                seen.append(f"{name}: resource {resource}")
        for verb in rule["verbs"]:
            if verb in FORBIDDEN_VERBS:
                seen.append(f"{name}: verb {verb}")
        if "nonResourceURLs" in rule:
            seen.append(f"{name}: non-resource URLs")
    return seen


def pod_templates(found: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    pods = [(o["metadata"]["name"], o["spec"]) for o in found if o["kind"] == "Pod"]
    return pods + [
        (o["metadata"]["name"], o["spec"]["template"]["spec"])
        for o in found
        if "template" in o.get("spec", {})
    ]


def privileges(found: list[dict[str, Any]]) -> list[str]:
    """Every pod setting that Pod Security "restricted" (and a little more) refuses, in words."""
    seen = []
    for name, spec in pod_templates(found):
        context = spec.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            seen.append(f"{name}: may run as root")
        if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            seen.append(f"{name}: no seccomp profile")
        seen += [f"{name}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if key in spec]
        seen += [f"{name}: hostPath" for v in spec.get("volumes", []) if "hostPath" in v]
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                seen.append(f"{name}: privilege escalation")
            if own.get("readOnlyRootFilesystem") is not True:
                seen.append(f"{name}: writable root file system")
            if own.get("capabilities") != {"drop": ["ALL"]}:
                seen.append(f"{name}: capabilities")
            resources = container.get("resources", {})
            if "memory" not in resources.get("limits", {}):
                seen.append(f"{name}: no memory limit")
            if any("hostPort" in p for p in container.get("ports", [])):
                seen.append(f"{name}: hostPort")
    return seen


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD.keys())
def test_no_right_to_secrets_and_no_wildcard(values: dict[str, Any]) -> None:
    found = objects(values)
    assert list(rules(found))
    assert breaches(found) == []


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD.keys())
def test_every_pod_is_restricted(values: dict[str, Any]) -> None:
    found = objects(values)
    assert len(pod_templates(found)) == 2  # the operator's and the test's
    assert privileges(found) == []


def test_the_operators_rights_are_exactly_these() -> None:
    role = only(objects(), "ClusterRole", "tidegate-operator")
    assert grants(role) == EXPECTED
    assert all("resourceNames" not in rule for rule in role["rules"])


def test_the_rights_cover_every_kind_that_the_operator_handles() -> None:
    for kind in CHILDREN:
        assert EXPECTED[kind.group, kind.plural] >= OWN, kind
    assert EXPECTED[MODEL_DEPLOYMENT.group, MODEL_DEPLOYMENT.plural] >= READ
    assert EXPECTED[POD.group, POD.plural] >= READ


def test_role_mode_gives_the_same_rights_in_the_named_namespaces_and_nowhere_else() -> None:
    found = objects({"watchNamespaces": ["models", "more-models"], "rbac": {"aggregate": False}})
    roles = [
        o for o in found if o["kind"] == "Role" and o["metadata"]["name"] == "tidegate-operator"
    ]
    assert [r["metadata"]["namespace"] for r in roles] == ["models", "more-models"]
    for role in roles:
        assert grants(role) == EXPECTED
    assert not [o for o in found if o["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    bindings = [o for o in found if o["kind"] == "RoleBinding"]
    for binding in bindings:
        (subject,) = binding["subjects"]
        assert subject["namespace"] == "tidegate-system"


def test_leases_are_written_by_name_in_the_operators_namespace_only() -> None:
    found = objects()
    role = only(found, "Role", "tidegate-operator-lease")
    assert role["metadata"]["namespace"] == "tidegate-system"
    assert role["rules"] == [
        {"apiGroups": [LEASE.group], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": [LEASE.group],
            "resources": ["leases"],
            "resourceNames": ["tidegate-operator"],
            "verbs": ["get", "update"],
        },
    ]
    environment = only(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "TIDEGATE_LEASE_NAME", "value": "tidegate-operator"} in environment


def test_listing_nodes_is_off_unless_asked_for_and_then_the_operator_is_told() -> None:
    on = objects({"rbac": {"clusterRead": True}})
    for found, told in ((objects(), None), (on, "true")):
        names = {o["metadata"]["name"] for o in found}
        assert ("tidegate-operator-read" in names) is (told is not None)
        container = only(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        environment = {e["name"]: e.get("value") for e in container["env"]}
        assert environment.get("TIDEGATE_READ_NODES") == told
    assert grants(only(on, "ClusterRole", "tidegate-operator-read")) == {("", "nodes"): {"list"}}


def test_what_people_may_do() -> None:
    found = objects()

    def verbs(role: str, resource: str = "modeldeployments") -> set[str]:
        granted = grants(only(found, "ClusterRole", f"tidegate-{role}"))
        return granted.get(("tidegate.dev", resource), set())

    def aggregated(role: str) -> set[str]:
        labels = only(found, "ClusterRole", f"tidegate-{role}")["metadata"]["labels"]
        return {k.rpartition("-")[2] for k in labels if "aggregate-to" in k}

    assert (aggregated("view"), aggregated("edit"), aggregated("admin")) == (
        {"view", "edit", "admin"},
        {"edit", "admin"},
        {"admin"},
    )
    assert verbs("view") == READ
    writes = {"create", "update", "patch", "delete", "deletecollection"}
    assert verbs("edit") == writes | {"abort", "pause", "restart", "resume", "retry", "undo"}
    assert verbs("edit", "modeldeployments/scale") == {"update", "patch"}
    assert verbs("edit", "modeldeployments/status") == set()
    assert verbs("admin") == {"promote", "skip-step"}


def test_every_binding_names_a_role_and_an_account_that_the_chart_makes() -> None:
    for values in GOOD.values():
        found = objects(values)
        names = {(o["kind"], o["metadata"]["name"]) for o in found}
        accounts = {n for k, n in names if k == "ServiceAccount"}
        own = values.get("serviceAccount", {}).get("name")
        for o in found:
            if o["kind"] in ("RoleBinding", "ClusterRoleBinding"):
                assert (o["roleRef"]["kind"], o["roleRef"]["name"]) in names
                (subject,) = o["subjects"]
                assert subject["name"] in accounts | {own}


@pytest.mark.parametrize(
    ("rule", "breach"),
    [
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, "resource secrets"),
        ({"apiGroups": ["apps"], "resources": ["*"], "verbs": ["get"]}, "resource *"),
        ({"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}, "verb *"),
        ({"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}, "group *"),
        (
            {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]},
            "resource pods/exec",
        ),
    ],
)
def test_the_policy_finds_breaches(rule: dict[str, Any], breach: str) -> None:
    found = copy.deepcopy(objects())
    only(found, "ClusterRole", "tidegate-operator")["rules"].append(rule)
    assert breaches(found) == [f"tidegate-operator: {breach}"]


@pytest.mark.parametrize(
    ("change", "privilege"),
    [
        (lambda pod: pod.pop("securityContext"), "may run as root"),
        (lambda pod: pod.update(hostNetwork=True), "hostNetwork"),
        (lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "hostPath"),
        (lambda pod: pod["containers"].append({"name": "x"}), "privilege escalation"),
        (
            lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["X"]),
            "capabilities",
        ),
    ],
)
def test_the_policy_finds_privileges(change: Any, privilege: str) -> None:
    found = copy.deepcopy(objects())
    change(only(found, "Deployment")["spec"]["template"]["spec"])
    assert f"tidegate-operator: {privilege}" in privileges(found)
