"""Logs and metrics of the operator itself.

A decision is one line: what was done to which object, for which ModelDeployment, and why.
"""

import logging
import sys
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from tidegate.runtime.fleet import Fleet

ROLLOUT_BUCKETS_S: Final = (
    *(10, 30, 60, 120, 300, 600, 1200, 1800, 3600),
    *(7200, 14400, 28800, 57600, 86400, 259200),
)
ROLLBACK_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

LogProcessor = Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]
"""Adds to a line of the log: takes the logger, the level and the line."""

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def set_up_logging(level: str, format_: str, more: Iterable[LogProcessor] = ()) -> None:
    """Send our own lines and those of the libraries to stdout, one document a line.

    Args:
        level: debug, info, warning or error; libraries are at least one step quieter.
        format_: json, or console for reading.
        more: add to each line.
    """
    shared: list[Any] = [
        *more,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=False)
        if format_ == "console"
        else structlog.processors.JSONRenderer(sort_keys=False, default=str)
    )
    if format_ == "console":
        shared.remove(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, _LEVELS[level]))
    for name in ("asyncio", "aiohttp"):
        logging.getLogger(name).setLevel(max(logging.WARNING, _LEVELS[level]))
    # kopf tells each failing request of each kind with a stack; `watching` says it in one line.
    quiet = logging.DEBUG if level == "debug" else logging.CRITICAL
    logging.getLogger("kopf").setLevel(quiet)


class Metrics:
    """The operator's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        # A second series for each, which nobody asked for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        # Sets the gauges that show a state, right before they are read.
        self.refresh: Callable[[], None] = lambda: None
        self.registry = CollectorRegistry()
        self.fleet = Fleet()
        self.registry.register(self.fleet)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        r = self.registry
        self.requests = Counter(
            "tidegate_api_requests_total",
            "Requests to the API server by verb, kind and status.",
            ["verb", "kind", "code"],
            registry=r,
        )
        self.writes = Counter(
            "tidegate_api_writes_total",
            "Requests to the API server that may change something, by verb and kind.",
            ["verb", "kind"],
            registry=r,
        )
        self.request_seconds = Histogram(
            "tidegate_api_request_seconds",
            "Time until the API server answered.",
            ["verb"],
            buckets=LATENCY_BUCKETS_S,
            registry=r,
        )
        self.reconcile_seconds = Histogram(
            "tidegate_reconcile_seconds",
            "Time of one reconcile by result (idle, changed, failed).",
            ["result"],
            buckets=LATENCY_BUCKETS_S,
            registry=r,
        )
        self.queue_waiting = Gauge(
            "tidegate_queue_depth", "Keys that are due and wait for a worker.", registry=r
        )
        self.queue_working = Gauge(
            "tidegate_queue_working", "Keys in the hands of workers.", registry=r
        )
        self.failures = Counter(
            "tidegate_reconcile_failures_total",
            "Reconciles that failed, by kind of error.",
            ["error"],
            registry=r,
        )
        self.leader = Gauge("tidegate_leader", "1 while this process holds the Lease.", registry=r)
        self.watch_age = Gauge(
            "tidegate_watch_age_seconds",
            "Seconds for which the watch of a kind has been behind; 0 while it keeps up.",
            ["kind"],
            registry=r,
        )
        self.watch_restarts = Counter(
            "tidegate_watch_restarts_total",
            "Times that the watch of a kind ended and was started again.",
            ["kind"],
            registry=r,
        )
        self.ghosts = Counter(
            "tidegate_cache_ghosts_total",
            "Objects dropped since they existed only in the cache.",
            ["kind"],
            registry=r,
        )
        self.repairs = Counter(
            "tidegate_cache_repairs_total",
            "Objects read since their watch did not bring them.",
            ["kind"],
            registry=r,
        )
        self.objects = Gauge(
            "tidegate_cache_objects", "Objects in the cache by kind.", ["kind"], registry=r
        )
        self.drift = Counter(
            "tidegate_drift_put_back_total",
            "Children that were put back after somebody else changed them.",
            ["kind"],
            registry=r,
        )
        self.decisions = Counter(
            "tidegate_decisions_total",
            "Decisions that came into force; with a reason where it is a rollback.",
            ["decision", "reason"],
            registry=r,
        )
        self.verbs = Counter(
            "tidegate_verbs_total",
            "Requests of people (abort, promote ...) by result (granted, refused, unknown).",
            ["verb", "result"],
            registry=r,
        )
        self.rollout_seconds = Histogram(
            "tidegate_rollout_seconds",
            "Time of a rollout by outcome (promoted, rolled_back, superseded; first: none before).",
            ["outcome"],
            buckets=ROLLOUT_BUCKETS_S,
            registry=r,
        )
        self.rollback_seconds = Histogram(
            "tidegate_rollback_seconds",
            "Time from a canary's first failed or slow answer to the write of weight zero.",
            buckets=ROLLBACK_BUCKETS_S,
            registry=r,
        )
        self.sidecar_reads = Counter(
            "tidegate_sidecar_reads_total",
            "Looks at the counters of a pod by result (read, failed).",
            ["result"],
            registry=r,
        )
        self.cloud_events = Counter(
            "tidegate_cloudevents_total",
            "Audit records for the configured sink by result (sent, failed, dropped).",
            ["result"],
            registry=r,
        )
        self.trace_spans = Counter(
            "tidegate_trace_spans_total",
            "Spans for the configured collector by result (sent, failed, dropped).",
            ["result"],
            registry=r,
        )
        self.loop_lag = Gauge(
            "tidegate_event_loop_lag_seconds",
            "How late the event loop's last tick came.",
            registry=r,
        )

        for result in ("read", "failed"):
            self.sidecar_reads.labels(result)
        for result in ("sent", "failed", "dropped"):
            self.cloud_events.labels(result)
            self.trace_spans.labels(result)
        for result in ("idle", "changed", "failed"):
            self.reconcile_seconds.labels(result)

    def begin_at_zero(self, kind: str) -> None:
        """Make the series of a kind: Prometheus sees no increase in a series' first value."""
        for counter in (self.watch_restarts, self.ghosts, self.repairs, self.drift):
            counter.labels(kind)

    def request(self, verb: str, kind: str, code: str, seconds: float, *, write: bool) -> None:
        """One request was answered, or not."""
        self.requests.labels(verb, kind, code).inc()
        self.request_seconds.labels(verb).observe(seconds)
        if write:
            self.writes.labels(verb, kind).inc()

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        self.refresh()
        return self.render()

    def render(self) -> bytes:
        """The same as of the last `refresh`; touches nothing of the event loop's."""
        return generate_latest(self.registry)
