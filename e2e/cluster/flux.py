"""Flux against any API server: its real source-controller and kustomize-controller.

One library of source-controller, `github.com/fluxcd/pkg/artifact`, could not be downloaded in any
version (of v0.3 to v0.27). It packs a commit's files into an archive and serves that;
`go/source-controller/artifact` is ours in its place, for git alone. All that watches, fetches,
reports, builds, applies, prunes, waits and judges is Flux's own.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml

from e2e.cluster import gobuild
from e2e.cluster.kube import KubeClient, Object
from e2e.cluster.processes import require_running, spawn
from e2e.cluster.progress import Progress
from e2e.ports import free_ports

NAMESPACE: Final = "flux-system"
CONTROLLER: Final = "kustomize-controller"
SOURCE_CONTROLLER: Final = "source-controller"
SOURCES: Final = "source.toolkit.fluxcd.io/v1"
KUSTOMIZE: Final = "kustomize.toolkit.fluxcd.io/v1"
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


@contextmanager
def flux(kubeconfig: Path, directory: Path) -> Iterator[Path]:
    """Run Flux until the block ends, with its CRDs and its namespace; gives the controller's log.

    Builds both controllers the first time. What they have been told to apply is their business:
    delete the Kustomizations first if nothing shall be left.

    Args:
        kubeconfig: of an administrator; the controllers run as that user.
        directory: for the logs and for what is packed.

    Raises:
        ProcessFailed: a controller ended; the message holds its log's end.
    """
    binaries = {name: gobuild.build(name, Progress()) for name in (SOURCE_CONTROLLER, CONTROLLER)}
    packed = directory / "artifacts"
    packed.mkdir(parents=True)
    (port,) = free_ports(1)
    store = f"127.0.0.1:{port}"
    more = {
        SOURCE_CONTROLLER: (
            f"--storage-path={packed}",
            f"--storage-addr={store}",
            f"--storage-adv-addr={store}",
        )
    }
    with KubeClient(kubeconfig) as client, ExitStack() as stack:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        client.apply_all([namespace, *definitions()])
        for name, binary in binaries.items():
            controller = _controller(name, binary, kubeconfig, directory, more.get(name, ()))
            stack.enter_context(controller)
        yield directory / f"{CONTROLLER}.log"


@contextmanager
def _controller(
    name: str, binary: Path, kubeconfig: Path, directory: Path, more: Sequence[str]
) -> Iterator[None]:
    log = directory / f"{name}.log"
    metrics, health = free_ports(2)
    process = spawn(
        name,
        [
            binary,
            f"--metrics-addr=127.0.0.1:{metrics}",
            f"--health-addr=127.0.0.1:{health}",
            "--interval-jitter-percentage=0",
            "--log-level=debug",
            *more,
        ],
        owner=str(directory),
        log=log,
        environment={"KUBECONFIG": str(kubeconfig), "RUNTIME_NAMESPACE": NAMESPACE},
        die_with_parent=True,
    )
    try:
        yield
        require_running(process, name, log)
    finally:
        process.kill()
        process.wait()
