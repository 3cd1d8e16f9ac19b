"""The document of one ModelDeployment, and its short form for lists. Pure.

Keys are always there: a text that is not known is "", a number null. Times are RFC 3339, UTC.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from tidegate.api import names
from tidegate.view import facts
from tidegate.view.facts import MEANING, Document, Tone
from tidegate.view.pods import pod_view
from tidegate.view.quality import quality
from tidegate.view.reasons import MENDS, explanation, subject

VERSION: Final = 1
"""Of the document's form: a key goes, or changes its meaning, only with a new one."""
MAX_EVENTS: Final = 50
_OUTCOMES: Final = {"RolledBack": Tone.BAD, "Promoted": Tone.GOOD, "Live": Tone.GOOD}
_VERDICTS: Final = {"Bad": Tone.BAD, "Worse": Tone.HOLD}


def summary(deployment: Document, now: datetime) -> dict[str, Any]:
    """What a list shows of a ModelDeployment.

    Args:
        deployment: the API server's document.
        now: UTC.
    """
    meta, status = deployment["metadata"], facts.status(deployment)
    found, rollout = facts.state(deployment), facts.rollout(deployment)
    rolling = facts.rolling(deployment)
    return {
        "name": str(meta["name"]),
        "namespace": str(meta.get("namespace") or ""),
        "state": {"word": found.word, "tone": MEANING[found.tone]},
        "created": str(meta.get("creationTimestamp") or ""),
        "rolling": rolling,
        "phase": str(rollout.get("phase") or ""),
        "hold": str(rollout.get("hold") or ""),
        "step": facts.step(deployment).removeprefix("step ").replace(" of ", "/"),
        "weight": str(rollout.get("weight") or "") if rolling else "",
        "stable": str(facts.revision(deployment, "stable").get("hash") or ""),
        "canary": str(facts.revision(deployment, "canary").get("hash") or ""),
        "pods": {
            "ready": status.get("readyReplicas") or 0,
            "there": status.get("replicas") or 0,
            "wanted": (status.get("scaling") or {}).get("desired"),
        },
        "message": str(rollout.get("message") or ""),
        "nextDecision": _waits(deployment, now) if rolling else "",
        "url": str(status.get("url") or ""),
        "since": str(rollout.get("since") or ""),
    }


def document(
    deployment: Document,
    *,
    now: datetime,
    pods: Iterable[Document] = (),
    events: Iterable[Document] = (),
    measured: Mapping[str, Document] | None = None,
) -> dict[str, Any]:
    """All that is known of a ModelDeployment: its status and the latest measurements.

    Args:
        deployment: the API server's document.
        now: UTC.
        pods: its pods, of all revisions; none where they may not be read.
        events: Kubernetes events about it.
        measured: by revision, what was measured after the status was written; passed on.
    """
    meta, status = deployment["metadata"], facts.status(deployment)
    return {
        "version": VERSION,
        "at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **summary(deployment, now),
        "generation": meta.get("generation"),
        "observedGeneration": status.get("observedGeneration"),
        "current": facts.current(deployment),
        "ageSeconds": _age_s(meta.get("creationTimestamp"), now),
        "slo": _slo(deployment),
        "quality": quality(deployment),
        "rollout": _rollout(deployment, now),
        "revisions": _revisions(deployment, list(pods), now, measured or {}),
        "concerns": [dict(c) for c in facts.concerns(deployment)],
        "conditions": [dict(c) for c in status.get("conditions") or ()],
        "scaling": dict(status.get("scaling") or {}),
        "history": _history(deployment),
        "events": _events(events),
        "explanation": explanation(deployment, subject(deployment), now).dump(),
    }


def _waits(deployment: Document, now: datetime) -> str:
    waits = (facts.needs(deployment), facts.next_decision(deployment, now))
    return "; ".join(w for w in waits if w)


def _age_s(text: str | None, now: datetime) -> float | None:
    then = facts.moment(text)
    return None if then is None else max(0.0, (now - then).total_seconds())


def _slo(deployment: Document) -> dict[str, Any]:
    asked = (deployment.get("spec") or {}).get("slo") or {}
    latency = asked.get("latency") or {}
    measured = facts.status(deployment).get("slo") or {}
    return {
        "latencyTarget": facts.target(deployment),
        "latencyQuantile": str(latency.get("quantile") or ""),
        "maxErrorRate": str(asked.get("maxErrorRate") or ""),
        "met": str(facts.condition(deployment, "SLOMet").get("status") or ""),
        "latency": str(measured.get("latency") or ""),
        "errorRate": str(measured.get("errorRate") or ""),
        "window": str(measured.get("window") or ""),
    }


