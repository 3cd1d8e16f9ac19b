"""What the tests are fed: counts of what happened between two looks. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tally:
    """What happened on a revision between two looks; also the sum over a rollout.

    Attributes:
        requests: answered, or overdue.
        failed: the server's fault.
        client_errors: the request's fault, or so it says.
        given_up: the client left before an answer.
        timed: answered with a known latency, warm-up left out; the base of `slow` and `slower`.
        slow: of those, not faster than the objective's target; overdue ones included.
        slower: of `timed`, not faster than each pre-registered bound.
        shed: refused by the sidecar for overload, before the model saw it; not in `requests`.
    """

    requests: int = 0
    failed: int = 0
    client_errors: int = 0
    given_up: int = 0
    timed: int = 0
    slow: int = 0
    slower: tuple[int, ...] = ()
    shed: int = 0


@dataclass(frozen=True)
class Block:
    """What happened on both revisions between two looks at their pods; one step of the tests.

    Attributes:
        at_s: when it ended, seconds since the epoch.
        seconds: how long it is.
        canary: client and mirrored requests of the canary.
        stable: client requests of stable.
        canary_arrivals: client requests that reached the canary, for its share.
        stable_arrivals: the same for stable.
        mirrored: copies that reached the canary.
        unread: names of pods that could not be read.
        hanging: names of pods that owe answers and have given none for long.
    """

    at_s: float
    seconds: float
    canary: Tally = field(default_factory=Tally)
    stable: Tally = field(default_factory=Tally)
    canary_arrivals: int = 0
    stable_arrivals: int = 0
    mirrored: int = 0
    unread: tuple[str, ...] = ()
    hanging: tuple[str, ...] = ()
