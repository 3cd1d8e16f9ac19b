"""Waiting until a ModelDeployment is as wanted, or is known not to become so."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from tidegate.cli.client import ApiError, retry_in_s
from tidegate.cli.trouble import Exit, Trouble
from tidegate.view import facts
from tidegate.view.facts import Document

POLL_S: Final = 1.0
LONGEST_S: Final = 10_000 * 86_400.0
"""Nobody waits longer; what is longer is a slip, or no number at all."""
MOST_DIGITS: Final = 12
NOT_LOOKED: Final = "the operator has not looked at this spec yet"


class Goal(StrEnum):
    """What is waited for."""

    PROMOTED = "promoted"
    """The spec's revision is stable, and its rollout over."""
    READY = "ready"
    """The spec's revision is live."""
    AVAILABLE = "available"
    """Some revision serves."""


def outcome(document: Document, goal: Goal) -> tuple[Exit | None, str]:
    """Whether the goal is reached, or out of reach (`Exit.FAILED`); None: neither yet. And why.

    Only a status that speaks of the spec as it is now counts.
    """
    name = document["metadata"]["name"]
    if not facts.current(document):
        return None, NOT_LOOKED
    available, ready = facts.is_true(document, "Available"), facts.is_true(document, "Ready")
    rolling = facts.rolling(document)
    stable = facts.revision(document, "stable").get("hash") or ""
    reached = {
        Goal.AVAILABLE: available,
        Goal.READY: ready,
        Goal.PROMOTED: ready and not rolling,
    }[goal]
    if reached:
        return Exit.REACHED, f"{name} is {goal}" + (f": revision {stable}" if stable else "")
    stalled = facts.is_true(document, "Stalled")
    # Not by the phase: it stays after a revert, when the spec asks for what serves.
    rolled_back = stalled and facts.condition(document, "Stalled").get("reason") == "RolledBack"
    if rolled_back and goal is not Goal.AVAILABLE:
        return Exit.FAILED, f"{name} was rolled back: {_why(document, 'Stalled')}"
    if stalled:
        return Exit.FAILED, f"{name} is stalled: {_why(document, 'Stalled')}"
    return None, progress(document)


def progress(document: Document) -> str:
    """Where it stands, in a line; the same text as long as nothing changes that matters."""
    found = facts.rollout(document)
    parts = [str(found.get("phase") or "")]
    if facts.rolling(document):
        weight = found.get("weight")
        parts += [facts.step(document), "" if weight in (None, "0%") else str(weight)]
    text = ", ".join(p for p in parts if p)
    if hold := found.get("hold"):
        text += f", holds: {hold}"
    kind = "Available" if not facts.is_true(document, "Available") else "Ready"
    lacks = not facts.is_true(document, kind)
    # What the phase says already needs no saying again.
    if lacks and not hold and facts.condition(document, kind).get("reason") != found.get("phase"):
        text += f"{'; ' if text else ''}{kind}={_why(document, kind)}"
    return text


def _why(document: Document, kind: str) -> str:
    found = facts.condition(document, kind)
    text = found.get("message") or facts.rollout(document).get("message") or ""
    reason = found.get("reason") or "Unknown"
    return f"{reason}: {text}" if text else str(reason)


def wait(
    look: Callable[[], Document],
    judge: Callable[[Document], tuple[Exit | None, str]],
    *,
    timeout_s: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Exit, str]:
    """Look again and again until there is an outcome.

    An API server that does not answer for a while is waited for.

    Args:
        look: reads the document.
        judge: an exit code once it is over, and why.
        timeout_s: how long at most.
        tell: is told what changed meanwhile.
        clock: seconds.
        sleep: waits seconds.

    Returns:
        The exit code, `Exit.TIMEOUT` where the time ran out, and why.

    Raises:
        Trouble: it does not exist, or may not be read.
    """
    deadline, last = clock() + timeout_s, ""
    seen = False
    while True:
        pause_s = POLL_S
        try:
            code, text = judge(look())
            seen = True
            if code is not None:
                return code, text
        except Trouble as error:
            again_s = retry_in_s(error)
            if again_s is None:
                if seen and isinstance(error, ApiError) and error.status == 404:
                    raise Trouble(f"{error.message}: deleted meanwhile", code=error.code) from None
                raise
            pause_s, text = again_s, str(error)
        if text != last:
            tell(text)
            last = text
        left_s = deadline - clock()
        if left_s <= 0:
            return Exit.TIMEOUT, f"not within {facts.span(timeout_s)}: {last}"
        sleep(min(pause_s, left_s))


def stamped(text: str) -> str:
    """With the time of day before it, UTC."""
    return f"{datetime.now(UTC):%H:%M:%S} {text}"


def seconds(text: str) -> float:
    """A length of time such as ``30m``, ``90s``, ``1h30m``; a bare number is seconds.

    Raises:
        ValueError: it is none, or longer than `LONGEST_S`.
    """
    units = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
    total, digits = 0.0, ""
    for sign in f"{text}s" if text.isdecimal() else text:
        if sign.isdecimal() and len(digits) < MOST_DIGITS:
            digits += sign
        elif sign in units and digits:
            total, digits = total + int(digits) * units.pop(sign), ""
        else:
            raise ValueError(text)
    if digits or not text or total > LONGEST_S:
        raise ValueError(text)
    return total
