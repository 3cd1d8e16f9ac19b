"""A control plane with the operator as a process, and a data plane that is pretended."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster import gobuild, paths
from e2e.cluster.control_plane import ControlPlane, control_plane
from e2e.cluster.kube import KubeClient, Object, wait_for
from e2e.cluster.processes import require_running, spawn
from e2e.cluster.progress import Progress
from e2e.ports import free_ports
from tests.integration.gitops.pretend import DataPlane
from tidegate.api import admission, crd
from tidegate.api.names import API_VERSION, KIND
from tidegate.cli.recording import Recorded
from tidegate.preparation.publish import golden

ROOT: Final = Path(__file__).parents[3]
EXAMPLES: Final = ROOT / "docs" / "examples" / "gitops"
NAMESPACE: Final = "models"
MODEL: Final = "detector"
OPERATOR: Final = "system:serviceaccount:tidegate-system:tidegate-operator"
GITLAB_CI_LOCAL: Final = "4.61.1"
GROOVY: Final = "4.0.27"
RUNNER: Final = Path(__file__).with_name("jenkins.groovy")
"""What plays Jenkins."""
SECONDS: Final = 90.0
"""Nothing here takes a third of it; it ends a test that hangs."""
QUICK: Final[dict[str, Any]] = {
    "steps": [{"weight": "20%", "hold": "1s"}],
    "bake": "1s",
    "mirror": {"mode": "Off"},
}
"""Instead of the example's steps and bake, which a test cannot wait for."""


@dataclass(frozen=True)
class Place:
    """Where the examples of `docs/examples/gitops` are applied.

    Attributes:
        plane: the API server, with controllers, CRDs and admission policies.
        kube: it, as its administrator.
        data: what plays kubelet, gateway and sidecars.
    """

    plane: ControlPlane
    kube: KubeClient
    data: DataPlane

    def live(self) -> Object:
        """The ModelDeployment of the examples; empty: there is none."""
        return self.kube.get(API_VERSION, KIND, MODEL, NAMESPACE) or {}

    def status(self) -> dict[str, Any]:
        """Its status; empty: none yet."""
        found: dict[str, Any] = self.live().get("status") or {}
        return found

    def stable(self) -> dict[str, Any]:
        """The revision that gets the traffic."""
        found: dict[str, Any] = (self.status().get("revisions") or {}).get("stable") or {}
        return found


def quick(content: Path, replicas: int = 2) -> None:
    """Let the production overlay of a copy of the examples roll out within seconds."""
    path = content / "overlays" / "production" / "production.yaml"
    patch = yaml.safe_load(path.read_text(encoding="utf-8"))
    patch["spec"] |= {"rollout": QUICK, "replicas": replicas, "scaling": {"mode": "Fixed"}}
    path.write_text(yaml.safe_dump(patch), encoding="utf-8")


def ask_for(content: Path, version: int) -> str:
    """Write another version of the model into a copy of the examples; returns its source."""
    path = content / "base" / "modeldeployment.yaml"
    manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    source = manifest["spec"]["model"]["source"]
    source["uri"] = f"s3://models/detector/v{version}"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return str(source["uri"])


def golden_of(answer: float) -> Object:
    """The ConfigMap that a preparation publishes for a version which answers so."""
    asked = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0.0]}
    expected = {"outputs": [{"name": "y", "shape": [1, 1], "data": [answer]}]}
    document = {"inputs": [asked], "expected": expected}
    return golden.config_map(MODEL, {"sample-0.json": Recorded(document)})


