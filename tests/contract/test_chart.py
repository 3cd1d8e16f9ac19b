"""The chart and install.yaml, as a real API server sees them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from e2e.cluster.control_plane import ControlPlane, control_plane
from e2e.cluster.kube import KubeClient, KubeError
from helm.chart import NAMESPACE, is_hook, objects
from helm.generate import INSTALL
from tests.unit.chart.test_helm_test import script
from tests.unit.chart.test_policy import EXPECTED, FORBIDDEN_VERBS
from tests.unit.chart.test_values import GOOD

pytestmark = pytest.mark.contract

NAMESPACES = (NAMESPACE, "models", "more-models")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """An API server of its own: install.yaml changes what the whole cluster admits."""
    with control_plane() as plane:
        with plane.client() as kube:
            kube.apply_all([namespace(name) for name in NAMESPACES])
            kube.apply_all(yaml.safe_load_all(INSTALL.read_text(encoding="utf-8")))
        yield plane


@pytest.fixture(scope="module")
def kube(plane: ControlPlane) -> Iterator[KubeClient]:
    with plane.client() as client:
        yield client


def namespace(name: str) -> dict[str, Any]:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def dry_run(kube: KubeClient, item: dict[str, Any]) -> dict[str, Any]:
    """Server-side apply without effect; unknown and doubled fields are errors."""
    answer: dict[str, Any] = kube.request(
        "PATCH",
        kube.path_of(item),
        body=item,
        params={
            "fieldManager": "contract",
            "force": "true",
            "dryRun": "All",
            "fieldValidation": "Strict",
        },
        content_type="application/apply-patch+yaml",
    )
    return answer


def may(kube: KubeClient, verb: str, group: str, resource: str, where: str, name: str = "") -> bool:
    """Whether the client's user may do that, as the API server's authoriser says."""
    resource, _, sub = resource.partition("/")
    attributes = {"namespace": where, "verb": verb, "group": group, "resource": resource}
    attributes |= {"subresource": sub, "name": name}
    answer = kube.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        body={
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    return bool(answer["status"]["allowed"])


@pytest.fixture(scope="module")
def operator(plane: ControlPlane) -> Iterator[KubeClient]:
    """A client that is the operator's service account."""
    account = plane.kubeconfig_for(
        f"system:serviceaccount:{NAMESPACE}:tidegate-operator",
        ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
    )
    with KubeClient(account) as client:
        yield client


@pytest.mark.parametrize("name", GOOD)
def test_every_object_of_the_chart_is_accepted_strictly(name: str, kube: KubeClient) -> None:
    # The Prometheus operator's kinds are not served here.
    values = {key: value for key, value in GOOD[name].items() if key != "metrics"}
    found = objects(values)
    for item in found:
        answer = dry_run(kube, item)
        assert answer["metadata"]["name"] == item["metadata"]["name"]
    assert any(is_hook(item) for item in found)


def test_an_object_with_an_unknown_field_would_not_pass(kube: KubeClient) -> None:
    deployment = next(item for item in objects() if item["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(KubeError, match=r"imagePullPolice: field not declared in schema"):
        dry_run(kube, deployment)


def test_pods_pass_pod_security_restricted(kube: KubeClient) -> None:
    found = objects()
    template = next(i for i in found if i["kind"] == "Deployment")["spec"]["template"]
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "operator", "namespace": NAMESPACE},
            "spec": template["spec"],
        },
        next(i for i in found if i["kind"] == "Pod"),
    ]
    for pod in pods:
        assert dry_run(kube, pod)["metadata"]["name"] == pod["metadata"]["name"]
    del template["spec"]["securityContext"]
    with pytest.raises(KubeError, match="violates PodSecurity"):
        dry_run(kube, pods[0])


def test_install_yaml_applied_twice_changes_nothing(kube: KubeClient) -> None:
    for item in yaml.safe_load_all(INSTALL.read_text(encoding="utf-8")):
        before = kube.request("GET", kube.path_of(item))
        after = kube.apply(item)
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


@pytest.mark.parametrize(("group", "resource"), EXPECTED)
def test_the_operator_may_do_what_it_does(group: str, resource: str, operator: KubeClient) -> None:
    verbs = {"get", "list", "watch", "create", "update", "patch", "delete"}
    allowed = {v for v in verbs if may(operator, v, group, resource, "models", "x")}
    assert allowed == EXPECTED[group, resource]


