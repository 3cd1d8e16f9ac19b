"""The policies that the documentation shows, against the CRDs of Envoy Gateway itself."""

from typing import Any

import pytest
import yaml

from e2e.cluster import addons, gobuild
from e2e.cluster.kube import KubeClient
from tests.unit.architecture.test_docs import blocks

pytestmark = pytest.mark.contract

GROUP = "gateway.envoyproxy.io"
KINDS = ("securitypolicies", "backendtrafficpolicies", "clienttrafficpolicies")
SHOWN = [
    document
    for _, body in blocks("yaml")
    for document in yaml.safe_load_all(body)
    if isinstance(document, dict) and str(document.get("apiVersion")).startswith(f"{GROUP}/")
]


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    folder = gobuild.module_folder("envoy-gateway", addons.GATEWAY_MODULE)
    folder /= "charts/gateway-helm/charts/crds/crds/generated"
    files = [folder / f"{GROUP}_{kind}.yaml" for kind in KINDS]
    kube.apply_all([yaml.safe_load(f.read_text(encoding="utf-8")) for f in files])
    return kube


def status_of(api: KubeClient, document: dict[str, Any]) -> int:
    """What the API server answers, told to be strict and to store nothing."""
    document = document | {"metadata": {"name": document["metadata"]["name"]}}
    path = api.path(document["apiVersion"], document["kind"], "default")
    params = {"dryRun": "All", "fieldValidation": "Strict"}
    return api.http.post(path, json=document, params=params).status_code


@pytest.mark.parametrize("document", SHOWN, ids=lambda d: f"{d['kind']} {list(d['spec'])[-1]}")
def test_documented_policy(api: KubeClient, document: dict[str, Any]) -> None:
    assert status_of(api, document) == 201


def test_each_kind_is_shown_and_a_wrong_field_would_not_pass(api: KubeClient) -> None:
    assert len({d["kind"] for d in SHOWN}) == len(KINDS)
    for document in SHOWN:
        wrong = document | {"spec": document["spec"] | {"unheardOf": 1}}
        assert status_of(api, wrong) == 400
