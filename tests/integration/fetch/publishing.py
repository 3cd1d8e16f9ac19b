"""What is published, and a line to the registry that can be cut off before any request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.integration.fetch.models import PYTHON_MODEL, digest_of

SHA256 = digest_of(PYTHON_MODEL).removeprefix("sha256:")
"""Of what the fixture `model` is the folder of."""


class CutOff(Exception):
    """The line is dead."""


@dataclass
class Line:
    """Requests go through it until it is cut off.

    Attributes:
        left: how many still do; None: all.
    """

    left: int | None = None

    def over(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        """What asks, over this line: each call is one request, or `CutOff`."""

        def asked(*request: Any, **more: Any) -> Any:
            if self.left == 0:
                raise CutOff
            if self.left is not None:
                self.left -= 1
            return ask(*request, **more)

        return asked
