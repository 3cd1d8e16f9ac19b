"""The client: errors by kind, the fence before each write, counts, token that is read again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import kopf
import pytest
from aiohttp import web

from tests.unit.runtime.server import serving
from tidegate.runtime.fence import Fence, FencedError
from tidegate.runtime.kinds import DEPLOYMENT, kind_of
from tidegate.runtime.kube import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    Kube,
    KubeError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnreachableError,
    error_of,
)
from tidegate.runtime.login import TOKEN_MAX_AGE_S, Connection, TokenFile

CONFIG_MAP = kind_of("v1", "ConfigMap")


@dataclass
class Counts:
    seen: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def request(self, verb: str, kind: str, code: str, seconds: float, *, write: bool) -> None:
        self.seen.append((verb, kind, code, write))


@dataclass
class Server:
    """Remembers requests, answers what it is told."""

    status: int = 200
    body: object = field(default_factory=dict)
    delay_s: float = 0.0
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        await request.read()
        await asyncio.sleep(self.delay_s)
        return web.json_response(self.body, status=self.status)


@contextlib.asynccontextmanager
async def api_server() -> AsyncIterator[Server]:
    server = Server()
    async with serving(server.handle) as address:
        server.url = f"http://{address}"
        yield server


def open_fence() -> Fence:
    fence = Fence(1000.0)
    fence.renewed(0.0)
    return fence


@pytest.mark.parametrize(
    ("code", "reason", "cls"),
    [
        (400, "BadRequest", InvalidError),
        (401, "Unauthorized", UnauthorizedError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExistsError),
        (410, "Expired", GoneError),
        (415, "UnsupportedMediaType", KubeError),
        (422, "Invalid", InvalidError),
        (429, "TooManyRequests", TooManyRequestsError),
        (500, "InternalError", ServerError),
        (504, "Timeout", ServerError),
    ],
)
def test_errors_by_kind(code: int, reason: str, cls: type[KubeError]) -> None:
    error = error_of(code, {"reason": reason, "message": "text"}, {})
    assert type(error) is cls
    assert (error.code, error.reason, str(error)) == (code, reason, "text")


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "7"}, {}, 7.0),
        ({}, {"details": {"retryAfterSeconds": 3}}, 3.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, 0.0),
        ({}, {}, 0.0),
    ],
)
def test_the_wish_to_wait(headers: dict[str, str], body: dict[str, object], seconds: float) -> None:
    assert error_of(429, body, headers).retry_after_s == seconds


async def test_no_write_leaves_a_closed_fence_but_reads_do() -> None:
    counts = Counts()
    async with (
        api_server() as server,
        Kube(Connection(kopf.ConnectionInfo(server=server.url)), Fence(1.0), counts) as kube,
    ):
        document = {"metadata": {"name": "x", "namespace": "ns"}}
        for write in (
            kube.create(CONFIG_MAP, document, manager="m"),
            kube.apply(CONFIG_MAP, document, manager="m", force=True),
            kube.merge(CONFIG_MAP, "ns", "x", {}, manager="m"),
            kube.patch(CONFIG_MAP, "ns", "x", [], manager="m"),
            kube.delete(CONFIG_MAP, "ns", "x", uid="u"),
        ):
            with pytest.raises(FencedError):
                await write
        assert server.requests == []
        await kube.get(CONFIG_MAP, "ns", "x")
    assert counts.seen == [("get", "ConfigMap", "200", False)]


async def test_a_write_is_not_waited_for_beyond_the_fence() -> None:
    counts = Counts()
    fence = Fence(10.0)
    fence.renewed(0.0)
    async with (
        api_server() as server,
        Kube(
            Connection(kopf.ConnectionInfo(server=server.url)), fence, counts, clock=lambda: 9.95
        ) as kube,
    ):
        server.delay_s = 30.0
        with pytest.raises(UnreachableError, match=r"0\.1 s|0\.0 s"):
            await kube.merge(CONFIG_MAP, "ns", "x", {}, manager="m")
    assert counts.seen == [("merge", "ConfigMap", "unreachable", True)]


async def test_requests_say_what_they_are() -> None:
    async with (
        api_server() as server,
        Kube(
            Connection(kopf.ConnectionInfo(server=server.url, token="t")),
            open_fence(),
            Counts(),
            clock=lambda: 1.0,
        ) as kube,
    ):
        document = {"metadata": {"name": "d", "namespace": "ns"}}
        server.status = 201
        written = await kube.apply(
            DEPLOYMENT, document, manager="tidegate-scale", force=True, sub="scale"
        )
        assert written.created
        server.status = 200
        assert not (await kube.delete(DEPLOYMENT, "ns", "d", uid="u")).created
        apply, delete = server.requests
    assert apply.method == "PATCH"
    assert apply.path == "/apis/apps/v1/namespaces/ns/deployments/d/scale"
    assert dict(apply.query) == {"fieldManager": "tidegate-scale", "force": "true"}
    assert apply.headers["Content-Type"] == "application/apply-patch+yaml"
    assert apply.headers["Authorization"] == "Bearer t"
    assert apply.headers["User-Agent"].startswith("tidegate/")
    assert (await delete.json())["preconditions"] == {"uid": "u"}


@pytest.mark.parametrize("body", ["text", ["list"], None])
async def test_an_answer_that_is_no_document_is_an_error_in_words(body: object) -> None:
    async with (
        api_server() as server,
        Kube(Connection(kopf.ConnectionInfo(server=server.url)), Fence(1.0), Counts()) as kube,
    ):
        server.body, server.status = body, 500
        with pytest.raises(ServerError):
            await kube.get(CONFIG_MAP, "ns", "x")


async def test_a_server_that_is_not_there() -> None:
    connection = Connection(kopf.ConnectionInfo(server="http://127.0.0.1:1"))
    async with Kube(connection, Fence(1.0), Counts()) as kube:
        with pytest.raises(UnreachableError):
            await kube.get(CONFIG_MAP, "ns", "x")


async def test_pages_follow_the_token() -> None:
    async with (
        api_server() as server,
        Kube(Connection(kopf.ConnectionInfo(server=server.url)), Fence(1.0), Counts()) as kube,
    ):
        server.body = {"metadata": {"continue": "t"}, "items": [1]}
        found = []
        async for page in kube.pages(CONFIG_MAP, None, selector="a=b", metadata_only=True):
            found += page["items"]
            server.body = {"metadata": {}, "items": [2]}
        assert found == [1, 2]
        first, second = server.requests
        assert first.path == "/api/v1/configmaps"
        assert dict(second.query) == {"limit": "500", "labelSelector": "a=b", "continue": "t"}
        assert "PartialObjectMetadataList" in first.headers["Accept"]


async def test_a_replaced_token_is_used_and_a_refused_one_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    now = [0.0]
    connection_token = TokenFile(file, clock=lambda: now[0])
    async with api_server() as server:
        connection = Connection(kopf.ConnectionInfo(server=server.url), connection_token)
        async with Kube(connection, Fence(1.0), Counts()) as kube:
            await kube.get(CONFIG_MAP, "ns", "x")
            file.write_text("two")
            await kube.get(CONFIG_MAP, "ns", "x")
            now[0] += TOKEN_MAX_AGE_S + 1
            await kube.get(CONFIG_MAP, "ns", "x")
            file.write_text("three")
            server.status = 401
            with pytest.raises(UnauthorizedError):
                await kube.get(CONFIG_MAP, "ns", "x")
            server.status = 200
            await kube.get(CONFIG_MAP, "ns", "x")
            sent = [r.headers["Authorization"].split()[1] for r in server.requests]
    assert sent == ["one", "one", "two", "two", "three"]


def test_a_token_file_that_is_gone_leaves_the_last_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    now = [0.0]
    token = TokenFile(file, clock=lambda: now[0])
    with pytest.raises(FileNotFoundError):
        token.token()
    file.write_text("one")
    assert token.token() == "one"
    file.unlink()
    now[0] += TOKEN_MAX_AGE_S + 1
    assert token.token() == "one"
