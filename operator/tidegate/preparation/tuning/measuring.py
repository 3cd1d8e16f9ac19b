"""Measures settings of one candidate on a real Triton."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from tidegate.autoscaling.reading import Batch, TritonStats
from tidegate.cli.loading import IN_FLIGHT, Sent, Summary
from tidegate.golden import GoldenRequest
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.tuning.driving import Body, bursts, drive, enough, late, poisson
from tidegate.preparation.tuning.grid import Setting, Workers
from tidegate.preparation.tuning.learning import Learned, Spent, learn
from tidegate.preparation.tuning.repository import Backend, batches
from tidegate.preparation.tuning.search import Objective, Stretch
from tidegate.preparation.tuning.serving import Server, TritonError, serve

LOOK_S: Final = 0.1
"""Between two looks at Triton's statistics while a probe runs."""
WARM: Final = 30
"""Requests that each newly started server gets first."""
CROWDS: Final = 3
"""Times that as many requests are sent at once as may be unanswered."""
MOST_FAILED: Final = 0.5
"""Of a stretch: more is no slow server but a broken one."""


@dataclass
class Bench:
    """Serves one setting at a time, and measures it.

    Attributes:
        candidate: what is served.
        model: its name.
        backend: what runs it.
        triton: what starts Triton.
        objective: what late means.
        requests: that are sent, in turn; of one item each.
        seconds: of a stretch, if that is enough requests.
    """

    candidate: Candidate
    model: str
    backend: Backend
    triton: str
    objective: Objective
    requests: Sequence[GoldenRequest]
    seconds: float = 5.0
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)
    _serving: tuple[Setting, Server] | None = field(default=None, repr=False)

    def __enter__(self) -> "Bench":
        self._bodies = [Body.of(request) for request in self.requests]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def server(self, setting: Setting) -> Server:
        """A server with this setting, warm; the one before is stopped.

        Raises:
            TritonError: it does not start, or refuses the requests.
        """
        if self._serving is None or self._serving[0] != setting:
            self._stack.close()
            self._serving = None
            started = self._stack.enter_context(
                serve(self.candidate, self.model, setting, self.backend, self.triton)
            )
            # As many at once as it takes for all instances to run once.
            first = drive(started.address, self.model, self._bodies, bursts([WARM // 3] * 3, 0.01))
            if failed := [s.error for s in first if s.error]:
                raise TritonError(f"{len(failed)} of {len(first)} requests fail: {failed[0]}")
            self._serving = setting, started
        return self._serving[1]

    def measure(
        self, setting: Setting, rate_per_s: float, objective: Objective | None = None
    ) -> Stretch:
        """A stretch of Poisson arrivals at a rate.

        Args:
            setting: to serve with.
            rate_per_s: of the requests.
            objective: what late means; None: as the bench's says.

        Raises:
            TritonError: it does not serve, or most requests fail.
        """
        objective = objective or self.objective
        server = self.server(setting)
        count = enough(objective.quantile, rate_per_s, self.seconds)
        before = server.cpu_s()
        found = drive(server.address, self.model, self._bodies, poisson(rate_per_s, count))
        cpu_s = server.cpu_s() - before
        if server.process.poll() is not None:
            raise TritonError(f"Triton ended under load: {server.tail()[-500:]}")
        return _stretch(rate_per_s, found, cpu_s, objective)

    def probe(self, workers: Workers, largest: int) -> Learned:
        """Single requests, then bursts; see `tidegate.preparation.tuning.learning`.

        Raises:
            TritonError: as `measure`, or too little was seen.
        """
        largest = largest if batches(self.candidate) else 1
        server = self.server(Setting(largest, workers.instances, 0.0, workers.threads))
        looks: list[list[Batch]] = []
        with self._watched(server, looks):
            # Far enough apart that each finds an idle server, whatever it takes.
            single_ms = self._single_ms(server)
            gap_s = max(0.01, 3 * single_ms / 1000)
            count = max(20, min(200, round(self.seconds / 4 / gap_s)))
            singles, spent = self._spend(server, [n * gap_s for n in range(count)])
            alone = [1000 * s.took_s for s in singles if not s.error]
            # At most what runs one after the other would take: then the queue is empty again.
            together = bursts(_sizes(largest, workers.instances), single_ms / 1000)
            _, spent_together = self._spend(server, together)
        saturated_per_s = self._saturated_per_s(server)
        try:
            return learn(looks, largest, median(alone), spent, spent_together, saturated_per_s)
        except (ValueError, ArithmeticError) as error:
            raise TritonError(f"the probe taught nothing: {error}") from error

    def _single_ms(self, server: Server) -> float:
        found = drive(server.address, self.model, self._bodies, [0.05 * n for n in range(10)])
        took = [1000 * s.took_s for s in found if not s.error]
        if not took:
            raise TritonError(f"no request is answered: {found[0].error}")
        return median(took)

    def _saturated_per_s(self, server: Server) -> float:
        took_s = []
        for _ in range(CROWDS):
            found = drive(server.address, self.model, self._bodies, [0.0] * IN_FLIGHT)
            took_s.append(max(s.took_s for s in found))
        return IN_FLIGHT / median(took_s)

    def _spend(self, server: Server, due_s: Sequence[float]) -> tuple[list[Sent], Spent]:
        before, cpu_s = server.stats(), server.cpu_s()
        found = drive(server.address, self.model, self._bodies, due_s)
        cpu_s, after = server.cpu_s() - cpu_s, server.stats()
        executions = sum(b.count for b in _since(before, after))
        return found, Spent(sum(1 for s in found if not s.error), executions, cpu_s)

    @contextmanager
    def _watched(self, server: Server, looks: list[list[Batch]]) -> Iterator[None]:
        """Executions by size, look by look: their variation is told from small samples."""
        end = threading.Event()

        def watch() -> None:
            last = server.stats()
            while not end.wait(LOOK_S):
                now = server.stats()
                looks.append(_since(last, now))
                last = now
            looks.append(_since(last, server.stats()))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            end.set()
            watcher.join()


def _sizes(largest: int, instances: int) -> list[int]:
    """Of the bursts: so many that batches of every size are formed."""
    most = math.ceil(math.log2(max(1, largest))) if largest > 1 else 0
    steps = sorted({min(largest, 2**i) for i in range(most + 1)})
    return [size * instances + (1 if size > 1 else 0) for _ in range(6) for size in steps]


def _since(before: TritonStats, after: TritonStats) -> list[Batch]:
    known = {b.size: b for b in before.batches}
    found = []
    for batch in after.batches:
        old = known.get(batch.size, Batch(batch.size, 0, 0.0))
        if batch.count > old.count:
            found.append(
                Batch(batch.size, batch.count - old.count, max(0.0, batch.busy_ms - old.busy_ms))
            )
    return found


def _stretch(
    rate_per_s: float, found: Sequence[Sent], cpu_s: float, objective: Objective
) -> Stretch:
    summary = Summary.of(found)
    if summary.failed > MOST_FAILED * len(found):
        error = next(iter(summary.errors))
        # Not sent, or not in time: too much load. Anything else is no matter of load.
        if not error.startswith(("not sent", "no answer")):
            raise TritonError(f"{summary.failed} of {len(found)} requests fail: {error}")
    return Stretch(
        rate_per_s=rate_per_s,
        requests=len(found),
        late=late(found, objective.target_ms),
        p50_ms=summary.p50_ms,
        p99_ms=summary.p99_ms,
        cpu_s=cpu_s,
        client_late_p99_ms=summary.client_late_p99_ms,
    )
