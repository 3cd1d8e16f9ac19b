"""Ports for servers that must be told theirs before they start, as most of the real ones must."""

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import Final

FIRST: Final = 20_000
"""Below those that systems give to connections and to servers that ask for any (32768 and up on
Linux): nobody is given one of these between the asking and the listening. No NodePort either."""
COUNT: Final = 10_000
TURN: Final = Path(tempfile.gettempdir()) / f"tidegate-ports-{os.getuid()}"
"""Which was given last, by any process of this user: tests run several at a time."""


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens on, and that nobody else is given for a long while.

    Raises:
        RuntimeError: there are not so many.
    """
    found: list[int] = []
    with TURN.open("a+", encoding="ascii") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        turn.seek(0)
        last = turn.read()
        at = int(last) if last.isdigit() else 0
        for _ in range(COUNT):
            if len(found) == count:
                break
            at = (at + 1) % COUNT
            if _is_free(address, FIRST + at):
                found.append(FIRST + at)
        turn.truncate(0)
        turn.write(str(at))
    if len(found) < count:
        raise RuntimeError(f"{len(found)} of {count} ports are free from {FIRST} on")
    return found


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind((address, port))
        except OSError:
            return False
    return True
