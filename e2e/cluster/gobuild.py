"""Go programs of the embedded cluster, built once per content.

A program's key is made of its go.mod, go.sum, own sources, linker flags and the Go release, so a
changed pin builds anew and nothing else does. The compiler's caches lie under paths.CACHE too.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import paths
from e2e.cluster.processes import run_tool
from e2e.cluster.progress import Progress

KUBERNETES_VERSION = "v1.34.4"
ENVOY_GATEWAY_VERSION = "v1.9.1"

# Without these every Kubernetes part calls itself v0.0.0 and kubectl warns about skew.
_KUBERNETES_LDFLAGS = (
    f"-X k8s.io/component-base/version.gitVersion={KUBERNETES_VERSION}",
    "-X k8s.io/component-base/version.gitMajor=1",
    "-X k8s.io/component-base/version.gitMinor=34",
    f"-X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES_VERSION}",
)


class BuildFailed(RuntimeError):
    """A program or an image could not be built; the message holds the tool's own output."""


@dataclass(frozen=True)
class Program:
    """One Go main package and the module folder under e2e/cluster/go that pins it."""

    name: str
    module: str
    package: str = "."
    ldflags: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def _kubernetes(name: str) -> Program:
    return Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_LDFLAGS)


PROGRAMS = {
    program.name: program
    for program in (
        _kubernetes("kube-apiserver"),
        _kubernetes("kubelet"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kube-proxy"),
        Program("pause", "pause"),
        Program("deviceplugin", "deviceplugin"),
        Program("coredns", "coredns"),
        Program("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
        Program(
            "envoy-gateway",
            "envoy-gateway",
            "github.com/envoyproxy/gateway/cmd/envoy-gateway",
            (
                "-X github.com/envoyproxy/gateway/internal/cmd/version.envoyGatewayVersion="
                f"{ENVOY_GATEWAY_VERSION}",
            ),
        ),
        Program(
            "prometheus",
            "prometheus",
            "github.com/prometheus/prometheus/cmd/prometheus",
            # Without the cloud SDKs of all the other ways to find targets.
            tags=("remove_all_sd", "enable_kubernetes_sd"),
        ),
        Program(
            "promtool",
            "promtool",
            "github.com/prometheus/prometheus/cmd/promtool",
            tags=("remove_all_sd",),
        ),
        Program("argocd-lua", "argocd-lua"),
        Program("kstatus", "kstatus"),
        Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Program("kustomize-controller", "flux", "github.com/fluxcd/kustomize-controller"),
        Program("source-controller", "source-controller", "github.com/fluxcd/source-controller"),
        # What applies and prunes in Argo CD, as the small program that its module comes with.
        Program("gitops-agent", "gitops-engine", "github.com/argoproj/gitops-engine/agent"),
        Program("registry", "registry"),
        Program("fake-gcs", "fake-gcs", "github.com/fsouza/fake-gcs-server"),
        Program("otel-collector", "otel-collector"),
        Program("contour", "contour", "github.com/projectcontour/contour/cmd/contour"),
    )
}
"""In the order in which a cold machine should build them: contract tests need the first."""

ON_DEMAND = frozenset(
    {
        *("argocd-lua", "contour", "fake-gcs", "gitops-agent", "kstatus", "kustomize-controller"),
        *("kwok", "otel-collector", "promtool", "registry", "source-controller"),
    }
)
"""Built only when asked for by name."""


def environment() -> dict[str, str]:
    """Return the environment for the go command: static programs, caches outside the clone."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false",
        "GOMODCACHE": str(paths.CACHE / "go-mod"),
        "GOCACHE": str(paths.CACHE / "go-build"),
        "GOTOOLCHAIN": "local",
    }


def go_release() -> str:
    """Return the Go release at hand, such as go1.26.8.

    Raises:
        FileNotFoundError: if there is no go command (preflight names it before).
    """
    return subprocess.run(
        ["go", "env", "GOVERSION"], check=True, capture_output=True, text=True, env=environment()
    ).stdout.strip()


def key(program: Program, sources: Path, release: str) -> str:
    """Return the first 16 hex digits of the hash of all that shapes the program."""
    digest = hashlib.sha256()
    folder = sources / program.module
    inputs = [p for p in folder.rglob("*") if p.name in {"go.mod", "go.sum"} or p.suffix == ".go"]
    for path in sorted(inputs):
        name = path.relative_to(folder).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    for part in (release, program.package, *program.ldflags, "tags", *program.tags):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:16]


def binary_path(program: Program, release: str) -> Path:
    """Return where the built program lies, built or not."""
    folder = f"{program.name}-{key(program, paths.GO_SOURCES, release)}"
    return paths.CACHE / "bin" / folder / program.name


def build(name: str, progress: Progress) -> Path:
    """Return the program's binary, building it first if its key is new.

    Raises:
        BuildFailed: with the compiler's output.
    """
    program = PROGRAMS[name]
    target = binary_path(program, go_release())
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Two lanes of one run, or two runs, may want the same program: one builds, the other waits.
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _compile(program, target, progress)
    _forget_older(target.parent)
    return target


def _compile(program: Program, target: Path, progress: Progress) -> None:
    partial = target.with_suffix(".partial")
    with progress.step(f"go build {program.name}"):
        done = run_tool(
            [
                *("nice", "go", "build", "-trimpath", "-tags", ",".join(program.tags)),
                *("-ldflags", " ".join(("-s", "-w", *program.ldflags))),
                *("-o", partial, program.package),
            ],
            directory=paths.GO_SOURCES / program.module,
            environment=environment(),
        )
    if done.returncode != 0:
        raise BuildFailed(f"go build {program.name} failed:\n{done.stderr[-4000:]}")
    partial.replace(target)


def _forget_older(newest: Path, keep: int = 2) -> None:
    """Remove a program's former builds but one, for going back and forth."""
    name, _, _ = newest.name.rpartition("-")
    others = [p for p in newest.parent.glob(f"{name}-" + "[0-9a-f]" * 16) if p != newest]
    for path in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[keep - 1 :]:
        shutil.rmtree(path)


def fetch_sources(names: Iterable[str]) -> None:
    """Download what building the programs will read, of those that have to be built.

    Meant to run ahead of the compiler: one waits for the network, the other for the processor.
    What goes wrong here is left for the build to tell.
    """
    release = go_release()
    for program in map(PROGRAMS.__getitem__, names):
        if not binary_path(program, release).exists():
            run_tool(
                ["go", "list", "-deps", "-tags", ",".join(program.tags), program.package],
                directory=paths.GO_SOURCES / program.module,
                environment=environment(),
            )


def module_folder(module: str, import_path: str) -> Path:
    """Return the folder in the module cache that holds a pinned dependency's files."""
    command = ["go", "mod", "download", "-json", import_path]
    folder = paths.GO_SOURCES / module
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
    done = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", import_path],
        cwd=folder,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(done.stdout.strip())
