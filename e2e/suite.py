"""Runs the project's stages one after the other, each with its progress and time.

`python -m e2e.suite check contract cluster e2e cluster-down` is `make test`. A stage that fails
ends the run, but a cluster that this run brought up is taken down before.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from e2e import preparation_venv
from e2e.cluster import gobuild, images, lifecycle, node_images, paths, preflight, processes
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

PYTHON = str(paths.REPOSITORY / ".venv" / "bin" / "python")
SOURCES = ("operator", "tests", "e2e", "helm")
"""What is linted and typed."""
PREPARATION = "tests/integration/preparation"
"""Run by an interpreter of their own."""


class StageFailed(RuntimeError):
    """A command of a stage ended with another status than 0."""


def _environment() -> dict[str, str]:
    """With the source roots in view: the package is tested from the tree, not installed."""
    roots = [str(paths.REPOSITORY / "operator"), str(paths.REPOSITORY)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}


def _call(progress: Progress, title: str, command: Sequence[str]) -> None:
    with progress.step(title):
        done = subprocess.run(command, cwd=paths.REPOSITORY, env=_environment(), check=False)
        if done.returncode != 0:
            raise StageFailed(f"{title}: {' '.join(command)} ended with status {done.returncode}")


@contextmanager
def _built_ahead(progress: Progress) -> Iterator[None]:
    """Build what the cluster needs while the stages before it run, with what they leave idle.

    Those stages wait for servers most of their time, a cold machine compiles for a quarter of an
    hour. A build that fails here is tried again, and told, by the stage that needs it.
    """
    # Here, not beside the stages: only one installation of packages can run at a time.
    preflight.for_build(progress)
    command = [PYTHON, "-m", "e2e.cluster", "build"]
    suite = os.getpid()

    def in_the_child() -> None:
        processes.die_with(suite)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    building = subprocess.Popen(
        command, cwd=paths.REPOSITORY, env=_environment(), preexec_fn=in_the_child
    )
    try:
        yield
    finally:
        # What it has not finished, the cluster's stage finished with it: locks tell them apart.
        if building.poll() is None:
            building.terminate()
            building.wait()


def check(progress: Progress) -> None:
    """Lint, format, types, import contracts, unit tests; all of them, though one fails."""
    tools = paths.REPOSITORY / ".venv" / "bin"
    commands = {
        "ruff check": [f"{tools}/ruff", "check", "--quiet", *SOURCES],
        "ruff format": [f"{tools}/ruff", "format", "--quiet", "--check", *SOURCES],
        "mypy": [f"{tools}/mypy", *SOURCES],
        "import contracts": [f"{tools}/lint-imports"],
        # Two at a time: the smallest machine that this is for has two cores.
        "unit tests": [PYTHON, "-m", "pytest", "-q", "-n", "2", "tests/unit"],
    }
    failures = []
    for title, command in commands.items():
        try:
            _call(progress, title, command)
        except StageFailed as failure:
            failures.append(str(failure))
    if failures:
        raise StageFailed("\n".join(failures))


def contract(progress: Progress) -> None:
    """Tests against a real API server."""
    preflight.for_control_plane(progress)
    # Built here and not by the tests' fixture, where nobody would see that it takes minutes.
    for name in ("kube-apiserver", "kube-controller-manager"):
        gobuild.build(name, progress)
    _call(progress, "contract tests", [PYTHON, "-m", "pytest", "-q", "tests/contract"])


def integration(progress: Progress) -> None:
    """Tests against real servers as plain processes: Triton, Envoy, S3, registries."""
    preflight.for_control_plane(progress)
    preflight.for_browser(progress)
    # Built here and not by the tests' fixtures, where nobody would see that it takes minutes.
    for name in (
        *("kube-apiserver", "kube-controller-manager"),
        *("argocd-lua", "kstatus", "prometheus", "promtool"),
    ):
        gobuild.build(name, progress)
    command = [PYTHON, "-m", "pytest", "-q", "tests/integration", "-m", "not clouds"]
    _call(progress, "integration tests", [*command, f"--ignore={PREPARATION}"])
    _preparation(progress, frameworks=False)


def integration_frameworks(progress: Progress) -> None:
    """The preparation's tests that need PyTorch, TensorFlow and OpenVINO: 6 GB of them."""
    _preparation(progress, frameworks=True)


def _preparation(progress: Progress, *, frameworks: bool) -> None:
    python = _preparation_python(progress, frameworks=frameworks)
    chosen = "frameworks" if frameworks else "not frameworks"
    command = [python, "-m", "pytest", "-q", PREPARATION, "-m", chosen]
    _call(progress, "preparation tests", command)


def _preparation_python(progress: Progress, *, frameworks: bool = False) -> str:
    with progress.step("the preparation's environment"):
        return str(preparation_venv.python(frameworks=frameworks))


def integration_clouds(progress: Progress) -> None:
    """The integration tests whose servers take minutes to get (mlflow, emulators, Flux)."""
    preflight.for_control_plane(progress)
    preflight.for_pipelines(progress)
    for name in ("kube-apiserver", "kube-controller-manager", "kustomize-controller"):
        gobuild.build(name, progress)
    command = [PYTHON, "-m", "pytest", "-q", "tests/integration", "-m", "clouds"]
    title = "integration tests with mlflow and emulators"
    _call(progress, title, [*command, f"--ignore={PREPARATION}"])


def cluster(progress: Progress) -> None:
    """Bring the cluster up, or today's images into the one that is up."""
    settings = Settings()
    lifecycle.up(settings, progress)
    node_images.bring_in(settings, images.for_node(), progress)


def e2e(progress: Progress) -> None:
    """End-to-end tests without the slow ones."""
    preflight.for_browser(progress)
    _preparation_python(progress)
    _call(
        progress,
        "end-to-end tests",
        [PYTHON, "-m", "pytest", "-q", "--durations=20", "-m", "not slow", "e2e/tests"],
    )


def e2e_full(progress: Progress) -> None:
    """All end-to-end tests."""
    preflight.for_browser(progress)
    _preparation_python(progress)
    _call(progress, "end-to-end tests, all", [PYTHON, "-m", "pytest", "-q", "e2e/tests"])


def cluster_down(progress: Progress) -> None:
    """Take the cluster down."""
    lifecycle.down(Settings(), progress)


STAGES: dict[str, Callable[[Progress], None]] = {
    "check": check,
    "contract": contract,
    "integration": integration,
    "integration-clouds": integration_clouds,
    "integration-frameworks": integration_frameworks,
    "cluster": cluster,
    "e2e": e2e,
    "e2e-full": e2e_full,
    "cluster-down": cluster_down,
}


def run(names: Sequence[str], progress: Progress) -> None:
    """Run the stages in order.

    Raises:
        StageFailed: by the first that fails; later ones are not run, but `cluster-down` is.
    """
    with _built_ahead(progress) if "cluster" in names[1:] else nullcontext():
        for position, name in enumerate(names):
            progress.say(f"== {name} ({position + 1} of {len(names)})")
            try:
                STAGES[name](progress)
            except Exception:
                if "cluster" in names[:position] and "cluster-down" in names[position + 1 :]:
                    cluster_down(progress)
                raise
    progress.say("passed: " + " ".join(names))


def main() -> int:
    """Run the named stages. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.suite", description=__doc__)
    parser.add_argument("stages", nargs="+", choices=sorted(STAGES))
    try:
        run(parser.parse_args().stages, Progress())
    except (StageFailed, RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
