"""Runs the project's stages, each with its progress and time.

A step is a stage, several in a row (``cluster,e2e``), or such rows side by side, each in a process
of its own (``e2e/contract,integration``): the first has the processor before the others, which wait
for servers most of their time. A stage that fails ends the run, but a cluster that this run brought
up is taken down before.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from e2e import lanes, preparation_venv, second_try
from e2e.cluster import gobuild, images, lifecycle, node_images, paths, preflight
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

PYTHON = str(paths.REPOSITORY / ".venv" / "bin" / "python")
SOURCES = ("operator", "tests", "e2e", "helm")
"""What is linted and typed."""
PREPARATION = "tests/integration/preparation"
"""Run by an interpreter of their own."""
TWO_AT_A_TIME = ("-n", "2", "--dist", "loadfile", "--durations", "10")
"""The smallest machine that this is for has two cores; a module's servers are started once."""


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


def _tests(
    progress: Progress, title: str, python: str, *chosen: str, at_once: bool = False
) -> None:
    """Tests against what really runs; few that fail beside others may pass alone."""
    command = [python, "-m", "pytest", "-q", *(TWO_AT_A_TIME if at_once else ()), *chosen]
    with progress.step(title):
        status, late = second_try.run(
            command,
            alone=("-n", "0") if at_once else (),
            folder=paths.REPOSITORY,
            environment=_environment(),
        )
        if status != 0:
            raise StageFailed(f"{title}: {' '.join(command)} ended with status {status}")
    for name in late:
        progress.say(f"passed only at the second try, alone: {name}")


