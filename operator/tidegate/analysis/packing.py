"""Numbers as a short text, and back: how the state of a test is kept. Pure."""

import base64
import struct
from collections.abc import Sequence
from math import isfinite


class DamagedError(ValueError):
    """The text holds something else."""


def packed(doubles: Sequence[float], floats: Sequence[float] = ()) -> str:
    """Numbers in full, then others in half the room, as base64."""
    found = struct.pack(f"<{len(doubles)}d{len(floats)}f", *doubles, *floats)
    return base64.b64encode(found).decode("ascii")


class Unpacked:
    """What `packed` made, taken from the front.

    Args:
        text: as `packed` gave it.

    Raises:
        DamagedError: it is no such text.
    """

    def __init__(self, text: str) -> None:
        try:
            self._bytes = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise DamagedError(str(error)) from error
        self._at = 0

    def take(self, count: int, kind: str = "d") -> list[float]:
        """The next numbers, packed in full (``d``) or in half the room (``f``).

        Raises:
            DamagedError: there are none, or not only numbers.
        """
        try:
            found = struct.unpack_from(f"<{count}{kind}", self._bytes, self._at)
        except struct.error as error:
            raise DamagedError(str(error)) from error
        self._at += struct.calcsize(f"<{count}{kind}")
        if not all(isfinite(value) for value in found):
            raise DamagedError("not a number")
        return list(found)

    def take_counts(self, count: int) -> list[float]:
        """The next numbers, none of them negative."""
        found = self.take(count)
        if found and min(found) < 0.0:
            raise DamagedError("a negative count")
        return found

    def end(self) -> None:
        """DamagedError if there is more."""
        if self._at != len(self._bytes):
            raise DamagedError("too long")
