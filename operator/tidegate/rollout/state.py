"""What a decision about traffic depends on, what it comes to, and the moves that it can make."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from tidegate.analysis.judgement import Result, Test
from tidegate.api.spec import Spec, Strategy
from tidegate.api.units import fraction
from tidegate.diagnosis import Finding, Severity
from tidegate.observed import Measured
from tidegate.placement import can_carry
from tidegate.record import Phase, Record, numbers
from tidegate.verbs import Request

LIVE: Final = frozenset(
    {Phase.PREPARING, Phase.VERIFYING, Phase.MIRRORING, Phase.CANARY, Phase.BAKING}
)
"""Phases in which a canary is on trial."""
MEASURED: Final = frozenset({Phase.MIRRORING, Phase.CANARY, Phase.BAKING})
"""Phases in which it answers live requests."""

METRICS_PATIENCE_S: Final = 5.0
"""Without a complete look at the canary's counters for so long, its metrics are unavailable."""
MIRROR_PATIENCE_S: Final = 15.0
"""So long without one copy although clients send requests: the gateway does not mirror."""
SHARE_PATIENCE_S: Final = 5.0
"""A new weight gets so long to arrive before the observed share is compared with it."""
SHARE_LEAST_EXPECTED: Final = 20.0
"""Requests expected on the canary before its observed share says anything."""
REFUSALS_LEAST: Final = 5
REFUSALS_MARGIN: Final = 0.1
"""A canary that refuses so many requests, and this share more than stable, gets no more weight."""
YOUNG_S: Final = 10.0
YOUNG_INTERVAL_S: Final = 0.25
INTERVAL_S: Final = 1.0
"""Between two looks at the counters; the shorter one while a phase or step is young."""
REFRESH_S: Final = 10.0
"""So often status is brought up to date while a canary is live."""

FAILS_AT_ONCE: Final = frozenset({"Crashing", "OutOfMemory", "ModelNotLoaded"})
"""Findings about a canary's pod that no patience mends."""

TEST_REASONS: Final = {
    Test.ERRORS: "ErrorRate",
    Test.ERRORS_AGAINST_STABLE: "ErrorRateAgainstStable",
    Test.LATENCY: "Latency",
    Test.LATENCY_AGAINST_STABLE: "LatencyAgainstStable",
    Test.CLIENT_ERRORS: "ClientErrors",
}


class Golden(StrEnum):
    """How the golden requests stand, over all of a revision's pods."""

    NOT_ASKED = "NotAsked"
    PENDING = "Pending"
    PASSED = "Passed"
    FAILED = "Failed"


@dataclass(frozen=True)
class Side:
    """A revision and its pods, as far as a decision needs them.

    Attributes:
        hash: the revision's.
        pods: that exist.
        ready: that can take traffic.
        finding: what holds it.
        sidecar: whether its requests are measured.
        takes_copies: whether its Service has a port for mirrored requests; revisions of older
            operators lack it, and a mirror that leads nowhere costs everybody's requests.
        served: whether it was ever promoted.
    """

    hash: str
    pods: int = 0
    ready: int = 0
    finding: Finding = field(
        default_factory=lambda: Finding(Severity.PROGRESSING, "Pending", "Creating", "")
    )
    sidecar: bool = True
    takes_copies: bool = True
    served: bool = False


@dataclass(frozen=True)
class Gateway:
    """How the route stands.

    Attributes:
        accepted: its gateways took it as it is now.
        message: why not.
        refused: a gateway has said no; otherwise one has not answered yet.
        can_mirror: whether they mirror requests; None: nobody knows.
    """

    accepted: bool
    message: str = ""
    refused: bool = False
    can_mirror: bool | None = None


@dataclass(frozen=True)
class Situation:
    """All that a decision about traffic depends on.

    Attributes:
        spec: what the user asks for.
        record: the decision in force.
        target: hash of the revision that is asked for.
        target_for: identity of the spec that asks for it.
        stable: the revision of `record.stable`; None: there is none.
        canary: the target's revision, where it is not stable.
        failed: why the target gets no traffic again by itself; None: it has not failed.
        wanted: replicas of the revision that serves.
        wanted_canary: replicas that the canary needs for all traffic; None: as many as stable.
        pinned: the canary's bytes are pinned, so that all of its pods load the same.
        golden: of the canary.
        golden_message: which answer was wrong; why nothing could be sent.
        measured: of this rollout; None: not yet.
        gateway: None: there is none.
        waiting_gates: those of ``rollout.gates`` that are not open for the canary, each with why.
        request: a verb that was not handled yet.
        undo_to: hash of the revision that `undo` would lead to; empty: none.
        now: UTC.
    """

    spec: Spec
    record: Record
    target: str
    stable: Side | None
    canary: Side | None
    wanted: int
    now: datetime
    target_for: str = ""
    wanted_canary: int | None = None
    failed: str | None = None
    pinned: bool = True
    golden: Golden = Golden.NOT_ASKED
    golden_message: str = ""
    measured: Measured | None = None
    gateway: Gateway | None = None
    waiting_gates: tuple[str, ...] = ()
    request: Request | None = None
    undo_to: str = ""

    @property
    def full_canary(self) -> int:
        """Replicas that the canary needs for all the traffic."""
        return self.wanted if self.wanted_canary is None else self.wanted_canary


