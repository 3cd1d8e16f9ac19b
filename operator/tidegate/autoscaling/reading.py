"""What is read of one pod: the sidecar's counters and Triton's statistics."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol


class SidecarCounts(Protocol):
    """The part of `tidegate.measurement.Counts` that scaling reads."""

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
    """The part of `tidegate.measurement.Reading` that scaling reads; that type fits as it is."""

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
    raise NotImplementedError


def read_metrics(text: str, *, model: str) -> TritonStats:
    """The same from Triton's Prometheus page, as far as it goes.

    The page has no batch sizes: `TritonStats.batches` is filled only where every execution so far
    was of one item, and is empty otherwise.

    Raises:
        ValueError: a sample of the model's is no number, or there is none at all.
    """
    raise NotImplementedError


_UNUSED: Final = (math, re)
