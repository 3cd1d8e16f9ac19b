"""The documentation as a site: built strictly, and looked at in a real Chromium."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.browser import barriers, chromium, opened, picture
from e2e.documentation import ROOT

pytestmark = pytest.mark.integration
PICTURES = os.environ.get("TIDEGATE_PICTURES", "")
"""A folder: pictures of the pages go there, to be looked at."""
LOOKED_AT = (
    ("", "desktop", "light"),
    ("", "phone", "dark"),
    ("concepts/", "desktop", "dark"),
    ("guide/getting-started/", "phone", "light"),
    ("operations/troubleshooting/", "desktop", "light"),
    ("examples/full-yaml/", "phone", "dark"),
    ("reference/events/", "phone", "light"),
)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [ROOT / ".venv/bin/mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def grave(page: Page) -> list[str]:
    return [found for found in barriers(page) if found.startswith(("serious", "critical"))]


def sideways(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@pytest.mark.parametrize(("path", "size", "theme"), LOOKED_AT)
def test_nobody_is_kept_out(
    browser: Browser, address: str, path: str, size: str, theme: str
) -> None:
    with opened(browser, address + path, size=size, theme=theme) as page:
        expect(page.locator("article h1")).to_be_visible()
        assert grave(page) == []
        assert not sideways(page)
        if PICTURES:
            name = path.strip("/").replace("/", "-") or "index"
            picture(page, Path(PICTURES) / f"site-{name}-{size}-{theme}.png", 1000)


def test_nothing_is_asked_of_anybody_else(browser: Browser, address: str) -> None:
    with opened(browser, "about:blank") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + "concepts/")
        page.get_by_role("textbox", name="Search").fill("rolled back")
        expect(page.locator(".md-search-result__item").first).to_be_visible()
        assert page.locator(".md-search-result__item").count() >= 3
        assert len(asked) > 5
        assert [url for url in asked if not url.startswith(address)] == []
        broken = "[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
        assert page.evaluate(broken) == []


def test_what_is_copied_is_what_is_typed(browser: Browser, address: str) -> None:
    with opened(browser, address + "guide/command-line/") as page:
        text = page.evaluate(
            """() => {
                const code = [...document.querySelectorAll("code")]
                    .find(c => c.innerText.includes("tidegate diff magika"));
                code.dataset.mdCopying = "";
                return code.innerText;
            }"""
        )
        lines = [line for line in text.splitlines() if line.strip()]
        assert "kubectl tidegate diff magika" in lines
        assert [line for line in lines if not line.startswith("kubectl tidegate ")] == []


def test_all_of_it_is_shown_as_it_is_meant(built: Path) -> None:
    """No list, table or block of code was taken for plain text."""
    pages = list(built.rglob("*.html"))
    assert len(pages) > 60
    plain = [
        f"{page.relative_to(built)}: {line[:60]}"
        for page in pages
        for paragraph in re.findall(r"<p>(.*?)</p>", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in paragraph.splitlines()
        if re.match(r"\s*(- |\d+\. |\||```)", line)
    ]
    assert plain == []
