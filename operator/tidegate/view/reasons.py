"""Why a revision was promoted, is held, or was rolled back: counts first, e-values last. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tidegate.view import facts
from tidegate.view.facts import Document, Tone
from tidegate.view.quality import of_revision

MENDS: Final = {
    "Paused": "go on: tidegate resume {name}, or rollout.paused: false where the manifest says so",
    "NeedsMoreRequests": "wait, or send it traffic: without requests nothing is promoted",
    "MetricsUnavailable": "let the operator reach the pods' port 9091 (network policies); the "
    "condition MetricsAvailable says which pods do not answer",
    "WaitingForGPU": "free a GPU or add a node; the condition WaitingForGPU says what would fit",
    "GoldenRequestsFailed": "compare its answers with those in the ConfigMap of goldenRequests",
    "CanaryShort": "see which of its pods are not ready: tidegate get {name}",
    "StableShort": "bring back stable's missing pods; the canary waits for them",
    "StableFailing": "mend what fails on stable, too: it is not this revision's doing",
    "WorseThanStable": "it keeps the objective, but does worse than stable: make it better, or "
    "accept it with tidegate promote {name}",
    "WeightNotObserved": "look at the gateway: it does not send the share that is asked for "
    "(kubectl get httproute {name} -o yaml, status.parents)",
    "Unsupported": "streams are not judged: judge it by other means, tidegate promote {name}",
    "WaitingForGates": "whoever sets the conditions {gates} has the say: True, with the canary's "
    "hash as the condition's revision",
    "WaitingForRoute": "look at the gateway: it has not taken the route up "
    "(kubectl get httproute {name} -o yaml, status.parents)",
}
"""What to do about a hold."""
OUTCOMES: Final = {
    "Promoted": ("was promoted", Tone.GOOD),
    "Live": ("went live", Tone.GOOD),
    "RolledBack": ("was rolled back", Tone.BAD),
    "Superseded": ("was superseded", Tone.FAINT),
    "Replaced": ("was replaced", Tone.FAINT),
}
"""What became of a revision, by `status.history`."""
NOBODY_LOOKS: Final = "does an operator lead, and watch this namespace? tidegate doctor"
"""What to do where nothing has been looked at."""


@dataclass(frozen=True)
class Explanation:
    """Why it stands with a revision as it does.

    Attributes:
        revision: its hash; '' where there is none yet.
        verb: what became of it, such as ``was rolled back``.
        tone: of the verb.
        rest: what follows it in the first sentence.
        lines: sentences, the counts first.
        mends: what can be done.
        evidence: each test's e-value; said last.
    """

    revision: str = ""
    verb: str = ""
    tone: str = Tone.FAINT
    rest: str = ""
    lines: tuple[str, ...] = ()
    mends: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The first sentence."""
        if not self.revision:
            return "No revision yet: the operator has not looked at it."
        return f"Revision {self.revision} {self.verb}{self.rest}."

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "revision": self.revision,
            "head": self.head,
            "tone": facts.MEANING[self.tone],
            "lines": list(self.lines),
            "mends": list(self.mends),
            "evidence": list(self.evidence),
        }


def subject(document: Document) -> str:
    """The hash of the revision that is asked about where none is named; '' where there is none."""
    phase = facts.rollout(document).get("phase")
    if facts.rolling(document):
        return facts.revision(document, "canary").get("hash") or ""
    # The hold: it failed some time ago, and the spec asks for it again.
    if "RolledBack" in (phase, facts.rollout(document).get("hold")) and facts.failed(document):
        return facts.failed(document)[0].get("hash") or ""
    return facts.revision(document, "stable").get("hash") or ""


def explanation(document: Document, hash_: str, now: datetime) -> Explanation:
    """Why it stands with a revision as it does.

    Args:
        document: the ModelDeployment.
        hash_: of the revision; '' where there is none yet.
        now: UTC.
    """
    failure = next((f for f in facts.failed(document) if f.get("hash") == hash_), None)
    on_trial = facts.rolling(document) and hash_ == facts.revision(document, "canary").get("hash")
    if not hash_:
        return Explanation(mends=(NOBODY_LOOKS,))
    if on_trial:
        return _on_trial(document, hash_, now)
    if failure is not None:
        return _failed(document, failure, now)
    return _past(document, hash_, now)


