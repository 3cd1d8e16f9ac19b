"""What the fetch container tells while it works: one JSON line a message on standard error."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

INTERVAL_S = 5.0


def log(level: str, message: str, **fields: object) -> None:
    """Write one line."""
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in fields.items()}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = {"time": now, "level": level, "message": message, **rounded}
    print(json.dumps(record, default=str), file=sys.stderr, flush=True)


@dataclass
class Progress:
    """Bytes and files done, of how many.

    Attributes:
        total_bytes: None while a size is unknown.
    """

    total_bytes: int | None
    total_files: int
    done_bytes: int = 0
    done_files: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def line(self) -> dict[str, object]:
        """The fields of one progress line; seconds and bytes."""
        elapsed_s = max(time.monotonic() - self.started_s, 1e-6)
        rate = self.done_bytes / elapsed_s
        out: dict[str, object] = {
            "bytes": self.done_bytes,
            "files": f"{self.done_files}/{self.total_files}",
            "bytes_per_s": int(rate),
        }
        if self.total_bytes is not None:
            out["total_bytes"] = self.total_bytes
            if rate > 0:
                out["seconds_left"] = round(max(0, self.total_bytes - self.done_bytes) / rate)
        return out


@asynccontextmanager
async def reporting(progress: Progress, interval_s: float = INTERVAL_S) -> AsyncIterator[None]:
    """Log the progress every few seconds while the body runs, and once at its end."""

    async def report() -> None:
        while True:
            await asyncio.sleep(interval_s)
            log("info", "downloading", **progress.line())

    task = asyncio.create_task(report())
    try:
        yield
        log("info", "downloaded", **progress.line())
    finally:
        task.cancel()
