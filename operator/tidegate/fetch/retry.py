"""Trying again: exponential back-off with full jitter, for errors that may pass."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tidegate.fetch.errors import FetchError
from tidegate.fetch.progress import log

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """How often and how long.

    Attributes:
        attempts: tries in all.
        base_s: longest wait after the first failure; doubles each time.
        cap_s: longest wait ever, also for a server's Retry-After.
    """

    attempts: int = 6
    base_s: float = 0.5
    cap_s: float = 20.0

    def wait_s(self, failures: int, asked_s: float | None = None) -> float:
        """Seconds to wait after this many failures in a row (1 or more)."""
        if asked_s is not None:
            return min(asked_s, self.cap_s)
        longest = min(self.cap_s, self.base_s * 2.0 ** (failures - 1))
        return random.uniform(longest / 2, longest)


async def retry(
    operation: Callable[[], Awaitable[T]],
    backoff: Backoff,
    progressed: Callable[[], int] = lambda: 0,
) -> T:
    """Run an operation until it succeeds, fails for good, or fails too often without progress.

    Args:
        operation: raises `FetchError`; only retryable ones are tried again.
        backoff: how often.
        progressed: a number that grows when something was gained; failures are counted anew then,
            so a long download over a bad line ends.

    Returns:
        What the operation returned.
    """
    failures, gained = 0, progressed()
    while True:
        try:
            return await operation()
        except FetchError as exc:
            if not exc.retryable:
                raise
            now = progressed()
            failures, gained = (1, now) if now > gained else (failures + 1, gained)
            if failures >= backoff.attempts:
                raise
            wait_s = backoff.wait_s(failures, getattr(exc, "retry_after_s", None))
            log("warning", "will try again", error=exc.message, failures=failures, wait_s=wait_s)
            await asyncio.sleep(wait_s)
