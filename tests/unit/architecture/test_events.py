"""Every event and every condition stands in the reference with what to do, and no other."""

import ast
import re
from collections.abc import Iterator
from functools import cache

from tests.unit.architecture.test_reasons import PACKAGE, literals
from tests.unit.architecture.test_tree import ROOT

PAGE = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
TYPES = {"Normal", "Warning"}


def texts(node: ast.expr, names: dict[str, ast.expr]) -> Iterator[str]:
    """The texts that an expression can be; a name stands for what was assigned to it."""
    if isinstance(node, ast.Name) and node.id in names:
        yield from texts(names[node.id], {})
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts(value, names)
    else:
        yield from literals(node)


@cache
def told() -> dict[str, set[str]]:
    """Each event's reason with its types, as the code writes them out.

    An event is ``Event(type, reason, message)`` or, in a rollout, a tuple of these; `enter` takes
    the reason of one.
    """
    found: dict[str, set[str]] = {}
    sources = [path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))]
    for source in (s for s in sources if re.search(r'"(Normal|Warning)"|\benter\(', s)):
        for scope in ast.walk(ast.parse(source)):
            if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = {
                target.id: node.value
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for type_, reason in events_in(scope):
                for text in texts(reason, names):
                    found.setdefault(text, set()).update(TYPES & set(literals(type_)))
    found.pop("", None)
    return found


def events_in(scope: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Type and reason of every event in a function."""
    for node in ast.walk(scope):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Tuple) and len(node.elts) == 3:
            parts = node.elts
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            parts = node.args if name == "Event" else []
            if name == "enter":
                yield from (
                    (ast.Constant("Normal"), k.value) for k in node.keywords if k.arg == "event"
                )
        if len(parts) == 3 and TYPES & set(literals(parts[0])):
            yield parts[0], parts[1]


def rows(section: str) -> dict[str, list[str]]:
    """The rows of the first table of a section: what is in backticks first, and the other cells."""
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert len(lines) == len(dict(lines)), "one is there twice"
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in lines}


def test_events_of_the_code_are_seen() -> None:
    found = told()
    assert found["Promoted"] == found["Reverted"] == {"Normal"}
    assert found["RolledBack"] == found["Drifted"] == {"Warning"}


def test_every_event_is_explained_and_no_other() -> None:
    assert {name: {cells[0]} for name, cells in rows("Events").items()} == told()


def test_every_warning_says_what_to_do() -> None:
    for name, cells in rows("Events").items():
        if cells[0] == "Warning":
            assert cells[2], name


def conditions() -> set[str]:
    """The types of all conditions."""
    found = set()
    for name in ("conditions.py", "chapters/telling.py"):
        for node in ast.walk(ast.parse((PACKAGE / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Verdict":
                found |= set(literals(node.args[0]))
    return found


def test_every_condition_is_explained_and_no_other() -> None:
    assert {"Ready", "SLOMet", "RuntimeOutdated"} <= conditions()
    assert set(rows("Conditions")) == conditions()


def test_every_condition_says_what_to_do() -> None:
    for name, cells in rows("Conditions").items():
        assert len(cells) == 2, name
        assert all(cells), name
