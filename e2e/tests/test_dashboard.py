"""The dashboard on the real cluster, in a real browser: a rollback and a rollout, watched.

``TIDEGATE_PICTURES=docs/images`` takes the documentation's pictures on the way.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from e2e.browser import SIZES, THEMES, barriers, chromium, opened, picture, sign_in
from e2e.cluster import addons
from e2e.cluster.kube import KubeClient, wait_for
from e2e.rollouts.scenarios import BY_NAME, Outcome
from e2e.rollouts.stage import Result, Stage, play
from e2e.tests.space import Space

NAME: Final = "tidegate-dashboard"
PICTURES: Final = os.environ.get("TIDEGATE_PICTURES", "")
LOOK_S: Final = 0.3
LATEST_S: Final = 10.0
"""The page is at most that far behind status, on a machine that is busy with everything else."""


@pytest.fixture(scope="module")
def address(cluster: KubeClient, installed: None) -> str:
    """Where the dashboard answers."""
    addons.await_rollout(cluster, NAME, addons.OPERATOR_NAMESPACE)
    service = cluster.get("v1", "Service", NAME, addons.OPERATOR_NAMESPACE)
    assert service is not None
    return f"http://{service['spec']['clusterIP']}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def token_of(space: Space, account: str) -> str:
    """A token of a service account, as ``kubectl create token`` makes one."""
    path = space.kube.path("v1", "ServiceAccount", space.name, account)
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3600},
    }
    answer = space.kube.request("POST", f"{path}/token", body=body)
    return str(answer["status"]["token"])


@pytest.fixture(scope="module")
def viewer(space: Space) -> str:
    """A token whose bearer has the role view in this namespace."""
    space.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "viewer"}})
    space.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "viewer"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "view",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": space.name}],
        }
    )
    return token_of(space, "viewer")


@pytest.fixture(scope="module")
def stage(space: Space) -> Iterator[Stage]:
    found = Stage(space, BY_NAME["same"])
    yield found
    found.close()


class Watched:
    """A rollout that is played beside the browser.

    Attributes:
        stage: where.
        result: what became of it; None while it runs.
    """

    def __init__(self, stage: Stage, scenario: str) -> None:
        self.stage = stage
        self.result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, args=(scenario,))

    def _play(self, scenario: str) -> None:
        try:
            self.result = play(self.stage, BY_NAME[scenario], int(time.time()) % 1_000_000_000)
        except BaseException as error:
            self._error = error

    def start(self) -> None:
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def finish(self) -> Result:
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self.result is not None
        return self.result


def told(page: Page) -> str:
    """What the page says of the rollout."""
    heading = page.locator("#rollout-title")
    return f"{page.locator('.title .badge').inner_text()} | {heading.inner_text()}"


def watch(
    page: Page, others: dict[str, Page], watched: Watched, name: str
) -> tuple[list[str], dict[str, Any]]:
    """Look at the page until the rollout is over: what it said, each once, and what it drew."""
    course: list[str] = []
    most: dict[str, Any] = {"canary": False, "tests": 0, "figures": set()}
    shot = False
    while not watched.over:
        said = told(page)
        if said not in course:
            course.append(said)
        most["canary"] |= page.locator(".revision.role-canary").count() > 0
        most["tests"] = max(most["tests"], page.locator(".tests li").count())
        for text in page.locator(".revision .figures dd:first-of-type").all_inner_texts():
            most["figures"].add(text.strip())
        # Of the good canary, once there is something to see.
        canary = page.locator(".revision.role-canary .figures")
        enough = canary.count() and "\u2013" not in canary.inner_text()
        if PICTURES and name and not shot and enough and "Canary" in said:
            shot = True
            _pictures(others, name)
        time.sleep(LOOK_S)
    return course, most


def _pictures(pages: dict[str, Page], name: str) -> None:
    for kind, page in pages.items():  # none without TIDEGATE_PICTURES
        height = 1500 if kind.startswith("desktop") else 1700
        picture(page, Path(PICTURES) / f"dashboard-{name}-{kind}.png", height)


@pytest.mark.parametrize(
    ("scenario", "outcome", "badge"),
    [
        ("fails-20", Outcome.ROLLED_BACK, "Rolled back"),
        ("same", Outcome.PROMOTED, "Ready"),
    ],
)
def test_a_rollout_is_watched_from_start_to_end(
    browser: Browser,
    address: str,
    viewer: str,
    stage: Stage,
    scenario: str,
    outcome: Outcome,
    badge: str,
) -> None:
    stage.prepare(BY_NAME[scenario])
    where = f"#/{stage.space.name}/{stage.name}"
    with ExitStack() as stack:
        page = stack.enter_context(opened(browser, address))
        others = {
            f"{size}-{theme}": stack.enter_context(opened(browser, address, size=size, theme=theme))
            for size in SIZES
            for theme in THEMES
            if PICTURES
        }
        for one in (page, *others.values()):
            sign_in(one, viewer)
            # The account's own namespace, without a word about which.
            one.get_by_role("link", name=stage.name).wait_for()
            one.goto(address + where)
            one.locator(".chart canvas").first.wait_for()
        watched = Watched(stage, scenario)
        watched.start()
        name = "rollout" if outcome is Outcome.PROMOTED else ""
        course, most = watch(page, others, watched, name)
        result = watched.finish()
        assert result.outcome is outcome, result.told
        print("\n".join(course))
        expect(page.locator(".title .badge")).to_have_text(badge, timeout=LATEST_S * 1000)
        # Its whole way was seen: a canary with some of the traffic, its evidence, its figures.
        assert any("Rollout:" in said for said in course), course
        assert most["canary"]
        assert most["tests"] >= 3, course
        assert any(figure.endswith("%") for figure in most["figures"]), most["figures"]
        why = page.locator(".why")
        if outcome is Outcome.ROLLED_BACK:
            expect(why).to_contain_text("was rolled back")
            expect(why).to_contain_text("failed")
            expect(why).to_contain_text(f"tidegate retry {stage.name}")
        else:
            expect(why).to_contain_text("was promoted")
        expect(page.locator(".rollout .shares li")).to_have_count(1)
        expect(page.locator(".rollout .shares")).to_contain_text("100%")
        page.locator(".timeline summary").first.click()
        expect(page.locator(".timeline .explained").first).to_be_visible()
        assert page.locator(".chart").count() >= 6
        assert barriers(page) == []
        if outcome is Outcome.ROLLED_BACK:
            _pictures(others, "rollback")


def test_it_tells_nothing_to_strangers(
    cluster: KubeClient, address: str, space: Space, stage: Stage
) -> None:
    stage.prepare(BY_NAME["same"])
    space.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stranger"}})
    one = f"{address}api/v1/namespaces/{space.name}/modeldeployments/{stage.name}"
    stranger = {"Authorization": f"Bearer {token_of(space, 'stranger')}"}
    with httpx.Client(timeout=20) as client:
        assert client.get(f"{address}healthz").status_code == 200
        for path in (f"{address}api/v1/me", f"{address}api/v1/fleet", one):
            assert client.get(path).status_code == 401
            wrong = {"Authorization": "Bearer wrong"}
            assert client.get(path, headers=wrong).status_code == 401
        assert client.get(f"{address}api/v1/me", headers=stranger).status_code == 200
        answer = client.get(one, headers=stranger)
        assert answer.status_code == 403
        assert "cannot list" in answer.json()["message"]
        with client.stream("GET", f"{address}api/v1/fleet", headers=stranger) as stream:
            lines = stream.iter_lines()
            assert '"namespaces":[]' in next(lines)
            assert '"items":[]' in next(lines)


def test_its_pod_holds_no_token(cluster: KubeClient, address: str) -> None:
    [pod] = cluster.list(
        "v1", "Pod", addons.OPERATOR_NAMESPACE, "app.kubernetes.io/component=dashboard"
    )
    assert not [v for v in pod["spec"]["volumes"] if "projected" in v or "secret" in v]


def test_when_the_dashboard_goes_away_the_page_says_so_and_comes_back(
    cluster: KubeClient, browser: Browser, address: str, viewer: str
) -> None:
    with opened(browser, address) as page:
        sign_in(page, viewer)
        expect(page.locator(".live")).to_have_text("Live")
        [pod] = cluster.list(
            "v1", "Pod", addons.OPERATOR_NAMESPACE, "app.kubernetes.io/component=dashboard"
        )
        cluster.delete("v1", "Pod", pod["metadata"]["name"], addons.OPERATOR_NAMESPACE)
        expect(page.locator(".live")).to_contain_text("Stale", timeout=30_000)
        expect(page.get_by_role("alert")).to_contain_text("What you see is old")
        wait_for(
            lambda: page.locator(".live").inner_text() == "Live",
            "live again",
            timeout_seconds=60,
        )
