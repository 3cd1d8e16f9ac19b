"""What many readers look at together, and how each gets the newest of it at its own pace.

A board is kept up to date by one task, as long as somebody looks. Each reader has a mailbox that
holds at most one message for each thing that is told of: who reads slowly misses what was in
between, costs no more memory than that, and holds up nobody.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from tidegate.dashboard.upstream import UpstreamError

log: Final = structlog.get_logger(__name__)

Message = dict[str, Any]


def line(message: Message) -> bytes:
    """A message as one line of JSON."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


class Mailbox:
    """One reader's messages, the newest for each thing."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, bytes] = {}
        self._filled = asyncio.Event()
        self.ended = False
        """Nothing comes after what is in it."""

    def put(self, about: Hashable, said: bytes) -> None:
        """Put a line in, in the place of an older one about the same."""
        self._lines.pop(about, None)  # the newer one goes to the end: order tells what came last
        self._lines[about] = said
        self._filled.set()

    def clear(self) -> None:
        """Forget all that was not taken."""
        self._lines.clear()

    async def take(self) -> list[bytes]:
        """All lines, oldest first; waits until there is one."""
        await self._filled.wait()
        self._filled.clear()
        found = list(self._lines.values())
        self._lines.clear()
        return found

    def __len__(self) -> int:
        return len(self._lines)


class Board(ABC):
    """Something that readers look at."""

    def __init__(self) -> None:
        self._mailboxes: set[Mailbox] = set()
        self._end: Message | None = None

    @abstractmethod
    async def run(self) -> None:
        """Keep it up to date, until cancelled.

        Raises:
            UpstreamError: its readers may not see it any more.
        """

    @abstractmethod
    def greeting(self) -> Iterable[tuple[Hashable, Message]]:
        """What a new reader is told first; nothing while nothing is known."""

    def join(self, mailbox: Mailbox) -> None:
        """One more reader."""
        self._mailboxes.add(mailbox)
        for about, message in self.greeting():
            mailbox.put(about, line(message))
        if self._end is not None:
            _finish(mailbox, self._end)

    def leave(self, mailbox: Mailbox) -> bool:
        """One reader less. Returns whether it was the last."""
        self._mailboxes.discard(mailbox)
        return not self._mailboxes

    def tell(self, about: Hashable, message: Message, *, instead_of_all: bool = False) -> None:
        """Tell all readers; `instead_of_all`: what they have not taken yet is out of date."""
        said = line(message)
        for mailbox in self._mailboxes:
            if instead_of_all:
                mailbox.clear()
            mailbox.put(about, said)

    async def keep(self) -> None:
        """`run`, and at its end tell the readers why."""
        try:
            await self.run()
        except UpstreamError as error:
            end = {"type": "end", "status": error.status, "message": str(error)}
        except Exception as error:
            # A defect in showing one thing must not end the others, and must not stay unseen.
            log.error("a view failed", exc_info=error)
            end = {"type": "end", "status": 500, "message": "the dashboard failed; see its log"}
        else:
            return
        self._end = end
        for mailbox in self._mailboxes:
            _finish(mailbox, end)


def _finish(mailbox: Mailbox, end: Message) -> None:
    mailbox.put("end", line(end))
    mailbox.ended = True


class Boards:
    """The boards that somebody looks at."""

    def __init__(self) -> None:
        self._open: dict[Hashable, tuple[Board, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def joined(self, key: Hashable, make: Callable[[], Board]) -> AsyncIterator[Mailbox]:
        """A mailbox at the board of that key, which is made for its first reader.

        Args:
            key: holds all that the board's content depends on, the reader's token included.
            make: a new board.
        """
        found = self._open.get(key)
        if found is None or found[1].done():
            board = make()
            found = board, asyncio.create_task(board.keep())
            self._open[key] = found
        board, task = found
        mailbox = Mailbox()
        board.join(mailbox)
        try:
            yield mailbox
        finally:
            if board.leave(mailbox):
                task.cancel()
                if self._open.get(key) is found:
                    del self._open[key]
                await asyncio.gather(task, return_exceptions=True)
