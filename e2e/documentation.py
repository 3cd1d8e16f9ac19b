"""What mkdocs is told besides ``mkdocs.yml``: hooks, called by mkdocs with these names.

The pages are written for whoever reads them in the repository, where a link may lead to a manifest,
a folder of them, or a source file. On the site each of those becomes a page that shows it.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = "docs"
BESIDE: Final = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
"""Pages in the repository's root that belong to the documentation."""
PICTURES: Final = frozenset({".png", ".svg"})
"""Endings of what is no text, and is left as it is."""

_FENCE: Final = re.compile(r"^(`{3,}).*?^\1$", re.DOTALL | re.MULTILINE)
_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
_LIST: Final = re.compile(r"^((?![-*] |[|#>]|\d+\. )\S.*\n)(?=- |1\. )", re.MULTILINE)
"""A line of text that a list follows: enough in CommonMark, while mkdocs wants an empty line."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder in the place of its ``*``."""
    config.nav = expanded(config.nav or [])
    return config


def expanded(nav: list[Any]) -> list[Any]:
    """A navigation without ``*``."""
    found: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            pairs = entry.items()
            found.append({k: expanded(v) if isinstance(v, list) else v for k, v in pairs})
        elif entry.endswith("/*"):
            pages = sorted((ROOT / DOCS / entry).parent.glob("*.md"))
            names = [p.relative_to(ROOT / DOCS).as_posix() for p in pages]
            found += [n for n in names if not n.endswith("README.md")]
        else:
            found.append(entry)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make a page of everything that a page links to and that is none."""
    for name in BESIDE:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    for page in list(files.documentation_pages()):
        for path in targets(page.src_uri, page.content_string):
            if files.get_file_from_path(place(path)) is None:
                hidden = InclusionLevel.NOT_IN_NAV
                made = File.generated(config, place(path), content=shown(path), inclusion=hidden)
                files.append(made)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write a page as mkdocs needs it."""
    return written(page.file.src_uri, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Name what the theme leaves without a name for those who hear the page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def written(page: str, text: str) -> str:
    """A page with its links led to where things are on the site, and its lists set apart."""

    def prose(part: str) -> str:
        return _LINK.sub(lambda m: led(page, m[1]), _LIST.sub(r"\1\n", part))

    pieces, at = [], 0
    for code in _FENCE.finditer(text):
        pieces += [prose(text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*pieces, prose(text[at:])])


def targets(page: str, text: str) -> Iterator[Path]:
    """What the links of a page lead to, where it exists and can be shown."""
    for link in _LINK.findall(_FENCE.sub("", text)):
        path = Path(posixpath.normpath((origin(page).parent / link).as_posix()))
        if (ROOT / path).exists() and path.suffix not in PICTURES:
            yield path


def led(page: str, link: str) -> str:
    """The link as it has to be on the site, without its anchor."""
    for path in targets(page, f"]({link})"):
        return posixpath.relpath(place(path), posixpath.dirname(page))
    return link


def origin(page: str) -> Path:
    """Where a page of the site is in the repository."""
    return Path(page) if page in BESIDE else Path(DOCS, page)


def place(path: Path) -> str:
    """Which page of the site shows something of the repository."""
    inside = path.is_relative_to(DOCS)
    name = path.relative_to(DOCS) if inside else path
    if (ROOT / path).is_dir():
        index = name / "README.md"
        return index.as_posix() if (ROOT / path / "README.md").exists() else f"{name}.md"
    if name.suffix == ".md":
        return name.as_posix()
    if inside:  # the file itself keeps its own name on the site
        return name.with_name(f"{name.stem}-{name.suffix.lstrip('.') or 'file'}.md").as_posix()
    return f"repository/{name}.md"


def shown(path: Path) -> str:
    """A page with the text of a file, or of all files of a folder."""
    whole = ROOT / path
    if whole.is_dir():
        inside = sorted(p for p in whole.rglob("*") if p.suffix not in PICTURES and p.is_file())
        blocks = [f"## {p.relative_to(whole)}\n\n{fenced(p)}" for p in inside]
        return "\n".join([f"# {path.name}\n", *blocks])
    # Sources would drown what the search is for.
    head = "" if path.is_relative_to(DOCS) else "---\nsearch: {exclude: true}\n---\n"
    return f"{head}# {path.name}\n\n`{path}`\n\n{fenced(whole)}"


def fenced(path: Path) -> str:
    """A file's text as a block of code."""
    language = {".py": "python", ".yml": "yaml", "": "text"}.get(
        path.suffix, path.suffix.lstrip(".")
    )
    return f"````{language}\n{path.read_text(encoding='utf-8').rstrip()}\n````\n"
