"""How one pod serves, and the constants of the law."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidegate.api.spec import InstanceKind, Spec
from tidegate.api.units import duration_ms, quantile

MAX_BATCH: Final = 65536
MAX_INSTANCES: Final = 1024


@dataclass(frozen=True)
class ServerModel:
    """How one pod serves: what the capacity model needs besides the service time.

    Attributes:
        instances: batches that run at once.
        max_batch: most items in one batch; 1 where the server forms no batches of its own.
        preferred: batch sizes that the batcher sends at once, ascending.
        queue_delay_ms: how long the oldest request waits for a fuller batch.
        queue_size: requests that may wait, more are refused; None: no end.
        max_pending: requests in the pod, those being served included; None: no end.
        quantile: share of requests that must be as fast as the target.
        target_ms: of the latency objective; None: there is none, and no scaling by it.
    """

    instances: int = 1
    max_batch: int = 1
    preferred: tuple[int, ...] = ()
    queue_delay_ms: float = 0.0
    queue_size: int | None = None
    max_pending: int | None = None
    quantile: float = 0.99
    target_ms: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.instances <= MAX_INSTANCES:
            raise ValueError(f"instances is {self.instances}; it is 1 to {MAX_INSTANCES}")
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise ValueError(f"max_batch is {self.max_batch}; it is 1 to {MAX_BATCH}")
        if not 0.0 < self.quantile < 1.0:
            raise ValueError(f"quantile is {self.quantile}; it lies between 0 and 1")
        if self.target_ms is not None and not 0.0 < self.target_ms < float("inf"):
            raise ValueError(f"target_ms is {self.target_ms}; it is a positive time")
        if not self.queue_delay_ms >= 0.0:
            raise ValueError(f"queue_delay_ms is {self.queue_delay_ms}; it is not negative")


def server_model(spec: Spec, config: Mapping[str, Any] | None = None) -> ServerModel:
    """How a pod of this spec serves.

    Args:
        spec: the revision's; its objective and typed tuning.
        config: Triton's own word (``GET /v2/models/M/config``), which knows the model's file, its
            defaults and the override, too; None: not asked yet, the typed tuning alone counts.

    Raises:
        ValueError: the config is not one of Triton's.
    """
    latency, pending = spec.slo.latency, spec.traffic.overload
    q = quantile(latency.quantile) if latency else 0.99
    target_ms = float(duration_ms(latency.target)) if latency else None
    max_pending = pending.max_pending if pending else None
    if config is not None:
        return _of_config(config, q, target_ms, max_pending)
    tuning = spec.model.config
    instances = 1
    if tuning.instances is not None:
        on_gpu = tuning.instances.kind is not InstanceKind.CPU
        devices = max(1, spec.runtime.gpu.count) if on_gpu else 1
        instances = tuning.instances.count * devices
    batching = tuning.dynamic_batching
    if batching is None:
        return ServerModel(
            instances=instances, max_pending=max_pending, quantile=q, target_ms=target_ms
        )
    sizes = [queue.max_queue_size or 0 for queue in batching.priorities or (batching,)]
    largest = max(1, tuning.max_batch_size or max(batching.preferred_sizes, default=1))
    return ServerModel(
        instances=instances,
        max_batch=largest,
        preferred=_preferred(batching.preferred_sizes, largest),
        queue_delay_ms=float(duration_ms(batching.max_queue_delay or "0s")),
        queue_size=_all_places(sizes) or None,
        max_pending=max_pending,
        quantile=q,
        target_ms=target_ms,
    )


def _of_config(
    config: Mapping[str, Any], q: float, target_ms: float | None, max_pending: int | None
) -> ServerModel:
    try:
        instances = 0
        for group in config.get("instance_group") or ():
            devices = len(group.get("gpus") or ()) if group.get("kind") == "KIND_GPU" else 1
            instances += max(1, int(group.get("count") or 1)) * max(1, devices)
        batching = config.get("dynamic_batching")
        largest, delay_us, queue_size = 1, 0, 0
        sizes: tuple[int, ...] = ()
        if batching is not None:
            largest = max(1, int(config.get("max_batch_size") or 0))
            sizes = tuple(int(n) for n in batching.get("preferred_batch_size") or ())
            delay_us = int(batching.get("max_queue_delay_microseconds") or 0)
            policies = batching.get("priority_queue_policy") or {}
            default = batching.get("default_queue_policy") or {}
            queue_size = _all_places(
                [
                    int(policy.get("max_queue_size") or 0)
                    for policy in list(policies.values()) or [default]
                ]
            )
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"not a Triton model config: {error}") from None
    return ServerModel(
        instances=max(1, instances),
        max_batch=largest,
        preferred=_preferred(sizes, largest),
        queue_delay_ms=delay_us / 1000,
        queue_size=queue_size or None,
        max_pending=max_pending,
        quantile=q,
        target_ms=target_ms,
    )


def _all_places(sizes: Sequence[int]) -> int:
    """Of the queues of all priorities together; 0: no end. The model has one queue for all."""
    return 0 if 0 in sizes else sum(sizes)


def _preferred(sizes: Sequence[int], largest: int) -> tuple[int, ...]:
    return tuple(sorted({n for n in sizes if 1 <= n <= largest}))


@dataclass(frozen=True)
class Law:
    """Constants of the control law; the defaults are what was measured best.

    Attributes:
        interval_s: time between two looks (with Prometheus: between two scrapes).
        long_s: window of the arrival rate.
        short_s: window in which a rise shows first.
        least_s: with less data than this replicas go up at most, and only as far as is sure.
        first_intervals: nothing is said before so many intervals.
        dispersion_s: window of the arrivals' dispersion.
        stabilisation_s: the highest requirement over so long is kept.
        headroom: factor on the arrival rate.
        drain_s: in how long a backlog is to be gone.
        feedback_gain: share of the distance that one step of the feedback goes.
        feedback_least, feedback_most: bounds of the feedback (logarithm of a factor on latency).
        feedback_samples: timed requests without which the feedback stays as it is.
        down_margin: fewer replicas only if the model stays within this share of the target.
        down_every_s: time between two steps down.
        down_share: of the replicas that one step down may take, at least one.
        least_coverage: share of the Ready pods that must have been read.
        stale_intervals: readings older than so many intervals are old.
        throughput_share: of the throughput used where the objective cannot be met.
        spare_pods: with automatic headroom, at least so many pods' capacity is spare ...
        spare_below: ... below so many replicas.
    """

    interval_s: float = 5.0
    long_s: float = 60.0
    short_s: float = 15.0
    least_s: float = 60.0
    first_intervals: float = 3.0
    dispersion_s: float = 600.0
    stabilisation_s: float = 300.0
    headroom: float = 1.05
    drain_s: float = 30.0
    feedback_gain: float = 0.2
    feedback_least: float = -0.4
    feedback_most: float = 0.7
    feedback_samples: int = 300
    down_margin: float = 0.8
    down_every_s: float = 30.0
    down_share: float = 0.1
    least_coverage: float = 0.5
    stale_intervals: float = 3.0
    throughput_share: float = 0.8
    spare_pods: float = 0.25
    spare_below: int = 6


LAW: Final = Law()
