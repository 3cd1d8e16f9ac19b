"""Why so many replicas, in a sentence: exactly the numbers that the decision was made from."""

import math

from tidegate.autoscaling.demand import Demand

LEAST_HITS = 0.005
"""Of the answers, from the response cache: fewer are not worth a word."""
_WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def number(value: float) -> str:
    """Three significant digits, no exponent: 412, 8.25, 0.014, 1530."""
    if value == 0.0 or not math.isfinite(value):
        return "0" if value == 0.0 else str(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percentile(quantile: float) -> str:
    """``p99`` for 0.99, ``p99.9`` for 0.999."""
    return f"p{number(100.0 * quantile) if quantile < 0.9995 else f'{100.0 * quantile:.2f}'}"


def capacity(demand: Demand) -> str:
    """What one pod holds, and by what service time."""
    assert demand.capacity_per_pod is not None
    assert demand.target_ms is not None
    holds = f"one pod holds {number(demand.capacity_per_pod)} req/s"
    if demand.infeasible:
        assert demand.idle_ms is not None
        holds += (
            f" of the {number(demand.throughput_per_pod or 0.0)} req/s that it can answer at most:"
            f" a request that finds it idle takes {number(demand.idle_ms)} ms, more than the target"
            f" of {number(demand.target_ms)} ms, so latency asks for no replicas"
        )
    else:
        holds += f" within {number(demand.target_ms)} ms {percentile(demand.quantile)}"
    return f"{holds} ({service(demand)}{_hits(demand)})"


def _hits(demand: Demand) -> str:
    """The response cache's share, where it has one: these answers run no batch."""
    if demand.cached_share < LEAST_HITS:
        return ""
    return f", {number(100.0 * demand.cached_share)} % of the answers from the response cache"


def service(demand: Demand) -> str:
    """The service time as learned."""
    time = demand.service
    if time is None:
        return "service time not known yet"
    text = f"{number(time.alpha_ms)} + {number(time.beta_ms)} n ms for a batch of n"
    if time.sure:
        return f"service time measured as {text}"
    return f"service time taken as {text}: too few batch sizes seen to be sure"


def required(demand: Demand, count: int, arrivals_per_s: float, draining: int = 0) -> str:
    """The whole sentence, without what keeps the number from being acted on.

    Args:
        demand: what was measured.
        count: replicas that come of it, spare ones included, bounds not.
        arrivals_per_s: that were decided by: measured, or expected.
        draining: replicas that also drain what has piled up; 0: nothing has.
    """
    replicas = "1 replica" if count == 1 else f"{count} replicas"
    word = "arriving" if arrivals_per_s <= demand.arrivals_per_s else "to come"
    parts = [
        f"{replicas} required: {number(arrivals_per_s)} req/s {word}",
        capacity(demand),
    ]
    assert demand.capacity_per_pod is not None
    load = max(1, math.ceil(arrivals_per_s / demand.capacity_per_pod - 1e-9))
    if draining > load:
        parts.append(f"{draining} drain the {number(demand.backlog)} requests that piled up")
        load = draining
    if count > load:
        more = count - load
        parts.append(f"{_WORDS[more] if more < len(_WORDS) else more} more as headroom")
    return ", ".join(parts)
