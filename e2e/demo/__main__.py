"""``make demo``: a cluster, the chart, one manifest, real answers about real files.

On the embedded cluster by default. With ``CLUSTER=current`` it uses the reader's own kubeconfig:
nothing is installed there but a namespace with an S3 server, the model and its ModelDeployment;
the chart and the images must be there already (``make cluster`` says how).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import addons, images, lifecycle, node_images, paths
from e2e.cluster.__main__ import FAILURES
from e2e.cluster.kube import KubeClient, Object
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings
from e2e.demo import client as clients
from e2e.demo.upload import upload
from e2e.models.magika import build as magika

NAMESPACE = "tidegate-demo"
NAME = "magika"
SERVICE_PORT = 8000
READY_SECONDS = 180.0
FILES = (
    *("README.md", "Makefile", "pyproject.toml", "LICENSE", "operator/Dockerfile"),
    *("operator/tidegate/plan.py", "crds/modeldeployments.yaml"),
    *("helm/tidegate/values.schema.json", "e2e/cluster/go/deviceplugin/main.go"),
    *("e2e/cluster/go/kubernetes/go.sum", "docs/images/data-path.svg"),
)
"""Files of this repository, of many types."""


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message holds what was seen and what to do."""


@dataclass(frozen=True)
class Place:
    """Where the demo runs.

    Attributes:
        client: the cluster's API server.
        s3_endpoint: the S3 server, from the pods and from here alike.
        settings: of the embedded cluster.
    """

    client: KubeClient
    s3_endpoint: str
    settings: Settings


