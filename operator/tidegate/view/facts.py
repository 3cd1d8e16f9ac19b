"""What a ModelDeployment says, in words. Pure.

Documents are the API server's own, of any age of the operator: every field may be missing.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

Document = Mapping[str, Any]

ROLLING: Final = ("Preparing", "Verifying", "Mirroring", "Canary", "Baking")
"""Phases in which a canary is on trial."""
NORMAL_TRUE: Final = (
    *("Available", "Ready", "SLOMet", "MetricsAvailable"),
    *("AnswersRight", "Accurate", "Steady"),
)
"""Conditions that ought to be True, beside the gates; all others ought not to be."""


NOT_YET: Final = (
    *("NotMeasured", "Measuring", "TooFewRequests"),
    *("TooFewLabels", "TooFewSamples", "NothingOnTrial"),
)
"""Reasons for which a condition is Unknown without anything being wrong."""


class Tone:
    """Styles, one a meaning."""

    GOOD: Final = "green"
    BAD: Final = "red"
    HOLD: Final = "yellow"
    BUSY: Final = "cyan"
    FAINT: Final = "dim"


MEANING: Final = {
    Tone.GOOD: "good",
    Tone.BAD: "bad",
    Tone.HOLD: "hold",
    Tone.BUSY: "busy",
    Tone.FAINT: "faint",
}
"""What a tone says, for those who draw it in another way."""


@dataclass(frozen=True)
class State:
    """A ModelDeployment in a word.

    Attributes:
        word: CamelCase.
        tone: style.
    """

    word: str
    tone: str


def status(document: Document) -> Document:
    """Its status; empty where the operator has not written one."""
    return document.get("status") or {}


def rollout(document: Document) -> Document:
    """Its status.rollout; empty where there is none."""
    return status(document).get("rollout") or {}


def revision(document: Document, role: str) -> Document:
    """Its ``stable`` or ``canary``; empty where there is none."""
    return (status(document).get("revisions") or {}).get(role) or {}


def failed(document: Document) -> list[Document]:
    """Its failed revisions, newest first."""
    found = (status(document).get("revisions") or {}).get("failed") or ()
    return sorted(found, key=lambda f: f.get("time") or "", reverse=True)


def condition(document: Document, kind: str) -> Document:
    """A condition; empty where there is none."""
    found = status(document).get("conditions") or ()
    return next((c for c in found if c.get("type") == kind), {})


def is_true(document: Document, kind: str) -> bool:
    """Whether a condition is True."""
    return condition(document, kind).get("status") == "True"


def current(document: Document) -> bool:
    """Whether the status speaks of the spec as it is now."""
    seen = status(document).get("observedGeneration")
    return seen is not None and seen >= (document["metadata"].get("generation") or 0)


def rolling(document: Document) -> bool:
    """Whether a canary is on trial."""
    return rollout(document).get("phase") in ROLLING


def gates(document: Document) -> list[str]:
    """Names of the conditions that outside parties set."""
    return list(((document.get("spec") or {}).get("rollout") or {}).get("gates") or ())


def state(document: Document) -> State:
    """How it is, in a word; the worst first."""
    if document["metadata"].get("deletionTimestamp"):
        return State("Deleting", Tone.FAINT)
    if not status(document).get("conditions"):
        return State("New", Tone.FAINT)
    phase, hold = rollout(document).get("phase"), rollout(document).get("hold")
    if not current(document):
        return State("Outdated", Tone.BUSY)
    if is_true(document, "Stalled"):
        return State(condition(document, "Stalled").get("reason") or "Stalled", Tone.BAD)
    if not is_true(document, "Available") and phase not in ROLLING:
        return State(condition(document, "Available").get("reason") or "Unavailable", Tone.BAD)
    if hold:
        return State(hold, Tone.HOLD)
    if phase in ROLLING:
        return State(phase, Tone.BUSY)
    if is_true(document, "Ready"):
        return State("Ready", Tone.GOOD)
    return State(condition(document, "Ready").get("reason") or "NotReady", Tone.BUSY)


def concerns(document: Document) -> list[Document]:
    """Conditions that are not as they should be.

    While a canary is on trial Reconciling, and a Ready that says no more, go without saying.
    """
    normal = {*NORMAL_TRUE, *gates(document)}
    found = [
        c
        for c in status(document).get("conditions") or ()
        if c.get("status") != ("True" if c.get("type") in normal else "False")
        and not (c.get("status") == "Unknown" and c.get("reason") in NOT_YET)
    ]
    if rolling(document) and is_true(document, "Reconciling"):
        usual = condition(document, "Reconciling").get("reason")
        found = [
            c
            for c in found
            if not (
                c.get("type") == "Reconciling"
                or (c.get("type") == "Ready" and c.get("reason") == usual)
            )
        ]
    return found


def share(document: Document, hash_: str) -> Document:
    """The traffic's entry of a revision; empty where there is none."""
    found = status(document).get("traffic") or ()
    return next((t for t in found if t.get("revision") == hash_), {})


