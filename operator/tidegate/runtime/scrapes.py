"""The load of pods that do not answer, from Prometheus: raw counters, one question for a signal.

All ModelDeployments whose pods are silent share the questions: a platform's network policy seldom
closes one door only. Of each pod the newest scrape that every signal has is taken whole, at its own
time, so that both sources go through the same formulas (see `tidegate.runtime.prometheus`). Batch
sizes are not among Triton's metrics: the service time is learned this way only where nothing is
batched (`tidegate.autoscaling.reading.read_metrics`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from tidegate.autoscaling.reading import Look, read_metrics
from tidegate.runtime.cache import Key
from tidegate.runtime.load_source import LoadPod
from tidegate.runtime.pods import ReadError
from tidegate.runtime.prometheus import DEPLOYMENT, OF_A_SAMPLE, STALE_S, Prometheus, Target, quoted
from tidegate.sidecar_page import read_samples, sample_key

FRESH_S: Final = 5.0
"""Nothing is asked oftener."""
WANTED_S: Final = 60.0
"""Who asked in this time is asked for."""
AT_ONCE: Final = 100
"""ModelDeployments in one question: more, and the answer is too long to be read in one piece."""

_UPTIME: Final = "envoy_server_uptime"
_REQUESTS: Final = "envoy_cluster_upstream_rq"
SIDECAR_SIGNALS: Final = {
    "arrivals": f"{_UPTIME}|{_REQUESTS}_(total|active|active_overflow|pending_active"
    "|pending_failure_eject)",
    "answers": f"{_UPTIME}|{_REQUESTS}|envoy_cluster_grpc_.+_[0-9]+",
    "latency": f"{_UPTIME}|{_REQUESTS}_time_(bucket|count)",
}
"""Names of the counters that belong together; the uptime tells the time of the scrape."""
TRITON_SIGNAL: Final = (
    "nv_inference_(request_(success|failure)|count|exec_count|pending_request_count"
    "|compute_(input|infer|output)_duration_us)|nv_cache_num_hits_per_model"
)
_CLUSTERS: Final = "(client|pinned|mirrored|streaming)_(http|grpc)|"
_OF_A_TRITON_SAMPLE: Final = frozenset({"__name__", "model", "version", "reason", "gpu_uuid"})

_Pod = tuple[str, str]
"""Namespace and name."""
_Series = Mapping[str, Any]


@dataclass
class Scraped:
    """What Prometheus has of one pod.

    Attributes:
        at_s: when the sidecar was scraped; None: it was not, lately.
        samples: of the sidecar, as `read_samples` takes them.
        triton_at_s: when Triton was scraped; None: it was not, lately.
        triton: its samples, as a page.
    """

    at_s: float | None = None
    samples: Sequence[tuple[str, str, str]] = ()
    triton_at_s: float | None = None
    triton: str = ""


class Scrapes:
    """Asks Prometheus for whoever is silent.

    Args:
        prometheus: whom to ask.
        clock: monotonic, seconds.
        now: wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._prometheus = prometheus
        self._clock = clock
        self._now = now
        self._wanted: dict[Key, float] = {}
        self._asking: asyncio.Task[None] | None = None
        self._asked_at: float | None = None
        self._covers: frozenset[Key] = frozenset()
        self._found: dict[_Pod, Scraped] = {}
        self._problem = ""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="scrapes")

    async def looks(self, key: Key, pods: Sequence[LoadPod], model: str) -> list[Look]:
        """Of those pods of a ModelDeployment that were scraped lately.

        Raises:
            ReadError: Prometheus does not answer, or not in its format.
        """
        self._wanted[key] = self._clock()
        while not self._is_answered(key):
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="ask Prometheus for load")
            # One that leaves must not take the answer from the others.
            await asyncio.shield(self._asking)
        if self._problem:
            raise ReadError(self._problem)
        found = ((pod, self._found.get((key.namespace, pod.at.name))) for pod in pods)
        looks = [look_of(pod, scraped, model) for pod, scraped in found if scraped is not None]
        return [look for look in looks if look is not None]

    async def close(self) -> None:
        """Close open connections."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._prometheus.close()

    def _is_answered(self, key: Key) -> bool:
        fresh = self._asked_at is not None and self._clock() - self._asked_at < FRESH_S
        return fresh and key in self._covers

    async def _ask(self) -> None:
        began = self._clock()
        self._wanted = {k: at for k, at in self._wanted.items() if began - at < WANTED_S}
        keys = sorted(self._wanted)
        found: dict[_Pod, Scraped] = {}
        problem = ""
        try:
            for first in range(0, len(keys), AT_ONCE):
                some = keys[first : first + AT_ONCE]
                sidecars = {
                    signal: await self._prometheus.ask(query(names, some, _CLUSTERS))
                    for signal, names in SIDECAR_SIGNALS.items()
                }
                triton = await self._prometheus.ask(query(TRITON_SIGNAL, some))
                loop = asyncio.get_running_loop()
                found |= await loop.run_in_executor(
                    self._threads, scraped, list(sidecars.values()), triton, self._now()
                )
        except ReadError as error:
            problem = str(error)  # for all that wait; nobody asks again at once
        self._found, self._problem = found, problem
        self._covers, self._asked_at = frozenset(keys), began


def query(names: str, keys: Iterable[Key], clusters: str = "") -> str:
    """The question for counters of some ModelDeployments' pods.

    Args:
        names: of the metrics, a regular expression.
        keys: which; at least one.
        clusters: of Envoy, a regular expression; empty: all.
    """
    keys = list(keys)
    namespaces = "|".join(sorted({_escaped(key.namespace) for key in keys}))
    deployments = "|".join(sorted({_escaped(key.name) for key in keys}))
    matchers = [
        f'__name__=~"{names}"',
        *([f'envoy_cluster_name=~"{clusters}"'] if clusters else []),
    ]
    matchers += [f"namespace=~{quoted(namespaces)}", f"{DEPLOYMENT}=~{quoted(deployments)}"]
    return "{" + ",".join(matchers) + "}" + f"[{STALE_S}s]"


def _escaped(name: str) -> str:
    """A name of Kubernetes' in a regular expression: of its characters only the dot means more."""
    return name.replace(".", "[.]")


