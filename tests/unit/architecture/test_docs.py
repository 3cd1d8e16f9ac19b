"""The documentation holds together: links lead somewhere, examples are valid, commands exist."""

import re
from collections.abc import Iterator
from functools import cache

import pytest
import yaml

from tests.unit.architecture.test_tree import ROOT, files
from tidegate.api.names import API_VERSION, KIND
from tidegate.api.spec import parse
from tidegate.runtime.telemetry import Metrics

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@cache
def pages() -> dict[str, str]:
    """Every Markdown page by its path."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in files()
        if path.suffix == ".md"
    }


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Page and text of every fenced block of a language."""
    for name, text in pages().items():
        for found, body in FENCE.findall(text):
            if found == language:
                yield name, body


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", h.lower()).strip() for h in headings]
    return {h.replace(" ", "-") for h in plain}


def links() -> Iterator[tuple[str, str]]:
    """Page and target of every link to something in this repository."""
    for name, text in pages().items():
        for target in LINK.findall(FENCE.sub("", text)):
            if not re.match(r"[a-z]+:", target):
                yield name, target


def broken(name: str, target: str) -> str | None:
    """Why a link leads nowhere, or None."""
    path, _, anchor = target.partition("#")
    page = (ROOT / name).parent / path if path else ROOT / name
    if not page.exists():
        return f"{name}: {target} does not exist"
    if anchor and anchor not in anchors(page.read_text(encoding="utf-8")):
        return f"{name}: {target} has no such heading"
    return None


def test_links_resolve() -> None:
    assert len(list(links())) > 20
    assert [b for name, target in links() if (b := broken(name, target))] == []


@pytest.mark.parametrize("target", ["nowhere.md", "README.md#nothing-like-that"])
def test_a_broken_link_is_found(target: str) -> None:
    assert broken("README.md", target) is not None


def test_every_page_can_be_reached_from_the_readme() -> None:
    leads: dict[str, list[str]] = {}
    for page, target in links():
        leads.setdefault(page, []).append(target)
    reached, todo = set(), ["README.md"]
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        for target in leads.get(name, ()):
            path = ((ROOT / name).parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md":
                todo.append(path.relative_to(ROOT).as_posix())
    lost = {name for name in pages() if name.startswith("docs/")} - reached
    assert lost == set()


def test_manifests_in_the_documentation_are_valid() -> None:
    seen = 0
    for name, body in blocks("yaml"):
        for document in yaml.safe_load_all(body):
            if isinstance(document, dict) and document.get("kind") == KIND:
                assert document["apiVersion"] == API_VERSION, name
                parse(document["spec"])
                seen += 1
    assert seen >= 3


def test_make_targets_in_the_documentation_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    named = {
        (name, target)
        for name, text in pages().items()
        for target in [
            *re.findall(r"`make ([a-z][\w-]*)", text),
            *(t for c in _code(text) for t in re.findall(r"^\$ make ([\w-]+)", c, re.MULTILINE)),
        ]
    }
    assert len(named) > 5
    assert {(name, target) for name, target in named if target not in targets} == set()


def test_the_readme_shows_the_whole_of_a_manifest_in_few_lines() -> None:
    text = pages()["README.md"]
    manifests = [b for lang, b in FENCE.findall(text) if lang == "yaml" and f"kind: {KIND}" in b]
    assert manifests
    assert len(manifests[0].strip().splitlines()) <= 10


def uneven(text: str) -> list[str]:
    """The rows of a page's tables that have more or fewer cells than their heading."""
    found, cells = [], 0
    for line in FENCE.sub("", text).splitlines():
        row = line.strip()
        if not row.startswith("|"):
            cells = 0
            continue
        count = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row)))
        cells = cells or count
        if count != cells:
            found.append(row)
    return found


def test_rows_of_tables_have_as_many_cells_as_their_heading() -> None:
    wrong = {name: rows for name, text in pages().items() if (rows := uneven(text))}
    assert not wrong
    assert uneven("| a | b |\n| --- | --- |\n| 1 |\n") == ["| 1 |"]


def test_figures_are_there_and_have_a_description() -> None:
    figures = [path for path in files() if path.suffix == ".svg"]
    assert figures
    for path in figures:
        text = path.read_text(encoding="utf-8")
        assert "<title" in text, path
        assert "<script" not in text, path


def _code(text: str) -> list[str]:
    return [body for _, body in FENCE.findall(text)]


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    text = Metrics().exposition().decode()
    exist = set(re.findall(r"^# TYPE (tidegate_\w+)", text, re.MULTILINE))
    # prometheus_client says when each series began; nobody asks for that.
    exist -= {name for name in exist if name.endswith("_created")}
    documented = set(re.findall(r"`(tidegate_\w+)`", pages()["docs/operations/monitoring.md"]))
    assert exist == documented


def test_every_value_named_in_the_documentation_exists() -> None:
    values = yaml.safe_load((ROOT / "helm/tidegate/values.yaml").read_text(encoding="utf-8"))
    blocks_ = "|".join(key for key, value in values.items() if isinstance(value, dict) and value)
    unknown = []
    for name, text in pages().items():
        for path in re.findall(rf"`((?:{blocks_})\.(?!yaml)[\w.]+)`", text):
            node = values
            for part in path.split("."):
                node = node.get(part) if isinstance(node, dict) and part in node else None
                if node is None:
                    unknown.append(f"{name}: {path}")
                    break
    assert unknown == []


def test_commands_of_modules_in_the_documentation_exist() -> None:
    named = {
        (name, module)
        for name, text in pages().items()
        for module in re.findall(r"python -m ((?:e2e|helm|tidegate)[\w.]*)", text)
    }
    assert named
    missing = []
    for name, module in named:
        base = ROOT / ("operator" if module.startswith("tidegate") else "")
        path = base.joinpath(*module.split("."))
        if not path.with_suffix(".py").exists() and not (path / "__main__.py").exists():
            missing.append(f"{name}: {module}")
    assert missing == []


def test_every_measurement_is_in_the_list() -> None:
    page = pages()["docs/benchmarks.md"]
    modules = {
        path.stem
        for path in (ROOT / "e2e" / "bench").glob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert modules
    assert {name for name in modules if f"python -m e2e.bench.{name}`" not in page} == set()


def test_every_part_of_the_package_is_on_the_map() -> None:
    package = ROOT / "operator" / "tidegate"
    parts = {
        path.name + ("/" if path.is_dir() else "")
        for path in package.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    listed = set(re.findall(r"^    (\w+(?:/|\.py)) ", pages()["CONTRIBUTING.md"], re.MULTILINE))
    assert parts - {"__init__.py"} == listed
