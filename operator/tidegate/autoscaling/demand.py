"""What the measurements of one revision come to."""

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where the arrivals were counted."""

    SIDECAR = "sidecar"
    FLOW_BALANCE = "flow balance"
    """Successes + failures + change of pending, of Triton's own counters."""


@dataclass(frozen=True)
class ServiceTime:
    """Time to run a batch of n items: ``alpha_ms + beta_ms * n``.

    Attributes:
        alpha_ms: of any batch.
        beta_ms: of each item.
        cv: standard deviation of one batch's time, relative to its mean.
        error: standard error of the time of a largest batch, relative.
        batches: executions behind it (older ones count less).
        sure: False: too few batch sizes were seen to tell the two apart, so batching is taken to
            bring nothing (``alpha_ms`` 0), which asks for too many replicas rather than too few.
    """

    alpha_ms: float
    beta_ms: float
    cv: float
    error: float
    batches: float
    sure: bool

    def of(self, items: float) -> float:
        """Milliseconds for a batch of so many items."""
        return self.alpha_ms + self.beta_ms * items


@dataclass(frozen=True)
class Demand:
    """What one revision's measurements come to at one look.

    Attributes:
        at_s: seconds since the epoch.
        data_s: since when there is data.
        ready_pods: pods that serve.
        coverage: share of them that was read lately.
        age_s: of the newest reading.
        source: of the arrivals.
        arrivals_per_s: requests a second that the decision goes by.
        long_per_s: over the last 60 s.
        short_per_s: over the last 15 s.
        balance_per_s: flow balance of Triton's counters, beside the sidecar's; None: unknown.
        dispersion: variance to mean of the arrivals of all pods, 1 to 6; Poisson is 1.
        cached_share: of the requests, answered from the response cache.
        items_per_request: of those that ran.
        service: None: not known yet.
        capacity_per_pod: requests a second that one pod holds within the objective; None: unknown.
        cautious_per_pod: the same within a share (`Law.down_margin`) of the target.
        throughput_per_pod: requests a second that one pod can answer at most.
        exact: False: the capacity is still being worked out more exactly.
        infeasible: even a request that finds the pod idle misses the target.
        idle_ms: what that request takes; None: unknown.
        target_ms: of the objective; None: there is none.
        quantile: of the objective.
        pending: requests that were not answered yet.
        backlog: of them, what has piled up: more than pods that keep the objective hold.
        measured_ms: the objective's quantile as measured over the last 60 s; None: too few.
        slow_share: of the requests of the last 60 s, slower than the target; None: too few.
        timed: requests behind these two.
        model_ms: the quantile by the capacity model at the present load; None: unknown.
        feedback: logarithm of what latency turned out to be against the model.
        required_replicas: that the load needs, without spare ones and whatever has piled up; None:
            unknown.
        required_max: the highest of the last 300 s; None: unknown.
        history_s: for how long required_replicas has been known without a gap.
        growth: by how much the load grew in so many seconds, at worst with few exceptions:
            pairs (seconds, factor), ascending; empty: not known yet.
    """

    at_s: float
    data_s: float
    ready_pods: int
    coverage: float
    age_s: float
    source: Source
    arrivals_per_s: float
    long_per_s: float
    short_per_s: float
    balance_per_s: float | None = None
    dispersion: float = 1.0
    cached_share: float = 0.0
    items_per_request: float = 1.0
    service: ServiceTime | None = None
    capacity_per_pod: float | None = None
    cautious_per_pod: float | None = None
    throughput_per_pod: float | None = None
    exact: bool = True
    infeasible: bool = False
    idle_ms: float | None = None
    target_ms: float | None = None
    quantile: float = 0.99
    pending: float = 0.0
    backlog: float = 0.0
    measured_ms: float | None = None
    slow_share: float | None = None
    timed: int = 0
    model_ms: float | None = None
    feedback: float = 0.0
    required_replicas: int | None = None
    required_max: int | None = None
    history_s: float = 0.0
    growth: tuple[tuple[float, float], ...] = ()
