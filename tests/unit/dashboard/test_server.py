"""The server: who sees what, headers, streams that grow no memory, troubles that are told."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.dashboard import documents
from tests.unit.dashboard.fake_api import MDEP, FakeApi, Reader
from tidegate.dashboard import app as server
from tidegate.dashboard import feed, files, one, upstream
from tidegate.dashboard.app import Dashboard, served
from tidegate.dashboard.board import Boards

ONE = "/api/v1/namespaces/team-a/modeldeployments/magika"
CLOSED = ["/api/v1/me", "/api/v1/fleet", ONE, f"{ONE}/stream"]

Message = dict[str, Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GAP_S", 0.0)
    monkeypatch.setattr(one, "TELL_AT_MOST_EVERY_S", 0.02)
    monkeypatch.setattr(feed, "LEAST_PAUSE_S", 0.02)


@pytest.fixture
def api() -> FakeApi:
    found = FakeApi(
        {
            "all": Reader("dana"),
            "some": Reader("system:serviceaccount:team-a:viewer", ("team-a",), pods=False),
            "none": Reader("nobody", ()),
        }
    )
    for namespace in ("team-a", "team-b"):
        found.put("namespaces", {"metadata": {"name": namespace}})
    found.put(MDEP, documents.rolling())
    found.put(MDEP, documents.ready("other", "team-b"))
    found.put("pods", documents.pod("magika-1", documents.STABLE))
    found.put("events", documents.event("TrafficWeightUpdated", "5% to the canary", 40))
    return found


@asynccontextmanager
async def running(
    api: FakeApi, *, namespaces: tuple[str, ...] = (), max_streams: int = 500
) -> AsyncIterator[tuple[TestClient[Any, Any], Dashboard]]:
    async with TestServer(api.app()) as behind:
        address = str(behind.make_url("")).rstrip("/")
        async with served(
            address, True, namespaces=namespaces, max_streams=max_streams, measure=False
        ) as dashboard:
            async with TestClient(TestServer(dashboard.app())) as client:
                yield client, dashboard
            api.end_watches()


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Stream:
    """A stream's messages, one by one."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self, *types: str) -> Message:
        """The next message of these types; others are passed over."""
        async with asyncio.timeout(10):
            while True:
                line = await self._response.content.readline()
                assert line, "the stream ended"
                message: Message = json.loads(line)
                if message["type"] in types:
                    return message


@asynccontextmanager
async def stream(client: TestClient[Any, Any], path: str, token: str) -> AsyncIterator[Stream]:
    async with client.get(path, headers=as_(token)) as response:
        assert response.status == 200, await response.text()
        yield Stream(response)


# Nothing without a token except health, and the page itself, which holds nothing.


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer ü", "Bearer wrong"],
)
async def test_nothing_is_told_without_a_good_token(api: FakeApi, path: str, header: str) -> None:
    async with running(api) as (client, _):
        answer = await client.get(path, headers={"Authorization": header} if header else {})
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "magika" not in await answer.text()
    # Never as the anonymous user, who may have rights.
    assert {token for token, *_ in api.asked} <= {"wrong"}


async def test_a_token_in_the_address_is_no_token(api: FakeApi) -> None:
    async with running(api) as (client, _):
        answer = await client.get("/api/v1/me?token=all&access_token=all")
        assert answer.status == 401


async def test_health_and_the_page_need_none(api: FakeApi) -> None:
    async with running(api) as (client, dashboard):
        for path in ("/healthz", "/", *(f"/static/{name}" for name in dashboard._files)):
            answer = await client.get(path)
            assert answer.status == 200, path
    assert api.asked == []


READING = [
    # token, path, status
    ("all", "/api/v1/me", 200),
    ("none", "/api/v1/me", 200),
    ("all", ONE, 200),
    ("some", ONE, 200),
    ("none", ONE, 403),
    ("some", ONE.replace("team-a", "team-b").replace("magika", "other"), 403),
    ("all", ONE.replace("magika", "no-such"), 404),
    ("none", ONE.replace("magika", "no-such"), 403),
    ("none", f"{ONE}/stream", 403),
    ("all", f"{ONE}/stream".replace("magika", "no-such"), 404),
    ("all", "/api/v1/namespaces/team-a%2F..%2Fteam-b/modeldeployments/other", 404),
]


