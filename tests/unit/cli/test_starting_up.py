"""How long a command takes to start is what it imports: the heavy parts only where they are used.

Seconds are measured by `e2e.bench.command_line`.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.unit.cli.api_server import Server, serving

NEVER: Final = {
    # Of the operator, or of other commands.
    *("aiohttp", "asyncio", "httpx", "jinja2", "kopf", "numpy", "prometheus_client", "requests"),
    *("scipy", "starlette", "structlog", "urllib3", "urllib.request"),
    *("tidegate.analysis", "tidegate.api.crd", "tidegate.plan", "tidegate.runtime"),
    *("tidegate.preparation", "tidegate.simulation"),
}
"""Not by a command that looks."""
CLUSTER: Final = {"http.client", "ssl", "tidegate.cli.client", "tidegate.cli.kubeconfig", "yaml"}
"""What it takes to ask an API server."""
SHOWING: Final = {"rich", "rich.console", "tidegate.cli.render", "tidegate.view"}
"""What it takes to show what it answered."""
HELP: Final = {"rich.markdown", "rich.traceback", "typer.rich_utils"}
WATCHING: Final = {"rich.live"}
OTHERS: Final = {f"tidegate.cli.{name}" for name in ("doctor", "logs", "planning", "recording")}


def imported(*arguments: str, kubeconfig: str = "/nonexistent") -> set[str]:
    """The modules of a whole run, each by its name."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tidegate.cli", *arguments],
        env={"PYTHONPATH": "operator", "KUBECONFIG": kubeconfig},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize(
    ("arguments", "less"),
    [
        (["--help"], CLUSTER | {"pydantic", "tidegate.cli.render", "tidegate.view"}),
        (["get", "--help"], CLUSTER | {"tidegate.cli.render", "tidegate.view"}),
        (["--version"], CLUSTER | SHOWING | HELP),
        (["__complete", "ge"], CLUSTER | SHOWING | HELP),
    ],
)
def test_what_asks_nobody(arguments: list[str], less: set[str]) -> None:
    found = imported(*arguments)
    assert "tidegate.cli.main" in found
    assert found & (NEVER | OTHERS | WATCHING | less) == set()


def test_a_list(tmp_path: Path) -> None:
    with serving(Server(), tmp_path) as config:
        found = imported("list", kubeconfig=config)
        named = imported("list", "-o", "name", kubeconfig=config)
    assert found >= CLUSTER | SHOWING
    assert found & (NEVER | OTHERS | HELP | WATCHING) == set()
    assert named & (NEVER | OTHERS | HELP | WATCHING) == set()