@pytest.mark.parametrize(
    ("verb", "group", "resource", "where", "name"),
    [
        ("get", "", "secrets", "models", "x"),
        ("list", "", "secrets", "models", ""),
        ("create", "", "secrets", NAMESPACE, ""),
        ("create", "", "pods/exec", "models", "x"),
        ("create", "", "serviceaccounts/token", NAMESPACE, "tidegate-operator"),
        ("create", "tidegate.dev", "modeldeployments", "models", ""),
        ("delete", "tidegate.dev", "modeldeployments", "models", "x"),
        ("create", "rbac.authorization.k8s.io", "rolebindings", "models", ""),
        ("get", "", "nodes", "", "x"),
        ("list", "", "namespaces", "", ""),
        ("get", "apiextensions.k8s.io", "customresourcedefinitions", "", "x"),
        ("update", "coordination.k8s.io", "leases", NAMESPACE, "someone-elses"),
        ("update", "coordination.k8s.io", "leases", "models", "tidegate-operator"),
        *((verb, "", "pods", "models", "x") for verb in sorted(FORBIDDEN_VERBS)),
    ],
)
def test_the_operator_may_not(
    verb: str, group: str, resource: str, where: str, name: str, operator: KubeClient
) -> None:
    assert not may(operator, verb, group, resource, where, name)


def test_the_operator_may_keep_its_lease(operator: KubeClient) -> None:
    group, lease = "coordination.k8s.io", "tidegate-operator"
    assert may(operator, "create", group, "leases", NAMESPACE)
    assert may(operator, "get", group, "leases", NAMESPACE, lease)
    assert may(operator, "update", group, "leases", NAMESPACE, lease)


@pytest.mark.parametrize(
    ("role", "yes", "no"),
    [
        ("view", {"get", "watch"}, {"create", "patch", "abort", "promote"}),
        (
            "edit",
            {"create", "patch", "delete", "abort", "retry", "undo"},
            {"promote", "skip-step", "escalate"},
        ),
        ("admin", {"promote", "skip-step"}, {"escalate", "bind"}),
    ],
)
def test_people(
    role: str, yes: set[str], no: set[str], plane: ControlPlane, kube: KubeClient
) -> None:
    kube.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": "models"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": f"tidegate-{role}",
            },
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"a-{role}"}
            ],
        }
    )
    with KubeClient(plane.kubeconfig_for(f"a-{role}", ["system:authenticated"])) as person:
        for verb in yes:
            assert may(person, verb, "tidegate.dev", "modeldeployments", "models", "x"), verb
        for verb in no:
            assert not may(person, verb, "tidegate.dev", "modeldeployments", "models", "x"), verb
        assert not may(person, "get", "tidegate.dev", "modeldeployments", "default", "x")


def test_helm_test_passes_with_the_rights_that_the_chart_gives_it(
    plane: ControlPlane, kube: KubeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for item in objects():
        if is_hook(item) and item["kind"] in ("Role", "RoleBinding"):
            kube.apply(item)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    kube.apply(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "tidegate-operator", "namespace": NAMESPACE},
            "spec": {"holderIdentity": "me", "renewTime": stamp, "leaseDurationSeconds": 3600},
        }
    )
    account = plane.kubeconfig_for(
        f"system:serviceaccount:{NAMESPACE}:tidegate-test",
        ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
    )
    environment = {
        "TEST_NAMESPACE": NAMESPACE,
        "TEST_MODEL_NAMESPACE": NAMESPACE,
        "TEST_LEASE": "tidegate-operator",
        "TEST_ADMISSION": "true",
        "TEST_TIMEOUT_SECONDS": "20",  # a new policy takes a moment to hold
    }
    with KubeClient(account) as client:

        def api(path: str, body: Any = None) -> Any:
            try:
                method = "GET" if body is None else "POST"
                return script.Answer(200, client.request(method, path, body=body))
            except KubeError as error:
                return script.Answer(error.status, {"message": error.message})

        status = script.main(environment, api)
    assert (status, capsys.readouterr().out.count("ok  ")) == (0, 3)
