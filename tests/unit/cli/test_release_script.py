"""docs/examples/release.sh: from a model to promoted, with the programs it starts written down."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.architecture.test_commands import complaint

SCRIPT = Path(__file__).parents[3] / "docs/examples/release.sh"
GIVEN = {
    "MODEL": "clf.joblib",
    "DATA": "digits.npz",
    "SLO": "p99=50ms",
    "NAME": "digits",
    "STORE": "s3://models/digits",
}


FAKE = """\
#!/bin/sh
echo NAME "$@" >> FOLDER/started
case "NAME $*" in
"tidegate prepare"*) mkdir -p prepared/manifests && touch prepared/manifests/golden.yaml;;
"kubectl apply"*) cat prepared.manifests/kustomization.yaml > FOLDER/applied;;
esac
case "$*" in FAILS*) exit CODE;; esac
"""


def release(
    folder: Path, *, fails: str = "", code: int = 0, given: dict[str, str] = GIVEN
) -> tuple[int, list[list[str]]]:
    """Its status, and what it started; one whose words begin with `fails` ends with `code`."""
    for name in ("tidegate", "kubectl", "mlflow"):
        program = folder / name
        text = FAKE.replace("NAME", name).replace("FOLDER", str(folder))
        program.write_text(text.replace("FAILS", fails or "nothing").replace("CODE", str(code)))
        program.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **given}
    done = subprocess.run(
        ["sh", str(SCRIPT)], cwd=folder, env=environment, capture_output=True, check=False
    )
    started = folder / "started"
    lines = started.read_text().splitlines() if started.exists() else []
    return done.returncode, [shlex.split(line) for line in lines]


def applied(folder: Path) -> dict[str, Any]:
    """The kustomization that was applied."""
    found: dict[str, Any] = yaml.safe_load((folder / "applied").read_text())
    return found


def test_prepared_applied_and_waited_for(tmp_path: Path) -> None:
    code, started = release(tmp_path)
    assert code == 0
    assert [words[:2] for words in started] == [
        ["tidegate", "prepare"],
        ["kubectl", "apply"],
        ["kubectl", "tidegate"],
    ]
    # What golden requests a version must answer is there before the version.
    assert applied(tmp_path) == {"resources": ["golden.yaml", "modeldeployment.yaml"]}
    assert complaint(tuple(started[0][1:]), whole=True) == ""
    assert complaint(tuple(started[2][2:]), whole=True) == ""


def test_the_teams_policy_and_more_options_are_taken_in(tmp_path: Path) -> None:
    (tmp_path / "production.yaml").write_text("kind: ModelDeployment")
    more = {"POLICY": "production.yaml", "OPTIONS": "--quick --optimise graph"}
    code, started = release(tmp_path, given={**GIVEN, **more})
    assert code == 0
    assert started[0][-3:] == ["--quick", "--optimise", "graph"]
    assert applied(tmp_path)["patches"] == [{"path": "policy.yaml"}]
    copied = tmp_path / "prepared.manifests" / "policy.yaml"
    assert copied.read_text() == "kind: ModelDeployment"


@pytest.mark.parametrize(
    ("more", "file"), [({}, "model.pkl"), ({"FILE": "model/clf.joblib"}, "model/clf.joblib")]
)
def test_a_model_of_a_registry_is_fetched_first(
    tmp_path: Path, more: dict[str, str], file: str
) -> None:
    (tmp_path / "prepared.source").mkdir()
    (tmp_path / "prepared.source" / "of-another-version").touch()
    code, started = release(tmp_path, given={**GIVEN, "MODEL": "models:/digits/3", **more})
    assert code == 0
    fetched, prepared, *_ = started
    assert fetched[:3] == ["mlflow", "artifacts", "download"]
    assert fetched[3:] == ["--artifact-uri", "models:/digits/3", "--dst-path", "prepared.source"]
    assert prepared[prepared.index("--model") + 1] == f"prepared.source/{file}"
    assert not (tmp_path / "prepared.source").exists()


def test_nothing_is_prepared_when_the_registry_has_no_such_model(tmp_path: Path) -> None:
    given = {**GIVEN, "MODEL": "models:/nobody/1"}
    code, started = release(tmp_path, fails="artifacts", code=1, given=given)
    assert code == 1
    assert [words[0] for words in started] == ["mlflow"]


@pytest.mark.parametrize("code", [3, 4])
def test_it_ends_as_the_wait_does_and_explains(tmp_path: Path, code: int) -> None:
    found, started = release(tmp_path, fails='"tidegate wait"', code=code)
    assert found == code
    assert started[-1] == ["kubectl", "tidegate", "explain", "digits"]


def test_nothing_is_applied_when_preparing_fails(tmp_path: Path) -> None:
    code, started = release(tmp_path, fails="prepare", code=1)
    assert code == 1
    assert [words[0] for words in started] == ["tidegate"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    code, started = release(tmp_path, given={k: v for k, v in GIVEN.items() if k != "SLO"})
    assert code != 0
    assert started == []