def step(document: Document) -> str:
    """``step 2 of 4``; '' outside of the steps."""
    found = rollout(document)
    if found.get("step") is None or found.get("phase") != "Canary":
        return ""
    of = f" of {found['steps']}" if found.get("steps") else ""
    return f"step {found['step'] + 1}{of}"


def known_revisions(document: Document) -> list[str]:
    """All hashes that the status names: canary, stable, failed ones, past ones."""
    found = [
        revision(document, "canary").get("hash"),
        revision(document, "stable").get("hash"),
        *(f.get("hash") for f in failed(document)),
        *(h.get("revision") for h in status(document).get("history") or ()),
    ]
    return list(dict.fromkeys(h for h in found if h))


def matching(known: Iterable[str], start: str) -> list[str]:
    """The hashes that begin so; a whole one wins. ``<name>-<hash>`` counts as its hash."""
    start = start.rpartition("-")[2].lower()
    found = [h for h in known if h.startswith(start)]
    return [start] if start in found else found


# Tests and their numbers.

ORDER: Final = ("Bad", "Worse", "Clear")


def tests(document: Document) -> list[Document]:
    """The rollout's tests, those that fired first."""
    found = (rollout(document).get("evidence") or {}).get("tests") or ()
    rank = {verdict: i for i, verdict in enumerate(ORDER)}
    return sorted(found, key=lambda t: rank.get(t.get("verdict") or "", len(rank)))


def target(document: Document) -> str:
    """The latency objective, such as ``100ms``; '' without one."""
    slo = (document.get("spec") or {}).get("slo") or {}
    return str((slo.get("latency") or {}).get("target") or "")


def counts(text: str | None) -> tuple[int, int] | None:
    """``15/200`` as two numbers; None where it is not that."""
    first, _, second = (text or "").partition("/")
    return (int(first), int(second)) if first.isdigit() and second.isdigit() else None


def percent(part: int, whole: int) -> str:
    """A share with two digits that count, such as ``0.079%``; '' of nothing."""
    if not whole:
        return ""
    value = 100 * part / whole
    return f"{value:.3g}%" if value >= 10 else f"{value:.2g}%"


_COUNTED: Final = {
    "errors": "failed",
    "errorsAgainstStable": "failed",
    "latency": "took {target} or longer",
    "latencyAgainstStable": "were slow",
    "clientErrors": "were blamed on the client",
}


def sentence(test: Document, target: str = "") -> str:
    """A test's numbers: ``15 of 200 failed (7.5%), limit 1%``.

    Args:
        test: as in status.
        target: the latency objective.
    """
    name = str(test.get("test"))
    what = _COUNTED.get(name, name).format(target=target or "the target")
    found = counts(test.get("canary"))
    if found is None or not found[1]:
        return "no requests yet"
    text = f"{found[0]:,} of {found[1]:,} {what} ({test.get('observed') or percent(*found)})"
    stable = counts(test.get("stable"))
    if name in ("errors", "latency") or stable is None:
        text += f", limit {test['bound']}" if test.get("bound") else ""
    elif stable[1]:
        text += f", on stable {stable[0]:,} of {stable[1]:,} ({percent(*stable)})"
    return text


_OF_STABLE: Final = {
    "errors": "failures",
    "errorsAgainstStable": "failures",
    "latency": "slow answers",
    "latencyAgainstStable": "latencies",
    "clientErrors": "client errors",
}


def clusters(test: Document) -> tuple[float, float] | None:
    """What divides a test's evidence: against the canary, for it; None: its requests are whole."""
    against, _, for_it = str(test.get("clusters") or "").partition("/")
    found = number(against), number(for_it)
    if found[0] is None or found[1] is None or min(found[0], found[1]) < 1.0 or found[0] <= 1.0:
        return None
    return found[0], found[1]


def counts_as(test: Document) -> str:
    """Such as ``counts as 0.25, stable's failures come in clusters``; '' where it counts whole."""
    found = clusters(test)
    if found is None:
        return ""
    name = _OF_STABLE.get(str(test.get("test")), "outcomes")
    return f"counts as {1.0 / found[0]:.2g}, stable's {name} come in clusters"


