"""What is read of one pod: the sidecar's counters and Triton's statistics."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol


class SidecarCounts(Protocol):
    """The part of `tidegate.sidecar_page.Counts` that scaling reads."""

    @property
    def started(self) -> int: ...  # noqa: D102
    @property
    def succeeded(self) -> int: ...  # noqa: D102
    @property
    def client_errors(self) -> int: ...  # noqa: D102
    @property
    def failed(self) -> int: ...  # noqa: D102
    @property
    def in_flight(self) -> int: ...  # noqa: D102
    @property
    def timed(self) -> int: ...  # noqa: D102
    @property
    def faster(self) -> tuple[int, ...]: ...  # noqa: D102


class SidecarReading(Protocol):
    """The part of `tidegate.sidecar_page.Reading` that scaling reads; that type fits as it is."""

    @property
    def at_s(self) -> float: ...  # noqa: D102
    @property
    def edges_ms(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def classes(self) -> Mapping[Any, SidecarCounts]: ...  # noqa: D102
    @property
    def uptime_s(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True)
class Batch:
    """Executions of one batch size, cumulative.

    Attributes:
        size: items in each.
        count: executions.
        busy_ms: their compute time in all: input + infer + output.
    """

    size: int
    count: int
    busy_ms: float


@dataclass(frozen=True)
class TritonStats:
    """What one pod's Triton says of its model, cumulative since it started.

    Attributes:
        batches: by size, ascending; empty: this source does not know the sizes.
        succeeded: requests answered, from the response cache included.
        failed: requests that Triton counts as failed (it misses most, see the sidecar's).
        cached: of the succeeded, answered from the response cache: they ran no batch.
        items: inferences: a request of 4 items counts 4; cached ones not included.
        pending: requests that wait in the queue (a gauge); None: not known.
    """

    batches: tuple[Batch, ...] = ()
    succeeded: int = 0
    failed: int = 0
    cached: int = 0
    items: int = 0
    pending: int | None = None


@dataclass(frozen=True)
class Look:
    """One look at one pod.

    Attributes:
        pod: its UID.
        at_s: when Triton was read, seconds since the epoch (the sidecar's reading has its own).
        reading: of the sidecar; None: not read, or there is none.
        triton: None: not read.
    """

    pod: str
    at_s: float
    reading: SidecarReading | None = None
    triton: TritonStats | None = None


_BATCH_PARTS: Final = ("compute_input", "compute_infer", "compute_output")


def read_stats(
    document: Mapping[str, Any], *, model: str | None = None, pending: int | None = None
) -> TritonStats:
    """What ``GET /v2/models/M/stats`` says; all versions of the model together.

    Args:
        document: the JSON.
        model: only the statistics of this one; None: all that is there.
        pending: from `read_metrics` (the JSON does not say).

    Raises:
        ValueError: this is no such document.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("model_stats"), list):
        raise ValueError("no model_stats: this is not Triton's answer to /v2/models/M/stats")
    sizes: dict[int, tuple[int, float]] = {}
    succeeded = failed = cached = items = 0
    for each in document["model_stats"]:
        if not isinstance(each, Mapping):
            raise ValueError("model_stats holds something that is no object")
        if model is not None and each.get("name") != model:
            continue
        stats = _object(each, "inference_stats")
        succeeded += _whole(_object(stats, "success"), "count")
        failed += _whole(_object(stats, "fail"), "count")
        cached += _whole(_object(stats, "cache_hit"), "count")
        items += _whole(each, "inference_count")
        batches = each.get("batch_stats") or []
        if not isinstance(batches, list):
            raise ValueError("batch_stats is no list")
        for batch in batches:
            if not isinstance(batch, Mapping):
                raise ValueError("batch_stats holds something that is no object")
            size = _whole(batch, "batch_size")
            if size < 1:
                raise ValueError(f"batch_size is {size}: a batch holds at least one item")
            count = _whole(_object(batch, "compute_infer"), "count")
            busy_ns = sum(_whole(_object(batch, part), "ns") for part in _BATCH_PARTS)
            before, busy_ms = sizes.get(size, (0, 0.0))
            sizes[size] = (before + count, busy_ms + busy_ns / 1e6)
    return TritonStats(
        batches=tuple(Batch(size, *sizes[size]) for size in sorted(sizes)),
        succeeded=succeeded,
        failed=failed,
        cached=cached,
        items=items,
        pending=pending,
    )


def _object(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {str(value)[:40]!r}: an object was expected")
    return value


def _whole(parent: Mapping[str, Any], name: str) -> int:
    """A counter; 0 where it is absent (Triton leaves out what never happened)."""
    value = parent.get(name, 0)
    # 64-bit numbers are text where the JSON was made from a protobuf message.
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is {str(value)[:40]!r}: a count was expected")
    return value


_SAMPLE: Final = re.compile(r"^(nv_(?:inference|cache)_[a-z_]+)\{([^}]*)\}\s+(\S+)")
_MODEL: Final = re.compile(r'(?:^|,)\s*model="([^"]*)"')
_BUSY: Final = tuple(f"nv_inference_{part}_duration_us" for part in _BATCH_PARTS)


def read_metrics(text: str, *, model: str) -> TritonStats:
    """The same from Triton's Prometheus page, as far as it goes.

    The page has no batch sizes, and a request's compute time there is that of the whole batch:
    `TritonStats.batches` is filled only where every execution so far was of one item.

    Raises:
        ValueError: a sample of the model's is no number, or there is none at all.
    """
    totals: dict[str, float] = {}
    for line in text.split("\n"):
        match = _SAMPLE.match(line)
        if match is None:
            continue
        name, labels, value = match.groups()
        of = _MODEL.search(labels)
        if of is None or of.group(1) != model:
            continue
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0.0 <= number < math.inf:
            raise ValueError(f"{name} is {value[:40]!r}: a count was expected")
        # One sample for each version, device and reason.
        totals[name] = totals.get(name, 0.0) + number
    if "nv_inference_request_success" not in totals:
        raise ValueError(f"no nv_inference_request_success of model {model!r} on the page")

    def count(name: str) -> int:
        return int(totals.get(f"nv_inference_{name}", 0.0))

    batches: tuple[Batch, ...] = ()
    executions = count("exec_count")
    if executions and executions == count("count"):
        batches = (Batch(1, executions, sum(totals.get(name, 0.0) for name in _BUSY) / 1000),)
    pending = totals.get("nv_inference_pending_request_count")
    return TritonStats(
        batches=batches,
        succeeded=count("request_success"),
        failed=count("request_failure"),
        cached=int(totals.get("nv_cache_num_hits_per_model", 0.0)),
        items=count("count"),
        pending=None if pending is None else int(pending),
    )
