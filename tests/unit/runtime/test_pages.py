"""Pages on kept connections, from servers that answer in every way."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from tests.unit.runtime.fakes import Clock
from tidegate.runtime.pages import IDLE_S, PageError, Pages

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@dataclass
class Server:
    """Answers each request with the next of its answers, or the last again.

    Attributes:
        answers: bytes to write; None: close the connection.
        pieces: write so many bytes at a time; 0: all at once.
        closes: close after each answer.
    """

    answers: list[bytes | None] = field(default_factory=lambda: [LENGTH])
    pieces: int = 0
    closes: bool = False
    address: str = ""
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    break
                step = self.pieces or max(1, len(answer))
                for start in range(0, len(answer), step):
                    writer.write(answer[start : start + step])
                    await writer.drain()
                    if self.pieces:
                        await asyncio.sleep(0)
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield made
    listening.close()
    for writer in made.writers:
        writer.close()


@pytest.fixture
def pages() -> Pages:
    return Pages("/stats?x", 5.0)


@pytest.mark.parametrize("answer", [LENGTH, CHUNKS], ids=["length", "chunks"])
@pytest.mark.parametrize("pieces", [0, 1, 7])
async def test_pages_on_one_connection(
    server: Server, pages: Pages, answer: bytes, pieces: int
) -> None:
    server.answers, server.pieces = [answer], pieces
    assert [await pages.get(server.address) for _ in range(3)] == [b"hello"] * 3
    assert server.connections == 1
    asked = f"GET /stats?x HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode()
    assert server.requests == [asked] * 3
    pages.close()


async def test_other_pages_of_a_server_come_by_the_same_connection(
    server: Server, pages: Pages
) -> None:
    for path in ("/v2/models/m/stats", "", "/v2/models/m/config"):
        assert await pages.get(server.address, path) == b"hello"
    asked = [request.split()[1] for request in server.requests]
    assert asked == [b"/v2/models/m/stats", b"/stats?x", b"/v2/models/m/config"]
    assert server.connections == 1
    pages.close()


async def test_an_empty_page(server: Server, pages: Pages) -> None:
    server.answers = [OK + b"content-length: 0\r\n\r\n", CHUNKS.partition(b"3;")[0] + b"0\r\n\r\n"]
    assert [await pages.get(server.address) for _ in range(2)] == [b"", b""]
    pages.close()


async def test_a_page_that_looks_finished_and_is_not(server: Server, pages: Pages) -> None:
    head = OK + b"transfer-encoding: chunked\r\n\r\n"
    server.answers = [head + b"5\r\n0\r\n\r\n\r\n1\r\nx\r\n0\r\n\r\n"]
    server.pieces = len(head) + 8
    assert await pages.get(server.address) == b"0\r\n\r\nx"
    pages.close()


@pytest.mark.parametrize("answer", [LENGTH, OK + b"connection: close\r\n" + LENGTH[len(OK) :]])
async def test_a_connection_that_was_closed_meanwhile(
    server: Server, pages: Pages, answer: bytes
) -> None:
    server.answers, server.closes = [answer], True
    for _ in range(3):
        assert await pages.get(server.address) == b"hello"
        await asyncio.sleep(0.01)
    assert server.connections == 3
    pages.close()


async def test_a_connection_that_is_closed_just_as_it_is_used(server: Server, pages: Pages) -> None:
    """As a server may that was idle for long: asked again, once."""
    server.answers = [LENGTH, None, LENGTH]
    assert await pages.get(server.address) == b"hello"
    assert await pages.get(server.address) == b"hello"
    assert (server.connections, len(server.requests)) == (2, 3)
    server.answers = [None]
    with pytest.raises(PageError, match="closed"):
        await pages.get(server.address)
    assert len(server.requests) == 5
    pages.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "status 302"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not understood"),
        (OK + b"content-length: many\r\n\r\n", "not understood"),
        (OK + b"content-length: -5\r\n\r\n", "without a length"),
        (OK + b"\r\n", "without a length"),
        (OK + b"content-length: 2000000\r\n\r\n", "page is too long"),
        (OK + b"transfer-encoding: chunked\r\n\r\nx\r\n0\r\n\r\n", "not understood"),
        (OK + b"transfer-encoding: chunked\r\n\r\n-1\r\n0\r\n\r\n", "not understood"),
        (LENGTH + b"HTTP/1.1 200 OK\r\n", "not understood"),
        (CHUNKS + CHUNKS, "not understood"),
        (OK + b"a: " + b"b" * 70_000, "head is too long"),
        (OK + b"transfer-encoding: chunked\r\n\r\n" + b"x" * 1_200_000, "page is too long"),
    ],
)
async def test_what_is_no_page(server: Server, pages: Pages, answer: bytes, told: str) -> None:
    server.answers = [answer, LENGTH]
    with pytest.raises(PageError, match=told):
        await pages.get(server.address)
    assert await pages.get(server.address) == b"hello"  # and never the rest of the other
    assert server.connections == 2
    pages.close()


async def test_an_answer_that_ends_too_early(server: Server, pages: Pages) -> None:
    server.answers, server.closes = [LENGTH[:-1]], True
    with pytest.raises(PageError, match="within the answer"):
        await pages.get(server.address)


async def test_an_answer_that_comes_too_late_is_nobodys(server: Server) -> None:
    pages = Pages("/", 0.1)
    server.answers = [LENGTH[:-1]]
    with pytest.raises(PageError, match=r"no answer within 0\.1 s"):
        await pages.get(server.address)
    server.answers = [CHUNKS]
    assert await pages.get(server.address) == b"hello"
    assert server.connections == 2
    pages.close()


async def test_what_nobody_asked_for_ends_the_connection(server: Server, pages: Pages) -> None:
    assert await pages.get(server.address) == b"hello"
    server.writers[0].write(b"more")
    await asyncio.sleep(0.05)
    assert await pages.get(server.address) == b"hello"
    assert server.connections == 2
    pages.close()


async def test_nobody_there(pages: Pages) -> None:
    with pytest.raises(PageError):
        await pages.get("127.0.0.1:1")
    with pytest.raises(PageError):
        await pages.get("[::1]:1")


async def test_connections_that_nobody_uses_are_closed(server: Server) -> None:
    clock = Clock()
    pages = Pages("/", 5.0, clock=clock)
    other = Server()
    listening = await asyncio.start_server(other.serve, "127.0.0.1", 0)
    other.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    await pages.get(server.address)
    clock.now += IDLE_S
    await pages.get(other.address)
    await pages.get(server.address)
    assert (server.connections, other.connections) == (2, 1)
    pages.close()
    listening.close()


async def test_two_questions_to_one_server_do_not_mix(server: Server, pages: Pages) -> None:
    server.pieces = 9
    found = await asyncio.gather(*(pages.get(server.address) for _ in range(5)))
    assert found == [b"hello"] * 5
    assert await pages.get(server.address) == b"hello"
    assert server.connections == 5
    await asyncio.sleep(0.05)
    assert sum(not writer.is_closing() for writer in server.writers) == 1  # no more is kept
    pages.close()