def _rollout(deployment: Document, now: datetime) -> dict[str, Any]:
    found = facts.rollout(deployment)
    if not found:
        return {}
    evidence, rolling = found.get("evidence") or {}, facts.rolling(deployment)
    hold = str(found.get("hold") or "")
    return {
        "phase": str(found.get("phase") or ""),
        "step": facts.step(deployment),
        "steps": found.get("steps"),
        "weight": str(found.get("weight") or "") if rolling else "",
        "mirror": str(found.get("mirror") or "") if rolling else "",
        "hold": hold,
        "holdMend": MENDS.get(hold, "").format(
            name=deployment["metadata"]["name"],
            gates=", ".join(facts.gates(deployment)) or "in rollout.gates",
        ),
        "message": str(found.get("message") or ""),
        "started": str(found.get("started") or ""),
        "since": str(found.get("since") or ""),
        "next": {
            "requests": evidence.get("requestsNeeded"),
            "seconds": evidence.get("secondsNeeded"),
            "at": str(found.get("nextDecision") or ""),
            "text": _waits(deployment, now) if rolling else "",
        },
        "forward": _forward(evidence) if rolling and evidence else None,
        "tests": [_test(t, facts.target(deployment)) for t in facts.tests(deployment)],
        "fired": _fired(deployment),
        "evidenceAt": str(evidence.get("time") or ""),
    }


def _forward(evidence: Document) -> dict[str, Any]:
    """Requests towards the next step up."""
    requests, more = evidence.get("requests") or 0, evidence.get("requestsNeeded")
    verdict = str(evidence.get("verdict") or "")
    part = requests / (requests + more) if requests and more else 0.0
    return {
        "requests": requests,
        "needed": more,
        "fraction": 1.0 if verdict == "Good" else part,
        "verdict": verdict,
    }


def _test(test: Document, target: str) -> dict[str, Any]:
    """One test's numbers, and how far its evidence is towards going back."""
    verdict = str(test.get("verdict") or "")
    return {
        "test": str(test.get("test") or ""),
        "verdict": verdict,
        "tone": MEANING[_VERDICTS[verdict]] if verdict in _VERDICTS else "",
        "sentence": facts.sentence(test, target),
        "fraction": facts.towards(test),
        "evidence": facts.figure(test.get("evidence")),
        "needed": facts.figure(test.get("needed")),
        "observed": str(test.get("observed") or ""),
        "bound": str(test.get("bound") or ""),
        "canary": _counts(test.get("canary")),
        "stable": _counts(test.get("stable")),
        "clusters": facts.counts_as(test),
    }


def _fired(deployment: Document) -> list[dict[str, Any]]:
    """The test that ended the last rollout, its bound reached; none where it was something else."""
    failed = facts.failed(deployment)
    if facts.rollout(deployment).get("phase") != "RolledBack" or not failed:
        return []
    test = facts.fired(failed[0])
    return [{**_test(test, facts.target(deployment)), "fraction": 1.0}] if test else []


def _counts(text: str | None) -> dict[str, int] | None:
    found = facts.counts(text)
    return None if found is None else {"count": found[0], "requests": found[1]}


def _revisions(
    deployment: Document,
    there: list[Document],
    now: datetime,
    measured: Mapping[str, Document],
) -> list[dict[str, Any]]:
    """Stable, canary, the failed ones newest first, and those of which pods are left."""
    by_revision: dict[str, list[Document]] = {}
    for pod in there:
        label = (pod["metadata"].get("labels") or {}).get(names.REVISION_LABEL, "")
        by_revision.setdefault(label, []).append(pod)
    named: list[tuple[str, Document]] = [
        (role, one) for role in ("stable", "canary") if (one := facts.revision(deployment, role))
    ]
    named += [("failed", one) for one in facts.failed(deployment)]
    known = {one.get("hash") for _, one in named}
    named += [("leaving", {"hash": h}) for h in sorted(by_revision) if h not in known]
    found = []
    for role, one in named:
        hash_ = str(one.get("hash") or "")
        traffic = facts.share(deployment, hash_)
        found.append(
            {
                "role": role,
                "hash": hash_,
                "source": str(one.get("source") or ""),
                "image": str(one.get("image") or ""),
                "created": str(one.get("created") or ""),
                "time": str(one.get("time") or ""),
                "state": str(one.get("state") or ""),
                "reason": str(one.get("reason") or ""),
                "message": str(one.get("message") or ""),
                "ready": one.get("readyReplicas") or 0,
                "pods": [pod_view(p, now) for p in by_revision.pop(hash_, [])],
                "there": one.get("replicas") or 0,
                "weight": traffic.get("weight"),
                "observedShare": str(traffic.get("observedShare") or ""),
                "measured": dict(measured.get(hash_) or {}),
            }
        )
    return found


def _history(deployment: Document) -> list[dict[str, Any]]:
    serving = facts.revision(deployment, "stable").get("hash")
    return [
        {
            "revision": str(one.get("revision") or ""),
            "outcome": str(one.get("outcome") or ""),
            "reason": str(one.get("reason") or ""),
            "time": str(one.get("time") or ""),
            "tone": MEANING[_OUTCOMES.get(str(one.get("outcome")), Tone.FAINT)],
            "serving": bool(serving) and one.get("revision") == serving,
        }
        for one in facts.status(deployment).get("history") or ()
    ]


def _events(events: Iterable[Document]) -> list[dict[str, Any]]:
    """Newest first."""
    found = [
        {
            "type": str(one.get("type") or ""),
            "reason": str(one.get("reason") or ""),
            "message": str(one.get("message") or one.get("note") or ""),
            "time": str(one.get("lastTimestamp") or one.get("eventTime") or ""),
            "count": one.get("count") or 1,
        }
        for one in events
    ]
    return sorted(found, key=lambda e: str(e["time"]), reverse=True)[:MAX_EVENTS]
