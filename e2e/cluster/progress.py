"""Progress lines of long work: what is being done, since when, how long it took."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

HEARTBEAT_SECONDS = 15.0
"""A step that is still running says so at this interval, or an observer takes it for hung."""


@dataclass
class Progress:
    """Writes one line when a step starts to take long and one when it ends.

    Lines of concurrent steps do not mix. `clock` gives seconds and is replaced in tests.
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    durations: dict[str, float] = field(default_factory=dict)
    """Seconds of each finished step, by its title."""

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._lock = threading.Lock()

    def elapsed(self) -> float:
        """Seconds since this object was made."""
        return self.clock() - self._started

    def say(self, text: str) -> None:
        """Write one line with the time since the start."""
        with self._lock:
            print(f"[{self.elapsed():6.1f}s] {text}", file=self.stream, flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time the body; say what runs at each heartbeat, and at the end how long it took."""
        begun = self.clock()
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(self.heartbeat_seconds):
                self.say(f"... {title} ({self.clock() - begun:.0f} s so far)")

        heart = threading.Thread(target=beat, daemon=True)
        heart.start()
        try:
            yield
        except BaseException:
            self.say(f"FAILED {title} after {self.clock() - begun:.1f} s")
            raise
        else:
            took = self.clock() - begun
            self.durations[title] = took
            self.say(f"{title} ({took:.1f} s)")
        finally:
            ended.set()
            heart.join()
