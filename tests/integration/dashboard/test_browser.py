"""The dashboard in a real Chromium: the real page and server, before an API server of our own."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from playwright.sync_api import Browser, Page, expect

from e2e.browser import SIZES, THEMES, barriers, chromium, opened, picture, sign_in
from tests.unit.dashboard import documents
from tests.unit.dashboard.fake_api import MDEP, FakeApi, Reader
from tidegate.dashboard.app import served

pytestmark = pytest.mark.integration
PICTURES = os.environ.get("TIDEGATE_PICTURES", "")
"""A folder: the documentation's pictures of the fleet go there."""


class Site:
    """The dashboard, in a thread of its own.

    Attributes:
        api: before which it stands.
        address: where it answers.
    """

    def __init__(self) -> None:
        self.api = FakeApi(
            {
                "all": Reader("dana"),
                "some": Reader("viewer", ("team-a",), pods=False),
                "none": Reader("nobody", ()),
            }
        )
        self.address = ""
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()
        assert self._up.wait(20)

    def stop(self) -> None:
        self.call(self._over.set)
        self._thread.join(20)

    def call(self, what: Callable[..., Any], *arguments: Any) -> None:
        """Do something in the server's thread."""
        self._loop.call_soon_threadsafe(what, *arguments)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        api = await _listen(self.api.app())
        async with served(_address(api), True, measure=False) as dashboard:
            site = await _listen(dashboard.app())
            self.address = _address(site) + "/"
            self._up.set()
            await self._over.wait()
            await site.cleanup()
        await api.cleanup()


async def _listen(app: web.Application) -> web.AppRunner:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def _address(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    for namespace in ("team-a", "team-b"):
        found.api.put("namespaces", {"metadata": {"name": namespace}})
    found.api.put(MDEP, documents.rolling())
    found.api.put(MDEP, documents.rolled_back("resnet", "team-b"))
    found.api.put(MDEP, documents.ready("whisper", "team-b"))
    for number, (hash_, starting) in enumerate(
        ((documents.STABLE, False), (documents.CANARY, False), (documents.CANARY, True))
    ):
        found.api.put("pods", documents.pod(f"magika-{number}", hash_, starting=starting))
    found.api.put("events", documents.event("TrafficWeightUpdated", "5% to the canary", 48))
    found.start()
    yield found
    found.stop()


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with opened(browser, site.address) as found:
        yield found


def names(page: Page) -> list[str]:
    return page.locator("table.list tbody th").all_inner_texts()


def open_magika(page: Page) -> None:
    page.get_by_role("link", name="magika").click()
    page.get_by_role("heading", name="magika", level=1).wait_for()
    page.locator(".chart canvas").first.wait_for()


def test_a_wrong_token_is_refused_and_the_right_one_leaves_no_trace(page: Page) -> None:
    page.get_by_label("Token", exact=True).fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not accept this token")
    sign_in(page, "all")
    assert "all" not in page.url.partition("//")[2]
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert stored == "[{},{}]"
    assert page.context.cookies() == []
    page.reload()
    page.get_by_label("Token", exact=True).wait_for()


def test_a_token_is_kept_for_the_tab_only_where_asked_for(page: Page) -> None:
    page.get_by_label("Keep it until this tab is closed").check()
    sign_in(page, "all")
    page.reload()
    page.get_by_role("heading", name="Fleet").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Token", exact=True).wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_the_fleet_is_sorted_and_filtered(page: Page) -> None:
    sign_in(page, "all")
    page.locator("table.list tbody tr").nth(2).wait_for()
    assert names(page) == ["resnet", "magika", "whisper"]  # what needs somebody first
    head = page.get_by_role("columnheader", name="Name", exact=False).first
    head.get_by_role("button").click()
    assert names(page) == ["magika", "resnet", "whisper"]
    expect(head).to_have_attribute("aria-sort", "ascending")
    head.get_by_role("button").click()
    assert names(page) == ["whisper", "resnet", "magika"]
    page.get_by_role("button", name="Need attention").click()
    assert names(page) == ["resnet"]
    page.get_by_role("button", name="All").click()
    page.get_by_role("searchbox").fill("team-b")
    assert sorted(names(page)) == ["resnet", "whisper"]
    # The filter stands in the address, so that it can be sent to somebody.
    assert "q=team-b" in page.url


def test_the_fleet_is_live(page: Page, site: Site) -> None:
    sign_in(page, "all")
    row = page.get_by_role("row").filter(has_text="whisper")
    expect(row).to_contain_text("Ready")
    site.call(site.api.put, MDEP, documents.rolled_back("whisper", "team-b"))
    expect(row).to_contain_text("Rolled back")
    site.call(site.api.delete, MDEP, "team-b", "whisper")
    expect(row).to_have_count(0)


def test_who_may_see_one_namespace_sees_that(page: Page) -> None:
    page.get_by_label("Token", exact=True).fill("some")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("No namespace that you may list").wait_for()
    field = page.get_by_placeholder("Namespaces: all")
    field.fill("team-a, team-b")
    field.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="team-b")).to_contain_text("may not list")
    expect(page.locator("table.list tbody tr")).to_have_count(1)
    open_magika(page)
    page.get_by_text("You may not list pods in this namespace").wait_for()


def test_what_may_not_be_seen_says_so(page: Page, site: Site) -> None:
    sign_in(page, "none")
    page.goto(f"{site.address}#/team-a/magika")
    page.get_by_role("heading", name="You may not see this").wait_for()
    page.goto(f"{site.address}#/team-a/no-such")
    page.get_by_role("heading", name="You may not see this").wait_for()


