"""A short load test in an open loop: requests leave when they are due, whatever became of others.

Latency counts from when a request was due, not from when it left: a server that stalls for a second
makes all of that second's requests late, and all are seen (no coordinated omission). A request that
cannot leave since too many are unanswered is counted as failed.
"""

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

MAX_SECONDS: Final = 600.0
IN_FLIGHT: Final = 128


@dataclass(frozen=True, slots=True)
class Sent:
    """One request and what became of it.

    Attributes:
        took_s: from when it was due until its answer was there.
        late_s: how much later than due it left: this client's own doing.
        error: why it failed; '' if it did not.
        wrong: its answer came and was not the expected one.
    """

    took_s: float
    late_s: float
    error: str = ""
    wrong: bool = False


Asker = Callable[[int], tuple[str, bool]]
"""Sends the request of that number: why it failed, or ''; and whether its answer was wrong. Never
raises."""


def run(
    askers: Callable[[], Asker],
    *,
    rate_per_s: float,
    seconds: float,
    due_s: Sequence[float] = (),
    in_flight: int = IN_FLIGHT,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Sent]:
    """Send ``rate x seconds`` requests, evenly spaced; each is in the result once.

    Args:
        askers: makes what a thread sends its requests with.
        rate_per_s: requests a second.
        seconds: how long.
        due_s: instead of these two: when each is due, in seconds from now, ascending.
        in_flight: unanswered at a time, at most.
        clock: seconds.
        sleep: waits seconds.
    """
    found: list[Sent] = []
    due: queue.SimpleQueue[tuple[int, float] | None] = queue.SimpleQueue()
    free = threading.Semaphore(in_flight)
    lock = threading.Lock()

    def work() -> None:
        send = askers()
        while (item := due.get()) is not None:
            number, at = item
            left = clock()
            error, wrong = send(number)
            sent = Sent(clock() - at, left - at, error, wrong)
            with lock:
                found.append(sent)
            free.release()

    threads: list[threading.Thread] = []
    began = clock()
    times = due_s or [number / rate_per_s for number in range(round(rate_per_s * seconds))]
    for number, due_at in enumerate(times):
        at = began + due_at
        if (pause_s := at - clock()) > 0:
            sleep(pause_s)
        if not free.acquire(blocking=False):
            with lock:
                found.append(Sent(0.0, 0.0, f"not sent: {in_flight} unanswered"))
            continue
        with lock:
            idle = len(threads) - (number - len(found))
        if idle <= 0 and len(threads) < in_flight:
            threads.append(threading.Thread(target=work, daemon=True))
            threads[-1].start()
        due.put((number, at))
    for _ in threads:
        due.put(None)
    for thread in threads:
        thread.join()
    return found


@dataclass(frozen=True)
class Summary:
    """What a load came to. Latencies in milliseconds, of the answered requests; None of none."""

    requests: int
    failed: int
    wrong: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    client_late_p99_ms: float
    errors: dict[str, int]

    @classmethod
    def of(cls, found: Iterable[Sent]) -> "Summary":
        """Sum up."""
        sent = list(found)
        took = sorted(1000 * s.took_s for s in sent if not s.error)
        late = sorted(1000 * s.late_s for s in sent)
        errors = Counter(s.error for s in sent if s.error)
        return cls(
            requests=len(sent),
            failed=errors.total(),
            wrong=sum(s.wrong for s in sent),
            p50_ms=quantile(took, 0.5),
            p90_ms=quantile(took, 0.9),
            p99_ms=quantile(took, 0.99),
            max_ms=took[-1] if took else None,
            client_late_p99_ms=quantile(late, 0.99) or 0.0,
            errors=dict(errors.most_common(10)),
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def lines(self, rate_per_s: float, seconds: float) -> list[str]:
        """For people."""
        share = f" ({self.failed / self.requests:.2%})" if self.failed else ""
        said = [
            f"{self.requests:,} requests, {rate_per_s:g} a second for {seconds:g} s",
            f"p50 {_ms(self.p50_ms)}  p90 {_ms(self.p90_ms)}  p99 {_ms(self.p99_ms)}  "
            f"max {_ms(self.max_ms)}  (from when each was due)",
            f"errors {self.failed:,}{share}  wrong answers {self.wrong:,}",
        ]
        said += [f"  {count:,} x {error}" for error, count in self.errors.items()]
        if self.client_late_p99_ms > 10:
            said.append(
                f"note: this machine sent late, p99 {_ms(self.client_late_p99_ms)}: "
                "part of the latency is its own; try a lower --rate"
            )
        return said


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The least value that at least `share` of all do not exceed; None of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms" if value < 1000 else f"{value:,.0f} ms"
