"""The state machine of a rollout: from what is known, which revision gets which traffic.

Level-triggered: the record in force (`tidegate.record`) and what is observed decide, never an
event. Whatever speaks against a canary is looked at first, before pause, readiness and scaling:
a bad revision loses its traffic in the one write that says why. What is not known never counts as
success: without fresh counters, without requests, the weight stays where it is.

Phases: Preparing, Verifying, Mirroring, Canary (step by step), Baking, Promoted; out of each of
the first five to RolledBack (it failed) or Superseded (no longer asked for).
"""

from tidegate.rollout.asked import asked
from tidegate.rollout.state import (
    FAILS_AT_ONCE,
    INTERVAL_S,
    LIVE,
    MEASURED,
    METRICS_PATIENCE_S,
    MIRROR_PATIENCE_S,
    REFRESH_S,
    TEST_REASONS,
    Course,
    Gateway,
    Golden,
    Side,
    Situation,
    by_steps,
    evidence_of,
    held_back,
    measure_interval_s,
    next_weight,
    percent,
    serving,
    stamp,
    start,
    superseded,
    weights,
)
from tidegate.rollout.trial import trial

__all__ = [
    "FAILS_AT_ONCE",
    "INTERVAL_S",
    "LIVE",
    "MEASURED",
    "METRICS_PATIENCE_S",
    "MIRROR_PATIENCE_S",
    "REFRESH_S",
    "TEST_REASONS",
    "Course",
    "Gateway",
    "Golden",
    "Side",
    "Situation",
    "by_steps",
    "course",
    "evidence_of",
    "held_back",
    "measure_interval_s",
    "next_weight",
    "percent",
    "serving",
    "stamp",
    "weights",
]


def course(s: Situation) -> Course:
    """Decide. Planning again for the record that comes out changes nothing at the same `now`."""
    answer = asked(s) if s.request is not None and s.request.id != s.record.request else None
    if answer is not None:
        return answer
    record = s.record
    if record.phase in LIVE and record.canary != s.target:
        return superseded(s)
    if record.phase in LIVE:
        return trial(s)
    if s.target == record.stable:
        return Course(record, message=record.message)
    if s.failed is not None:
        return Course(record, hold="RolledBack", message=s.failed)
    return start(s)
