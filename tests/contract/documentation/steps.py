"""What a page tells to type, command by command, with what it says comes of it."""

import re
import shlex
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.unit.architecture.documented import SHELLS, is_open
from tests.unit.architecture.test_docs import FENCE

PLACEHOLDERS: Final = {"NAME": "magika", "NAMESPACE": "models"}
"""What pages leave to the reader to put in."""
_DURATION: Final = r"(?<!\w)\d+(?:\.\d+)?(?:ms|[smhd])(?:\d+[smhd])*"
_HASH: Final = r"sha256:[0-9a-f]{64}|\b(?=[a-z]*\d)[a-z0-9]{10}\b"
_VARIES: Final = re.compile(rf"{_HASH}|{_DURATION}|v?\d[\d,.]*|[▁-█░]+")


class Step(NamedTuple):
    """One command.

    Attributes:
        command: as it stands on the page, over several lines where it is.
        shown: the lines that the page shows below it; empty: none.
    """

    command: str
    shown: tuple[str, ...] = ()

    @property
    def follows(self) -> bool:
        """Whether it goes on until somebody ends it."""
        words = shlex.split(self.command, comments=True)
        return bool({"-w", "--watch"} & set(words))


def steps(text: str) -> Iterator[Step]:
    """All commands of a page, in their order."""
    for language, body in FENCE.findall(text):
        if language in SHELLS:
            yield from _of_block(body.splitlines(), prompt="$ " if language == "console" else "")


def _of_block(lines: list[str], prompt: str) -> Iterator[Step]:
    at = 0
    while at < len(lines):
        command = lines[at].removeprefix(prompt)
        at += 1
        while command.endswith("\\") or is_open(command):
            command = f"{command}\n{lines[at]}"
            at += 1
        shown = []
        while prompt and at < len(lines) and not lines[at].startswith(prompt):
            shown.append(lines[at])
            at += 1
        if command.strip():
            yield Step(command, tuple(line for line in shown if line.strip()))


def filled(command: str) -> str:
    """A command with its placeholders put in."""
    for name, value in PLACEHOLDERS.items():
        command = re.sub(rf"\b{name}\b", value, command)
    return command


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, ages, hashes, bars, widths."""
    return " ".join(_VARIES.sub("#", line).split())
