"""The audit record: each decision and each request of a person's, once, in full.

Of traffic, what is recorded is not what a plan wanted but what came into force: the record on the
object that carries it (`tidegate.record`) is compared with the one that was recorded before. A
process that sees a ModelDeployment for the first time compares with its status, which is written
after the record; so what a predecessor decided and did not live to tell is told by its successor. A
line may come twice, then with the same `id`, and none is missing.

Of replicas, each write that was acknowledged is recorded.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from tidegate import verbs
from tidegate.actions import Event, Plan, Scale
from tidegate.analysis.judgement import Judgement
from tidegate.api.names import REQUEST_ANNOTATION
from tidegate.observed import Measured, Object, Observed, Ref
from tidegate.record import Phase, Record
from tidegate.resources.route import record_carried
from tidegate.revision import Revision, known_revisions
from tidegate.rollout import FAILS_AT_ONCE, LIVE, TEST_REASONS, evidence_of
from tidegate.runtime.cache import Key, uid_of
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracing import OFF, Tracer
from tidegate.status import record_of as record_in_status
from tidegate.turns import ENTERED, OUTCOMES, Turn, turns

log: Final = structlog.get_logger(__name__)

REMEMBERED: Final = 100_000
OPERATOR: Final = "operator"
"""Who decided, where no person asked for it."""
COUNTED_REASONS: Final = frozenset(
    {
        *TEST_REASONS.values(),
        *FAILS_AT_ONCE,
        *("Aborted", "GoldenRequestsFailed", "Hanging", "Inconclusive", "NeverReady"),
    }
)
"""Reasons that get a series of their own; all others are handed through from Kubernetes."""

SCALED: Final = "Scaled"
OTHER: Final = "Other"
FIRST: Final = "first"
"""Outcome of a rollout that had no revision to go back to."""

_MOVES: Final = frozenset(verbs.Verb) - {verbs.Verb.PAUSE, verbs.Verb.RESUME}
"""Verbs that something follows from at once."""


class Auditor:
    """Tells what came into force, and counts it.

    Args:
        metrics: counts.
        identity: this process.
        sink: takes each audit record besides the log; None: nobody does.
        now: wall clock, UTC.
        tracer: is told of decisions.
    """

    def __init__(
        self,
        metrics: Metrics,
        identity: str,
        sink: Callable[[Mapping[str, Any]], None] | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        tracer: Tracer = OFF,
    ) -> None:
        self._metrics = metrics
        self._identity = identity
        self._sink = sink
        self._now = now
        self._tracer = tracer
        self._told: OrderedDict[str, Record] = OrderedDict()
        _begin_at_zero(metrics)

    def look(
        self,
        key: Key,
        deployment: Object,
        children: Mapping[Ref, Object],
        plan: Plan,
        measured: Measured | None,
        bad_for_s: float | None = None,
    ) -> None:
        """Tell what is in force and was not told yet.

        Args:
            key: the ModelDeployment.
            deployment: the same as it lives.
            children: its children, after the plan's writes.
            plan: what led to it; its events say whether a request was granted.
            measured: what the decision rested on; None: nothing.
            bad_for_s: seconds since the canary first failed or was slow; None: not seen.
        """
        record = record_carried(key.name, children)
        if record is None:
            return
        uid = uid_of(deployment)
        before = self._told.get(uid)
        if before is None:
            before = record_in_status(deployment) or Record(stable="")
        self._told[uid] = record
        self._told.move_to_end(uid)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        if record == before:
            return
        asked_by = self._request(key, deployment, plan, before, record)
        found = turns(before, record, asked_by)
        known = known_revisions(Observed(deployment, children)) if found else {}
        for turn in found:
            self._tracer.decided(turn.decision, turn.record.reason)
            self._count(turn, bad_for_s)
            self._tell(key, deployment, _decision(known, turn, measured))

    def scaled(self, key: Key, deployment: Object, action: Scale, change: str, plan: Plan) -> None:
        """Tell that a revision has another number of pods to be; the write was acknowledged.

        Args:
            key: the ModelDeployment.
            deployment: the same as it lives.
            action: what was written.
            change: the numbers before and after, in words.
            plan: what led to it; its event, if there is one, says on what figures.
        """
        events = (e for e in plan.actions if isinstance(e, Event))
        why = next((e.message for e in events if e.reason == SCALED), "")
        document = {
            "decision": SCALED,
            "by": OPERATOR,
            "at": _stamp(self._now()),
            "revision": action.ref.name.removeprefix(f"{key.name}-"),
            "replicas": action.replicas,
            "reason": change,
            **({"message": why} if why else {}),
        }
        self._tracer.decided(SCALED, change)
        self._metrics.decisions.labels(SCALED, "").inc()
        self._tell(key, deployment, document, f"{action.ref.name} {change} {document['at']}")

    def _request(
        self, key: Key, deployment: Object, plan: Plan, before: Record, record: Record
    ) -> str:
        """Tell the request that was handled meanwhile. Returns who moved the rollout by it."""
        annotations = deployment["metadata"].get("annotations") or {}
        request = verbs.parse(annotations.get(REQUEST_ANNOTATION))
        if request is None or record.request != request.id or before.request == request.id:
            return ""
        told = [
            e
            for e in plan.actions
            if isinstance(e, Event) and e.message.endswith(f"(request {request.id})")
        ]
        reasons = {e.reason for e in told}
        # Where the answer to the write was lost, so was what was said of the request.
        result = "unknown"
        if "RequestRefused" in reasons:
            result = "refused"
        elif reasons or request.verb is verbs.Verb.ABORT:
            result = "granted"
        found = {
            "id": request.id,
            "verb": str(request.verb),
            "revision": request.revision,
            "user": request.user,
            "result": result,
        }
        self._metrics.verbs.labels(str(request.verb), result).inc()
        document = {
            "decision": "Request",
            "by": request.user,
            "request": found,
            "message": next((e.message for e in told), ""),
            "at": _stamp(self._now()),
        }
        self._tracer.decided("Request", f"{request.verb} by {request.user}: {result}")
        self._tell(key, deployment, document, request.id)
        return request.user if result != "refused" and request.verb in _MOVES else ""

    def _count(self, turn: Turn, bad_for_s: float | None) -> None:
        reason = ""
        if turn.decision == "RolledBack":
            known = turn.record.reason in COUNTED_REASONS
            reason = turn.record.reason if known else OTHER
        self._metrics.decisions.labels(turn.decision, reason).inc()
        if turn.outcome:
            outcome = turn.outcome if turn.stable else FIRST
            seconds = _between_s(turn.began, turn.at)
            if seconds is not None:
                self._metrics.rollout_seconds.labels(outcome).observe(seconds)
        if turn.decision == "RolledBack" and turn.weight_before > 0 and bad_for_s is not None:
            self._metrics.rollback_seconds.observe(bad_for_s)

    def _tell(
        self, key: Key, deployment: Object, document: Mapping[str, Any], what: str = ""
    ) -> None:
        uid = uid_of(deployment)
        parts = (uid, document["decision"], what or document["at"])
        line = {
            "id": hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32],
            "modeldeployment": str(key),
            "uid": uid,
            "generation": deployment["metadata"].get("generation"),
            **document,
            "operator": self._identity,
        }
        if trace := self._tracer.trace_id():
            line["trace_id"] = trace
        log.info("audit", **line)
        if self._sink is not None:
            self._sink(line)


def _begin_at_zero(metrics: Metrics) -> None:
    """Make every series that can be named: Prometheus sees no increase in a series' first value."""
    for decision in ("RolloutStarted", "Reverted", SCALED, *ENTERED.values()):
        reasons = (*COUNTED_REASONS, OTHER) if decision == "RolledBack" else ("",)
        for reason in reasons:
            metrics.decisions.labels(decision, reason)
    for outcome in (FIRST, *OUTCOMES.values()):
        metrics.rollout_seconds.labels(outcome)
    for verb in verbs.Verb:
        for result in ("granted", "refused", "unknown"):
            metrics.verbs.labels(str(verb), result)


