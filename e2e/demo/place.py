"""Where the demo is played: the cluster, the namespace, the models in S3, the gateway."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from e2e.cluster import paths
from e2e.cluster.kube import KubeClient, Object, has_condition, wait_for
from e2e.demo.story import VERSIONS
from e2e.demo.upload import upload
from e2e.models.faulty.build import build as build_version
from e2e.models.magika import build as magika
from e2e.models.sleeper import build as sleeper
from tidegate import view

NAMESPACE: Final = "tidegate-demo"
NAME: Final = magika.MODEL
SLEEPER: Final = sleeper.MODEL
API: Final = "tidegate.dev/v1alpha1"
KIND: Final = "ModelDeployment"
GATEWAY_API: Final = "gateway.networking.k8s.io/v1"
SECRET: Final = "s3"
SERVICE_PORT: Final = 8000
READY_SECONDS: Final = 180.0
GONE_SECONDS: Final = 120.0
PATIENCE_S: Final = 60
"""For which a request may wait: where pods start slowly it is late, not lost."""
TIMES: Final = sleeper.Times(alpha_ms=60.0, beta_ms=8.0, batch=8)
TARGET_MS: Final = 400
"""Objective of the second model, 99 of 100 requests."""


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message holds what was seen and what to do."""


@dataclass(frozen=True)
class Place:
    """Where the demo runs.

    Attributes:
        client: the cluster's API server.
        s3_endpoint: the S3 server, from the pods and from here alike.
        s3_access_key: of its credentials, the public half.
        s3_secret_key: of its credentials, the secret half.
        gateway: ``namespace/name`` of a Gateway whose address can be reached from here; empty:
            there is none.
        kubeconfig: of the embedded cluster; None: the reader's own is used.
    """

    client: KubeClient
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    gateway: str
    kubeconfig: Path | None

    # Models.

    def put_versions(self) -> None:
        """Put each version of the story into the bucket."""
        folders = magika.build(paths.CACHE / "magika" / "repositories")
        with tempfile.TemporaryDirectory() as folder:
            for name, version in VERSIONS.items():
                good = folders[version.generation]
                self._put(build_version(Path(folder) / name, version.fault, good), name)
            self._put(sleeper.build(Path(folder) / SLEEPER, TIMES), SLEEPER)

    def _put(self, folder: Path, name: str) -> None:
        upload(
            folder,
            f"models/demo/{name}",
            endpoint=self.s3_endpoint,
            access_key=self.s3_access_key,
            secret_key=self.s3_secret_key,
        )

    def source(self, name: str) -> Object:
        """``spec.model.source`` of a model that `put_versions` put there."""
        return {"uri": uri(name), "endpoint": self.s3_endpoint, "secretName": SECRET}

    # Objects.

    def prepare(self) -> None:
        """A namespace as after `make cluster`: what an earlier demo left goes first.

        It enforces Pod Security ``restricted`` and holds the S3 server's credentials.

        Raises:
            NotReached: the earlier demo's pods do not end.
        """
        labels = {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/enforce-version": "latest",
        }
        self.client.apply_all(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": NAMESPACE, "labels": labels},
                },
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": SECRET, "namespace": NAMESPACE},
                    "stringData": {
                        "AWS_ACCESS_KEY_ID": self.s3_access_key,
                        "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
                    },
                },
            ]
        )
        for name in (NAME, SLEEPER):
            self.client.delete(API, KIND, name, NAMESPACE)
        wait_for(
            lambda: (
                not any(
                    self.client.list(api, kind, NAMESPACE)
                    for api, kind in ((API, KIND), ("v1", "Pod"))
                )
            ),
            f"what an earlier demo left in {NAMESPACE} to be gone",
            timeout_seconds=GONE_SECONDS,
        )

    def apply(self, name: str, spec: Mapping[str, Any]) -> None:
        """Apply a ModelDeployment."""
        self.client.apply(
            {
                "apiVersion": API,
                "kind": KIND,
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": dict(spec),
            }
        )

    def traffic(self, name: str) -> Object:
        """``spec.traffic`` of a ModelDeployment; empty without a gateway."""
        if not self.gateway:
            return {}
        namespace, _, gateway = self.gateway.partition("/")
        parents = [{"name": gateway, "namespace": namespace}]
        through = {"parentRefs": parents, "hostnames": [host(name)]}
        return {"traffic": {"gateway": through, "timeout": f"{PATIENCE_S}s"}}

    def live(self, name: str) -> Object:
        """A ModelDeployment as it is now.

        Raises:
            DemoFailed: there is none.
        """
        found = self.client.get(API, KIND, name, NAMESPACE)
        if found is None:
            raise DemoFailed(f"somebody deleted the ModelDeployment {NAMESPACE}/{name}")
        return found

    def view(self, name: str, deployment: Object | None = None) -> dict[str, Any]:
        """A ModelDeployment with its pods, as all views have it."""
        pods = self.client.list("v1", "Pod", NAMESPACE, f"tidegate.dev/deployment={name}")
        found = deployment or self.live(name)
        return view.document(found, now=datetime.now(UTC), pods=pods)

    # Addresses.

    @contextmanager
    def service(self, name: str) -> Iterator[str]:
        """``host:port`` of a model's Service: its ClusterIP, or a port forward to it."""
        if self.kubeconfig is not None:
            found = self.client.get("v1", "Service", name, NAMESPACE) or {}
            yield f"{found['spec']['clusterIP']}:{SERVICE_PORT}"
            return
        kubectl = str(Path(sys.executable).with_name("kubectl"))  # of the lock
        command = [kubectl, "-n", NAMESPACE, "port-forward", f"svc/{name}", f":{SERVICE_PORT}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
            try:
                line = forward.stdout.readline() if forward.stdout else ""
                if "->" not in line:
                    raise DemoFailed(f"{' '.join(command)} did not start: {line!r}")
                yield line.split()[2]
            finally:
                forward.terminate()

    def gateway_address(self) -> str:
        """``host:port`` of the Gateway.

        Raises:
            DemoFailed: there is none, or it has no address or no listener for HTTP.
        """
        namespace, _, name = self.gateway.partition("/")
        found = self.client.get(GATEWAY_API, "Gateway", name, namespace)
        if found is None or not has_condition(found, "Programmed"):
            raise DemoFailed(f"there is no Gateway {self.gateway}, or it is not programmed")
        addresses = found["status"].get("addresses") or ()
        ports = [one["port"] for one in found["spec"]["listeners"] if one["protocol"] == "HTTP"]
        if not addresses or not ports:
            raise DemoFailed(f"Gateway {self.gateway} has no address, or no listener for HTTP")
        return f"{addresses[0]['value']}:{ports[0]}"


def uri(name: str) -> str:
    """Where `Place.put_versions` puts a model."""
    return f"s3://models/demo/{name}"


def host(name: str) -> str:
    """The name to ask for at the gateway."""
    return f"{name}.tidegate.example"


def await_ready(place: Place, name: str, say: Callable[[str], None]) -> Object:
    """Wait until the newest spec is live, saying each new reason on the way.

    Raises:
        NotReached: with the last reason.
    """
    said = "it has no status; is the operator running? kubectl -n tidegate-system get pods"

    def look() -> Object | None:
        nonlocal said
        found = place.live(name)
        conditions = (found.get("status") or {}).get("conditions") or ()
        for one in conditions:
            if one["type"] != "Ready":
                continue
            if one.get("observedGeneration") != found["metadata"]["generation"]:
                return None
            if one["status"] == "True":
                return found
            text = f"{one['reason']}: {one['message']}"
            if text != said:
                say(text)
                said = text
        return None

    return wait_for(look, f"{name} Ready", timeout_seconds=READY_SECONDS, state=lambda: said)
