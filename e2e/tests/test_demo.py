"""The demo's story goes as told; how a reader's own cluster is used, too."""

import os
import subprocess
import sys

import pytest

from e2e.cluster import paths
from e2e.cluster.kube import KubeClient
from e2e.demo.place import NAMESPACE
from e2e.tests.space import SETTINGS, Space


@pytest.mark.slow
def test_the_story_goes_as_told(cluster: KubeClient, installed: None) -> None:
    own = {
        "CLUSTER": "current",
        "KUBECONFIG": str(SETTINGS.kubeconfig),
        "TIDEGATE_DEMO_S3": SETTINGS.s3_endpoint,
        "TIDEGATE_DEMO_GATEWAY": f"{SETTINGS.infra_namespace}/public",
        "PYTHONPATH": os.pathsep.join(["operator", "."]),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "e2e.demo", "--plain"],
            cwd=paths.REPOSITORY,
            env=os.environ | own,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        Space(cluster, NAMESPACE).delete()
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "The end" in done.stdout
