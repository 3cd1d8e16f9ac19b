"""What an action came to."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Done:
    """What an action came to.

    Attributes:
        wrote: whether the world changed.
        reason: why, or why not, for the log; empty where there is nothing to say.
        again_after_s: look again at the latest in so many seconds; None: no wish.
        drifted: what others had changed and was put back, for an event; empty: nothing.
    """

    wrote: bool = False
    reason: str = ""
    again_after_s: float | None = None
    drifted: str = ""


NOTHING: Final = Done()