@dataclass(frozen=True)
class Course:
    """What a rollout comes to now.

    Attributes:
        record: the decision from now on.
        hold: why it does not go on, CamelCase; empty: it does.
        message: the same for people.
        next_decision: when, or what it waits for.
        told: events, as (type, reason, message).
        again_after_s: look again after so long; None: on events only.
        requests_needed: canary requests until the next decision; None: unknown.
        forgive: the target's failure is forgotten.
    """

    record: Record
    hold: str = ""
    message: str = ""
    next_decision: str = ""
    told: tuple[tuple[str, str, str], ...] = ()
    again_after_s: float | None = None
    requests_needed: int | None = None
    forgive: bool = False


def serving(record: Record) -> str:
    """Hash of the revision that in-cluster callers reach; empty: none."""
    if record.phase in LIVE and record.weight >= 1.0:
        return record.canary
    return record.stable


def measure_interval_s(record: Record, now: datetime) -> float:
    """Time between two looks at the counters."""
    young = elapsed_s(record.since, now) < YOUNG_S
    return YOUNG_INTERVAL_S if young else INTERVAL_S


def weights(spec: Spec) -> tuple[float, ...]:
    """The steps' weights and, last, promotion: 1."""
    return (*(fraction(step.weight) for step in spec.rollout.steps), 1.0)


def by_steps(s: Situation) -> bool:
    """Whether the weight rises step by step; otherwise the traffic is switched at once."""
    return s.spec.rollout.strategy is Strategy.CANARY and s.gateway is not None


def held_back(s: Situation) -> tuple[str, str] | None:
    """Why Recreate does not take the old pods away yet, reason and message; None: nothing does.

    With them the service goes, so whatever is to be waited for is waited for before. Once it was
    held it stays so, whatever becomes of the old pods meanwhile.
    """
    record = s.record
    if (
        s.spec.rollout.strategy is not Strategy.RECREATE
        or record.phase not in (Phase.PREPARING, Phase.VERIFYING)
        or not record.stable
        or record.forced
        or not (record.reason or (s.stable is not None and s.stable.pods))
    ):
        return None
    if s.spec.rollout.paused or record.paused:
        how = "rollout.paused is true" if s.spec.rollout.paused else "a request paused it"
        return "Paused", f"{how}; the old pods serve until it goes on"
    if s.waiting_gates:
        why = ", ".join(s.waiting_gates)
        return "WaitingForGates", f"rollout.gates: {why}; the old pods serve until then"
    return None


def next_weight(spec: Spec, record: Record, *, stepwise: bool) -> float:
    """The weight that the canary is to carry next."""
    if not stepwise or record.phase is Phase.BAKING or record.forced:
        return 1.0
    steps = weights(spec)
    return steps[0] if record.step is None else steps[min(record.step + 1, len(steps) - 1)]


