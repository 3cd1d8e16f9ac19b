"""The documentation as a site has every page, and its links lead where the repository's do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import documentation
from tests.unit.architecture.test_docs import pages
from tests.unit.architecture.test_tree import ROOT


def in_order(nav: list[Any]) -> Iterator[str]:
    """The pages of a navigation."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from in_order(below if isinstance(below, list) else [below])


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = list(in_order(documentation.expanded(nav)))
    exist = {name.removeprefix("docs/") for name in pages() if name.startswith("docs/")}
    assert set(listed) == exist | set(documentation.BESIDE), "put it into the nav of mkdocs.yml"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("index.md", "guide/install.md", "guide/install.md"),
        ("guide/golden-requests.md", "../examples/golden.yaml", "../examples/golden-yaml.md"),
        ("guide/gitops.md", "../examples/gitops", "../examples/gitops.md"),
        ("reference/modeldeployment.md", "../examples", "../examples/README.md"),
        ("operations/security.md", "../../SECURITY.md", "../SECURITY.md"),
        ("SECURITY.md", "docs/operations/security.md", "operations/security.md"),
        (
            "adr/0001-kopf-events-only.md",
            "../../operator/tidegate/runtime/sweep.py",
            "../repository/operator/tidegate/runtime/sweep.py.md",
        ),
        ("concepts.md", "images/data-path.svg", "images/data-path.svg"),
        ("index.md", "nowhere.md", "nowhere.md"),  # mkdocs says so itself
    ],
)
def test_a_link_leads_to_the_page_that_shows_it(page: str, link: str, becomes: str) -> None:
    assert documentation.led(page, link) == becomes


def test_a_file_without_an_ending_has_a_page_beside_it() -> None:
    assert documentation.place(Path("docs/examples/gitops/Made")) == "examples/gitops/Made-file.md"


def test_a_folder_becomes_a_page_of_its_files() -> None:
    page = documentation.shown(Path("docs/examples/gitops"))
    assert page.startswith("# gitops\n")
    assert "\n## base/modeldeployment.yaml\n" in page
    assert "\n## Jenkinsfile\n\n````text\n" in page
    assert page.count("\n````yaml\n") + 1 == page.count("\n## ") > 5


def test_what_is_code_is_left_alone() -> None:
    text = "Two:\n- [one](../examples)\n\n````yaml\nkey:\n- [no](../examples)\n````\n"
    wanted = "Two:\n\n- [one](../examples/README.md)\n\n````yaml\nkey:\n- [no](../examples)\n````\n"
    assert documentation.written("guide/x.md", text) == wanted
