"""The control plane that the other contract tests stand on."""

import pytest

from e2e.cluster import gobuild, processes
from e2e.cluster.audit import AuditLog, by_kind
from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.control_plane import control_plane as start_control_plane
from e2e.cluster.kube import KubeClient, KubeError, Object, wait_for

CONFIG_MAP: Object = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "control-plane-test", "namespace": "default"},
    "data": {"a": "1"},
}


def test_it_says_which_kubernetes_it_is(kube: KubeClient) -> None:
    assert kube.request("GET", "/version")["gitVersion"] == gobuild.KUBERNETES_VERSION


def test_another_user_has_no_rights_of_their_own(control_plane: ControlPlane) -> None:
    with (
        KubeClient(control_plane.kubeconfig_for("jane", ["dev"])) as jane,
        pytest.raises(KubeError, match='User "jane" cannot list') as refused,
    ):
        jane.list("v1", "ConfigMap", "default")
    assert refused.value.status == 403


def test_the_audit_log_holds_every_write_once_and_no_read(control_plane: ControlPlane) -> None:
    agent = "control-plane-test"
    log = AuditLog(control_plane.audit_log)
    with KubeClient(control_plane.kubeconfig, user_agent=agent) as client:
        client.apply(CONFIG_MAP)
        client.list("v1", "ConfigMap", "default")
        client.delete("v1", "ConfigMap", "control-plane-test", "default")
    assert by_kind(log.writes(user_agent=agent)) == {"patch configmaps": 1, "delete configmaps": 1}


def test_with_controllers_what_an_owner_leaves_is_collected_and_nothing_runs_on() -> None:
    with start_control_plane(controllers=True) as plane, plane.client() as client:
        owner = client.apply(CONFIG_MAP)
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"]}
        child = {
            **CONFIG_MAP,
            "metadata": {
                "name": "child",
                "namespace": "default",
                "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}],
            },
        }
        client.apply(child)
        client.delete("v1", "ConfigMap", owner["metadata"]["name"], "default")
        wait_for(
            lambda: client.get("v1", "ConfigMap", "child", "default") is None,
            "the garbage collector removed the child",
            timeout_seconds=120,
        )
        owned = processes.owned_by(str(plane.directory))
        assert len(owned) == 3
    assert not any(processes.alive(process) for process in owned)
    assert not plane.directory.exists()
