"""What the documentation shows: commands, as lists of words, and manifests."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import yaml

from tests.unit.architecture.test_docs import FENCE, blocks, pages
from tests.unit.architecture.test_tree import texts

SHELLS = ("console", "sh")
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")


class Command(NamedTuple):
    """One command of a page.

    Attributes:
        page: where it is.
        words: as the shell would split it; without pipes, redirections and variables before it.
        whole: from a block of code, to be typed as it stands; else a mention in a sentence, which
            may leave out what the reader knows.
    """

    page: str
    words: tuple[str, ...]
    whole: bool


@cache
def commands() -> tuple[Command, ...]:
    """All of them."""
    return tuple(
        Command(name, words, whole)
        for name, text in pages().items()
        for whole, lines in ((True, typed(text)), (False, mentioned(text)))
        for line in lines
        for words in split(line)
    )


def typed(text: str) -> Iterator[str]:
    """What a page's blocks tell to type, each as one text, over several lines where it is."""
    for language, body in FENCE.findall(text):
        if language not in SHELLS:
            continue
        lines = iter(body.splitlines())
        for line in lines:
            if language == "console":
                if not line.startswith("$ "):
                    continue
                line = line[2:]
            while line.endswith("\\") or is_open(line):
                line = f"{line.removesuffix(chr(92))}\n{next(lines)}"
            if line.strip():
                yield line


def is_open(line: str) -> bool:
    """Whether a quotation goes on in the next line."""
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False


def mentioned(text: str) -> Iterator[str]:
    """Commands of Tidegate's own inside sentences."""
    for span in _SPAN.findall(FENCE.sub("", text)):
        line = " ".join(span.split())
        if re.match(r"(kubectl )?tidegate( |$)", line):
            yield line


def split(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line: those of a pipe are several."""
    reader = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    reader.whitespace_split = True
    words: list[str] = []
    into_file = False
    for word in (*reader, ";"):
        if not words and re.match(r"[A-Z_]+=", word):
            continue  # a variable of the environment
        if set(word) <= set("|&;"):
            if words:
                yield tuple(words)
            words = []
        elif set(word) <= set("<>"):
            into_file = True
        elif into_file:
            into_file = False
        else:
            words.append(word)


class Manifest(NamedTuple):
    """One object that the documentation shows.

    Attributes:
        where: the page or file.
        document: with ``apiVersion`` and ``kind``.
    """

    where: str
    document: dict[str, Any]

    def __str__(self) -> str:
        """As a test's name."""
        return f"{self.where}: {self.document['kind']}"


def manifests() -> Iterator[Manifest]:
    """All objects in blocks of code and in the examples' folders."""
    sources = list(blocks("yaml"))
    sources += [(n, t) for n, t in texts() if re.match(r"docs/examples/.*\.ya?ml$", n)]
    for where, text in sources:
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict) and {"apiVersion", "kind"} <= set(document):
                yield Manifest(where, document)
