"""A real browser for the dashboard's tests: Debian's Chromium, without a window."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

SIZES: Final = {"desktop": (1280, 900), "phone": (390, 844)}
THEMES: Final = ("light", "dark")
WAIT_MS: Final = 60_000
"""A bound, not an expectation: browsers are slow on a machine that does much besides."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser.

    Raises:
        RuntimeError: there is none on this machine.
    """
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("there is no Chromium; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, address: str, *, size: str = "desktop", theme: str = "light"
) -> Iterator[Page]:
    """A fresh page, as of somebody who was never here.

    Raises:
        AssertionError: in the end, if a script of it failed.
    """
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        device_scale_factor=2 if size == "phone" else 1,
        reduced_motion="reduce",
    )
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on(
        "console",
        lambda said: failures.append(said.text) if "Content Security" in said.text else None,
    )
    page.goto(address)
    yield page
    context.close()
    assert failures == []


def sign_in(page: Page, token: str) -> None:
    """Sign in, and wait for the fleet."""
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Fleet").wait_for()


def barriers(page: Page) -> list[str]:
    """What axe finds that keeps people from using the page, in words."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{v['impact']} {v['id']}: {node['html'][:120]}" for v in found for node in v["nodes"][:3]
    ]


def picture(page: Page, path: Path, height: int) -> None:
    """Take a picture of the page's upper part, so many CSS pixels high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size({"width": size["width"], "height": height})
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    page.set_viewport_size(size)
