"""Golden requests through the gateway, again and again, with every answer checked."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from e2e.cluster.kube import Object, wait_for
from e2e.prepared.versions import Version, host
from e2e.rollouts.stage import gateway_address
from e2e.tests.space import Space, is_current
from tidegate.cli.inference import Address, ask
from tidegate.golden import Answer, GoldenRequest, compare

RATE_PER_S: Final = 20.0
SETTLED: Final = 20
"""Right answers in a row before it counts: a route may have come a moment ago."""
SETTLED_S: Final = 60.0
OUTCOME_S: Final = 240.0
ENDS: Final = ("Promoted", "RolledBack")


@dataclass(frozen=True)
class Reply:
    """What became of one request.

    Attributes:
        failed: why it has no answer; empty: it has one.
        wrong: how the answer differs from what is known; empty: it does not.
    """

    failed: str = ""
    wrong: str = ""


def judged(answer: Answer, known: Sequence[GoldenRequest]) -> Reply:
    """An answer is right if it is what one of the versions is known to answer.

    Args:
        answer: that came.
        known: the same request, as each version answers it.
    """
    if answer.status != 200:
        return Reply(failed=f"{answer.status} {answer.error[:200]}")
    differences = [compare(one, answer) for one in known]
    return Reply() if "" in differences else Reply(wrong=differences[-1])


class Asking(threading.Thread):
    """A client that sends golden requests in turn, at a steady rate.

    Args:
        door: where the model is.
        versions: that may answer; their requests are the same.
        rate_per_s: requests a second.
    """

    def __init__(self, door: Address, versions: Sequence[Version], rate_per_s: float) -> None:
        super().__init__(daemon=True)
        self._door, self._model, self._gap_s = door, versions[0].name, 1.0 / rate_per_s
        self._known = list(zip(*(v.requests for v in versions), strict=True))
        for same in self._known:
            assert {one.inputs for one in same} == {same[0].inputs}, "other requests"
        self._over = threading.Event()
        self._from = 0
        self._replies: list[Reply] = []

    def run(self) -> None:
        """Ask until `stop`."""
        due_s = time.monotonic()
        while not self._over.wait(max(0.0, due_s - time.monotonic())):
            known = self._known[len(self._replies) % len(self._known)]
            try:
                reply = judged(ask(self._door, self._model, known[0]), known)
            except (OSError, ValueError) as error:
                reply = Reply(failed=str(error) or type(error).__name__)
            self._replies.append(reply)
            due_s += self._gap_s

    def stop(self) -> None:
        """Ask no more."""
        self._over.set()
        self.join()
        self._door.close()

    def settled(self) -> bool:
        """Whether the last answers were right; from then on they count."""
        last = self._replies[-SETTLED:]
        if len(last) < SETTLED or any(one != Reply() for one in last):
            return False
        self._from = len(self._replies)
        return True

    @property
    def replies(self) -> list[Reply]:
        """Those that count."""
        return self._replies[self._from :]

    @property
    def failed(self) -> list[str]:
        """Why requests have no answer."""
        return [one.failed for one in self.replies if one.failed]

    @property
    def wrong(self) -> list[str]:
        """How answers differ from what is known."""
        return [one.wrong for one in self.replies if one.wrong]


@contextmanager
def asked(space: Space, *versions: Version, rate_per_s: float = RATE_PER_S) -> Iterator[Asking]:
    """Requests come in while the block runs, and before: then all are right.

    Raises:
        NotReached: they are not.
    """
    name = versions[0].name
    asking = Asking(_door(space, name), versions, rate_per_s)
    asking.start()
    try:
        wait_for(
            asking.settled,
            f"right answers of {name} through the gateway",
            timeout_seconds=SETTLED_S,
            state=lambda: f"{asking.replies[-1:]}\n{space.told(name)}",
        )
        yield asking
    finally:
        asking.stop()


def answers_wrong(space: Space, version: Version) -> list[str]:
    """Each golden request once through the gateway: what is wrong with the answers."""
    door = _door(space, version.name)
    try:
        found = [judged(ask(door, version.name, one), [one]) for one in version.requests]
    finally:
        door.close()
    return [one.failed or one.wrong for one in found if one != Reply()]


def outcome(space: Space, name: str, phases: list[str]) -> Object:
    """Wait until the newest spec is promoted or rolled back; keeps the phases on the way.

    Raises:
        NotReached: it is neither.
    """

    def over(found: Object) -> bool:
        phase = (found["status"].get("rollout") or {}).get("phase", "")
        if is_current(found) and phase and phase not in phases[-1:]:
            phases.append(phase)
        return is_current(found) and phase in ENDS

    return space.until(name, over, "an outcome", OUTCOME_S)


def _door(space: Space, name: str) -> Address:
    return Address(gateway_address(space), host(name))
