"""Commands as they are typed, against an API server of the tests' own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.cli.api_server import Server, serving
from tidegate.cli import main


@dataclass(frozen=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command against a server; its exit code must be `code`."""

    def command(server: Server, *arguments: str, code: int = 0) -> Done:
        with serving(server, tmp_path) as config:
            ended = 0
            try:
                main.main(["--kubeconfig", config, *arguments])
            except SystemExit as error:
                ended = int(error.code or 0)
        said = capsys.readouterr()
        done = Done(ended, said.out, said.err)
        assert ended == code, done
        assert len(said.err.splitlines()) <= 1 or not said.err.startswith("error")
        return done

    return command
