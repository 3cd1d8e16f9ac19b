"""`plan`, `diff`, `eject` and `doctor` against a real API server: its defaults, its refusals.

*ivo* has what the cluster's role `view` gives in a namespace, and no more; *ada* and *cy* are those
of `test_command_line`.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.control_plane import ControlPlane
from e2e.cluster.kube import KubeClient, KubeError, wait_for
from tests.contract.manifests import manifest
from tests.contract.test_command_line import (
    API,
    COLLECTION,
    NAMESPACE,
    READ,
    N,
    configs,
    tidegate,
    write,
)
from tidegate.actions import Apply, WriteStatus
from tidegate.api import names
from tidegate.cli.planning import KINDS, path_of
from tidegate.observed import Observed, Ref
from tidegate.plan import plan
from tidegate.platform import Platform

pytestmark = pytest.mark.contract

__all__ = ["configs"]

VIEW: list[dict[str, Any]] = [
    {"apiGroups": [names.GROUP], "resources": [names.PLURAL], "verbs": READ},
    {
        "apiGroups": [""],
        "resources": ["pods", "pods/log", "events", "services", "configmaps"],
        "verbs": READ,
    },
    {"apiGroups": ["apps"], "resources": ["deployments", "controllerrevisions"], "verbs": READ},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": READ},
    {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": READ},
]


@pytest.fixture(scope="module")
def ivo(kube: KubeClient, control_plane: ControlPlane, configs: dict[str, Path]) -> Path:
    meta = {"name": "ivo", "namespace": NAMESPACE}
    subject = {"apiGroup": API, "kind": "User", "name": "ivo"}
    ref = {"apiGroup": API, "kind": "Role", "name": "ivo"}
    kube.apply_all(
        [
            {"apiVersion": f"{API}/v1", "kind": "Role", "metadata": meta, "rules": VIEW},
            {
                "apiVersion": f"{API}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": ref,
                "subjects": [subject],
            },
        ]
    )
    config = control_plane.kubeconfig_for("ivo", ["system:authenticated"])

    def may() -> bool:
        with KubeClient(config) as client:
            try:
                client.request("GET", COLLECTION)
            except KubeError:
                return False
        return True

    wait_for(may, "ivo's rights", timeout_seconds=120)
    return config


def pass_once(kube: KubeClient, name: str) -> None:
    """One pass of the operator's plan, carried out."""
    live = kube.request("GET", f"{COLLECTION}/{name}")
    children: dict[Ref, Any] = {}
    present = set()
    for api_version, kind, plural in KINDS:
        try:
            found = kube.request("GET", path_of(api_version, plural, NAMESPACE))
        except KubeError:
            continue
        present.add(kind)
        for one in found["items"]:
            owners = one["metadata"].get("ownerReferences") or ()
            if any(o["uid"] == live["metadata"]["uid"] for o in owners):
                children[Ref(api_version, kind, one["metadata"]["name"])] = one
    observed = Observed(live, children, present_kinds=frozenset(present))
    decided = plan(observed, Platform(), datetime.now(UTC))
    for action in decided.actions:
        if isinstance(action, Apply):
            meta = {**action.manifest["metadata"], "namespace": NAMESPACE}
            kube.apply_all([{**action.manifest, "metadata": meta}])
        elif isinstance(action, WriteStatus):
            write(kube, live, action.status)


@pytest.fixture
def model(kube: KubeClient, configs: dict[str, Path]) -> Iterator[str]:
    """A ModelDeployment with the children of its first revision, which serves."""
    kube.request("POST", COLLECTION, body=manifest("planned"))
    for _ in range(3):
        pass_once(kube, "planned")
    live = kube.request("GET", f"{COLLECTION}/planned")
    (kept,) = [
        r
        for r in kube.request("GET", path_of("apps/v1", "controllerrevisions", NAMESPACE))["items"]
        if r["metadata"]["labels"][names.DEPLOYMENT_LABEL] == "planned"
    ]
    stable = {
        "name": kept["metadata"]["name"],
        "hash": kept["metadata"]["labels"][names.REVISION_LABEL],
    }
    status = live["status"] | {"revisions": {"stable": stable}, "rollout": {"phase": "Promoted"}}
    write(kube, live, status)
    yield "planned"
    kube.delete(names.API_VERSION, names.KIND, "planned", NAMESPACE)
    for api_version, kind, plural in KINDS:
        try:
            found = kube.request("GET", path_of(api_version, plural, NAMESPACE))["items"]
        except KubeError:
            continue
        for one in found:
            if (one["metadata"].get("labels") or {}).get(names.DEPLOYMENT_LABEL) == "planned":
                kube.delete(api_version, kind, one["metadata"]["name"], NAMESPACE)


def file_of(folder: Path, name: str, **spec: Any) -> str:
    body = manifest(name)
    body["spec"] |= spec
    path = folder / "m.yaml"
    path.write_text(yaml.safe_dump(body))
    return str(path)


