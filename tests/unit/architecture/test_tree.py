"""Rules about the repository as a whole."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

INDEXES = [
    ".".join(parts)
    for parts in (
        *[("docker", "io"), ("ghcr", "io"), ("quay", "io"), ("gcr", "io"), ("nvcr", "io")],
        *[("registry", "k8s", "io"), ("public", "ecr", "aws"), ("pypi", "org")],
        *[("pythonhosted", "org"), ("npmjs", "org"), ("proxy", "golang", "org")],
    )
]
"""Hosts of package indexes and container registries, put together here so as not to name one."""


@cache
def files() -> tuple[Path, ...]:
    """Files of the repository: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(
        path for name in sorted(listed.split("\0")) if name and (path := ROOT / name).is_file()
    )


@cache
def texts() -> tuple[tuple[str, str], ...]:
    """Name and text of every text file."""
    found = []
    for path in files():
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return tuple(found)


def lines_with(pattern: str) -> list[str]:
    """Every `file:line` whose text matches."""
    expression = re.compile(pattern)
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        if expression.search(text)
        for number, line in enumerate(text.splitlines(), 1)
        if expression.search(line)
    ]


def test_the_listing_sees_this_file() -> None:
    assert Path(__file__) in files()
    assert lines_with("def test_the_listing_" + "sees_this_file")


def test_operator_is_a_source_root_and_never_a_package() -> None:
    # As a package it would hide the standard library's `operator` from everything started here.
    assert not (ROOT / "operator" / "__init__.py").exists()
    subprocess.run([sys.executable, "-c", "import collections"], cwd=ROOT, check=True)
    assert lines_with(r"^\s*(from|import) operator\.") == []


def test_no_index_or_registry_is_named() -> None:
    # Images and packages come from where the reader's own tools are set up to take them.
    hosts = "|".join(re.escape(host) for host in INDEXES)
    assert lines_with(rf"(?i)(?<![\w-])({hosts})(?![\w-])") == []


def test_nothing_outside_the_repository_is_referred_to() -> None:
    assert lines_with(r"/wo" + r"rk/|\.\./sha" + "red") == []


def test_no_left_over_marks() -> None:
    assert lines_with(r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X)\b|^<{7} |^>{7} ") == []


@pytest.mark.parametrize(
    "name",
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "SECURITY.md", "install.yaml"],
)
def test_the_usual_files_are_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 200


def test_every_folder_with_tests_is_run() -> None:
    """A test outside the known roots would never run."""
    roots = ("tests/unit/", "tests/contract/", "tests/integration/", "e2e/tests/")
    strays = [
        name
        for name, _ in texts()
        if re.search(r"(^|/)test_[^/]*\.py$", name) and not name.startswith(roots)
    ]
    assert strays == []