def counts_as_at_length(test: Document) -> str:
    """The same in sentences: why, and what the requests weigh for the canary."""
    found = clusters(test)
    if found is None:
        return ""
    against, for_it = found
    name = _OF_STABLE.get(str(test.get("test")), "outcomes")
    sure = against == for_it
    text = (
        f"Stable's own {name} {'come' if sure else 'seem to come'} in clusters: their variance is "
        f"{against:g} times that of independent requests. So 100 requests weigh as much as "
        f"{100.0 / against:.0f} independent ones"
    )
    if sure:
        return f"{text}."
    return f"{text} where they speak against it, as {100.0 / for_it:.0f} where they speak for it."


def sightings(test: Document, now: datetime) -> str:
    """When the canary did what a test counts: ``first 3m ago, last 12s ago``; '' if not said."""
    first, _, last = str(test.get("seen") or "").partition("/")
    began, ended = since(first, now), since(last, now)
    if not began or not ended:
        return ""
    return f"{began} ago" if first == last else f"first {began} ago, last {ended} ago"


def towards(test: Document) -> float:
    """How far a test's evidence is on its way to firing, 0 to 1, on the scale on which it adds up.

    E-values multiply, so their logarithms add: halfway is the square root of what is needed.
    """
    evidence, needed = number(test.get("evidence")), number(test.get("needed"))
    if evidence is None or needed is None or needed <= 1 or evidence <= 1:
        return 0.0
    return min(1.0, math.log(evidence) / math.log(needed))


def number(text: object) -> float | None:
    """A number, or None where it is none."""
    try:
        found = float(str(text))
    except ValueError:
        return None
    return None if math.isnan(found) else found


_NUMBERS: Final = re.compile(
    r"(?P<test>\w+): (?P<canary>[0-9]+/[0-9]+) \((?P<observed>[^)]*)\) against (?P<bound>[^;,]+)"
    r"(?:, stable (?P<stable>[0-9]+/[0-9]+))?; e-value (?P<evidence>[^,]+)"
    r", needed (?P<needed>[^;]+)(?:; clusters (?P<clusters>[^;]+))?(?:; seen (?P<seen>.+))?"
)


def fired(failure: Document) -> Document:
    """The test that took a failed revision back, as in the rollout; empty where none did.

    A failed revision keeps it in one line.
    """
    found = _NUMBERS.fullmatch(str(failure.get("evidence") or ""))
    return {**found.groupdict(), "verdict": "Bad"} if found else {}


def figure(text: object) -> str:
    """A number for people: ``4,010`` instead of ``4.01e+03``."""
    found = number(text)
    if found is None:
        return str(text)
    return f"{found:,.0f}" if 1000 <= found < 1e9 else f"{found:.3g}"


def needs(document: Document) -> str:
    """What the next decision needs: ``180 more requests, about 40s``; '' where nothing is said."""
    evidence = rollout(document).get("evidence") or {}
    parts = []
    if evidence.get("requestsNeeded"):
        parts.append(f"{evidence['requestsNeeded']:,} more requests")
    if evidence.get("secondsNeeded"):
        parts.append(f"about {span(evidence['secondsNeeded'])}")
    return ", ".join(parts)


# Times.


def moment(text: str | None) -> datetime | None:
    """RFC 3339 as a time; None where it is none."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def span(seconds: float) -> str:
    """A length of time in its two largest units: ``3m12s``, ``2h``, ``5d3h``."""
    left = max(0, round(seconds))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for i, (unit, size) in enumerate(units):
        if left >= size or unit == "s":
            whole, rest = divmod(left, size)
            if i + 1 < len(units) and whole < 10 and (minor := rest // units[i + 1][1]):
                return f"{whole}{unit}{minor}{units[i + 1][0]}"
            return f"{whole}{unit}"
    raise AssertionError("unreachable code")


def since(text: str | None, now: datetime) -> str:
    """How long ago a time was, such as ``3m12s``; '' where it is none."""
    then = moment(text)
    return "" if then is None else span((now - then).total_seconds())


def next_decision(document: Document, now: datetime) -> str:
    """When, or what it waits for; '' where nothing is said."""
    text = rollout(document).get("nextDecision")
    at = moment(text)
    if at is None:
        # The number of requests is said with the time that they take.
        return "" if needs(document) and "requests" in str(text) else str(text or "")
    left = (at - now).total_seconds()
    return f"in {span(left)}" if left >= 1 else "now"
