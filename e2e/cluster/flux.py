"""Flux against any API server: its real kustomize-controller, and a stand-in for source-controller.

source-controller cannot be built from Go modules alone: of `github.com/fluxcd/pkg/artifact`, which
it is made of, none could be downloaded (of v0.8 to v0.27). Its part is small and its contract is
public (`status.artifact` of a GitRepository), so `_Source` plays it: it looks at the branch, packs
the commit and serves it. All that builds, applies, prunes, waits and judges is Flux's own.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from e2e.cluster import gobuild
from e2e.cluster.kube import KubeClient, KubeError, Object
from e2e.cluster.processes import require_running, spawn
from e2e.cluster.progress import Progress
from e2e.cluster.repository import git, serving
from e2e.ports import free_ports

NAMESPACE: Final = "flux-system"
CONTROLLER: Final = "kustomize-controller"
SOURCES: Final = "source.toolkit.fluxcd.io/v1"
KUSTOMIZE: Final = "kustomize.toolkit.fluxcd.io/v1"
POLL_S: Final = 0.5
_MODULES: Final = (
    "github.com/fluxcd/source-controller",
    "github.com/fluxcd/kustomize-controller",
)


def definitions() -> list[Object]:
    """The controllers' CRDs; kustomize-controller watches every kind of source."""
    return [
        yaml.safe_load(path.read_text())
        for module in _MODULES
        for path in sorted(
            (gobuild.module_folder("flux", module) / "config" / "crd" / "bases").glob("*.yaml")
        )
    ]


class _Source(threading.Thread):
    """Keeps `status.artifact` of every GitRepository at the head of its branch."""

    def __init__(self, client: KubeClient, folder: Path, url: str) -> None:
        super().__init__(name="flux-source", daemon=True)
        self._client, self._folder, self._url = client, folder, url
        self._over = threading.Event()

    def stop(self) -> None:
        """End it, and wait for that."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look at all, again and again; a server that is away is asked again."""
        while not self._over.wait(POLL_S):
            try:
                for item in self._client.list(SOURCES, "GitRepository"):
                    self._look(item)
            except (httpx.TransportError, KubeError, RuntimeError):
                continue

    def _look(self, item: Object) -> None:
        branch = item["spec"]["ref"]["branch"]
        listed = git(self._folder, "ls-remote", item["spec"]["url"], f"refs/heads/{branch}")
        commit = listed.partition("\t")[0]
        status = item.get("status") or {}
        revision = f"{branch}@sha1:{commit}"
        generation = item["metadata"]["generation"]
        if not commit or (
            (status.get("artifact") or {}).get("revision") == revision
            and status.get("observedGeneration") == generation
        ):
            return
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Succeeded",
            "message": f"stored artifact for revision '{revision}'",
            "lastTransitionTime": now,
            "observedGeneration": generation,
        }
        status = {
            "observedGeneration": generation,
            "conditions": [ready],
            "artifact": self._pack(item, commit) | {"revision": revision, "lastUpdateTime": now},
        }
        self._client.request(
            "PATCH",
            f"{self._client.path_of(item)}/status",
            body={"status": status},
            content_type="application/merge-patch+json",
        )

    def _pack(self, item: Object, commit: str) -> dict[str, Any]:
        mirror = self._folder / f"{item['metadata']['uid']}.git"
        if not mirror.exists():
            git(self._folder, "clone", "--quiet", "--mirror", item["spec"]["url"], mirror.name)
        git(mirror, "fetch", "--quiet")
        name = f"{commit}.tar.gz"
        # Of the tree and not of the commit: without git's own header, which Flux does not unpack.
        git(mirror, "archive", "--output", str(self._folder / name), f"{commit}^{{tree}}")
        packed = (self._folder / name).read_bytes()
        return {
            "path": name,
            "url": f"{self._url}/{name}",
            "digest": f"sha256:{hashlib.sha256(packed).hexdigest()}",
            "size": len(packed),
        }


@contextmanager
def flux(kubeconfig: Path, directory: Path) -> Iterator[Path]:
    """Run Flux until the block ends, with its CRDs and its namespace; gives the controller's log.

    Builds kustomize-controller the first time. What it has been told to apply is its business:
    delete the Kustomizations first if nothing shall be left.

    Args:
        kubeconfig: of an administrator; the controller runs as that user.
        directory: for the log and for what is packed.

    Raises:
        ProcessFailed: the controller ended; the message holds its log's end.
    """
    binary = gobuild.build(CONTROLLER, Progress())
    packed = directory / "artifacts"
    packed.mkdir(parents=True)
    log = directory / f"{CONTROLLER}.log"
    metrics, health = free_ports(2)
    with KubeClient(kubeconfig) as client, serving(packed) as url:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        client.apply_all([namespace, *definitions()])
        source = _Source(client, packed, url)
        source.start()
        process = spawn(
            CONTROLLER,
            [
                binary,
                f"--metrics-addr=127.0.0.1:{metrics}",
                f"--health-addr=127.0.0.1:{health}",
                "--interval-jitter-percentage=0",
                "--log-level=debug",
            ],
            owner=str(directory),
            log=log,
            environment={"KUBECONFIG": str(kubeconfig), "RUNTIME_NAMESPACE": NAMESPACE},
            die_with_parent=True,
        )
        try:
            yield log
            require_running(process, CONTROLLER, log)
        finally:
            process.kill()
            process.wait()
            source.stop()
