"""The pipelines of the examples, run: by a shell, by gitlab-ci-local, and by Groovy.

Each goes the same way, with the real kubectl and the real command line, as the service account of
`pipeline-rbac.yaml`: a first version; a second that is not decided in time, and is waited for by
running the pipeline again; a third that is rolled back; its revert.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster.kube import KubeClient, documents, wait_for
from e2e.cluster.repository import git
from tests.integration.gitops.conftest import (
    EXAMPLES,
    MODEL,
    NAMESPACE,
    ROOT,
    RUNNER,
    SECONDS,
    Place,
    ask_for,
    credentials,
    quick,
)

pytestmark = pytest.mark.integration

USER: Final = f"system:serviceaccount:{NAMESPACE}:pipeline"
LONG: Final = "90s"


@dataclass(frozen=True)
class Outcome:
    """What a pipeline says of itself.

    Attributes:
        word: passed, warned or failed.
        said: all its output.
    """

    word: str
    said: str


Run = Callable[[str, Path, str], Outcome]
"""Runs the stage of that name in a folder, waiting at most so long."""


@pytest.fixture(scope="module")
def environment(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a pipeline's machine: kubectl with its plugin, and the service account's credentials."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "kubectl").symlink_to(Path(sysconfig.get_path("scripts")) / "kubectl")
    plugin = folder / "kubectl-tidegate"
    plugin.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT}/operator exec {sys.executable} -m tidegate.cli "$@"\n'
    )
    plugin.chmod(0o755)
    rights = documents((EXAMPLES / "pipeline-rbac.yaml").read_text(encoding="utf-8"))
    place.kube.apply_all(rights)
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"]
    config = credentials(place.plane, USER, [*groups, "system:authenticated"], folder)
    with KubeClient(config) as pipeline:
        path = place.kube.path("tidegate.dev/v1alpha1", "ModelDeployment", NAMESPACE)
        wait_for(lambda: pipeline.request("GET", path), "its rights", timeout_seconds=SECONDS)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(folder),
        "KUBECONFIG": str(config),
    }


@pytest.fixture
def content(place: Place, tmp_path: Path) -> Iterator[Path]:
    """A git repository with the examples, which rolls out within seconds; no model yet."""
    folder = tmp_path / "models"
    shutil.copytree(EXAMPLES, folder)
    (folder / "gitlab-ci.yml").rename(folder / ".gitlab-ci.yml")
    quick(folder)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "remote", "add", "origin", "https://git.example/ml/models.git")
    yield folder
    place.kube.delete("tidegate.dev/v1alpha1", "ModelDeployment", MODEL, NAMESPACE)
    wait_for(
        lambda: not place.kube.list("v1", "Pod", NAMESPACE),
        "all gone",
        timeout_seconds=SECONDS,
    )


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def shell(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


def course(place: Place, folder: Path, run: Run) -> None:
    """The way that every pipeline goes."""
    first = ask_for(folder, 1)
    commit(folder, "first version")
    planned = run("plan", folder, LONG)
    assert planned.word == "passed", planned.said
    assert f"ModelDeployment {NAMESPACE}/{MODEL} would be created" in planned.said
    assert place.live() == {}, "a plan has changed something"
    outcome = run("rollout", folder, LONG)
    assert outcome.word == "passed", outcome.said
    assert place.stable()["source"] == first

    second = ask_for(folder, 2)
    commit(folder, "second version")
    outcome = run("rollout", folder, "1s")
    assert outcome.word == "warned", outcome.said
    assert "not within 1s" in outcome.said
    outcome = run("rollout", folder, LONG)
    assert outcome.word == "passed", outcome.said
    assert place.stable()["source"] == second

    place.data.bad = frozenset({ask_for(folder, 3)})
    commit(folder, "third version")
    for _ in range(2):  # running it again does not try it again
        outcome = run("rollout", folder, LONG)
        assert outcome.word == "failed", outcome.said
        assert "was rolled back" in outcome.said
        assert "limit 1%" in outcome.said, "explain"
        assert "evert this commit" in outcome.said
    assert place.stable()["source"] == second
    git(folder, "revert", "--no-edit", "HEAD")
    outcome = run("rollout", folder, LONG)
    assert outcome.word == "passed", outcome.said
    assert place.stable()["source"] == second


def test_gitlabs_scripts_by_a_shell(
    place: Place, content: Path, environment: dict[str, str]
) -> None:
    pipeline: dict[str, Any] = yaml.safe_load((content / ".gitlab-ci.yml").read_text())

    def run(name: str, folder: Path, longest: str) -> Outcome:
        job = pipeline[name]
        variables = {k: str(v) for k, v in pipeline["variables"].items()} | {"LONGEST": longest}
        script = "\n".join(job["script"])
        # What a runner's shell executor does with the lines.
        command = ["bash", "-eo", "pipefail", "-c", script]
        code, said = shell(command, folder, environment | variables)
        warned = code in job.get("allow_failure", {}).get("exit_codes", ())
        return Outcome("warned" if warned else "failed" if code else "passed", said)

    course(place, content, run)


@pytest.mark.clouds
def test_gitlabs_pipeline_by_gitlab_ci_local(
    place: Place, content: Path, environment: dict[str, str], gitlab_ci_local: Path
) -> None:
    def run(name: str, folder: Path, longest: str) -> Outcome:
        given = [f"--variable=LONGEST={longest}"]
        if name == "plan":
            # A merge request's pipeline has no branch; here it has another one, which is as good.
            git(folder, "switch", "--quiet", "--create", "change")
            given.append("--variable=CI_PIPELINE_SOURCE=merge_request_event")
        command = [str(gitlab_ci_local), "--force-shell-executor", *given]
        _, said = shell(command, folder, environment)
        git(folder, "switch", "--quiet", "main")
        assert "json schema validated" in said, said
        ran = [line.split()[0] for line in said.splitlines() if " starting shell " in line]
        assert ran == [name], said
        # Not by its own status: that is 0 whatever a job's is.
        ended = re.search(rf"^{name} +finished in [^A-Z\n]*([A-Z]*)", said, re.MULTILINE)
        assert ended, said
        words = {"": "passed", "WARN": "warned", "FAIL": "failed"}
        return Outcome(words[ended[1]], said)

    course(place, content, run)


@pytest.mark.clouds
def test_jenkinss_pipeline_by_groovy(
    place: Place, content: Path, environment: dict[str, str], groovy: Path
) -> None:
    """The steps that `jenkins.groovy` knows are those of a declarative pipeline that it uses."""

    def run(name: str, folder: Path, longest: str) -> Outcome:
        event = "change" if name == "plan" else "main"
        command = ["java", "-cp", str(groovy), "groovy.ui.GroovyMain", str(RUNNER)]
        code, said = shell(
            [*command, "Jenkinsfile", event, f"LONGEST={longest}"], folder, environment
        )
        ran = [line for line in said.splitlines() if line.startswith("[stage] ")]
        assert ran == [f"[stage] {name.capitalize()}"], said
        words = {0: "passed", 1: "failed", 2: "warned"}
        return Outcome(words.get(code, f"ended with {code}"), said)

    course(place, content, run)
