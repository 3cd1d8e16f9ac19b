"""A test's numbers in a sentence for people: what was counted first, never an e-value. Pure."""

from tidegate.analysis.judgement import Objective, Test


def explain(
    objective: Objective,
    test: Test,
    canary: tuple[int, int],
    stable: tuple[int, int],
    bound: int | None = None,
    *,
    lately: bool = False,
) -> str:
    """Such as "15 of 200 requests failed (7.5 %), the limit is 1 %".

    Args:
        objective: what is tested.
        test: which test.
        canary: how many the test counts, out of how many.
        stable: the same for stable.
        bound: for `Test.LATENCY_AGAINST_STABLE`: index of the latency bound shown.
        lately: `canary` is of its latest requests only.
    """
    count, requests = canary
    if not requests:
        return (
            "nothing to compare yet" if test is Test.LATENCY_AGAINST_STABLE else "no requests yet"
        )
    of = f"the last {requests}" if lately else str(requests)
    if test in (Test.ERRORS, Test.LATENCY):
        errors = test is Test.ERRORS
        limit = percent(objective.max_error_rate if errors else objective.slow_share)
        what = "failed" if errors else f"took {objective.latency_target_ms} ms or more"
        return f"{count} of {of} requests {what} ({_share(canary)}), the limit is {limit}"
    if test is Test.ERRORS_AGAINST_STABLE:
        what = "failed"
    elif test is Test.CLIENT_ERRORS:
        what = "were refused (the client's fault, or overload) or given up by the client"
    elif bound is not None and bound < len(objective.latency_bounds_ms):
        what = f"took {objective.latency_bounds_ms[bound]} ms or more"
    else:
        what = "were slow"
    ours = f"{count} of {of} requests {what} ({_share(canary)})"
    if not stable[1]:
        return f"{ours}, stable had none to compare with"
    return f"{ours}, on stable {stable[0]} of {stable[1]} ({_share(stable)})"


def _share(counts: tuple[int, int]) -> str:
    return percent(counts[0] / counts[1])


def percent(share: float) -> str:
    """A share with about two significant digits: "7.5 %", "0.023 %", "43 %", "100 %"."""
    value = share * 100.0
    if value >= 99.95:
        text = "100"
    elif value >= 10.0:
        text = f"{value:.1f}"
    elif value >= 0.0001:
        text = f"{value:#.2g}" if value < 9.95 else "10"
    else:
        text = f"{value:.1e}" if value > 0.0 else "0"
    if "." in text and "e" not in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} %"
