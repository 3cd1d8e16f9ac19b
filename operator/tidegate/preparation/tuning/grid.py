"""What can be set about a served model, and the grid of settings that is searched. Pure."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.autoscaling.server import ServerModel


@dataclass(frozen=True, order=True)
class Setting:
    """One configuration.

    Attributes:
        batch: most items in a batch; 1: no batching.
        instances: of the model.
        delay_ms: how long the oldest request waits for a fuller batch.
        threads: that one execution computes with.
    """

    batch: int
    instances: int
    delay_ms: float
    threads: int

    def __str__(self) -> str:
        """For people."""
        waits = f", waits {self.delay_ms:g} ms" if self.delay_ms else ""
        return (
            f"batch {self.batch}{waits}, {_many(self.instances, 'instance')}, "
            f"{_many(self.threads, 'thread')}"
        )

    @property
    def workers(self) -> "Workers":
        """Who computes; what a probe is made for."""
        return Workers(self.instances, self.threads)

    def server(self, quantile: float, target_ms: float) -> ServerModel:
        """As the capacity model knows it."""
        return ServerModel(
            instances=self.instances,
            max_batch=self.batch,
            queue_delay_ms=self.delay_ms,
            quantile=quantile,
            target_ms=target_ms,
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, order=True)
class Workers:
    """Instances, and threads of each."""

    instances: int
    threads: int


@dataclass(frozen=True)
class Grid:
    """All combinations of these values.

    Attributes:
        batches: of `Setting.batch`.
        instances: of `Setting.instances`.
        delays_ms: of `Setting.delay_ms`.
        threads: of `Setting.threads`.
    """

    batches: tuple[int, ...] = (1, 4, 16)
    instances: tuple[int, ...] = (1, 2)
    delays_ms: tuple[float, ...] = (0.0, 1.0, 5.0)
    threads: tuple[int, ...] = (1, 2)

    @classmethod
    def of(cls, *, cores: int, target_ms: float, batches: bool, quick: bool = False) -> "Grid":
        """What is worth trying on so many cores.

        Args:
            cores: of the machine that serves.
            target_ms: of the objective; no request waits longer than a quarter of it for others.
            batches: whether the model takes batches.
            quick: fewer values.
        """
        powers = tuple(2**i for i in range(cores.bit_length()) if 2**i <= cores)
        delays = tuple(d for d in (0.0, 1.0, 5.0) if d <= target_ms / 4)
        if quick:
            return cls((1, 8) if batches else (1,), powers[-1:], (0.0,), (1,))
        sizes = (1, 2, 4, 8, 16, 32) if batches else (1,)
        return cls(sizes, powers, delays, powers)

    def settings(self) -> tuple[Setting, ...]:
        """Each once; nothing waits for a batch of 1."""
        return tuple(sorted(set(self._all())))

    def _all(self) -> Iterator[Setting]:
        for batch in self.batches:
            for instances in self.instances:
                for threads in self.threads:
                    for delay_ms in self.delays_ms if batch > 1 else (0.0,):
                        yield Setting(batch, instances, delay_ms, threads)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
