"""What takes a canary back."""

from tidegate.api.units import duration_s
from tidegate.diagnosis import Severity
from tidegate.record import Phase
from tidegate.rollout.state import (
    FAILS_AT_ONCE,
    MEASURED,
    TEST_REASONS,
    Course,
    Golden,
    Situation,
    elapsed_s,
    evidence_of,
    rolled_back,
)


def against(s: Situation) -> Course | None:
    """Whatever says that the canary is bad. First of all, and whatever else holds."""
    record, canary = s.record, s.canary
    if not record.stable:
        # Nothing to go back to: it goes on trying, and status says what to mend.
        return None
    answers = record.phase in MEASURED
    judged = s.measured.judgement if s.measured is not None and answers else None
    if judged is not None and judged.bad is not None:
        bad = judged.bad
        return rolled_back(s, TEST_REASONS[bad.test], bad.explanation, evidence_of(bad, s.measured))
    if s.measured is not None and answers and s.measured.hanging:
        names = ", ".join(s.measured.hanging)
        return rolled_back(s, "Hanging", f"{names}: took requests and gives no answer any more")
    if s.golden is Golden.FAILED:
        return rolled_back(s, "GoldenRequestsFailed", s.golden_message)
    if canary is not None and canary.finding.reason in FAILS_AT_ONCE:
        return rolled_back(s, canary.finding.reason, canary.finding.message)
    deadline_s = duration_s(s.spec.rollout.progress_deadline)
    waits = canary is None or canary.ready == 0
    late = elapsed_s(record.started, s.now) > deadline_s and not record.reason
    if waits and record.phase is Phase.PREPARING and late:
        found = canary.finding if canary is not None else None
        if found is not None and found.reason == "WaitingForGPU":
            return None  # not its fault; status says what would free one
        why = found.message if found is not None and found.message else "no pod became ready"
        limit = s.spec.rollout.progress_deadline
        return rolled_back(
            s, "NeverReady", f"not ready within rollout.progressDeadline ({limit}): {why}"
        )
    if (
        canary is not None
        and record.phase is not Phase.PREPARING
        and canary.ready == 0
        and canary.finding.severity is Severity.FAILING
    ):
        return rolled_back(s, canary.finding.reason, canary.finding.message)
    return None