def _decision(
    known: Mapping[str, Revision], turn: Turn, measured: Measured | None
) -> dict[str, Any]:
    record = turn.record
    found: dict[str, Any] = {
        "decision": turn.decision,
        "by": turn.asked_by or OPERATOR,
        "at": turn.at,
        "revision": turn.revision,
        "stable": turn.stable,
        "phase": str(record.phase),
        "step": record.step,
        "weight": {"before": turn.weight_before, "after": _weight(turn)},
        "reason": record.reason,
        "message": record.message,
        "began": turn.began,
        "inputs": _inputs(measured, turn),
        "artefacts": {
            h: {"source": known[h].source, "digest": known[h].digest, "image": known[h].image}
            for h in (turn.revision, turn.stable)
            if h in known
        },
    }
    return {k: v for k, v in found.items() if v not in (None, "", {})}


def _weight(turn: Turn) -> float:
    """Share of the traffic that the revision gets from then on."""
    if turn.record.phase is Phase.PROMOTED:
        return 1.0
    return turn.record.weight if turn.record.phase in LIVE else 0.0


def _inputs(measured: Measured | None, turn: Turn) -> dict[str, Any]:
    """What the decision rested on: each test with its counts, and who could not be read."""
    if measured is None or turn.revision != measured.canary or turn.began != measured.started:
        return {}
    judged: Judgement = measured.judgement
    return {
        "requests": judged.requests,
        "verdict": "Bad" if judged.bad is not None else "Good" if judged.proven else "NotYet",
        "tests": [evidence_of(result, measured) for result in judged.results],
        "canary_arrivals": measured.canary_arrivals,
        "stable_arrivals": measured.stable_arrivals,
        "mirrored": measured.mirrored,
        **_named("unread", measured.unread),
        **_named("hanging", measured.hanging),
    }


def _named(name: str, pods: Iterable[str]) -> dict[str, list[str]]:
    found = list(pods)
    return {name: found} if found else {}


def _between_s(start: str, end: str) -> float | None:
    try:
        found = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    except (ValueError, TypeError):
        return None
    return max(0.0, found.total_seconds())


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
