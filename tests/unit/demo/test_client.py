"""The demo's table."""

from pathlib import Path

import pytest

from e2e.demo.client import Answer, table


def answer(file: str, label: str, score: float, milliseconds: float) -> Answer:
    return Answer(Path(file), label, score, milliseconds)


def test_table() -> None:
    shown = table(
        {
            "HTTP": [answer("a.py", "python", 0.9996, 3.14), answer("README.md", "txt", 1.0, 12)],
            "gRPC": [answer("a.py", "python", 0.9996, 2.0), answer("README.md", "markdown", 1, 9)],
        }
    )
    assert shown.splitlines() == [
        "file       label           score  HTTP ms  gRPC ms",
        "---------  --------------  -----  -------  -------",
        "a.py       python          1.000      3.1      2.0",
        "README.md  txt / markdown  1.000     12.0      9.0",
    ]


def test_protocols_must_have_answered_for_the_same_files() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table({"HTTP": [answer("a", "b", 1, 1)], "gRPC": []})
