"""What `pip install '.[cli]'` brings is enough for every command but `prepare`."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from typing import Final

CLI: Final = Path("operator/tidegate/cli")
NAMED: Final = {"protobuf": "google", "pyyaml": "yaml"}
"""Modules that are not named as their distributions are."""
IMPORTING: Final = """
import importlib, sys

allowed = set(sys.argv[1].split(",")) | sys.stdlib_module_names | {"tidegate", "_yaml"}

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and not name.startswith("_"):
            raise ImportError(f"{name} is not among what the extra brings")

sys.meta_path.insert(0, Refusing())
for module in sys.argv[2].split(","):
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(module, error, sep=": ")
"""


def distributions() -> set[str]:
    """Those of the extra, and what they need themselves."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cli"]]
    found: set[str] = set()
    while wanted:
        line = wanted.pop()
        name = re.match(r"[\w.-]+", line)[0].lower()  # type: ignore[index]
        if name not in found and "extra ==" not in line:
            found.add(name)
            wanted += requires(name) or ()
    return found


def imported() -> set[str]:
    """What the command line imports of the package, inside of functions too; `prepare` apart."""
    found: set[str] = set()
    for path in CLI.glob("*.py"):
        if path.stem in ("__main__", "prepare"):
            continue
        found.add(f"tidegate.cli.{path.stem}")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tidegate"):
                module = str(node.module)
                found |= {module, *(f"{module}.{a.name}" for a in node.names)}
    return {name for name in found if is_module(name)}


def is_module(name: str) -> bool:
    path = Path("operator", *name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_nothing_else_is_imported() -> None:
    modules = {NAMED.get(name, name.replace("-", "_")) for name in distributions()}
    assert {"typer", "rich", "yaml", "google", "pydantic"} <= modules
    assert not modules & {"aiohttp", "numpy", "kopf", "scipy"}
    wanted = imported()
    assert {"tidegate.cli.planning", "tidegate.plan", "tidegate.simulation.world"} & wanted
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, ",".join(modules), ",".join(sorted(wanted))],
        env={"PYTHONPATH": "operator"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def test_one_that_needs_more_is_found() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, "pydantic", "tidegate.runtime.kube"],
        env={"PYTHONPATH": "operator"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("tidegate.runtime.kube: ")
