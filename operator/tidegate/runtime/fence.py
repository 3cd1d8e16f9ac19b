"""The write fence: a process that may have lost the lead writes nothing any more.

A holder that was paused, or cut off from the API server, cannot know that a standby took over.
What it does know is how long ago its last successful renewal *began*, on its own monotonic
clock. A standby waits for the lease's duration, which is longer than the fence's deadline, so
the fence falls before another holder can begin.
"""

from dataclasses import dataclass


class FencedError(RuntimeError):
    """A write was refused, since this process may not be the holder any more."""


@dataclass
class Fence:
    """Tells whether writing is allowed. Times are seconds of one monotonic clock.

    Attributes:
        deadline_s: how long after the beginning of a renewal writes are allowed.
    """

    deadline_s: float
    _renewed_at: float | None = None

    def renewed(self, began_at: float) -> None:
        """A renewal that began then was acknowledged; renewals never move the fence back."""
        if self._renewed_at is None or began_at > self._renewed_at:
            self._renewed_at = began_at

    def close(self) -> None:
        """Nothing may be written from here on, until a next renewal."""
        self._renewed_at = None

    def remaining_s(self, now: float) -> float:
        """Seconds in which a write may still be sent; 0 if none may."""
        if self._renewed_at is None:
            return 0.0
        return max(0.0, self._renewed_at + self.deadline_s - now)

    def check(self, now: float) -> float:
        """Seconds in which the write about to be sent must be answered.

        Raises:
            FencedError: no write is allowed now.
        """
        remaining = self.remaining_s(now)
        if remaining <= 0.0:
            raise FencedError("this process does not hold the lease, or could not renew it in time")
        return remaining
