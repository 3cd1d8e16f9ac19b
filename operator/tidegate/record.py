"""The decision in force: kept, as JSON, on the object that carries the traffic.

The HTTPRoute (without a gateway the entry Service) says in one write where the traffic goes *and*
why, so that no crash falls between the two. Status follows from it. Pure.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """Where a rollout stands."""

    PREPARING = "Preparing"
    """The canary's pods are made; no traffic."""
    VERIFYING = "Verifying"
    """Golden requests; no traffic."""
    MIRRORING = "Mirroring"
    """Copies of live requests; its answers are discarded."""
    CANARY = "Canary"
    """A step: some of the traffic."""
    BAKING = "Baking"
    """All of the traffic; the old pods stay, so that going back is instant."""
    PROMOTED = "Promoted"
    """It is stable now; no rollout is under way."""
    ROLLED_BACK = "RolledBack"
    """The canary failed; all traffic goes to stable."""
    SUPERSEDED = "Superseded"
    """The canary is no longer asked for; all traffic goes to stable."""


@dataclass(frozen=True)
class Record:
    """What was decided.

    Attributes:
        stable: hash of the revision to go back to; it serves unless the canary does. Empty: there
            is none, the first revision is under way.
        canary: hash of the revision on trial; in `RolledBack` and `Superseded` the one that was.
        phase: where the rollout stands.
        weight: share of the traffic that goes to the canary, 0 to 1.
        mirror: share of the requests that is copied to the canary, 0 to 1.
        walked: the weights above 0 that the canary had so far, such as ``1%, 5%``.
        step: index into ``rollout.steps`` in phase `Canary`.
        started: when this rollout began, RFC 3339.
        since: when this phase or step began, RFC 3339.
        gave_way: stable pods that gave way to canary pods in this rollout.
        gave_way_at: when the last one did, RFC 3339.
        paused: a verb paused it.
        forced: who asked for promotion whatever the evidence says; empty: nobody.
        target: hash of a revision that a verb (undo, restart) asked for in place of the spec's;
            empty: the spec's.
        target_for: hash of the spec's shape for which `target` holds.
        source: the version of the model's source that was last seen (`tidegate.source`); empty: it
            is not followed.
        request: id of the last verb that was handled.
        reason: why it was decided, CamelCase.
        message: why, for people.
        evidence: the numbers behind it, as in status.
        past: what became of the rollout before this one, as in status.history.
    """

    stable: str
    canary: str = ""
    phase: Phase = Phase.PROMOTED
    weight: float = 0.0
    mirror: float = 0.0
    walked: str = ""
    step: int | None = None
    started: str = ""
    since: str = ""
    gave_way: int = 0
    gave_way_at: str = ""
    paused: bool = False
    forced: str = ""
    target: str = ""
    target_for: str = ""
    source: str = ""
    request: str = ""
    reason: str = ""
    message: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    past: Mapping[str, Any] = field(default_factory=dict)

    def outcome(self) -> dict[str, Any]:
        """What became of this rollout, as in status.history; empty while it is under way."""
        if self.phase not in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.SUPERSEDED):
            return {}
        revision = self.stable if self.phase is Phase.PROMOTED else self.canary
        if not revision or not self.since:
            return {}
        found = {"revision": revision, "outcome": str(self.phase), "time": self.since}
        text = ": ".join(part for part in (self.reason, self.message) if part)
        if self.phase is not Phase.SUPERSEDED and (self.walked or self.evidence):
            text += "" if text.endswith(".") else "."
            if self.walked:
                text += f" Weights {self.walked}{self._took()}."
            if self.evidence:
                text += f" Evidence, {numbers(self.evidence)}."
        return found | ({"reason": text} if text else {})

    def _took(self) -> str:
        """From the start of the rollout to its end, the bake included; empty where not known."""
        try:
            begin, end = (
                datetime.fromisoformat(at).astimezone(UTC) for at in (self.started, self.since)
            )
        except ValueError:  # edited by hand, or begun by an older operator
            return ""
        return f" in {timedelta(seconds=round((end - begin).total_seconds()))}"

    def dump(self) -> str:
        """Compact JSON, without values equal to defaults."""
        defaults = Record(stable="")
        said = {k: v for k, v in asdict(self).items() if v != getattr(defaults, k)}
        return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def load(cls, text: str | None) -> "Record | None":
        """The record that an annotation holds; None where it holds none that can be read."""
        try:
            said = json.loads(text or "")
            known = {f.name for f in fields(cls)}
            found = {k: v for k, v in said.items() if k in known}
            return cls(**{"stable": "", **found, "phase": Phase(found.get("phase", "Promoted"))})
        except (ValueError, TypeError, AttributeError):
            return None


def numbers(evidence: Mapping[str, Any]) -> str:
    """A test's numbers in one line; empty where there are none."""
    if not evidence:
        return ""
    e = evidence
    parts = [
        f"{e.get('test')}: {e.get('canary')} ({e.get('observed')}) against {e.get('bound')}"
        + (f", stable {e['stable']}" if e.get("stable") else ""),
        f"e-value {e.get('evidence')}, needed {e.get('needed')}",
    ]
    parts += [f"{key} {e[key]}" for key in ("clusters", "seen") if e.get(key)]
    return "; ".join(parts)
