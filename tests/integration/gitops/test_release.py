"""The pipelines of `docs/examples/release`: what a job says for each end of the script.

What the script starts is played: `e2e/tests/test_mlflow_alias.py` runs it whole.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from e2e.cluster.repository import git
from tests.integration.gitops.conftest import ROOT, RUNNER

pytestmark = pytest.mark.integration

RELEASE: Final = ROOT / "docs" / "examples" / "release"
SCRIPT: Final = RELEASE.with_name("release.sh")
MODEL: Final = "models:/digits/7"
ENDS: Final = ((0, "passed"), (3, "failed"), (4, "warned"), (5, "failed"))
"""Of `tidegate wait`, and what the job is to make of it."""
FAKE: Final = """\
#!/bin/sh
echo "NAME $*" >> FOLDER/started
case "NAME $*" in
"tidegate prepare"*)
    mkdir -p prepared/manifests && touch prepared/manifests/golden.yaml prepared/report.html;;
"kubectl apply"*) cp -r prepared.manifests FOLDER/applied;;
"kubectl tidegate wait"*) exit CODE;;
esac
"""


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A git repository with the examples."""
    folder = tmp_path / "release"
    shutil.copytree(RELEASE, folder)
    shutil.copy(SCRIPT, folder)
    (folder / "gitlab-ci.yml").rename(folder / ".gitlab-ci.yml")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "remote", "add", "origin", "https://git.example/ml/release.git")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "release")
    return folder


def environment(folder: Path, code: int) -> dict[str, str]:
    """Of a pipeline's machine, whose programs are played; the rollout ends with that status."""
    played = folder / f"bin-{code}"
    played.mkdir()
    for name in ("tidegate", "kubectl", "mlflow"):
        text = FAKE.replace("NAME", name).replace("FOLDER", str(played))
        (played / name).write_text(text.replace("CODE", str(code)))
        (played / name).chmod(0o755)
    return {"PATH": f"{played}:{os.environ['PATH']}", "HOME": str(folder), "KUBECONFIG": "/none"}


def run(command: list[str], folder: Path, env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def check(env: dict[str, str], said: str) -> None:
    """All that there is to do was done, with the pipeline's own settings."""
    played = Path(env["PATH"].partition(":")[0])
    fetched, prepared, applied, waited, *rest = (played / "started").read_text().splitlines()
    assert fetched.startswith(f"mlflow artifacts download --artifact-uri {MODEL} "), said
    assert prepared.startswith("tidegate prepare --model prepared.source/model.pkl ")
    assert "--data prepared.source/holdout.npz --slo p99=50ms --name digits" in prepared
    assert applied == "kubectl apply --server-side -k prepared.manifests"
    assert waited == "kubectl tidegate wait digits --for=promoted --timeout=2h"
    explained = ["kubectl tidegate explain digits"]
    assert rest == ([] if played.name == "bin-0" else explained)
    policy = yaml.safe_load((played / "applied" / "policy.yaml").read_text())
    assert policy["metadata"]["name"] == "digits"


@pytest.mark.parametrize(("code", "word"), ENDS)
def test_gitlabs_script_by_a_shell(content: Path, tmp_path: Path, code: int, word: str) -> None:
    pipeline: dict[str, Any] = yaml.safe_load((content / ".gitlab-ci.yml").read_text())
    job, env = pipeline["release"], environment(tmp_path, code)
    variables = {
        name: str(value["value"] if isinstance(value, dict) else value)
        for name, value in pipeline["variables"].items()
    }
    script = "\n".join(job["script"])
    command = ["bash", "-eo", "pipefail", "-c", script]
    found, said = run(command, content, env | variables | {"MODEL": MODEL})
    warned = found in job["allow_failure"]["exit_codes"]
    assert ("warned" if warned else "failed" if found else "passed") == word, said
    check(env, said)


@pytest.mark.clouds
@pytest.mark.parametrize(("code", "word"), ENDS)
def test_gitlabs_pipeline_by_gitlab_ci_local(
    content: Path, tmp_path: Path, gitlab_ci_local: Path, code: int, word: str
) -> None:
    env = environment(tmp_path, code)
    given = ["--variable=CI_PIPELINE_SOURCE=web", f"--variable=MODEL={MODEL}"]
    command = [str(gitlab_ci_local), "--force-shell-executor", *given]
    _, said = run(command, content, env)
    assert "json schema validated" in said, said
    ended = re.search(r"^release +finished in [^A-Z\n]*([A-Z]*)", said, re.MULTILINE)
    assert ended, said
    assert {"": "passed", "WARN": "warned", "FAIL": "failed"}[ended[1]] == word, said
    check(env, said)


@pytest.mark.clouds
@pytest.mark.parametrize(("code", "word"), ENDS)
def test_jenkinss_pipeline_by_groovy(
    content: Path, tmp_path: Path, groovy: Path, code: int, word: str
) -> None:
    env = environment(tmp_path, code)
    command = ["java", "-cp", str(groovy), "groovy.ui.GroovyMain", str(RUNNER)]
    found, said = run([*command, "Jenkinsfile", "main", f"MODEL={MODEL}"], content, env)
    assert {0: "passed", 1: "failed", 2: "warned"}.get(found) == word, said
    check(env, said)