@pytest.mark.parametrize(("token", "path", "status"), READING)
async def test_the_api_server_says_who_reads_what(
    api: FakeApi, token: str, path: str, status: int
) -> None:
    async with running(api) as (client, _):
        answer = await client.get(path, headers=as_(token))
        assert answer.status == status
        if status == 403:
            assert "cannot list" in (await answer.json())["message"]
    assert {asked for asked, *_ in api.asked} <= {token}


async def test_another_reader_gets_nothing_from_what_is_open(api: FakeApi) -> None:
    async with running(api) as (client, dashboard), stream(client, f"{ONE}/stream", "all") as mine:
        await mine.next("deployment")
        answer = await client.get(ONE, headers=as_("none"))
        assert answer.status == 403
        assert len(dashboard.boards) == 1


async def test_readers_who_may_see_the_same_thing_do_not_share_the_rest(api: FakeApi) -> None:
    async with running(api) as (client, _), stream(client, f"{ONE}/stream", "all") as mine:
        while not (await mine.next("deployment"))["document"]["revisions"][0]["pods"]:
            pass
        answer = await client.get(ONE, headers=as_("some"))
        assert (await answer.json())["document"]["revisions"][0]["pods"] == []


async def test_long_lists_are_read_in_parts(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "CHUNK", 3)
    for n in range(5):
        api.put(MDEP, documents.ready(f"more-{n}", "team-b"))
    async with running(api) as (client, _), stream(client, "/api/v1/fleet", "all") as found:
        assert len((await found.next("fleet"))["items"]) == 7


async def test_only_reading_reaches_the_api_server(api: FakeApi) -> None:
    async with running(api) as (client, _):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await client.request(method, ONE, headers=as_("all"))
            assert answer.status == 405
        await client.get(ONE, headers=as_("all"))
    writes = {path for _, method, path in api.asked if method != "GET"}
    assert {path.rpartition("/")[2] for path in writes} <= {
        "selfsubjectreviews",
        "selfsubjectaccessreviews",
    }


async def test_every_answer_has_the_security_headers(api: FakeApi) -> None:
    async with running(api) as (client, _):
        for path in ("/", "/healthz", "/static/app.js", "/nowhere", *CLOSED):
            for headers in ({}, as_("all")):
                async with client.get(path, headers=headers) as answer:
                    found = answer.headers
                    assert found["X-Content-Type-Options"] == "nosniff"
                    assert found["Referrer-Policy"] == "no-referrer"
                    policy = found["Content-Security-Policy"]
                    assert "frame-ancestors 'none'" in policy
                    assert "default-src 'none'" in policy
                    assert "unsafe" not in policy
                    assert "Server" not in found
                    assert "Set-Cookie" not in found
                    if path.startswith("/api"):
                        assert found["Cache-Control"] == "no-store"


def test_the_page_has_nothing_inline_and_nothing_of_others() -> None:
    page = (files.FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page) == []
    for path in files.FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text) == [], (
            path
        )
        assert "http://" not in text.replace("http://www.w3.org/", ""), path
        assert "https://" not in text, path


async def test_files_are_packed_and_asked_for_once(api: FakeApi) -> None:
    async with running(api) as (client, _):
        first = await client.get("/static/app.js", headers={"Accept-Encoding": "gzip"})
        assert first.headers["Content-Encoding"] == "gzip"
        again = await client.get("/static/app.js", headers={"If-None-Match": first.headers["ETag"]})
        assert again.status == 304
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/vendor/README.md"):
            assert (await client.get(path)).status == 404


# The fleet.


async def test_the_fleet_of_who_may_see_all(api: FakeApi) -> None:
    async with running(api) as (client, _), stream(client, "/api/v1/fleet", "all") as found:
        scope = await found.next("scope")
        assert (scope["everywhere"], scope["user"]) == (True, "dana")
        names = {i["name"] for i in (await found.next("fleet"))["items"]}
        assert names == {"magika", "other"}
        api.put(MDEP, documents.rolled_back())
        assert (await found.next("change"))["item"]["state"]["word"] == "RolledBack"
        api.delete(MDEP, "team-b", "other")
        gone = await found.next("gone")
        assert (gone["namespace"], gone["name"]) == ("team-b", "other")