def _on_trial(document: Document, hash_: str, now: datetime) -> Explanation:
    rollout, name = facts.rollout(document), document["metadata"]["name"]
    hold, phase = rollout.get("hold"), rollout.get("phase")
    where = facts.step(document) or {
        "Preparing": "its pods are being made",
        "Verifying": "golden requests",
        "Mirroring": "copies of live requests",
        "Baking": "all of the traffic, the old pods still there",
    }.get(str(phase), str(phase))
    weight = rollout.get("weight")
    weight = f", {weight} of the traffic" if weight and phase == "Canary" else ""
    ago = facts.since(rollout.get("since"), now)
    verb, tone = ("is held", Tone.HOLD) if hold else ("is on trial", Tone.BUSY)
    head = (hash_, verb, tone, f": {where}{weight}" + (f", for {ago}" if ago else ""))
    evidence = rollout.get("evidence") or {}
    tests = facts.tests(document)
    body = [*_counts(tests, document), *_seen(tests, now), *_quality(document, hash_)]
    if hold:
        body.append(_joined(hold, rollout.get("message")))
    elif rollout.get("message"):
        body.append(_ended(rollout["message"]))
    canary = facts.revision(document, "canary")
    if canary.get("message") and canary["message"] != rollout.get("message"):
        body.append(_joined(str(canary.get("reason")), canary["message"]))
    if needs := facts.needs(document):
        body.append(f"The next decision needs {needs}.")
    if when := facts.next_decision(document, now):
        body.append(f"Next decision: {_ended(when)}")
    if evidence:
        verdict = {
            "Good": "Verdict: good.",
            "Bad": "Verdict: bad.",
            "NotYet": "Verdict: not yet, neither good nor bad is proved.",
        }.get(str(evidence.get("verdict")))
        body += [verdict] if verdict else []
    mend = MENDS.get(str(hold), "").format(
        name=name, gates=", ".join(facts.gates(document)) or "in rollout.gates"
    )
    mends = [mend] if mend else []
    if hold or phase == "Baking":
        mends.append(f"take it back: tidegate abort {name}")
    return Explanation(*head, tuple(body), tuple(mends), tuple(_weighed(tests)))


def _failed(document: Document, failure: Document, now: datetime) -> Explanation:
    name, hash_ = document["metadata"]["name"], str(failure.get("hash"))
    ago = facts.since(failure.get("time"), now)
    head = (
        hash_,
        "was rolled back",
        Tone.BAD,
        (f" {ago} ago" if ago else "") + f": {failure.get('reason')}",
    )
    test = facts.fired(failure)
    body = [*_counts([test], document), *_seen([test], now)] if test else []
    if failure.get("message") and not _says(str(failure["message"]), body):
        body.append(_ended(failure["message"]))
    weighed = _weighed([test]) if test else []
    if not weighed and failure.get("evidence"):
        weighed = [f"Evidence: {_ended(str(failure['evidence']))}"]
    stable = facts.revision(document, "stable").get("hash")
    if stable:
        share = facts.share(document, stable).get("weight")
        body.append(
            f"Stable {stable} has {'all' if share == 100 else f'{share}%'} of the traffic."
            if share is not None
            else f"Stable is {stable}."
        )
    mends = (
        "mend the model and apply it: a changed spec is a new revision",
        f"try this one again: tidegate retry {name} {hash_}",
        f"see what failed, while its pods are kept (rollout.keepFailed): "
        f"tidegate logs {name} --failed --revision {hash_}",
    )
    return Explanation(*head, tuple(body), mends, tuple(weighed))