def check(progress: Progress) -> None:
    """Lint, format, types, import contracts, unit tests; all of them, though one fails."""
    tools = paths.REPOSITORY / ".venv" / "bin"
    commands = {
        "ruff check": [f"{tools}/ruff", "check", "--quiet", *SOURCES],
        "ruff format": [f"{tools}/ruff", "format", "--quiet", "--check", *SOURCES],
        "mypy": [f"{tools}/mypy", *SOURCES],
        "import contracts": [f"{tools}/lint-imports"],
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
    _tests(progress, "contract tests", PYTHON, "tests/contract", at_once=True)


def integration(progress: Progress) -> None:
    """Tests against real servers as plain processes: Triton, Envoy, S3, registries.

    Without those that measure: `integration_alone`.
    """
    preflight.for_control_plane(progress)
    preflight.for_browser(progress)
    # Built here and not by the tests' fixtures, where nobody would see that it takes minutes.
    for name in (
        *("kube-apiserver", "kube-controller-manager"),
        *("argocd-lua", "kstatus", "prometheus", "promtool"),
    ):
        gobuild.build(name, progress)
    _integration(progress, "integration tests", "not clouds and not alone", at_once=True)
    _preparation(progress, frameworks=False)


def integration_alone(progress: Progress) -> None:
    """The integration tests that measure, one at a time and beside nothing else."""
    _integration(progress, "integration tests that measure", "alone and not clouds")


def _integration(progress: Progress, title: str, chosen: str, *, at_once: bool = False) -> None:
    folders = ("tests/integration", f"--ignore={PREPARATION}")
    _tests(progress, title, PYTHON, *folders, "-m", chosen, at_once=at_once)


def integration_frameworks(progress: Progress) -> None:
    """The preparation's tests that need PyTorch, TensorFlow and OpenVINO: 6 GB of them."""
    _preparation(progress, frameworks=True)


def _preparation(progress: Progress, *, frameworks: bool) -> None:
    python = _preparation_python(progress, frameworks=frameworks)
    chosen = "frameworks" if frameworks else "not frameworks"
    _tests(progress, "preparation tests", python, PREPARATION, "-m", chosen)


def _preparation_python(progress: Progress, *, frameworks: bool = False) -> str:
    with progress.step("the preparation's environment"):
        return str(preparation_venv.python(frameworks=frameworks))


def integration_clouds(progress: Progress) -> None:
    """The integration tests whose servers take minutes to get (mlflow, Flux, a collector)."""
    preflight.for_control_plane(progress)
    preflight.for_pipelines(progress)
    for name in (
        *("kube-apiserver", "kube-controller-manager", "gitops-agent"),
        *("kustomize-controller", "otel-collector", "source-controller"),
    ):
        gobuild.build(name, progress)
    _integration(progress, "integration tests with mlflow and emulators", "clouds")


def cluster(progress: Progress) -> None:
    """Bring the cluster up, or today's images into the one that is up."""
    settings = Settings()
    lifecycle.up(settings, progress)
    node_images.bring_in(settings, images.for_node(), progress)


def e2e(progress: Progress) -> None:
    """End-to-end tests without the slow ones."""
    preflight.for_browser(progress)
    _preparation_python(progress)
    chosen = ("--durations=20", "-m", "not slow", "e2e/tests")
    _tests(progress, "end-to-end tests", PYTHON, *chosen)


def e2e_full(progress: Progress) -> None:
    """All end-to-end tests."""
    preflight.for_browser(progress)
    _preparation_python(progress)
    _tests(progress, "end-to-end tests, all", PYTHON, "e2e/tests")


def cluster_down(progress: Progress) -> None:
    """Take the cluster down."""
    lifecycle.down(Settings(), progress)


STAGES: dict[str, Callable[[Progress], None]] = {
    "check": check,
    "contract": contract,
    "integration": integration,
    "integration-alone": integration_alone,
    "integration-clouds": integration_clouds,
    "integration-frameworks": integration_frameworks,
    "cluster": cluster,
    "e2e": e2e,
    "e2e-full": e2e_full,
    "cluster-down": cluster_down,
}


def rows(step: str) -> list[list[str]]:
    """The stages of a step: rows that run side by side.

    Raises:
        ValueError: naming a stage that is none.
    """
    found = [row.split(",") for row in step.split("/")]
    for name in (name for row in found for name in row):
        if name not in STAGES:
            raise ValueError(f"there is no stage {name!r}; there are {', '.join(sorted(STAGES))}")
    return found


def run(steps: Sequence[str], progress: Progress) -> None:
    """Run the steps in order.

    Raises:
        StageFailed: by the first that fails; later ones are not run, but `cluster-down` is.
        LaneFailed: the same, where rows run side by side.
    """
    todo = [rows(step) for step in steps]
    names = [[name for row in step for name in row] for step in todo]
    for position, step in enumerate(todo):
        progress.say(f"== {steps[position]} ({position + 1} of {len(steps)})")
        try:
            _do(step, progress)
        except Exception:
            # A cluster that does not come up by itself is left to be looked at.
            begun = names[:position] + ([names[position]] if len(step) > 1 else [])
            after = names[position + 1 :]
            if any("cluster" in n for n in begun) and any("cluster-down" in n for n in after):
                cluster_down(progress)
            raise
    progress.say("passed: " + " ".join(steps))


def _do(step: Sequence[Sequence[str]], progress: Progress) -> None:
    if len(step) > 1:
        _side_by_side(step, progress)
        return
    for name in step[0]:
        STAGES[name](progress)


def _side_by_side(step: Sequence[Sequence[str]], progress: Progress) -> None:
    # Here, not in the rows: only one installation of packages can run at a time.
    preflight.for_build(progress)
    preflight.for_control_plane(progress)
    preflight.for_browser(progress)
    commands = {",".join(row): [PYTHON, "-m", "e2e.suite", *row] for row in step}
    lanes.side_by_side(commands, folder=paths.REPOSITORY, environment=_environment())


def main() -> int:
    """Run the named steps. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m e2e.suite", description=__doc__)
    parser.add_argument("steps", nargs="+", help=f"of these stages: {', '.join(sorted(STAGES))}")
    steps = parser.parse_args().steps
    try:
        for step in steps:
            rows(step)
    except ValueError as error:
        parser.error(str(error))
    try:
        run(steps, Progress())
    except (StageFailed, RuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Another row failed, or a person: where this one stood explains nothing.
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