class TestPlan:
    def test_what_is_there_already_changes_nothing(
        self, configs: dict[str, Path], ivo: Path, model: str, tmp_path: Path
    ) -> None:
        """Against objects with all the defaults that an API server puts in."""
        done = tidegate(ivo, "plan", "-f", file_of(tmp_path, model), "-o", "json", *N)
        found = json.loads(done.stdout)
        assert found["changes"] == []
        assert set(found["result"].values()) == {"same"}
        assert any("admission not asked" in n for n in found["notes"])

    def test_a_new_version(self, kube: KubeClient, ivo: Path, model: str, tmp_path: Path) -> None:
        source = {"source": {"uri": "s3://models/magika/v4"}}
        before = kube.request("GET", f"{COLLECTION}/{model}")
        done = tidegate(ivo, "plan", "-f", file_of(tmp_path, model, model=source), *N)
        assert "spec.model.source.uri: s3://models/magika/v3 -> s3://models/magika/v4" in (
            done.stdout
        )
        assert "on trial against" in done.stdout
        assert kube.request("GET", f"{COLLECTION}/{model}") == before

    def test_a_dry_run_leaves_nothing(
        self, kube: KubeClient, control_plane: ControlPlane, tmp_path: Path
    ) -> None:
        config = control_plane.kubeconfig
        done = tidegate(config, "plan", "-f", file_of(tmp_path, "fresh"), *N)
        assert "would be created" in done.stdout
        assert "admission not asked" not in done.stdout
        with pytest.raises(KubeError):
            kube.request("GET", f"{COLLECTION}/fresh")

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ({"slo": {"maxErrorRate": "200%"}}, "spec.slo.maxErrorRate"),
            ({"sloo": {}}, "spec.sloo: field not declared in schema"),
        ],
    )
    def test_what_the_schema_refuses(
        self, control_plane: ControlPlane, tmp_path: Path, spec: dict[str, Any], said: str
    ) -> None:
        file = file_of(tmp_path, "fresh", **spec)
        done = tidegate(control_plane.kubeconfig, "plan", "-f", file, *N, code=1)
        assert f"refused: {said}" in done.stdout
        assert len(done.stderr.splitlines()) == 1

    def test_what_a_policy_refuses(
        self, configs: dict[str, Path], model: str, tmp_path: Path
    ) -> None:
        source = {"source": {"uri": "s3://models/magika/v3", "secretName": "payroll"}}
        file = file_of(tmp_path, model, model=source)
        done = tidegate(configs["cy"], "plan", "-f", file, *N, code=1)
        assert "refused: spec.model.source.secretName: cy may not use Secret payroll" in done.stdout


class TestDiffAndEject:
    def test_diff(self, kube: KubeClient, ivo: Path, model: str) -> None:
        done = tidegate(ivo, "diff", model, *N, code=1)
        assert "nothing to compare" in done.stderr
        kube.request(
            "PATCH",
            f"{COLLECTION}/{model}",
            body={"spec": {"model": {"source": {"uri": "s3://models/magika/v4"}}}},
            content_type="application/merge-patch+json",
        )
        pass_once(kube, model)
        done = tidegate(ivo, "diff", model, *N)
        assert [li for li in done.stdout.splitlines() if li[:1] in "+-"][2:] == [
            "-      uri: s3://models/magika/v3",
            "+      uri: s3://models/magika/v4",
        ]

    def test_eject_is_what_an_api_server_takes(
        self, kube: KubeClient, ivo: Path, model: str
    ) -> None:
        done = tidegate(ivo, "eject", model, *N)
        found = [m for m in yaml.safe_load_all(done.stdout) if m]
        assert {m["kind"] for m in found} >= {"Deployment", "Service", "ConfigMap"}
        before = {
            m["metadata"]["name"]: kube.request(
                "GET", path_of("apps/v1", "deployments", NAMESPACE, m["metadata"]["name"])
            )
            for m in found
            if m["kind"] == "Deployment"
        }
        # As the file says: the owner goes, its children stay, and are applied.
        kube.request("DELETE", f"{COLLECTION}/{model}", params={"propagationPolicy": "Orphan"})
        # The garbage collector, which does not run here, would let it go.
        kube.request(
            "PATCH",
            f"{COLLECTION}/{model}",
            body={"metadata": {"finalizers": None}},
            content_type="application/merge-patch+json",
        )
        kube.apply_all(found)
        for name, was in before.items():
            now = kube.request("GET", path_of("apps/v1", "deployments", NAMESPACE, name))
            assert now["metadata"]["uid"] == was["metadata"]["uid"]
            assert now["spec"] == was["spec"], "not one pod would be replaced"


class TestDoctor:
    def test_by_an_admin(self, configs: dict[str, Path], control_plane: ControlPlane) -> None:
        config = control_plane.kubeconfig
        done = tidegate(config, "doctor", "-o", "json", *N, code=1)
        found = {f["check"]: f for f in json.loads(done.stdout)["items"]}
        assert found["kubernetes"]["result"] == "ok"
        assert found["api"]["result"] == "ok"
        assert found["admission"]["result"] == "ok"
        assert found["leader"]["result"] == "failed", "no operator runs here"
        assert done.stderr.startswith("error: ")

    def test_by_somebody_who_may_only_look(self, ivo: Path) -> None:
        done = tidegate(ivo, "doctor", *N)
        assert "unknown" in done.stdout
        assert "you may not list validatingadmissionpolicies" in done.stdout

    def test_by_somebody_who_may_nothing(self, configs: dict[str, Path]) -> None:
        done = tidegate(configs["zoe"], "doctor", *N, code=1)
        assert f"you may not read {names.PLURAL}" in done.stdout


def test_completion_of_names(ivo: Path, model: str) -> None:
    done = tidegate(ivo, "__complete", "get", "-n", NAMESPACE, "plan")
    assert done.stdout.splitlines()[0].split("\t")[0] == model
    nobody = tidegate("/nowhere", "__complete", "get", "")
    assert nobody.stdout == ":4\n"
