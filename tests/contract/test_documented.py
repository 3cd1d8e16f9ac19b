"""What the documentation shows besides ModelDeployments is accepted by a real API server."""

from typing import Any, Final

import pytest
import yaml

from e2e.cluster import gobuild
from e2e.cluster.kube import KubeClient
from tests.unit.architecture.documented import Manifest, manifests

pytestmark = pytest.mark.contract

NATIVE: Final = ("v1", "apps/v1", "batch/v1", "policy/v1", "rbac.authorization.k8s.io/v1")
ROUTES: Final = "gateway.networking.k8s.io/v1"
SHOWN: Final = [m for m in manifests() if m.document["apiVersion"] in (*NATIVE, ROUTES)]


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    folder = (
        gobuild.module_folder("envoy-gateway", "sigs.k8s.io/gateway-api") / "config/crd/standard"
    )
    kinds = {m.document["kind"].lower() for m in SHOWN if m.document["apiVersion"] == ROUTES}
    files = [folder / f"gateway.networking.k8s.io_{kind}s.yaml" for kind in sorted(kinds)]
    kube.apply_all([yaml.safe_load(f.read_text(encoding="utf-8")) for f in files])
    return kube


def status_of(api: KubeClient, document: dict[str, Any]) -> tuple[int, str]:
    """What the API server answers, told to be strict and to store nothing."""
    # Tried in the tests' own namespace, and by a name that nothing else has.
    meta = {k: v for k, v in document["metadata"].items() if k != "namespace"}
    body = document | {"metadata": meta | {"name": f"{meta['name']}-documented"}}
    path = api.path(document["apiVersion"], document["kind"], "default")
    params = {"dryRun": "All", "fieldValidation": "Strict"}
    answer = api.http.post(path, json=body, params=params)
    return answer.status_code, answer.text


@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_documented_manifest(api: KubeClient, shown: Manifest) -> None:
    assert status_of(api, shown.document)[0] == 201, status_of(api, shown.document)[1]


def test_there_are_some_and_a_wrong_field_would_not_pass(api: KubeClient) -> None:
    kinds = {m.document["kind"] for m in SHOWN}
    assert {"HTTPRoute", "ResourceQuota", "Role", "Service", "ServiceAccount"} <= kinds
    for shown in SHOWN:
        assert status_of(api, shown.document | {"unheardOf": 1})[0] == 400, shown
