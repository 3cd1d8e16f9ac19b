"""What holds a canary where it is: what is not counted or not read, the verdict, too few pods."""

from tidegate.analysis.judgement import Judgement, Test
from tidegate.diagnosis import Severity
from tidegate.observed import Measured
from tidegate.rollout.state import (
    METRICS_PATIENCE_S,
    REFUSALS_LEAST,
    REFUSALS_MARGIN,
    Course,
    Situation,
    elapsed_s,
    hold,
    percent,
)


def unsupported(measured: Measured, s: Situation) -> Course | None:
    """What cannot be judged is not judged: a stream is many requests, whose answers nobody counts.

    What speaks against a canary (requests one by one that fail, golden answers, crashes) is heard
    before this; only going on by itself is not for it.
    """
    if measured.streams <= measured.requests:
        return None
    return hold(
        s,
        "Unsupported",
        f"clients opened {measured.streams} streams and sent {measured.requests} requests one by "
        "one; what is answered inside a stream is not counted, so there is no evidence to go on "
        "by. Judge it by other means, and promote or skip the step by hand",
    )


def held_by_verdict(s: Situation, *, promoted: bool = False) -> Course | None:
    """What the verdict holds up."""
    assert s.measured is not None
    judged = s.measured.judgement
    doubt = "" if promoted else _refuses(judged)
    if doubt:
        return hold(s, "WorseThanStable", doubt)
    if judged.stable_failing and not promoted and not judged.proven:
        return hold(
            s,
            "StableFailing",
            f"the stable revision {s.record.stable} breaks the objective itself, so this one is "
            "not to blame; mend stable, or promote by hand",
        )
    if judged.worse is not None and not promoted:
        return hold(
            s,
            "WorseThanStable",
            f"{judged.worse.explanation}; not surely beyond the objective, so it is not rolled "
            "back. Promote or abort it by hand",
        )
    return None


def _refuses(judged: Judgement) -> str:
    """Why the canary's refusals forbid more weight, though no test is sure yet; empty: nothing.

    An answer that blames the request is no error by the objective, so a canary that refuses
    everything can look proven.
    """
    for result in judged.results:
        if result.test is not Test.CLIENT_ERRORS or result.canary_count < REFUSALS_LEAST:
            continue
        stable = result.stable_count / result.stable_requests if result.stable_requests else 0.0
        if result.observed is not None and result.observed > stable + REFUSALS_MARGIN:
            return f"{result.explanation}; it gets no more weight before that is known better"
    return ""


def unavailable(s: Situation) -> Course:
    """Its counters cannot be read, or were not yet."""
    unread = ", ".join(s.measured.unread) if s.measured is not None else ""
    if s.measured is None and elapsed_s(s.record.since, s.now) < METRICS_PATIENCE_S:
        return hold(s, "NeedsMoreRequests", "its counters are read for the first time")
    return hold(
        s,
        "MetricsUnavailable",
        "the canary's counters cannot be read"
        + (f" ({unread})" if unread else "")
        + "; its weight stays where it is. Check that the operator reaches port 9091 of the pods",
    )


def short(s: Situation, weight: float) -> Course:
    """Its ready pods cannot carry that share of the traffic."""
    found = s.canary.finding if s.canary is not None else None
    ready = s.canary.ready if s.canary is not None else 0
    if found is not None and found.severity >= Severity.WAITING:
        return hold(s, found.reason, found.message)
    return hold(
        s,
        "CanaryShort",
        f"{ready} ready pods cannot carry {percent(weight)} of the traffic of {s.full_canary}",
    )
