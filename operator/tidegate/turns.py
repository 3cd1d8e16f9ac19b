"""The turns of a rollout: what was decided between two records of a ModelDeployment. Pure."""

from dataclasses import dataclass, replace
from typing import Final

from tidegate.record import Phase, Record
from tidegate.rollout import LIVE

ENTERED: Final = {
    Phase.VERIFYING: "Verifying",
    Phase.MIRRORING: "Mirroring",
    Phase.CANARY: "StepTaken",
    Phase.BAKING: "Promoted",
    Phase.PROMOTED: "RolloutComplete",
    Phase.ROLLED_BACK: "RolledBack",
    Phase.SUPERSEDED: "Superseded",
}
OUTCOMES: Final = {
    "RolloutComplete": "promoted",
    "RolledBack": "rolled_back",
    "Superseded": "superseded",
    "Reverted": "superseded",
}


@dataclass(frozen=True)
class Turn:
    """One thing that was decided.

    Attributes:
        decision: what, in the words of the events.
        record: what is in force from then on.
        at: when it was decided, RFC 3339.
        revision: hash of the revision on trial.
        stable: hash of the revision beside it; empty: there is none.
        began: when its rollout began, RFC 3339.
        weight_before: share of the traffic that the revision had, 0 to 1.
        asked_by: who asked for it; empty: nobody did.
    """

    decision: str
    record: Record
    at: str
    revision: str
    stable: str
    began: str
    weight_before: float
    asked_by: str = ""

    @property
    def outcome(self) -> str:
        """What became of the rollout: promoted, rolled_back, superseded; empty: it goes on."""
        return OUTCOMES.get(self.decision, "")


def turns(before: Record, after: Record, asked_by: str = "") -> list[Turn]:
    """What was decided between two records, in order.

    Args:
        before: the one that was in force.
        after: the one that is.
        asked_by: whose request was handled meanwhile; empty: nobody's.
    """
    found: list[Turn] = []
    weight = before.weight if before.phase in LIVE else 0.0
    if after.started and after.started != before.started:
        if before.phase in LIVE and after.past:
            # It ended and the next one began in one write.
            past = after.past
            reason, _, message = str(past.get("reason", "")).partition(": ")
            ended = replace(before, weight=0.0, mirror=0.0, reason=reason, message=message)
            if past["outcome"] == Phase.PROMOTED:
                ended = replace(ended, phase=Phase.PROMOTED, stable=before.canary, canary="")
            else:
                ended = replace(ended, phase=Phase(past["outcome"]))
            found.append(_turn(ended, before, str(past["time"]), weight, asked_by))
        began = replace(after, phase=Phase.PREPARING, weight=0.0, mirror=0.0, step=None)
        found.append(
            Turn(
                "RolloutStarted",
                began,
                after.started,
                after.canary or after.stable,
                after.stable if after.canary else "",
                after.started,
                0.0,
                asked_by,
            )
        )
        if after.phase is Phase.PREPARING:
            return found
        before, weight = began, 0.0
    if (after.phase, after.step, after.since) == (before.phase, before.step, before.since):
        return found
    if after.phase is Phase.PREPARING or (after.phase is before.phase and after.phase not in LIVE):
        return found
    forced = before.forced.partition(" by ")[2]
    found.append(_turn(after, before, after.since, weight, asked_by or forced))
    return found


def _turn(after: Record, before: Record, at: str, weight: float, asked_by: str) -> Turn:
    decision = ENTERED.get(after.phase, str(after.phase))
    if after.phase is Phase.SUPERSEDED and after.reason == "Reverted":
        decision = "Reverted"
    revision = after.stable if after.phase is Phase.PROMOTED else after.canary
    other = before.stable if after.phase is Phase.PROMOTED else after.stable
    return Turn(decision, after, at, revision, other, after.started, weight, asked_by)
