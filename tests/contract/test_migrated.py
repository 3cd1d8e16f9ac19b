"""What `migrate` writes is accepted by the API server, its rules included, as it stands."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.cluster.kube import KubeClient
from tests.contract.test_examples import accept
from tests.unit.cli.test_migrating import deployment, hpa, inference_service, rollout, service
from tidegate.api import crd
from tidegate.cli.migrating import Options, migrate

pytestmark = pytest.mark.contract

EXAMPLES = sorted((Path(__file__).parents[2] / "docs/examples/migrate").glob("*.yaml"))

Documents = list[dict[str, Any]]


@pytest.fixture(scope="module")
def api(kube: KubeClient) -> KubeClient:
    kube.apply_all([crd.crd()])
    return kube


def check(api: KubeClient, documents: Documents, options: Options | None = None) -> None:
    for found in migrate(documents, options):
        found.manifest["metadata"].pop("namespace", None)
        accept(api, found.manifest)


@pytest.mark.parametrize("latency", ["", "250ms"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.name))
def test_examples(api: KubeClient, path: Path, latency: str) -> None:
    check(api, list(yaml.safe_load_all(path.read_text())), Options(latency=latency))


@pytest.mark.parametrize(
    "documents",
    [
        [deployment(), service(), hpa()],
        [deployment(resources={"limits": {"memory": "64Mi", "nvidia.com/mig-1g.10gb": 3}})],
        [
            deployment(
                resources={"limits": {"memory": "1Gi"}}, pod={"priorityClassName": "system-x"}
            )
        ],
        [deployment(args=["--model-repository=/models"], env=[{"name": "A", "value": "1"}] * 2)],
        [
            deployment(
                env=[
                    {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"},
                    {"name": "HF_TOKEN", "value": "x"},
                    {"name": "AWS_ENDPOINT_URL", "value": "http://store:9000"},
                ],
                meta={
                    "labels": {"app.kubernetes.io/name": "r", "x.k8s.io/y": "z"},
                    "annotations": {"kubernetes.io/config": "a", "note": "b"},
                },
            )
        ],
        [inference_service("sklearn", storageUri="hf://org/name:v1")],
        [inference_service("triton", {"batcher": {"maxBatchSize": 8, "maxLatency": 5}})],
        [inference_service("onnx", {"minReplicas": 0, "maxReplicas": 3})],
        [
            rollout(
                {
                    "maxSurge": 0,
                    "abortScaleDownDelaySeconds": 30,
                    "steps": [
                        {"setWeight": 0},
                        {"setWeight": 10},
                        {"pause": {"duration": "1h"}},
                        {"setWeight": 5},
                        {"setMirrorRoute": {"percentage": 100}},
                        {"setWeight": 100},
                    ],
                }
            )
        ],
        [rollout(strategy={"blueGreen": {"scaleDownDelaySeconds": 30}})],
    ],
)
def test_others(api: KubeClient, documents: Documents) -> None:
    check(api, documents)