def stamp(now: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: two steps within a second are told apart."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# Moves.


def start(s: Situation) -> Course:
    """A new canary."""
    first = s.stable is None or not (s.stable.served or s.stable.ready)
    at = stamp(s.now)
    record = Record(
        stable="" if first else s.record.stable,
        canary=s.target,
        phase=Phase.PREPARING,
        # Nobody is served worse: nothing else serves, and pods that are not Ready get no traffic.
        weight=1.0 if first and s.golden is Golden.NOT_ASKED else 0.0,
        started=at,
        since=at,
        paused=s.record.paused,
        target=s.record.target,
        target_for=s.record.target_for,
        source=s.record.source,
        request=s.record.request,
        past=s.record.outcome(),
    )
    told: tuple[tuple[str, str, str], ...] = ()
    if not first:
        told = (
            (
                "Normal",
                "RolloutStarted",
                f"revision {s.target} is tried against {s.record.stable}",
            ),
        )
    return Course(record, told=told, again_after_s=0.0)


def superseded(s: Situation) -> Course:
    """The canary is no longer asked for: by a newer spec, or because the old one came back."""
    record = s.record
    if not record.stable:
        # The first revision was changed before it ever served: nothing is given back.
        return start(replace(s, record=replace(record, phase=Phase.SUPERSEDED)))
    if record.phase is Phase.BAKING and s.target != record.stable:
        # It was promoted already: the newer one is tried against it.
        return ended(s, "a newer spec ends the bake")
    back = "the spec asks for the stable revision again"
    reason = "Reverted" if s.target == record.stable else "Superseded"
    message = back if reason == "Reverted" else f"the spec asks for revision {s.target} now"
    return Course(
        stopped(s, Phase.SUPERSEDED, reason, message),
        message=message,
        told=(("Normal", reason, f"revision {record.canary} gets no more traffic: {message}"),),
        again_after_s=0.0,
    )


def rolled_back(
    s: Situation, reason: str, message: str, evidence: Mapping[str, Any] | None = None
) -> Course:
    """The canary failed: all traffic goes to stable, in one write."""
    record = s.record
    mend = "Mend the model and change the spec, or ask for `retry`."
    text = f"{message}. {mend}" if not message.endswith(".") else f"{message} {mend}"
    return Course(
        replace(stopped(s, Phase.ROLLED_BACK, reason, text), evidence=dict(evidence or {})),
        hold="RolledBack",
        message=text,
        told=(
            (
                "Warning",
                "RolledBack",
                f"revision {record.canary} ({reason}): {message}. "
                + (f"Revision {record.stable} serves. " if record.stable else "Nothing serves. ")
                + (f"Evidence, {numbers(evidence)}. " if evidence else "")
                + mend,
            ),
        ),
        again_after_s=0.0,
    )


def stopped(s: Situation, phase: Phase, reason: str, message: str) -> Record:
    """The record of a canary that gets no more traffic."""
    return replace(
        s.record,
        phase=phase,
        weight=0.0,
        mirror=0.0,
        step=None,
        since=stamp(s.now),
        reason=reason,
        message=message,
        evidence={},
        past={},
        forced="",
        # What a verb asked for ends with its failure.
        target="" if phase is Phase.ROLLED_BACK else s.record.target,
        target_for="" if phase is Phase.ROLLED_BACK else s.record.target_for,
    )


def ended(s: Situation, message: str) -> Course:
    """The canary is stable now."""
    record = s.record
    told: tuple[tuple[str, str, str], ...] = ()
    if record.stable:
        told = (("Normal", "RolloutComplete", f"revision {record.canary} is stable: {message}"),)
    return Course(
        replace(
            record,
            stable=record.canary,
            canary="",
            phase=Phase.PROMOTED,
            weight=0.0,
            mirror=0.0,
            step=None,
            forced="",
            since=stamp(s.now),
        ),
        message=record.message,
        told=told,
        again_after_s=0.0,
    )


def hold(
    s: Situation,
    hold: str,
    message: str,
    *,
    needed: int | None = None,
    again_after_s: float | None = None,
    next_decision: str = "",
) -> Course:
    """The record stays."""
    if s.record.phase in MEASURED:
        again_after_s = min(again_after_s or REFRESH_S, REFRESH_S)
    return Course(
        s.record,
        hold=hold,
        message=message,
        next_decision=next_decision or (f"{needed} more requests" if needed else ""),
        again_after_s=again_after_s,
        requests_needed=needed,
    )


def enter(s: Situation, record: Record, message: str, event: str = "") -> Course:
    """On to another phase or step."""
    entered = replace(record, since=stamp(s.now), reason="", message=message)
    if entered.phase is Phase.CANARY and entered.weight > 0.0:
        walked = [*filter(None, (record.walked,)), percent(entered.weight)]
        entered = replace(entered, walked=", ".join(walked))
    told: tuple[tuple[str, str, str], ...] = ()
    if event or (entered.phase is Phase.CANARY and s.record.stable):
        told = (("Normal", event or "StepTaken", f"revision {record.canary}: {message}"),)
    return Course(entered, message=message, told=told, again_after_s=0.0)


# Small parts.


def carries(s: Situation, share: float) -> bool:
    """Whether the canary's ready pods can carry that share of the traffic."""
    if s.canary is None:
        return False
    return can_carry(
        share, s.wanted, s.canary.ready, s.record.gave_way, wanted_canary=s.wanted_canary
    )


def evidence_of(result: Result, measured: Measured | None = None) -> dict[str, Any]:
    """A test's numbers as status shows them; with when they were seen, where that is known."""
    worse = "Bad" if result.fired else "Clear"
    if result.fired and result.consequence == "Hold":
        worse = "Worse"
    count, requests = result.lately or (result.canary_count, result.canary_requests)
    found = {
        "test": str(result.test),
        "observed": percent(count / requests) if requests else "-",
        "bound": percent(result.bound),
        "canary": f"{count}/{requests}",
        "evidence": f"{result.evidence:.3g}",
        "needed": f"{result.needed:.3g}",
        "verdict": worse,
    }
    if result.stable_requests:
        found["stable"] = f"{result.stable_count}/{result.stable_requests}"
    against, for_it = f"{result.accusing:.2g}", f"{result.tempering:.2g}"
    if against != "1":
        found["clusters"] = f"{against}/{for_it}"
    if measured is not None and result.test in measured.seen:
        found["seen"] = measured.seen[result.test]
    return found


def elapsed_s(since: str, now: datetime) -> float:
    """Seconds since an RFC 3339 time; 0 for none."""
    if not since:
        return 0.0
    return (now - datetime.fromisoformat(since).astimezone(UTC)).total_seconds()


def percent(share: float) -> str:
    """A share of 0 to 1 for people, three significant digits."""
    return f"{share * 100:.3g}%"