def test_one_deployment_tells_what_why_and_what_to_do(page: Page, site: Site) -> None:
    sign_in(page, "all")
    open_magika(page)
    expect(page.locator(".rollout")).to_contain_text("step 2 of 4")
    expect(page.locator(".why")).to_contain_text("2 of 640 failed (0.31%), limit 1%")
    expect(page.locator(".pods li")).to_have_count(3)
    expect(page.locator(".timeline")).to_contain_text("5% to the canary")
    meters = page.get_by_role("meter")
    assert meters.count() == 6
    site.call(site.api.put, MDEP, documents.rolled_back())
    expect(page.locator(".title .badge")).to_have_text("Rolled back")
    expect(page.locator(".why")).to_contain_text("15 of 200")
    expect(page.locator(".why")).to_contain_text("tidegate retry magika")
    # Two conditions say the same: it is told once.
    expect(page.locator(".concerns li")).to_have_count(1)
    expect(page.locator(".concerns li")).to_contain_text("Ready is False, Stalled is True: ")
    page.locator(".timeline summary").first.click()
    expect(page.locator(".timeline .explained").first).to_contain_text("was rolled back")
    site.call(site.api.delete, MDEP, "team-a", "magika")
    page.get_by_text("magika is gone").wait_for()


def test_how_good_the_answers_are(page: Page, site: Site) -> None:
    found = documents.rolling()
    accuracy = "96.0% of 1,000 labels right (94.1% to 97.4%)"
    found["status"]["quality"] = [{"revision": documents.CANARY, "accuracy": accuracy}]
    found["status"]["conditions"].append(documents.condition("AnswersRight", "True", "Answered"))
    site.call(site.api.put, MDEP, found)
    sign_in(page, "all")
    open_magika(page)
    expect(page.locator(".revision.role-canary")).to_contain_text(f"Accuracy. {accuracy}")
    expect(page.locator(".revision.role-stable")).not_to_contain_text("Accuracy")
    expect(page.locator(".rollout .facts")).to_contain_text("answered rightly")


def test_old_data_is_shown_as_old(page: Page, site: Site) -> None:
    sign_in(page, "all")
    expect(page.locator(".live")).to_have_text("Live")
    site.api.broken = True
    site.call(site.api.end_watches)
    expect(page.get_by_role("alert")).to_contain_text("What you see is old")
    expect(page.get_by_role("alert")).to_contain_text("etcd is asleep")
    expect(page.locator(".live")).to_contain_text("Stale")
    site.api.broken = False
    expect(page.locator(".live")).to_have_text("Live")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_token_that_runs_out_ends_it(page: Page, site: Site) -> None:
    sign_in(page, "all")
    expect(page.locator("table.list tbody tr")).to_have_count(3)
    del site.api.readers["all"]
    site.call(site.api.end_watches)
    expect(page.get_by_role("alert")).to_contain_text("not accepted any more")
    expect(page.locator("table.list")).to_have_count(0)


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.get_by_label("Token", exact=True).focus()
    page.keyboard.type("all")
    page.keyboard.press("Enter")
    page.locator("table.list tbody tr").nth(2).wait_for()
    page.keyboard.press("Tab")
    seen = []
    for _ in range(40):
        text = page.evaluate(
            "document.activeElement.textContent || document.activeElement.placeholder"
        )
        seen.append(text)
        if text == "magika":
            break
        page.keyboard.press("Tab")
    assert seen[-1] == "magika", seen
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="magika", level=1).wait_for()
    # What is redrawn every few seconds does not lose the focus.
    summary = page.locator(".why summary")
    summary.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(3000)
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    expect(page.locator(".why details ul")).to_be_visible()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_nobody_is_kept_out(browser: Browser, site: Site, size: str, theme: str) -> None:
    def look(name: str) -> None:
        assert barriers(shown) == [], name
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), name

    for name in ("bert-ner", "clip-vit", "embed-e5", "llama-guard", "ranker", "yolo-docks"):
        site.call(site.api.put, MDEP, documents.ready(name, "team-a"))
    held = documents.rolling("detector", "team-b")
    held["status"]["rollout"] |= {"phase": "Preparing", "hold": "WaitingForGPU", "step": None}
    held["status"]["rollout"]["message"] = "no node has a free nvidia.com/gpu: 4 of 4 are taken"
    site.call(site.api.put, MDEP, held)
    site.call(site.api.put, MDEP, documents.rolling("segment-any", "team-b", weight=25))
    with opened(browser, site.address, size=size, theme=theme) as shown:
        shown.get_by_label("Token", exact=True).wait_for()
        look("sign in")
        sign_in(shown, "all")
        shown.locator("table.list tbody tr").nth(10).wait_for()
        look("fleet")
        if PICTURES:
            path = Path(PICTURES) / f"dashboard-fleet-{size}-{theme}.png"
            picture(shown, path, 860 if size == "desktop" else 1200)
        open_magika(shown)
        shown.locator(".numbers summary").click()
        look("rollout")
        site.call(site.api.put, MDEP, documents.rolled_back())
        expect(shown.locator(".title .badge")).to_have_text("Rolled back")
        look("rollback")


def test_the_chosen_theme_is_kept(page: Page) -> None:
    sign_in(page, "all")
    for theme in ("light", "dark"):
        page.get_by_role("button", name="Theme").click()
        assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
