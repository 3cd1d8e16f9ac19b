"""Fields of a ModelDeployment that the documentation names exist."""

import re
from typing import Any, Final

import pytest

from tests.unit.architecture.documented import commands
from tests.unit.architecture.test_docs import FENCE, pages
from tidegate.api import crd

SCHEMA: Final[dict[str, Any]] = crd.schema()["properties"]
TOP: Final = {"spec", "status", *SCHEMA["spec"]["properties"]}
FILES: Final = ("onnx", "py", "sig")
"""Endings of files that begin with a field's name."""
_SPAN: Final = re.compile(
    r"(?<!`)`([a-z][A-Za-z0-9]*(?:\.[a-z][A-Za-z0-9]*(?:\[\])?)+)(?::[^`]*)?`"
)


def exists(path: str) -> bool:
    """Whether the schema has ``status.rollout.hold``, or ``rollout.steps`` of the spec."""
    first, *rest = re.sub(r"\[[^\]]*\]", "", path).split(".")
    node = SCHEMA[first] if first in ("spec", "status") else SCHEMA["spec"]["properties"][first]
    for name in rest:
        node = node.get("items", node)
        if not node.get("properties"):
            # Keys that the user makes up, or the API server's own types.
            return "additionalProperties" in node or "x-kubernetes-preserve-unknown-fields" in node
        if name not in node["properties"]:
            return False
        node = node["properties"][name]
    return True


def named() -> list[tuple[str, str]]:
    """Page and path of every field that a sentence names by more than its last name."""
    return [
        (page, path)
        for page, text in pages().items()
        for path in _SPAN.findall(FENCE.sub("", text))
        if path.partition(".")[0] in TOP and path.rpartition(".")[2] not in FILES
    ]


def queried() -> list[tuple[str, str]]:
    """Page and path of every field of a ModelDeployment that a command of kubectl asks for."""
    return [
        (command.page, path)
        for command in commands()
        if "mdep" in command.words
        for word in command.words
        if "jsonpath=" in word
        for path in re.findall(r"\.((?:status|spec)[\w.\[\]?()@=\"*]*)", word)
    ]


def test_fields_in_sentences_exist() -> None:
    assert len(named()) > 200
    assert [(page, path) for page, path in named() if not exists(path)] == []


def test_fields_in_commands_exist() -> None:
    assert len(queried()) >= 5
    assert [(page, path) for page, path in queried() if not exists(path)] == []


@pytest.mark.parametrize("path", ["status.rollout.hodl", "rollout.steps.wait", "spec.replica"])
def test_a_wrong_one_is_found(path: str) -> None:
    assert not exists(path)