def _past(document: Document, hash_: str, now: datetime) -> Explanation:
    name = document["metadata"]["name"]
    past = facts.status(document).get("history") or ()
    entry = next((h for h in past if h.get("revision") == hash_), None)
    serves = hash_ == facts.revision(document, "stable").get("hash")
    outcome = str((entry or {}).get("outcome") or "")
    ago = facts.since((entry or {}).get("time"), now)
    verb, tone = OUTCOMES.get(outcome, (f"ended: {outcome}" if outcome else "serves", Tone.GOOD))
    head = (hash_, verb, tone, f" {ago} ago" if ago else "")
    phase = facts.rollout(document).get("phase")
    own = serves and phase == "Promoted"
    told = serves and phase in ("Promoted", "Superseded")
    tests = facts.tests(document) if own else []
    body = _counts(tests, document)
    reason = str((entry or {}).get("reason") or "")
    if reason and not _says(reason, body):
        body.append(_ended(reason))
    message = facts.rollout(document).get("message")
    if told and message and not reason.startswith(str(message)):
        body.append(_ended(str(message)))
    if serves:
        share = facts.share(document, hash_).get("weight")
        body.append("It serves." if share in (None, 100) else f"It has {share}% of the traffic.")
        body += [*_quality(document, hash_), *_scaled(document)]
    body += [
        f"{c.get('type')}={c.get('status')}: {_joined(str(c.get('reason')), c.get('message'))}"
        for c in (facts.concerns(document) if serves else ())
    ]
    mends = [] if serves else [f"go back to it, through the gates: tidegate undo {name} {hash_}"]
    return Explanation(*head, tuple(body), tuple(mends), tuple(_weighed(tests)))


def _quality(document: Document, hash_: str) -> list[str]:
    """How good its answers are; none where nothing is measured."""
    accuracy, shift = of_revision(document, hash_)
    found = [f"Accuracy: {_ended(accuracy)}"] if accuracy else []
    return [*found, f"Moved most: {_ended(shift)}"] if shift else found


def _scaled(document: Document) -> list[str]:
    """Why it has so many replicas, with the numbers; none where nothing is said."""
    found = facts.status(document).get("scaling") or {}
    if found.get("desired") is None:
        return []
    text = f"{found['desired']} replicas asked for"
    if found.get("requiredReplicas") is not None:
        text += f", {found['requiredReplicas']} required"
    numbers = [
        f"{name} {found[key]} a second"
        for key, name in (("arrivalRate", "arrivals"), ("capacityPerPod", "a pod carries"))
        if found.get(key)
    ]
    text += f" ({', '.join(numbers)})" if numbers else ""
    reason = str(found.get("reason") or "").strip()
    return [f"{text}: {_ended(reason)}" if reason else f"{text}."]


def _says(message: str, body: Iterable[str]) -> bool:
    """Whether the counts of a message stand in the text already."""
    found = re.search(r"([0-9,]+) of ([0-9,]+) ", message)
    if found is None:
        return False
    counts = [text.replace(",", "") for text in found.groups()]
    return any(re.sub(r"(?<=[0-9]),", "", line).split()[:3:2] == counts for line in body)


def _counts(tests: Iterable[Document], document: Document) -> list[str]:
    """Each test's numbers as a sentence; what fired stands first, what counts less last."""
    target, tests = facts.target(document), list(tests)
    found = [
        f"{text[0].upper()}{text[1:]}."
        for t in tests
        if (text := facts.sentence(t, target)) != "no requests yet"
    ]
    if found:
        found += [text for t in tests if (text := facts.counts_as_at_length(t))]
    return list(dict.fromkeys(found))


def _seen(tests: Iterable[Document], now: datetime) -> list[str]:
    """When what fired was seen."""
    found = [
        f"Seen {text}."
        for t in tests
        if t.get("verdict") in ("Bad", "Worse") and (text := facts.sightings(t, now))
    ]
    return list(dict.fromkeys(found))


def _weighed(tests: Iterable[Document]) -> list[str]:
    """Each test's e-value; the last thing that is said."""
    found = []
    for test in tests:
        verdict = {"Bad": "fired", "Worse": "fired"}.get(str(test.get("verdict")), "clear")
        needed = facts.number(test.get("needed"))
        chance = (
            f" (a good revision gets there in fewer than 1 of {needed:,.0f} rollouts)"
            if verdict == "fired" and needed and needed > 1
            else ""
        )
        found.append(
            f"Evidence, {test.get('test')}: {facts.figure(test.get('evidence'))} of "
            f"{facts.figure(test.get('needed'))}, "
            f"{verdict}{chance}."
        )
    return found


def _joined(reason: str, message: object) -> str:
    return f"{reason}: {_ended(str(message))}" if message else f"{reason}."


def _ended(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
