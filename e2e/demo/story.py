"""The demo's story as data: which version comes in which act, and what must become of it. Pure.

What an act came to is a set of figures, each counted by the client or read from status. An act says
between which bounds each must lie; `differences` says where one does not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from e2e.bench.report import quantile
from e2e.load import Request
from e2e.models.faulty.build import SERVED_BY
from e2e.models.faulty.fault import Fault
from tidegate.view import facts

SERVICE_MS: Final = 20.0
WORDS: Final = 90
"""So much of an error is told, in characters."""
USUAL: Final = ("NeedsMoreRequests",)
"""Holds in which every good version is for a moment; they are not told."""
FAILS: Final = 0.5
"""Share of the requests that a bad version fails."""

FAILED: Final = "failed responses"
JUDGED: Final = "requests that it was judged by"
MORE_PODS: Final = "pods that serve, more than before"
LATE: Final = "late answers in the end, %"
DISAGREE: Final = "files on which HTTP and gRPC disagree"


@dataclass(frozen=True)
class Version:
    """One version of the model.

    Attributes:
        generation: of Magika, as `e2e.models.magika.build` names it.
        fault: what is wrong with it, and the name that it says in each answer.
        told: what it is, for people.
    """

    generation: str
    fault: Fault
    told: str


def _version(name: str, generation: str, told: str, fail_share: float = 0.0) -> Version:
    return Version(generation, Fault(says=name, service_ms=SERVICE_MS, fail_share=fail_share), told)


_BAD: Final = f"v2 with a fault: it fails {FAILS:.0%} of its requests"
VERSIONS: Final = {
    "v1": _version("v1", "v1", "Magika's first generation (its package 0.5.1)"),
    "v2": _version("v2", "v3", "Magika's third generation (its package 0.6.2)"),
    "v3": _version("v3", "v3", _BAD, FAILS),
    "v4": _version("v4", "v3", _BAD, FAILS),
}


def answered_by(version: str) -> str:
    """The figure that counts the answers of a version."""
    return f"answers by {version}"


@dataclass(frozen=True)
class Between:
    """Bounds of a figure, both included; None: no upper one."""

    least: float = 0
    most: float | None = None

    def __str__(self) -> str:
        """As in ``expected at least 1``."""
        if self.most is None:
            return f"at least {self.least:g}"
        if self.most == self.least:
            return f"{self.least:g}"
        return f"{self.least:g} to {self.most:g}"

    def holds(self, value: float) -> bool:
        """Whether the value lies between them."""
        return self.least <= value and (self.most is None or value <= self.most)


NONE: Final = Between(0, 0)
SOME: Final = Between(1)
FEW: Final = Between(1, 25)
"""Failed responses of a version of which half fail, at 5 % of the traffic, until it is out."""


@dataclass(frozen=True)
class Act:
    """One act.

    Attributes:
        number: from 1.
        title: in a line.
        told: what is done and what to look for.
        version: that is asked for; empty: none is.
        mirror: whether it gets copies of live requests before it gets any itself.
        outcome: what must become of the version, by status.history; empty: nothing to decide.
        expected: bounds of figures; each of these must have been taken.
        limit_s: within this the act must have come to its end.
    """

    number: int
    title: str
    told: str
    version: str = ""
    mirror: bool = True
    outcome: str = ""
    expected: Mapping[str, Between] = field(default_factory=dict)
    limit_s: float = 120.0


ACTS: Final = (
    Act(
        1,
        "v1 serves",
        "One manifest is applied. Then files of this repository are sent to the model.",
        version="v1",
        expected={FAILED: NONE, answered_by("v1"): SOME, DISAGREE: NONE},
    ),
    Act(
        2,
        "v2 goes live by evidence",
        "The uri changes. v2 gets copies of live requests first, then 5, 25, 50 % of the clients, "
        "then all.",
        version="v2",
        outcome="Promoted",
        expected={FAILED: NONE, answered_by("v2"): SOME},
    ),
    Act(
        3,
        "a bad v3 is caught in the mirror",
        f"v3 fails {FAILS:.0%} of its requests. It is judged by the copies; no client sees it.",
        version="v3",
        outcome="RolledBack",
        expected={FAILED: NONE, answered_by("v3"): NONE, JUDGED: SOME},
    ),
    Act(
        4,
        "a bad v4 without the mirror is rolled back",
        "v4 is as bad as v3, and the mirror is off: 5 % of the clients meet it.",
        version="v4",
        mirror=False,
        outcome="RolledBack",
        expected={FAILED: FEW, JUDGED: SOME},
    ),
    Act(
        5,
        "load rises, replicas follow",
        "Another model: it sleeps 60 + 8 n ms for a batch of n, so that many of its pods fit on a "
        "small machine. No utilisation target is set, only the objective.",
        expected={FAILED: NONE, MORE_PODS: SOME, LATE: Between(0, 5)},
        limit_s=180.0,
    ),
)
SCALING: Final = 5
"""The act that has a model of its own, which must have been measured for a minute."""


@dataclass(frozen=True)
class Tally:
    """What the client counted.

    Attributes:
        sent: requests whose fate is known.
        failed: those that failed.
        by: answers, by the version that gave them.
        failed_by: failures, by the version that is named in the error; empty name: none is.
        p50_ms: of the answers, from when a request was due; None: there were none.
        p99_ms: the same.
        errors: how those failed that name no version, the first words, the most frequent first.
    """

    sent: int = 0
    failed: int = 0
    by: Mapping[str, int] = field(default_factory=dict)
    failed_by: Mapping[str, int] = field(default_factory=dict)
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Self:
        """Count."""
        known = list(requests)
        good = [r for r in known if not r.error]
        took_ms = [r.took_s * 1000 for r in good]
        return cls(
            sent=len(known),
            failed=len(known) - len(good),
            by=Counter(str((r.answer or {}).get(SERVED_BY) or "") for r in good),
            failed_by=Counter(_named(r.error) for r in known if r.error),
            p50_ms=quantile(took_ms, 0.5) if took_ms else None,
            p99_ms=quantile(took_ms, 0.99) if took_ms else None,
            errors=dict(
                Counter(
                    r.error[:WORDS] for r in known if r.error and not _named(r.error)
                ).most_common(3)
            ),
        )

    def __str__(self) -> str:
        """In a line: ``1,204 requests, 3 failed; v1 1,100, v2 101``."""
        shares = ", ".join(f"{name} {count:,}" for name, count in sorted(self.by.items()) if name)
        return f"{self.sent:,} requests, {self.failed:,} failed" + (f"; {shares}" if shares else "")


def _named(error: str) -> str:
    """The version that says its name in an error (`e2e.models.faulty.model`)."""
    return next((name for name in VERSIONS if f"{name}: request" in error), "")


def since(requests: Sequence[Request], began_s: float) -> list[Request]:
    """The requests whose fate was known only after that, in that order.

    Args:
        requests: in that order, as `e2e.load.Load` keeps them.
        began_s: seconds since the load began.
    """
    return [r for r in requests if r.end_s >= began_s]


def late_percent(
    requests: Sequence[Request], began_s: float, seconds: float, rate_hz: float, target_ms: float
) -> float:
    """Share of the requests due in that time that failed, were slower, or have no answer yet.

    Args:
        requests: those whose fate is known.
        began_s: seconds since the load began.
        seconds: how long; it ended at least `target_ms` ago.
        rate_hz: requests due a second: one that nothing is known of is late.
        target_ms: from when a request was due.
    """
    due = [r for r in requests if began_s <= r.due_s < began_s + seconds]
    good = sum(not r.error and r.took_s * 1000 <= target_ms for r in due)
    whole = max(len(due), round(seconds * rate_hz))
    return 100 * (whole - good) / whole if whole else 100.0


def revision_of(status: Mapping[str, Any], source: str) -> str:
    """The hash of the revision on trial, or live, with that source; empty: there is none."""
    revisions = status.get("revisions") or {}
    roles = [revisions.get(role) or {} for role in ("canary", "stable")]
    return next((str(one["hash"]) for one in roles if one.get("source") == source), "")


def outcome(status: Mapping[str, Any], revision: str) -> str:
    """What became of the revision with that hash; empty: nothing yet."""
    failed = (status.get("revisions") or {}).get("failed") or ()
    if revision and any(one.get("hash") == revision for one in failed):
        return "RolledBack"
    past = status.get("history") or ()
    return next(
        (str(e.get("outcome")) for e in past if revision and e.get("revision") == revision), ""
    )


def judged_by(failure: Mapping[str, Any]) -> int:
    """How many requests to a failed revision took it back, by status; 0: no test did."""
    found = facts.counts(facts.fired(failure).get("canary"))
    return found[1] if found else 0


def stage(view: Mapping[str, Any]) -> str:
    """Where a rollout stands, in a line that changes only when that does; empty: nowhere.

    Args:
        view: from `tidegate.view.document`.
    """
    found = view["rollout"]
    if not found or not view["current"]:
        return ""
    parts = [found["phase"], found["step"]]
    if view["rolling"]:
        weight = found["weight"] not in ("", "0%")
        parts.append(f"{found['weight']} of the traffic" if weight else "")
        parts.append(f"{found['mirror']} mirrored" if found["mirror"] else "")
        parts.append(f"held: {found['hold']}" if found["hold"] not in ("", *USUAL) else "")
    return ", ".join(part for part in parts if part)


def differences(act: Act, became: str, figures: Mapping[str, float]) -> list[str]:
    """Where an act did not go as told, one sentence each; none: it did.

    Args:
        act: with what was expected.
        became: of its version.
        figures: what was counted.
    """
    found = []
    if act.outcome and became != act.outcome:
        found.append(f"{act.version} was to be {act.outcome}, it is {became or 'undecided'}")
    for name, bounds in act.expected.items():
        if name not in figures:
            found.append(f"{name}: not counted, expected {bounds}")
        elif not bounds.holds(figures[name]):
            found.append(f"{name}: {figures[name]:g}, expected {bounds}")
    return found


def chosen(numbers: Sequence[int], *, quick: bool) -> tuple[Act, ...]:
    """The acts that are played.

    Args:
        numbers: those asked for; empty: all.
        quick: without the last one, and the minute of measuring that it needs.

    Raises:
        ValueError: there is no act of such a number.
    """
    if unknown := set(numbers) - {act.number for act in ACTS}:
        raise ValueError(f"no act {min(unknown)}; there are 1 to {len(ACTS)}")
    return tuple(
        act
        for act in ACTS
        if (not numbers or act.number in numbers) and not (quick and act.number == SCALING)
    )