def config_map(name: str) -> Object:
    """One that anybody may have written."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def definitions() -> list[Object]:
    """The CRDs of Tidegate and Gateway API."""
    folder = gobuild.module_folder("envoy-gateway", "sigs.k8s.io/gateway-api")
    routes = [
        folder / "config/crd/standard" / f"gateway.networking.k8s.io_{kind}s.yaml"
        for kind in ("httproute", "grpcroute")
    ]
    return [crd.crd(), *(yaml.safe_load(p.read_text(encoding="utf-8")) for p in routes)]


def credentials(plane: ControlPlane, user: str, groups: Sequence[str], folder: Path) -> Path:
    """A kubeconfig for a service account, in a file whose name has no colon: that parts names."""
    path = folder / "kubeconfig"
    path.write_bytes(plane.kubeconfig_for(user, groups).read_bytes())
    return path


@contextlib.contextmanager
def placed(folder: Path, **environment: str) -> Iterator[Place]:
    """A control plane with nothing applied yet; the operator's log is `operator.log` in `folder`.

    Args:
        folder: of the caller's own.
        environment: of the operator's process, besides what it needs.
    """
    (port,) = free_ports(1)
    with control_plane(controllers=True) as plane, plane.client() as kube:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        policies = admission.objects("gitops", watch_namespaces=(NAMESPACE,))
        kube.apply_all([namespace, *definitions(), *policies])
        log = folder / "operator.log"
        operator = spawn(
            "operator",
            [sys.executable, "-m", "tidegate.runtime.main"],
            owner=str(plane.directory),
            log=log,
            environment={
                "PYTHONPATH": str(ROOT / "operator"),
                "KUBECONFIG": str(credentials(plane, OPERATOR, ("system:masters",), folder)),
                "TIDEGATE_WATCH_NAMESPACES": NAMESPACE,
                "POD_NAMESPACE": NAMESPACE,
                "TIDEGATE_HTTP_PORT": str(port),
                **environment,
            },
            die_with_parent=True,
        )
        data = DataPlane(plane.client(), NAMESPACE)
        data.start()
        try:
            yield Place(plane, kube, data)
            require_running(operator, "the operator", log)
        finally:
            operator.terminate()
            operator.wait()
            data.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A control plane of the module's own, with nothing applied yet."""
    with placed(tmp_path_factory.mktemp("operator")) as found:
        yield found


@pytest.fixture
def until(place: Place) -> Any:
    """Wait until something is so; what the ModelDeployment says is told if it does not become."""

    def wait(probe: Any, what: str, seconds: float = SECONDS) -> Any:
        return wait_for(
            probe, what, timeout_seconds=seconds, state=lambda: yaml.safe_dump(place.status())
        )

    return wait


@pytest.fixture(scope="module")
def gitlab_ci_local() -> Path:
    """It runs a pipeline of GitLab's on one's own machine; with GitLab's JSON schema inside."""
    npm, rsync = shutil.which("npm"), shutil.which("rsync")
    assert npm, "npm is not installed"
    assert rsync, "gitlab-ci-local needs rsync: apt-get install rsync"
    folder = paths.CACHE / f"gitlab-ci-local-{GITLAB_CI_LOCAL}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts"]
        with Progress().step("npm install gitlab-ci-local"):
            command = [npm, "install", *options, f"gitlab-ci-local@{GITLAB_CI_LOCAL}"]
            subprocess.run(command, cwd=partial, check=True, capture_output=True)
        partial.rename(folder)
    return folder / "node_modules" / ".bin" / "gitlab-ci-local"


@pytest.fixture(scope="module")
def groovy() -> Path:
    """Groovy, the language that Jenkins embeds."""
    mvn = shutil.which("mvn")
    assert mvn, "mvn is not installed: apt-get install maven"
    folder = paths.CACHE / "groovy"
    jar = folder / f"groovy-{GROOVY}.jar"
    if not jar.exists():
        artefact = f"-Dartifact=org.apache.groovy:groovy:{GROOVY}"
        command = [mvn, "-q", "-B", "dependency:copy", artefact, f"-DoutputDirectory={folder}"]
        with Progress().step("mvn dependency:copy groovy"):
            subprocess.run(command, check=True, capture_output=True)
    return jar
