"""The import contracts of pyproject.toml hold, and cover every concept."""

import re
import subprocess
import sys
import tomllib

from tests.unit.architecture.test_tree import ROOT

PACKAGE = ROOT / "operator" / "tidegate"
EDGES = {"runtime", "fetch", "cli", "dashboard", "simulation", "preparation"}


def contracts() -> list[dict[str, list[str]]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, list[str]]] = settings["tool"]["importlinter"]["contracts"]
    return found


def test_import_contracts_hold() -> None:
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "operator"), "PATH": "", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]


def test_every_concept_is_under_the_contract_of_purity() -> None:
    concepts = {
        path.stem
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.stem != "__init__"
    }
    pure, layers, *_ = contracts()
    covered = {name.split(".")[1] for name in pure["source_modules"]}
    assert concepts - covered == EDGES & concepts
    layered = {
        m.strip().split(".")[1] for layer in layers["layers"] for m in re.split("[|:]", layer)
    }
    assert concepts - layered == set()
