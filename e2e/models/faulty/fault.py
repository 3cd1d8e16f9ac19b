"""What is wrong with a version, and which of its requests it befalls.

Lies beside the served model and is read by it (`model.py`), so it needs nothing but Python. All is
decided by the request's number since the model was loaded and by a seed: the same version fails the
same requests each time.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Final

RAISE: Final = "raise"
"""Raise in ``execute``: Triton counts a failure."""
RESPOND: Final = "respond"
"""Answer with an error response: HTTP 500, gRPC INTERNAL, but Triton counts a *success*."""
EXIT: Final = "exit"
SLEEP: Final = "sleep"


@dataclass(frozen=True)
class Fault:
    """One version's behaviour. The defaults are a good version.

    Attributes:
        says: answered in the output ``served_by`` and in every error: which version it was.
        seed: for everything that befalls a share of the requests.
        service_ms: from a request's arrival to its answer.
        slow_share: of the requests, 0 to 1, take `slow_ms` instead.
        slow_ms: see there.
        slow_first: so many requests at the beginning take `slow_ms`, too.
        fail_share: of the requests, 0 to 1, fail.
        fail_by: `RAISE` or `RESPOND`.
        hang_after: so many requests are answered, then none any more; 0: all are.
        leak_mib: memory that each request leaves behind.
        most_in_flight: a request that finds so many others under way fails; 0: no limit.
        load: what happens when it is loaded: `RAISE`, `EXIT` (the process ends), `SLEEP` (it never
            becomes ready); empty: it is loaded.
        wrong: the labels of its answers are rotated by one.
        other_input: its configuration asks for an input of another name, so that Triton itself
            refuses every request with 400.
    """

    says: str = "good"
    seed: int = 0
    service_ms: float = 60.0
    slow_share: float = 0.0
    slow_ms: float = 0.0
    slow_first: int = 0
    fail_share: float = 0.0
    fail_by: str = RAISE
    hang_after: int = 0
    leak_mib: int = 0
    most_in_flight: int = 0
    load: str = ""
    wrong: bool = False
    other_input: bool = False

    def fails(self, number: int) -> bool:
        """Whether the request of that number (from 0) fails."""
        return self._draw("fail", number) < self.fail_share

    def takes_s(self, number: int) -> float:
        """How long the request of that number (from 0) takes."""
        slow = number < self.slow_first or self._draw("slow", number) < self.slow_share
        return (self.slow_ms if slow else self.service_ms) / 1000

    def hangs(self, number: int) -> bool:
        """Whether the request of that number (from 0) is never answered."""
        return 0 < self.hang_after <= number

    def _draw(self, purpose: str, number: int) -> float:
        """Uniform on [0, 1), the same each time."""
        text = f"{self.seed}/{purpose}/{number}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big") / 2**56

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"

    @classmethod
    def load_text(cls, text: str) -> "Fault":
        """From `dump`.

        Raises:
            TypeError: it has a field that there is not.
        """
        return cls(**json.loads(text))
