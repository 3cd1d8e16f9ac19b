"""Verbs: what a person asks of a rollout, by an annotation.

`names.REQUEST_ANNOTATION` holds one request, ``<id>/<verb>/<revision>/<user>``. It is asked once:
the id of the last one that was handled stands in ``status.lastRequest``, and the same id again is
nothing new. The admission policy sees to it that the user is who wrote it and has that verb's
right. Pure.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tidegate.api.admission import REQUEST_PATTERN

_SHAPE: Final = re.compile(REQUEST_PATTERN)


class Verb(StrEnum):
    """What may be asked."""

    ABORT = "abort"
    """All traffic back to stable; the canary counts as failed."""
    PAUSE = "pause"
    """Stay where it stands. A bad canary is still rolled back."""
    PROMOTE = "promote"
    """Make the canary stable, past the gates."""
    RESTART = "restart"
    """A new revision of the same spec with today's defaults and Secrets, through the gates."""
    RESUME = "resume"
    """Go on after `PAUSE`."""
    RETRY = "retry"
    """Forget that the revision failed, and try it again through the gates."""
    SKIP_STEP = "skip-step"
    """Go to the next step without waiting for the evidence that this one asks for."""
    UNDO = "undo"
    """Back to an earlier revision, through the gates."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        id: whoever asks makes it up; letters, digits and dashes, at most 64.
        verb: what is asked.
        revision: hash of the revision that is meant; empty: the one that the verb implies.
        user: who asks, as the API server knows them.
    """

    id: str
    verb: Verb
    revision: str
    user: str

    def __str__(self) -> str:
        """The annotation's value."""
        return f"{self.id}/{self.verb}/{self.revision}/{self.user}"


def parse(annotation: str | None) -> Request | None:
    """The request that an annotation holds; None where there is none or it is malformed."""
    if annotation is None or _SHAPE.fullmatch(annotation) is None:
        return None
    identity, verb, revision, user = annotation.split("/", 3)
    return Request(identity, Verb(verb), revision, user)