SCOPES = [
    # token, asked, known to the chart, seen, refused
    ("some", (), (), ["team-a"], []),
    ("some", (), ("team-a", "team-b"), ["team-a"], []),
    ("some", ("team-a", "team-b"), (), ["team-a"], ["team-b"]),
    ("none", (), ("team-a",), [], []),
    ("none", ("team-a",), (), [], ["team-a"]),
    ("all", ("team-b",), (), ["team-b"], []),
]


@pytest.mark.parametrize(("token", "asked", "known", "seen", "refused"), SCOPES)
async def test_the_fleet_of_who_may_see_some(
    api: FakeApi,
    token: str,
    asked: tuple[str, ...],
    known: tuple[str, ...],
    seen: list[str],
    refused: list[str],
) -> None:
    query = "&".join(f"namespace={n}" for n in asked)
    async with (
        running(api, namespaces=known) as (client, _),
        stream(client, f"/api/v1/fleet?{query}", token) as found,
    ):
        scope = await found.next("scope")
        assert not scope["everywhere"]
        assert (scope["namespaces"], scope["refused"]) == (seen, refused)
        items = (await found.next("fleet"))["items"]
        assert {i["namespace"] for i in items} == set(seen)


async def test_a_watch_that_is_too_old_begins_anew(api: FakeApi) -> None:
    async with running(api) as (client, _), stream(client, "/api/v1/fleet", "all") as found:
        await found.next("fleet")
        api.put(MDEP, documents.rolled_back())
        await found.next("change")  # so it watches
        api.expire()
        assert len((await found.next("fleet"))["items"]) == 2
        api.put(MDEP, documents.rolling())
        assert (await found.next("change"))["item"]["state"]["word"] == "Canary"


async def test_a_right_that_is_lost_ends_the_stream(
    api: FakeApi,
) -> None:
    async with running(api) as (client, _), stream(client, "/api/v1/fleet", "some") as found:
        await found.next("fleet")
        api.readers["some"] = Reader("system:serviceaccount:team-a:viewer", ())
        api.end_watches()  # as they do each minute
        assert (await found.next("end"))["status"] == 403


async def test_a_token_that_runs_out_ends_the_stream(api: FakeApi) -> None:
    async with running(api) as (client, _), stream(client, f"{ONE}/stream", "all") as found:
        await found.next("deployment")
        del api.readers["all"]
        api.end_watches()
        assert (await found.next("end"))["status"] == 401


async def test_trouble_of_the_api_server_is_told_and_its_end(
    api: FakeApi,
) -> None:
    async with running(api) as (client, _), stream(client, "/api/v1/fleet", "all") as found:
        await found.next("fleet")
        api.broken = True
        api.end_watches()
        while not (told := (await found.next("state"))["trouble"]):
            pass
        assert "etcd is asleep" in told
        api.broken = False
        while (await found.next("state"))["trouble"]:
            pass


# One deployment.


async def test_one_deployment_with_all_that_is_known(api: FakeApi) -> None:
    async with running(api) as (client, _):
        found = await (await client.get(ONE, headers=as_("all"))).json()
        told = found["document"]
        assert told["name"] == "magika"
        assert found["targetMs"] == 100
        assert set(found["explanations"]) == {documents.STABLE, documents.CANARY}
        assert found["explanations"][documents.CANARY]["head"].startswith("Revision b7kd02nnq1")


async def test_one_deployment_is_followed(api: FakeApi) -> None:
    async with running(api) as (client, _), stream(client, f"{ONE}/stream", "all") as found:
        first = await found.next("deployment")
        while not first["document"]["revisions"][0]["pods"] or not first["document"]["events"]:
            first = await found.next("deployment")
        assert first["document"]["state"]["word"] == "Canary"
        assert first["point"]["tests"].keys() >= {"errors", "latency"}
        api.put(MDEP, documents.rolled_back())
        while (told := await found.next("deployment"))["document"]["state"]["word"] != "RolledBack":
            pass
        assert told["explanations"][documents.CANARY]["tone"] == "bad"
        api.delete(MDEP, "team-a", "magika")
        while (await found.next("deployment"))["document"] is not None:
            pass


