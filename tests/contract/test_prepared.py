"""The manifest and the golden requests of a prepared model are accepted by the API server."""

from typing import Any

import numpy as np
import pytest

from e2e.cluster.kube import KubeClient, KubeError
from tests.contract.test_examples import accept
from tidegate.api import crd
from tidegate.cli.recording import Recorded
from tidegate.preparation.candidate import TensorSpec
from tidegate.preparation.publish import golden
from tidegate.preparation.publish.manifest import Facts, manifest

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    kube.apply_all([crd.crd()])
    return kube


@pytest.mark.parametrize(
    ("quantile", "target_ms", "cores", "endpoint", "secret"),
    [
        (0.99, 50.0, 0.4, "", ""),
        (0.999, 0.5, 0.001, "http://store:9000", "models-read"),
        (0.5, 1500.0, 31.9, "https://store.example.com", ""),
    ],
)
def test_the_manifest(
    api: KubeClient, quantile: float, target_ms: float, cores: float, endpoint: str, secret: str
) -> None:
    facts = Facts(
        name="digits",
        model="digits",
        uri="s3://models/digits/0123456789abcdef",
        sha256="0" * 64,
        size_bytes=9 << 30,
        quantile=quantile,
        target_ms=target_ms,
        cores=cores,
        golden="digits-golden",
        endpoint=endpoint,
        secret=secret,
    )
    accepted = accept(api, manifest(facts))
    assert accepted["spec"]["model"]["source"]["sha256"] == "0" * 64


def recorded(label: int) -> dict[str, Any]:
    """Golden requests with one known answer, as they are published."""
    spec = TensorSpec("input", "FP32", (-1, 4))
    (found,) = golden.documents({"input": np.eye(4, dtype=np.float32)}, [spec], 1)
    expected = {"outputs": [{"name": "label", "data": [label]}]}
    return golden.config_map("digits", {"a.json": Recorded({**found, "expected": expected})})


def test_the_next_versions_golden_requests_leave_the_first_ones(api: KubeClient) -> None:
    first, second = recorded(3), recorded(4)
    for one in (first, second, first):
        one["metadata"]["namespace"] = "default"
        api.apply_all([one])
    found = api.list("v1", "ConfigMap", "default", "tidegate.dev/golden-of=digits")
    assert {c["metadata"]["name"]: c["data"] for c in found} == {
        one["metadata"]["name"]: one["data"] for one in (first, second)
    }
    assert len(found) == 2
    changed = {**first, "data": second["data"]}
    with pytest.raises(KubeError, match="immutable"):
        api.apply_all([changed])