def manifest(uri: str, endpoint: str, *, gpus: int = 1) -> Object:
    """The ModelDeployment of the demo."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {"source": {"uri": uri, "endpoint": endpoint, "secretName": "s3"}},
            "runtime": {
                "gpu": {"count": gpus},
                "resources": {"cpu": "200m", "memory": "1Gi"},
            },
            "slo": {
                "latency": {"quantile": "0.99", "target": "100ms"},
                "maxErrorRate": "1%",
            },
        },
    }


def prepare(place: Place) -> None:
    """A namespace that enforces Pod Security ``restricted``, and the S3 credentials in it."""
    place.client.apply_all(
        [
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": NAMESPACE,
                    "labels": {
                        "pod-security.kubernetes.io/enforce": "restricted",
                        "pod-security.kubernetes.io/enforce-version": "latest",
                    },
                },
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "s3", "namespace": NAMESPACE},
                "stringData": {
                    "AWS_ACCESS_KEY_ID": place.settings.s3_access_key,
                    "AWS_SECRET_ACCESS_KEY": place.settings.s3_secret_key,
                },
            },
        ]
    )


def await_ready(
    client: KubeClient, progress: Progress, *, timeout_seconds: float = READY_SECONDS
) -> Object:
    """Wait until the ModelDeployment is Ready, saying each new reason on the way.

    Raises:
        DemoFailed: with the last reason.
    """
    deadline = time.monotonic() + timeout_seconds
    said = ""
    while time.monotonic() < deadline:
        found = client.get("tidegate.dev/v1alpha1", "ModelDeployment", NAME, NAMESPACE) or {}
        for condition in (found.get("status") or {}).get("conditions") or ():
            if condition["type"] != "Ready":
                continue
            current = condition.get("observedGeneration") == found["metadata"]["generation"]
            if condition["status"] == "True" and current:
                return found
            text = f"{condition['reason']}: {condition['message']}"
            if text != said:
                progress.say(f"  {text}")
                said = text
        time.sleep(0.2)
    silence = "it has no status; is the operator running? kubectl -n tidegate-system get pods"
    raise DemoFailed(f"{NAME} is not Ready after {timeout_seconds:.0f} s: {said or silence}")


@contextmanager
def address(place: Place, *, embedded: bool) -> Iterator[str]:
    """``host:port`` of the model's Service: its ClusterIP, or a port forward to it."""
    if embedded:
        service = place.client.get("v1", "Service", NAME, NAMESPACE) or {}
        yield f"{service['spec']['clusterIP']}:{SERVICE_PORT}"
        return
    command = ["kubectl", "-n", NAMESPACE, "port-forward", f"svc/{NAME}", f":{SERVICE_PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            line = forward.stdout.readline() if forward.stdout else ""
            if "->" not in line:
                raise DemoFailed(f"{' '.join(command)} did not start: {line!r}")
            yield line.split()[2]
        finally:
            forward.terminate()


def ask(at: str, progress: Progress) -> None:
    """Send the repository's files over both protocols and print what comes back."""
    files = [paths.REPOSITORY / name for name in FILES]
    with progress.step(f"asking about {len(files)} files of this repository at {at}"):
        answers = {name: call(at, files) for name, call in clients.PROTOCOLS.items()}
    shown = {
        name: [
            clients.Answer(
                Path(a.file).relative_to(paths.REPOSITORY), a.label, a.score, a.milliseconds
            )
            for a in found
        ]
        for name, found in answers.items()
    }
    print(f"\n{clients.table(shown)}\n", flush=True)


def tell_what_there_is(place: Place, found: Object, kubeconfig: Path | None) -> None:
    """The resource as kubectl prints it, and where to look next."""
    env = dict(os.environ) if kubeconfig is None else os.environ | {"KUBECONFIG": str(kubeconfig)}
    done = subprocess.run(
        ["kubectl", "-n", NAMESPACE, "get", "mdep,pods"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout or done.stderr)
    print(f"digest of the model's bytes: {found['status']['revisions']['stable']['digest']}")
    if kubeconfig is not None:
        print(f"\nexport KUBECONFIG={kubeconfig}")
    print(f"kubectl -n {NAMESPACE} describe mdep {NAME}")
    print("make cluster-down   # when done" if kubeconfig is not None else "")


def _embedded(progress: Progress) -> None:
    settings = Settings()
    lifecycle.up(settings, progress)
    node_images.bring_in(settings, [images.OPERATOR, images.FETCH], progress)
    addons.install_chart(
        settings,
        progress,
        # The demo's S3 server has an address of this cluster; by default only public ones may be
        # fetched from.
        values={"fetch.allowPrivateAddresses": f"{{{settings.s3_address}/32}}"},
    )
    with KubeClient(settings.kubeconfig) as client:
        _run(Place(client, settings.s3_endpoint, settings), progress, settings.kubeconfig)


def _current(progress: Progress) -> None:
    settings = Settings()
    kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    with KubeClient(kubeconfig) as client:
        found = client.get(
            "apiextensions.k8s.io/v1", "CustomResourceDefinition", "modeldeployments.tidegate.dev"
        )
        if found is None:
            raise DemoFailed(
                "Tidegate is not installed in the cluster of your kubeconfig. "
                "CLUSTER=current make cluster builds its images and says how to install the chart."
            )
        endpoint = os.environ.get("TIDEGATE_DEMO_S3")
        if not endpoint:
            raise DemoFailed(
                "TIDEGATE_DEMO_S3 is not set: an S3 endpoint that this machine and the pods reach, "
                "allowed by the chart's fetch.allowPrivateAddresses; credentials in "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        keyed = Settings(
            s3_access_key=os.environ.get("AWS_ACCESS_KEY_ID", settings.s3_access_key),
            s3_secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY", settings.s3_secret_key),
        )
        _run(Place(client, endpoint, keyed), progress, None)


def _run(place: Place, progress: Progress, kubeconfig: Path | None) -> None:
    settings = place.settings
    with progress.step("two generations of Magika, from their wheels to s3://models/magika"):
        folders = magika.build(paths.CACHE / "magika" / "repositories")
        for version, folder in folders.items():
            upload(
                folder,
                f"models/magika/{version}",
                endpoint=place.s3_endpoint,
                access_key=settings.s3_access_key,
                secret_key=settings.s3_secret_key,
            )
    prepare(place)
    gpus = int(os.environ.get("TIDEGATE_DEMO_GPUS", "1"))
    began = time.monotonic()
    place.client.apply(manifest("s3://models/magika/v3", place.s3_endpoint, gpus=gpus))
    progress.say(f"applied ModelDeployment {NAMESPACE}/{NAME}")
    found = await_ready(place.client, progress)
    progress.say(f"Ready {time.monotonic() - began:.1f} s after kubectl apply")
    with address(place, embedded=kubeconfig is not None) as at:
        ask(at, progress)
    tell_what_there_is(place, found, kubeconfig)


def main() -> int:
    """Run the demo. Returns the exit status: 1 with the reason on stderr."""
    progress = Progress()
    try:
        if os.environ.get("CLUSTER", "embedded") == "current":
            _current(progress)
        else:
            _embedded(progress)
    except (*FAILURES, DemoFailed, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
