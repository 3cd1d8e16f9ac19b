"""The digest of a tree, and names that are accepted."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.fetch.digest import file_sha256, tree_digest
from tidegate.fetch.errors import ArtifactInvalid
from tidegate.fetch.paths import check_paths, why_unsafe

NAMES = st.text(min_size=1, max_size=40).filter(lambda p: why_unsafe(p) is None)
SHA = st.binary(max_size=8).map(lambda b: hashlib.sha256(b).hexdigest())
TREES = st.dictionaries(NAMES, SHA, max_size=8)


def test_the_digest_is_what_sha256sum_prints(tmp_path: Path) -> None:
    files = {"b": b"2", "a/z": b"1", "a.x": b"3", "ü ñ": b"4", "A": b""}
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    command = r"find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    said = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert tree_digest({p: file_sha256(tmp_path / p) for p in files}) == said


@given(TREES, TREES)
def test_equal_digests_are_equal_trees(a: dict[str, str], b: dict[str, str]) -> None:
    assert (tree_digest(a) == tree_digest(b)) == (a == b)
    assert tree_digest(dict(reversed(a.items()))) == tree_digest(a)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a/../b", "..", "a/./b", ".", "a//b", "a/", "C:/x", "c:x"),
        *("a\\b", "a\nb", "a\x00b", "\x7f", "x" * 256, "/".join(["x" * 200] * 6), "\udc80"),
    ],
)
def test_unsafe_names(path: str) -> None:
    assert why_unsafe(path) is not None
    with pytest.raises(ArtifactInvalid):
        check_paths([path], "file")


@pytest.mark.parametrize("path", ["a", "a/b.c", "..a", "a..", "...", "ü", "x" * 255, " "])
def test_names_that_are_fine(path: str) -> None:
    assert why_unsafe(path) is None


@given(st.text(max_size=30))
def test_a_name_that_is_accepted_stays_below_its_root(path: str) -> None:
    if why_unsafe(path) is None:
        root = Path("/root/of/tree")
        assert root in Path(f"{root}/{path}").parents
        assert ".." not in Path(path).parts


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["x/y/z", "x/y"]])
def test_names_that_exclude_each_other(paths: list[str]) -> None:
    for order in (paths, paths[::-1]):
        with pytest.raises(ArtifactInvalid):
            check_paths(order, "file")
