"""What a probe teaches: service time, cost, and what a request takes besides. Pure.

A probe sends single requests and then bursts of several sizes to one server that may put them into
batches. Triton counts executions by batch size, so one probe tells ``s(n) = alpha + beta n`` for
all sizes, delays and queues with the same workers.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.autoscaling.capacity import (
    Pod,
    capacity,
    idle_quantile,
    latency_quantile,
    pod_of,
    run,
)
from tidegate.autoscaling.reading import Batch
from tidegate.autoscaling.service_time import ServiceTimes
from tidegate.preparation.tuning.grid import Setting

ARRIVALS = 6_000
"""Of one run of the capacity model: enough to rank."""


@dataclass(frozen=True)
class Spent:
    """What a stretch of load cost the server.

    Attributes:
        requests: answered.
        executions: batches.
        cpu_s: of all of the server's processes.
    """

    requests: int
    executions: int
    cpu_s: float


@dataclass(frozen=True)
class Learned:
    """What is known about some workers.

    Attributes:
        alpha_ms: of any batch.
        beta_ms: of each item in it.
        cv: of a batch's time: standard deviation over mean.
        overhead_ms: of a request besides its batch: wire, queue, the client.
        request_cpu_ms: processor time for each request ...
        batch_cpu_ms: ... and for each batch.
        saturated_per_s: answered when many are sent at once: more than this either the server
            cannot answer or this client cannot send.
    """

    alpha_ms: float
    beta_ms: float
    cv: float
    overhead_ms: float
    request_cpu_ms: float
    batch_cpu_ms: float
    saturated_per_s: float = 1e9

    def pod(self, setting: Setting, quantile: float, target_ms: float) -> Pod:
        """The server as a queue."""
        model = setting.server(quantile, target_ms)
        return pod_of(model, self.alpha_ms, self.beta_ms, cv=self.cv)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def learn(
    looks: Sequence[Sequence[Batch]],
    largest: int,
    single_ms: float,
    singles: Spent,
    bursts: Spent,
    saturated_per_s: float = 1e9,
) -> Learned:
    """What a probe taught.

    Args:
        looks: executions by size since the look before, of each look.
        largest: items in a largest batch.
        single_ms: latency of a single request, median.
        singles: what the single requests cost.
        bursts: what the bursts cost.
        saturated_per_s: see `Learned`.

    Raises:
        ValueError: there were too few executions.
    """
    times = ServiceTimes(largest)
    for look in looks:
        for batch in look:
            times.add(batch.size, batch.count, batch.busy_ms)
    times.end_interval()
    found = times.estimate()
    if found is None:
        raise ValueError("the probe saw too few executions")
    request_cpu_ms, batch_cpu_ms = _shares(singles, bursts)
    return Learned(
        alpha_ms=found.alpha_ms,
        beta_ms=found.beta_ms,
        cv=found.cv,
        overhead_ms=max(0.0, single_ms - found.of(1)),
        request_cpu_ms=request_cpu_ms,
        batch_cpu_ms=batch_cpu_ms,
        saturated_per_s=saturated_per_s,
    )


def _shares(singles: Spent, bursts: Spent) -> tuple[float, float]:
    """Milliseconds for a request and for a batch: two stretches, two unknowns, neither negative."""
    determinant = singles.requests * bursts.executions - bursts.requests * singles.executions
    all_requests = singles.requests + bursts.requests
    if not all_requests:
        return 0.0, 0.0
    mean = 1000 * (singles.cpu_s + bursts.cpu_s) / all_requests
    if determinant == 0:
        return mean, 0.0
    a = (singles.cpu_s * bursts.executions - bursts.cpu_s * singles.executions) / determinant
    b = (singles.requests * bursts.cpu_s - bursts.requests * singles.cpu_s) / determinant
    if a < 0.0:
        executions = singles.executions + bursts.executions
        return 0.0, 1000 * (singles.cpu_s + bursts.cpu_s) / executions
    if b < 0.0:
        return mean, 0.0
    return 1000 * a, 1000 * b


@dataclass(frozen=True)
class Predicted:
    """What the capacity model expects of a setting.

    Attributes:
        rate_per_s: the highest that holds the objective; 0: none does.
        cost_s: processor seconds for a million requests at that rate.
    """

    rate_per_s: float
    cost_s: float


def predict(learned: Learned, setting: Setting, quantile: float, target_ms: float) -> Predicted:
    """Highest rate and cost."""
    pod = learned.pod(setting, quantile, target_ms)
    left_ms = target_ms - learned.overhead_ms
    if left_ms <= 0.0 or idle_quantile(pod, quantile) > left_ms:
        return Predicted(0.0, 0.0)
    rate = capacity(pod, quantile, left_ms, arrivals=ARRIVALS).rate
    seen = run(pod, rate, left_ms, arrivals=ARRIVALS)
    batches = min(1.0, seen.batches / ARRIVALS)
    return Predicted(rate * 1000, 1000 * (learned.request_cpu_ms + learned.batch_cpu_ms * batches))


def latency_ms(learned: Learned, setting: Setting, rate_per_s: float, quantile: float) -> float:
    """The quantile of the latency that the model expects at a rate."""
    pod = learned.pod(setting, quantile, 1.0)
    expected = latency_quantile(pod, rate_per_s / 1000, quantile, arrivals=ARRIVALS)
    return learned.overhead_ms + expected
