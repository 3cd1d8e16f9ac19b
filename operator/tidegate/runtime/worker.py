"""Takes keys from the queue, has each reconciled, and tells the queue what follows."""

import time
from collections.abc import Callable
from typing import Final

import structlog

from tidegate.runtime.cache import Key
from tidegate.runtime.fence import FencedError
from tidegate.runtime.kube import KubeError
from tidegate.runtime.outcome import ReconcileError
from tidegate.runtime.queue import KeyedQueue
from tidegate.runtime.reconciler import Reconciler
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracing import OFF, Tracer

log: Final = structlog.get_logger(__name__)


class Worker:
    """Works on one key at a time; as many keys at once as there are calls of `work`.

    Args:
        queue: where keys come from.
        reconciler: makes one pass.
        metrics: counts.
        clock: monotonic, seconds.
        tracer: is told of each pass.
    """

    def __init__(
        self,
        queue: KeyedQueue[Key],
        reconciler: Reconciler,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        tracer: Tracer = OFF,
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics
        self._clock = clock
        self._tracer = tracer
        kinds: list[type[KubeError]] = [KubeError, *KubeError.__subclasses__()]
        for error in kinds:
            metrics.failures.labels(error.__name__)

    async def work(self) -> None:
        """Take keys from the queue for ever. Nothing that one key does ends the worker."""
        while True:
            key = await self._queue.get()
            with self._tracer.reconcile(key) as span:
                span.note("result", await self._pass(key))

    async def _pass(self, key: Key) -> str:
        """One pass, and what follows for the queue. Returns its result."""
        began = self._clock()
        result = "failed"
        try:
            again_after_s, wrote = await self._reconciler.reconcile(key)
        except FencedError as error:
            log.info("not written", modeldeployment=str(key), reason=str(error))
            self._queue.failed(key)
        except ReconcileError as error:
            self._failed(key, error.errors[0], error.retry_after_s)
        except KubeError as error:
            self._failed(key, error, error.retry_after_s)
        except Exception as error:
            # A defect in planning one object must not stop the others.
            self._metrics.failures.labels(type(error).__name__).inc()
            delay = self._queue.failed(key)
            log.error(
                "reconcile failed",
                modeldeployment=str(key),
                again_in_s=round(delay, 1),
                exc_info=error,
            )
        else:
            result = "changed" if wrote else "idle"
            self._queue.succeeded(key, again_after_s)
        self._metrics.reconcile_seconds.labels(result).observe(self._clock() - began)
        return result

    def _failed(self, key: Key, error: KubeError, retry_after_s: float) -> None:
        self._metrics.failures.labels(type(error).__name__).inc()
        delay = self._queue.failed(key, retry_after_s)
        log.warning(
            "reconcile failed",
            modeldeployment=str(key),
            error=type(error).__name__,
            problem=str(error),
            times=self._queue.schedule.failures(key),
            again_in_s=round(delay, 1),
        )
