"""What a measurement on the embedded cluster needs: the operator, a namespace, a model in S3."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from e2e.cluster import addons, paths
from e2e.cluster.installation import install
from e2e.cluster.kube import KubeClient, KubeError, Object, wait_for
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings
from e2e.demo.upload import upload
from e2e.models.magika import build as magika
from e2e.tests.space import SETTINGS

API: Final = "tidegate.dev/v1alpha1"
KIND: Final = "ModelDeployment"
BUCKET: Final = "bench"
SERVICE_PORT: Final = 8000
OPERATOR_USER: Final = f"system:serviceaccount:{addons.OPERATOR_NAMESPACE}:tidegate-operator"
TEXT: Final = (
    b"import os\nimport sys\n\n\ndef main() -> None:\n    print(os.getcwd(), sys.argv)\n" * 4
)
"""What is sent; `LABEL` is what the model must say of it."""
LABEL: Final = "python"
GONE_SECONDS: Final = 240.0


@dataclass(frozen=True)
class Stage:
    """A namespace on the embedded cluster, and a model to serve.

    Attributes:
        settings: of the cluster.
        client: as its administrator.
        namespace: enforces Pod Security ``restricted``; holds the S3 credentials.
        uri: of the model.
    """

    settings: Settings
    client: KubeClient
    namespace: str
    uri: str

    def model_deployment(
        self,
        name: str,
        *,
        gpus: int = 1,
        replicas: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> Object:
        """A ModelDeployment of Magika as the demo has it."""
        runtime: dict[str, Any] = {
            "gpu": {"count": gpus},
            "resources": {"cpu": "200m", "memory": "1Gi"},
        }
        if env:
            runtime["env"] = [{"name": k, "value": v} for k, v in sorted(env.items())]
        source = {"uri": self.uri, "endpoint": self.settings.s3_endpoint, "secretName": "s3"}
        return {
            "apiVersion": API,
            "kind": KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                # The model's name is that of its folder in the repository.
                "model": {"name": "magika", "source": source},
                "runtime": runtime,
                "replicas": replicas,
                "scaling": {"mode": "Fixed"},
                "slo": {
                    "latency": {"quantile": "0.99", "target": "100ms"},
                    "maxErrorRate": "1%",
                },
            },
        }

    def address(self, name: str) -> str | None:
        """``host:port`` of the model's Service; None while there is none."""
        service = self.client.get("v1", "Service", name, self.namespace)
        return None if service is None else f"{service['spec']['clusterIP']}:{SERVICE_PORT}"

    def pods(self, name: str) -> list[Object]:
        """The pods of a ModelDeployment, those on their way out included."""
        return self.client.list(
            "v1", "Pod", self.namespace, selector=f"tidegate.dev/deployment={name}"
        )

    def remove(self, name: str) -> None:
        """Delete a ModelDeployment and wait until its pods are gone."""
        self.client.delete(API, KIND, name, self.namespace)
        wait_for(
            lambda: not self.pods(name),
            f"pods of {self.namespace}/{name} gone",
            timeout_seconds=GONE_SECONDS,
        )


def kubectl(scene: Stage, *arguments: str) -> None:
    """Run kubectl in the stage's namespace, as its administrator.

    Raises:
        FileNotFoundError: there is no kubectl.
        subprocess.CalledProcessError: it failed.
    """
    own = str(paths.REPOSITORY / ".venv" / "bin")
    found = shutil.which("kubectl", path=f"{own}:{os.environ.get('PATH', '')}")
    if found is None:
        raise FileNotFoundError("kubectl is missing: make venv")
    subprocess.run(
        [found, "--namespace", scene.namespace, *arguments],
        env=os.environ | {"KUBECONFIG": str(scene.settings.kubeconfig)},
        check=True,
        capture_output=True,
    )


def require_cluster(settings: Settings) -> None:
    """End the program unless the embedded cluster answers."""
    missing = f"no embedded cluster at {settings.kubeconfig}: make cluster"
    if not settings.kubeconfig.exists():
        sys.exit(missing)
    try:
        with KubeClient(settings.kubeconfig) as client:
            client.text("/readyz")
    except (httpx.TransportError, KubeError) as error:
        sys.exit(f"{missing} ({error})")


@contextmanager
def stage(namespace: str, progress: Progress) -> Iterator[Stage]:
    """The embedded cluster with this tree's operator, and a namespace until the block ends."""
    require_cluster(SETTINGS)
    with KubeClient(SETTINGS.kubeconfig, user_agent="tidegate-bench") as client:
        install(client, progress)
        folder = magika.build(paths.CACHE / "magika" / "repositories")["v3"]
        keys = {"access_key": SETTINGS.s3_access_key, "secret_key": SETTINGS.s3_secret_key}
        upload(folder, f"{BUCKET}/magika", endpoint=SETTINGS.s3_endpoint, **keys)
        client.apply_all(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {
                        "name": namespace,
                        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
                    },
                },
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "s3", "namespace": namespace},
                    "stringData": {
                        "AWS_ACCESS_KEY_ID": SETTINGS.s3_access_key,
                        "AWS_SECRET_ACCESS_KEY": SETTINGS.s3_secret_key,
                    },
                },
            ]
        )
        try:
            yield Stage(SETTINGS, client, namespace, f"s3://{BUCKET}/magika")
        finally:
            client.delete("v1", "Namespace", namespace)
