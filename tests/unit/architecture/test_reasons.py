"""Every reason that a person can read stands in the troubleshooting page, and no other."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from tests.unit.architecture.test_tree import ROOT
from tidegate import rollout
from tidegate.autoscaling.decision import Hold
from tidegate.fetch.errors import REASONS

PACKAGE = ROOT / "operator" / "tidegate"
PAGE = ROOT / "docs" / "operations" / "troubleshooting.md"
POSITION = {
    **{"Finding": 2, "Verdict": 2, "CannotBeBornError": 0, "Failure": 2, "Look": 2},
    **{"hold": 1, "rolled_back": 1},
}
"""Which argument of these is a reason."""
PASSED_ON = {
    # Reasons of Kubernetes' own that are handed through by name.
    *("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"),
    *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    *("SecretNotFound", "ConfigMapNotFound", "VolumeNotFound"),
    *("Forbidden", "Invalid", "NotFound"),
}


def literals(node: ast.expr) -> Iterator[str]:
    """The texts that an expression can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body)
        yield from literals(node.orelse)


def reasons_in(path: Path) -> Iterator[str]:
    """Every reason that a module writes out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        where = POSITION.get(name)
        if name == "nothing_but_status":
            where = 1
        if where is not None and len(node.args) > where:
            yield from literals(node.args[where])


@functools.cache
def in_code() -> set[str]:
    folders = ("", "chapters/", "rollout/")
    paths = [path for folder in folders for path in sorted(PACKAGE.glob(f"{folder}*.py"))]
    found = {reason for path in paths for reason in reasons_in(path)}
    # A refinement of another reason says that reason to the outside.
    found |= {"RolledBack", *rollout.TEST_REASONS.values()}
    # Of a placement, and of scaling, handed on.
    found |= {"StableShort", str(Hold.METRICS_MISSING), str(Hold.CAPACITY_UNKNOWN)}
    return found | {cls.__name__ for cls in REASONS} | PASSED_ON


def test_every_reason_is_explained() -> None:
    found = in_code()
    assert {"WaitingForGPU", "ProfileNotFound", "SourceMoved", "Paused", "InvalidSpec"} <= found
    page = PAGE.read_text(encoding="utf-8")
    assert {reason for reason in found if f"`{reason}`" not in page} == set()


def test_every_reason_on_the_page_exists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[A-Z]\w+`(?:, )?)+) \|", page, re.MULTILINE)
    listed = {reason for row in rows for reason in re.findall(r"`(\w+)`", row)}
    assert len(listed) > 30
    assert listed - in_code() == set()


def test_each_is_listed_once() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[A-Z]\w+`(?:, )?)+) \|", page, re.MULTILINE)
    listed = [reason for row in rows for reason in re.findall(r"`(\w+)`", row)]
    assert sorted(listed) == sorted(set(listed))


def test_every_field_without_effect_is_named_in_the_concepts() -> None:
    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    section = page.partition("## What this version does not do yet")[2]
    tree = ast.parse((PACKAGE / "inactive.py").read_text(encoding="utf-8"))
    checks = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "_CHECKS"
    )
    assert isinstance(checks, ast.Tuple)
    fields = [next(literals(row.elts[0])) for row in checks.elts if isinstance(row, ast.Tuple)]
    assert len(fields) > 5
    assert [f for f in fields if f.rpartition(".")[2] not in section] == []
