"""Load on a server in an open loop, with the loop of ``tidegate load``.

Arrivals are Poisson and the same in every run: the capacity model's own numbers, so that settings
are compared on the same traffic. Latency counts from when a request was due.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tidegate import golden
from tidegate.autoscaling.variates import LONGEST, arrival_times
from tidegate.cli.inference import HEADER_LENGTH, Address
from tidegate.cli.loading import IN_FLIGHT, Asker, Sent, run
from tidegate.golden import GoldenRequest

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Body:
    """A request as it goes over the wire."""

    raw: bytes
    header_length: int

    @classmethod
    def of(cls, request: GoldenRequest) -> "Body":
        """Encoded once, sent often."""
        return cls(*golden.encode(request))


def poisson(rate_per_s: float, count: int) -> list[float]:
    """When each request is due, in seconds; at most `LONGEST` of them."""
    return [at / rate_per_s for at in arrival_times(1.0, min(count, LONGEST))]


def bursts(sizes: Sequence[int], each_s: float) -> list[float]:
    """So many requests at a time; after each burst a pause of so long for each of them."""
    due: list[float] = []
    at_s = 0.0
    for size in sizes:
        due += [at_s] * size
        at_s += max(0.02, each_s * (size + 1))
    return due


def drive(
    address: str,
    model: str,
    bodies: Sequence[Body],
    due_s: Sequence[float],
    *,
    in_flight: int = IN_FLIGHT,
) -> list[Sent]:
    """Send requests when they are due; each is in the result once.

    Args:
        address: of a server's HTTP port.
        model: to ask.
        bodies: sent in turn.
        due_s: when, in seconds from now, ascending.
        in_flight: unanswered at a time, at most.
    """
    path = f"/v2/models/{quote(model, safe='')}/infer"
    doors: list[Address] = []

    def asker() -> Asker:
        door = Address(address, timeout_s=TIMEOUT_S)
        doors.append(door)

        def ask(number: int) -> tuple[str, bool]:
            body = bodies[number % len(bodies)]
            headers = {
                "Content-Type": "application/octet-stream",
                HEADER_LENGTH: str(body.header_length),
            }
            try:
                status, _, raw = door("POST", path, body.raw, headers)
            except OSError as error:
                return f"no answer: {error}", False
            return ("" if status == 200 else f"HTTP {status}: {raw[:120]!r}"), False

        return ask

    try:
        return run(asker, rate_per_s=0.0, seconds=0.0, due_s=due_s, in_flight=in_flight)
    finally:
        for door in doors:
            door.close()


def late(found: Sequence[Sent], target_ms: float) -> int:
    """Requests that were slower than the target, or failed."""
    return sum(1 for sent in found if sent.error or 1000 * sent.took_s > target_ms)


def enough(quantile: float, rate_per_s: float, seconds: float) -> int:
    """Requests of a stretch: for so long, but so many that ten may be late, at least."""
    least = math.ceil(10 / (1 - quantile))
    return min(LONGEST, max(least, round(rate_per_s * seconds)))