async def test_who_may_not_list_pods_sees_the_rest(api: FakeApi) -> None:
    async with running(api) as (client, _), stream(client, f"{ONE}/stream", "some") as found:
        message = await found.next("deployment")
        while message["refused"] != ["events", "pods"]:
            message = await found.next("deployment")
        assert message["document"]["revisions"][0]["pods"] == []


async def test_who_comes_later_gets_the_past(api: FakeApi) -> None:
    async with running(api) as (client, _), stream(client, f"{ONE}/stream", "all") as early:
        while "point" not in await early.next("deployment"):
            pass
        async with stream(client, f"{ONE}/stream", "all") as late:
            assert (await late.next("trail"))["points"]


# Readers that are slow, or many.


async def test_a_reader_that_takes_nothing_costs_no_memory_and_holds_up_nobody(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailboxes = []
    join = Boards.joined

    @asynccontextmanager
    async def noted(self: Any, key: Any, make: Any) -> AsyncIterator[Any]:
        async with join(self, key, make) as mailbox:
            mailboxes.append(mailbox)
            yield mailbox

    monkeypatch.setattr(Boards, "joined", noted)
    long = "x" * 100_000
    async with running(api) as (client, _):
        response = await client.get("/api/v1/fleet", headers=as_("all"))  # never read
        async with stream(client, "/api/v1/fleet", "all") as quick:
            await quick.next("fleet")
            for n in range(60):
                changed = documents.rolling()
                changed["status"]["rollout"]["message"] = f"{n} {long}"
                api.put(MDEP, changed)
                # Who reads gets the newest soon, whatever the other does.
                while not (await _next_long(quick)).startswith(f"{n} "):
                    pass
            # 6 MB were told; what waits for the slow one is at most one line for each thing.
            assert max(len(m) for m in mailboxes) <= 3
            assert max(sum(len(v) for v in m._lines.values()) for m in mailboxes) < 300_000
        response.close()


async def _next_long(found: Stream) -> str:
    found._response.content._high_water = 1 << 22  # longer lines than aiohttp's reader takes
    return str((await found.next("change"))["item"]["message"])


async def test_a_reader_that_takes_nothing_for_long_is_let_go(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.2)
    async with running(api) as (client, dashboard):
        response = await client.get("/api/v1/fleet", headers=as_("all"))
        async with asyncio.timeout(10):
            n = 0
            while len(dashboard.boards) or not n:
                n += 1
                changed = documents.rolling()
                changed["status"]["rollout"]["message"] = f"{n} {'x' * 1_000_000}"
                api.put(MDEP, changed)
                await asyncio.sleep(0.01)
        response.close()


async def test_readers_with_the_same_token_share_one_watch(api: FakeApi) -> None:
    async with running(api) as (client, dashboard):
        async with (
            stream(client, "/api/v1/fleet", "all") as one,
            stream(client, "/api/v1/fleet", "all") as two,
        ):
            await one.next("fleet")
            await two.next("fleet")
            assert len(dashboard.boards) == 1
            assert sum("watch=true" in path for *_, path in api.asked) <= 1
        async with asyncio.timeout(10):
            while len(dashboard.boards):
                # Its readers have gone; a write finds out.
                api.put(MDEP, documents.rolled_back())
                await asyncio.sleep(0.02)
                api.put(MDEP, documents.rolling())
                await asyncio.sleep(0.02)


async def test_there_is_an_end_to_the_streams_of_all(api: FakeApi) -> None:
    async with (
        running(api, max_streams=1) as (client, _),
        stream(client, "/api/v1/fleet", "all") as found,
    ):
        await found.next("fleet")
        answer = await client.get("/api/v1/fleet", headers=as_("some"))
        assert answer.status == 429
