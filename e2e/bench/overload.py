"""A pod at twice its capacity: what those who are served see, and how many are served.

``python -m e2e.bench.overload`` starts a real Triton with a model that sleeps, so that one pod
holds a known number of requests a second, behind Envoy with the configuration that pods get; plain
processes, no cluster. Requests come evenly spaced, whatever becomes of those before them. Each way
of refusing has a pod of its own:

- none: every request waits its turn;
- ``traffic.overload.maxPending``, by the rule of docs/guide/overload.md;
- Triton's own bounded queue, ``maxQueueSize`` (and no limit at the sidecar);
- Triton's ``queueTimeout``;
- Envoy's adaptive concurrency, as in its documentation's example.

And each for two shapes of service time, and at 90 % of the capacity, where nobody should be
refused. A request counts as served if its answer is right and came within the target; the most that
can be is known, since the model's time is.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from e2e.bench.report import Report, parser, quantile
from e2e.load import HttpTarget, Request, open_loop
from e2e.models.sleeper.build import MODEL, Times, build
from e2e.native.processes import pod

CASES: Final[tuple[tuple[str, Times, float], ...]] = (
    ("40 + 5 n ms, twice the capacity", Times(40, 5), 2.0),
    ("76 + 0.5 n ms, twice the capacity", Times(76, 0.5), 2.0),
    ("40 + 5 n ms, 90 % of the capacity", Times(40, 5), 0.9),
)
"""What is served, and how many times its capacity comes. All of them hold 100 a second."""
TIMES: Final = CASES[0][1]
TARGET_MS: Final = 300
SETTLE_S: Final = 4.0
"""At the beginning of a run, not counted: queues fill, controllers find their limit."""
IN_FLIGHT: Final = 20_000
SLACK: Final = 0.9
"""Of the target: the rest is for the way to the model and back."""
TIMEOUT_S: Final = 120.0
MIN_RTT_S: Final = 12
"""Between two of Envoy's measurements of the latency without load; 60 s in its example, too long to
be seen here."""


def limit(times: Times, target_ms: float) -> int:
    """``maxPending`` by the guide's rule: as many full batches as the target has time for.

    A request that is let in finds at most so many others, so it waits for at most as many batches,
    its own included.
    """
    return int(SLACK * target_ms // times.full_ms) * times.batch * times.instances


@dataclass(frozen=True)
class Way:
    """One way of refusing: Triton's batching, the sidecar's arguments, a change of its file."""

    name: str
    batching: str = ""
    sidecar: dict[str, Any] = field(default_factory=dict)
    change: Callable[[dict[str, Any]], None] = lambda config: None


def adaptive(config: dict[str, Any]) -> None:
    """Envoy's adaptive concurrency filter, in front of all others of the serving listener."""
    [listener] = [x for x in config["static_resources"]["listeners"] if x["name"] == "serving"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    extension = "type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3"
    manager["http_filters"].insert(
        0,
        {
            "name": "envoy.filters.http.adaptive_concurrency",
            "typed_config": {
                "@type": f"{extension}.AdaptiveConcurrency",
                "gradient_controller_config": {
                    "sample_aggregate_percentile": {"value": 90},
                    "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                    "min_rtt_calc_params": {
                        "jitter": {"value": 10},
                        "interval": f"{MIN_RTT_S}s",
                        "request_count": 50,
                    },
                },
                "enabled": {"default_value": True, "runtime_key": "adaptive.enabled"},
            },
        },
    )


def ways(times: Times = TIMES, target_ms: float = TARGET_MS) -> tuple[Way, ...]:
    """All of them, the one without refusals first."""
    most = limit(times, target_ms)
    waiting = most - times.batch * times.instances
    return (
        Way("no refusals"),
        Way(f"maxPending {most}", sidecar={"max_pending": most}),
        Way(
            f"Triton's maxQueueSize {waiting}",
            f"default_queue_policy {{ max_queue_size: {waiting} }}",
        ),
        Way(
            "Triton's queueTimeout",
            "default_queue_policy { default_timeout_microseconds: "
            f"{int(target_ms - times.full_ms) * 1000} }}",
        ),
        Way("adaptive concurrency", change=adaptive),
    )


@dataclass(frozen=True)
class Seen:
    """What became of the requests that were due after `SETTLE_S`.

    Attributes:
        sent: a second.
        served: a second, well and within the target.
        took_ms: of each that was answered well, from when it was due.
        refused_ms: of each that was refused.
        by_status: how many of each.
    """

    sent: float
    served: float
    took_ms: tuple[float, ...]
    refused_ms: tuple[float, ...]
    by_status: dict[str, int]

    @classmethod
    def of(cls, requests: Sequence[Request], seconds: float, target_ms: float) -> "Seen":
        """Sum up a run of so many seconds."""
        counted = [r for r in requests if r.due_s >= SETTLE_S]
        well = [r for r in counted if not r.error]
        # Answers, not requests, of the window: what is still waiting when it ends was not served.
        ended = [r for r in requests if not r.error and SETTLE_S <= r.end_s <= seconds]
        window_s = seconds - SETTLE_S
        return cls(
            sent=len(counted) / window_s,
            served=sum(r.took_s * 1000 <= target_ms for r in ended) / window_s,
            took_ms=tuple(r.took_s * 1000 for r in well),
            refused_ms=tuple(r.took_s * 1000 for r in counted if r.status == "503"),
            by_status=dict(Counter(r.status or r.error[:60] for r in counted)),
        )


def run(way: Way, rate_hz: float, seconds: float, times: Times = TIMES) -> tuple[Seen, float]:
    """One pod under a constant load; also its answers a second, late ones included."""
    with tempfile.TemporaryDirectory(prefix="tidegate-overload-") as folder:
        repository = build(Path(folder) / "models", times, way.batching)
        with pod(repository, change=way.change, **way.sidecar) as running:

            async def drive() -> list[Request]:
                address = f"127.0.0.1:{running.ports.serving}"
                async with HttpTarget(address, MODEL, b"x", "slept", timeout_s=TIMEOUT_S) as target:
                    return await open_loop(
                        target.ask, rate_hz=rate_hz, seconds=seconds, in_flight=IN_FLIGHT
                    )

            requests = asyncio.run(drive())
    ended = [r for r in requests if not r.error and SETTLE_S <= r.end_s <= seconds]
    return Seen.of(requests, seconds, TARGET_MS), len(ended) / (seconds - SETTLE_S)


def main() -> int:
    """The command line."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=30.0, help="of each run")
    given = options.parse_args()
    report = Report("overload", f"ways to refuse what a pod cannot serve within {TARGET_MS} ms")
    report.await_quiet(given.patience)
    for title, times, load in CASES:
        best = min(load, 1.0) * times.per_s
        for way in ways(times):
            seen, answers = run(way, load * times.per_s, given.seconds, times)
            print(f"{title}, {way.name}: {seen.by_status}", file=sys.stderr)
            about = f"{title}: {way.name}"
            served = 100 * seen.served / best
            report.add(f"{about}: served in time", "%", [served], aim="at least 90")
            for q in (0.5, 0.99):
                aim = f"at most {TARGET_MS}" if q > 0.5 else ""
                report.add(f"{about}: p{q * 100:.0f}", "ms", [quantile(seen.took_ms, q)], aim=aim)
            if seen.refused_ms:
                refused = [quantile(seen.refused_ms, 0.99)]
                report.add(f"{about}: p99 of refusals", "ms", refused)
            report.facts[about] = seen.by_status | {"answers a second": round(answers, 1)}
    report.notes.append("served in time: share of what came, and of what one pod can answer")
    report.finish(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
