from pathlib import Path

import pytest

from e2e.cluster import gobuild, images, paths
from e2e.cluster.gobuild import Program


def sources(folder: Path) -> Path:
    module = folder / "m"
    module.mkdir(parents=True)
    (module / "go.mod").write_text("module m\n")
    (module / "go.sum").write_text("")
    (module / "main.go").write_text("package main\n")
    return folder


PROGRAM = Program("p", "m")


def test_same_content_gives_the_same_key_elsewhere(tmp_path: Path) -> None:
    one, two = sources(tmp_path / "1"), sources(tmp_path / "2")
    assert gobuild.key(PROGRAM, one, "go1.26.8") == gobuild.key(PROGRAM, two, "go1.26.8")


@pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go"])
def test_a_changed_file_changes_the_key(tmp_path: Path, name: str) -> None:
    folder = sources(tmp_path)
    before = gobuild.key(PROGRAM, folder, "go1.26.8")
    (folder / "m" / name).write_text("changed\n")
    assert gobuild.key(PROGRAM, folder, "go1.26.8") != before


@pytest.mark.parametrize(
    ("program", "release"),
    [
        (PROGRAM, "go1.27.0"),
        (Program("p", "m", ldflags=("-X a=b",)), "go1.26.8"),
        (Program("p", "m", tags=("t",)), "go1.26.8"),
        (Program("p", "m", package="other"), "go1.26.8"),
    ],
)
def test_release_flags_tags_and_package_change_the_key(
    tmp_path: Path, program: Program, release: str
) -> None:
    folder = sources(tmp_path)
    assert gobuild.key(program, folder, release) != gobuild.key(PROGRAM, folder, "go1.26.8")


def test_every_program_has_its_pinned_module() -> None:
    for program in gobuild.PROGRAMS.values():
        folder = paths.GO_SOURCES / program.module
        assert (folder / "go.mod").is_file(), program.name
        own_code_only = program.name == "pause"
        assert own_code_only or (folder / "go.sum").is_file(), program.name


def test_an_image_follows_its_bases() -> None:
    order = [images.BASE, *images.IMAGES]
    for image in images.IMAGES.values():
        for base in image.bases:
            assert order.index(base) < order.index(image.name)


def test_every_image_is_built_from_files_that_exist() -> None:
    for image in images.IMAGES.values():
        assert image.dockerfile.is_file(), image.name
        for entry in image.inputs:
            assert (image.context / entry).exists(), f"{image.name}: {entry}"


def test_a_changed_base_changes_the_key_of_what_stands_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {name: images.key(name) for name in (images.BASE, images.PIP, images.ENVOY)}
    monkeypatch.setattr(images, "base_arguments", lambda: ["--variant=apt", "trixie"])
    after = {name: images.key(name) for name in before}
    assert all(before[name] != after[name] for name in before)


def test_operator_and_fetch_have_different_keys() -> None:
    assert images.key(images.OPERATOR) != images.key(images.FETCH)


@pytest.mark.parametrize(
    ("listed", "name", "expected"),
    [
        ("some.registry/library/debian:bookworm-slim", "debian:bookworm-slim", True),
        ("some.registry/tidegate/operator:0.1.0", "tidegate/operator:0.1.0", True),
        ("localhost/tidegate/operator:0.1.0", "tidegate/operator:0.1.0", True),
        ("some.registry/other/operator:0.1.0", "tidegate/operator:0.1.0", False),
        ("some.registry/nottidegate/operator:0.1.0", "tidegate/operator:0.1.0", False),
        ("some.registry/tidegate/operator:0.1.1", "tidegate/operator:0.1.0", False),
    ],
)
def test_names_are_compared_as_containerd_completes_them(
    listed: str, name: str, expected: bool
) -> None:
    assert images.same(listed, name) is expected
