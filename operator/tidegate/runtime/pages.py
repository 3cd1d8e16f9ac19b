"""GET of a page, again and again, on connections that are kept: as little HTTP/1.1 as that needs.

For the pages of live canaries' pods, of which there are thousands a second. An answer has a length
or comes in chunks; whatever else a server may say (redirects, encodings, trailers) is an error.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

MAX_HEAD_BYTES: Final = 64 << 10
MAX_PAGE_BYTES: Final = 1 << 20
IDLE_S: Final = 60.0
"""A connection that was not used for so long is closed: its pod is gone, or not asked any more."""
_HEAD_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"


class PageError(Exception):
    """A page could not be had; the text says why."""


class _ClosedError(PageError):
    """The connection was closed before a byte of the answer came."""


class Pages:
    """Gets one page of many servers.

    Args:
        path: with its query, encoded; another may be asked for each time.
        timeout_s: of one page, connecting included.
        clock: monotonic, seconds.
    """

    def __init__(
        self, path: str, timeout_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._clock = clock
        self._idle: dict[str, _Connection] = {}
        self._pruned_at = clock()

    async def get(self, address: str, path: str = "") -> bytes:
        """The page of one server.

        Args:
            address: ``host:port``; an IPv6 address in brackets.
            path: another than the usual one, encoded.

        Raises:
            PageError: there is no answer in time, or not status 200, or none that is understood.
        """
        path = path or self._path
        try:
            async with asyncio.timeout(self._timeout_s):
                kept = self._idle.pop(address, None)
                if kept is not None and not kept.closed:
                    try:
                        return await self._ask(kept, address, path)
                    except _ClosedError:
                        pass  # it was closed for idleness just now; that is no answer of the pod's
                return await self._ask(await self._connect(address), address, path)
        except TimeoutError:
            raise PageError(f"no answer within {self._timeout_s:g} s") from None
        except OSError as error:
            raise PageError(str(error) or repr(error)) from error

    def close(self) -> None:
        """Close all connections that are kept."""
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()

    async def _connect(self, address: str) -> "_Connection":
        host, _, port = address.rpartition(":")
        _, connection = await asyncio.get_running_loop().create_connection(
            _Connection, host.strip("[]"), int(port)
        )
        return connection

    async def _ask(self, connection: "_Connection", address: str, path: str) -> bytes:
        request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode("ascii")
        try:
            page = await connection.ask(request)
        except BaseException:
            # An answer may still come: nobody must take it for another's.
            connection.close()
            raise
        now = connection.used_at = self._clock()
        if connection.closed or address in self._idle:
            connection.close()
        else:
            self._idle[address] = connection
        self._prune(now)
        return page

    def _prune(self, now: float) -> None:
        if now - self._pruned_at < IDLE_S:
            return
        self._pruned_at = now
        for address, connection in list(self._idle.items()):
            if connection.closed or now - connection.used_at >= IDLE_S:
                connection.close()
                del self._idle[address]


class _Connection(asyncio.Protocol):
    """One connection, one question at a time."""

    def __init__(self) -> None:
        self.closed = False
        self.used_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiter: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.closed = True
        if self._received:
            self._fail(PageError("the connection was closed within the answer"))
        else:
            self._fail(_ClosedError(f"the connection was closed ({exc or 'by the server'})"))

    async def ask(self, request: bytes) -> bytes:
        """Send a request; the body of its answer.

        Raises:
            PageError: there is none.
        """
        if self._transport is None or self.closed:
            raise _ClosedError("the connection is closed")
        self._received.clear()
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Close it at once."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._waiter is None or self._waiter.done():
            self.close()  # nobody asked
            return
        self._received += data
        try:
            page = self._page()
        except ValueError:
            self._fail(PageError("an answer that is not understood"))
            return
        except PageError as error:
            self._fail(error)
            return
        if page is not None:
            self._waiter.set_result(page)

    def _fail(self, error: PageError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _page(self) -> bytes | None:
        """The body, once it is complete."""
        received = self._received
        end = received.find(_HEAD_END)
        if end < 0:
            if len(received) > MAX_HEAD_BYTES:
                raise PageError("the answer's head is too long")
            return None
        if len(received) > MAX_HEAD_BYTES + MAX_PAGE_BYTES:
            raise PageError("the page is too long")
        head = bytes(received[:end]).lower()
        status, _, head = head.partition(b"\r\n")
        if not status.startswith(b"http/1."):
            raise ValueError("no HTTP")
        if status[8:13].strip() != b"200":
            raise PageError(f"status {status[9:12].decode('ascii', 'replace')}")
        length, chunked = None, False
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                chunked = value.strip() == b"chunked"
            elif name == b"connection" and value.strip() == b"close":
                self.closed = True
        start = end + len(_HEAD_END)
        if chunked:
            return _unchunked(received, start) if received.endswith(_LAST_CHUNK) else None
        if length is None or length < 0:
            raise PageError("an answer without a length")
        if length > MAX_PAGE_BYTES:
            raise PageError("the page is too long")
        if len(received) > start + length:
            raise ValueError("more than the page")
        return bytes(received[start:]) if len(received) == start + length else None


def _unchunked(received: bytearray, start: int) -> bytes | None:
    """The chunks from `start` on put together; None: there are more to come.

    Raises:
        ValueError: these are no chunks.
    """
    parts: list[bytes] = []
    while True:
        end = received.find(b"\r\n", start)
        if end < 0:
            return None
        size = int(received[start:end].partition(b";")[0], 16)
        if size < 0:
            raise ValueError("a chunk of negative size")
        start = end + 2
        if size == 0:
            if received[start:] != b"\r\n":
                raise ValueError("more than the page")
            return b"".join(parts)
        if start + size + 2 > len(received):
            return None
        parts.append(bytes(received[start : start + size]))
        start += size + 2