def scraped(
    sidecars: Sequence[Sequence[_Series]], triton: Sequence[_Series], now_s: float
) -> dict[_Pod, Scraped]:
    """What the answers say of each pod.

    Args:
        sidecars: the answer for each of `SIDECAR_SIGNALS`.
        triton: the answer for `TRITON_SIGNAL`.
        now_s: seconds since the epoch.

    Raises:
        ReadError: an answer is not in Prometheus' format.
    """
    try:
        found: dict[_Pod, Scraped] = {}
        signals = [_by_pod(answer, OF_A_SAMPLE) for answer in sidecars]
        for pod in set[_Pod]().union(*signals):
            targets = [signal.get(pod, {}) for signal in signals]
            common = set(targets[0]).intersection(*targets[1:])
            times = {t: min(_scraped_at(of[t]) for of in targets) for t in common}
            newest = max(times, key=lambda t: (times[t], t), default=None)
            if newest is None or not now_s - times[newest] <= STALE_S:
                continue
            at_s = times[newest]
            # By name: each signal has the uptime.
            samples = {
                sample_key(labels["__name__"], labels): str(value)
                for of in targets
                for labels, values in of[newest]
                for when, value in values
                if float(when) == at_s
            }
            found[pod] = Scraped(at_s, [(key, " ", value) for key, value in samples.items()])
        for pod, of in _by_pod(triton, _OF_A_TRITON_SAMPLE).items():
            ends = {t: max(float(v[-1][0]) for _, v in some) for t, some in of.items()}
            newest = max(ends, key=lambda t: (ends[t], t))
            if not now_s - ends[newest] <= STALE_S:
                continue
            this = found.setdefault(pod, Scraped())
            this.triton_at_s = ends[newest]
            this.triton = "\n".join(
                _line(labels, value)
                for labels, values in of[newest]
                for when, value in values[-1:]
                if float(when) == this.triton_at_s
            )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(f"an answer that is not Prometheus': {error!r}") from error
    return found


def look_of(pod: LoadPod, found: Scraped, model: str) -> Look | None:
    """A look at a pod by its scrape; None: there is nothing in it.

    Args:
        pod: which.
        found: what Prometheus has of it.
        model: whose statistics count; empty: no model's.

    Raises:
        ReadError: the samples are not those of a pod.
    """
    reading = triton = None
    try:
        if found.at_s is not None:
            at = pod.at
            reading = read_samples(
                found.samples, pod=at.uid, revision=at.revision, at_s=found.at_s, name=at.name
            )
    except ValueError as error:
        raise ReadError(f"{pod.at.name}: {error}") from error
    if model and found.triton_at_s is not None:
        try:
            triton = read_metrics(found.triton, model=model)
        except ValueError:
            triton = None  # it still loads the model
    if reading is None and triton is None:
        return None
    at_s = found.triton_at_s if triton is not None else found.at_s
    assert at_s is not None
    return Look(pod.at.uid, at_s, reading, triton)


def _by_pod(
    answer: Sequence[_Series], of_a_sample: frozenset[str]
) -> dict[_Pod, dict[Target, list[tuple[Mapping[str, str], Sequence[Any]]]]]:
    """Series by pod and by who scraped it: the same pod may be scraped by two replicas."""
    found: dict[_Pod, dict[Target, list[tuple[Mapping[str, str], Sequence[Any]]]]] = {}
    for series in answer:
        labels = series["metric"]
        target = tuple(sorted((k, v) for k, v in labels.items() if k not in of_a_sample))
        pod = (labels.get("namespace", ""), labels.get("pod", ""))
        found.setdefault(pod, {}).setdefault(target, []).append((labels, series["values"]))
    return found


def _scraped_at(series: Iterable[tuple[Mapping[str, str], Sequence[Any]]]) -> float:
    """When a sidecar was last scraped; minus infinity where that is not told."""
    for labels, values in series:
        if labels["__name__"] == _UPTIME:
            return float(values[-1][0])
    return float("-inf")


def _line(labels: Mapping[str, str], value: Any) -> str:
    inner = ",".join(
        f'{name}="{labels[name]}"' for name in ("model", "reason", "version") if name in labels
    )
    return f"{labels['__name__']}{{{inner}}} {value}"
