"""What every measurement ends with: one JSON file and one short table.

A figure alone says little on a shared machine, so each report carries the machine, its load before
and after, the command, and every single value beside the median. Nothing here passes or fails.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from e2e.cluster import paths

OUT = paths.CACHE / "bench"
"""Where reports go by default: outside of the tree, for they belong to a machine."""


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        cpu: the processor's name, as the kernel tells it.
        cores: processors that this process may use.
        memory_gib: of the whole machine.
        kernel: its release.
        python: version of the interpreter that measured.
    """

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str

    @classmethod
    def here(cls) -> Self:
        """This machine (Linux)."""
        info = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(
            cpu=names[0] if names else platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(pages / 2**30, 1),
            kernel=platform.release(),
            python=platform.python_version(),
        )

    def __str__(self) -> str:
        return f"{self.cores} x {self.cpu}, {self.memory_gib:.0f} GiB, Linux {self.kernel}"


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` (0 < q <= 1) of the values do not exceed.

    Raises:
        ValueError: there are no values, or q is no share.
    """
    if not values or not 0.0 < q <= 1.0:
        raise ValueError(f"no {q} quantile of {len(values)} values")
    # 0.99 * 100 is a little above 99 in binary: do not let that take the next value.
    return sorted(values)[max(1, math.ceil(q * len(values) - 1e-9)) - 1]


@dataclass(frozen=True)
class Row:
    """One measured quantity.

    Attributes:
        name: what was measured.
        unit: of the values.
        values: one a run, in order.
        aim: what the project set itself, in words; empty: nothing.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    aim: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.name} has no values")

    def cells(self) -> list[str]:
        """The row of the table: name, median, spread, unit, aim."""
        median = statistics.median(self.values)
        spread = f"{_number(min(self.values))} .. {_number(max(self.values))}"
        return [
            self.name,
            _number(median),
            spread if len(self.values) > 1 else "",
            self.unit,
            self.aim,
        ]

    def document(self) -> dict[str, Any]:
        """The row of the JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(statistics.median(self.values), 6),
            "min": round(min(self.values), 6),
            "max": round(max(self.values), 6),
            "values": [round(value, 6) for value in self.values],
            **({"aim": self.aim} if self.aim else {}),
        }


def _number(value: float) -> str:
    """Three significant digits, whole numbers as they are."""
    if value == int(value):
        return str(int(value))
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def table(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Align columns; the first row is the head. Columns of `left` are flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(rows[0]), "  ".join("-" * w for w in widths), *map(line, rows[1:])])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Report:
    """One measurement's result.

    Attributes:
        name: of the measurement.
        what: what was measured, in a sentence or two.
        rows: the quantities.
        facts: what else the reader needs, for the JSON (settings, counts, single observations).
        notes: lines below the table.
    """

    name: str
    what: str
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    machine: Machine = field(default_factory=Machine.here)
    began: str = field(default_factory=_now)
    load_before: tuple[float, float, float] = field(default_factory=os.getloadavg)
    busy_before: float = math.nan

    def await_quiet(self, patience_seconds: float) -> None:
        """Wait for a quiet machine as long as patience lasts; the report says how busy it was."""
        self.busy_before = await_quiet(patience_seconds)
        self.load_before = os.getloadavg()
        self.began = _now()

    def add(self, name: str, unit: str, values: Sequence[float], *, aim: str = "") -> None:
        """Add a quantity."""
        self.rows.append(Row(name, unit, tuple(values), aim))

    def document(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "name": self.name,
            "what": self.what,
            "command": " ".join(["python", "-m", f"e2e.bench.{self.name}", *sys.argv[1:]]),
            "began": self.began,
            "ended": _now(),
            "machine": asdict(self.machine),
            "load_average": {
                "before": [round(x, 2) for x in self.load_before],
                "after": [round(x, 2) for x in os.getloadavg()],
            },
            "busy_before": None if math.isnan(self.busy_before) else round(self.busy_before, 3),
            "rows": [row.document() for row in self.rows],
            "facts": self.facts,
            "notes": self.notes,
        }

    def text(self) -> str:
        """The table for people."""
        head = ["", "median", "min .. max", "unit", "aim"]
        body = [head, *(row.cells() for row in self.rows)]
        before, after = self.load_before[0], os.getloadavg()[0]
        busy = "" if math.isnan(self.busy_before) else f"; {self.busy_before:.0%} busy before"
        return "\n".join(
            [
                f"{self.name}: {self.what}",
                f"on {self.machine}; load average {before:.1f} before, {after:.1f} after{busy}",
                "",
                table(body, left=(0, 3, 4)),
                *(f"note: {note}" for note in self.notes),
            ]
        )

    def finish(self, out: Path) -> Path:
        """Print the table and write the JSON into the folder `out`. Returns its path."""
        out.mkdir(parents=True, exist_ok=True)
        stamp = self.began.replace(":", "").replace("-", "").partition("+")[0]
        path = out / f"{self.name}-{stamp}.json"
        path.write_text(json.dumps(self.document(), indent=1) + "\n")
        print(f"{self.text()}\nJSON: {path}", flush=True)
        return path


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line that knows ``--out``."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--out", type=Path, default=OUT, help="folder of the JSON (default: %(default)s)"
    )
    made.add_argument(
        "--patience",
        type=float,
        default=0.0,
        help="wait at most so many seconds for the machine to be quiet before measuring",
    )
    return made


QUIET_SHARE = 0.35
"""A machine that is busy for less than this share of its processors' time counts as quiet."""
QUIET_SECONDS = 10.0


def busy_share(before: str, after: str) -> float:
    """Share of the processors' time that was not idle between two texts of ``/proc/stat``."""

    def times(text: str) -> tuple[int, int]:
        fields = [int(field) for field in text.splitlines()[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)  # idle and waiting for the disk; all

    (idle, total), (idle_after, total_after) = times(before), times(after)
    passed = total_after - total
    return 1.0 - (idle_after - idle) / passed if passed else 0.0


def await_quiet(patience_seconds: float) -> float:
    """Wait until the machine is quiet, or patience ends. Returns how busy it last was (0 to 1)."""
    deadline = time.monotonic() + patience_seconds
    stat = Path("/proc/stat")
    while True:
        before = stat.read_text()
        time.sleep(QUIET_SECONDS if patience_seconds else 1.0)
        busy = busy_share(before, stat.read_text())
        if busy < QUIET_SHARE or time.monotonic() >= deadline:
            return busy


# Processes, as the kernel counts them.


@dataclass(frozen=True)
class Usage:
    """What a process holds and has used up to a moment.

    Attributes:
        rss_mb: resident memory now, in 10^6 bytes.
        peak_mb: its highest so far.
        cpu_seconds: user and system time so far.
        uptime_seconds: since its start.
    """

    rss_mb: float
    peak_mb: float
    cpu_seconds: float
    uptime_seconds: float

    @classmethod
    def of(cls, pid: int) -> Self:
        """Usage of a running process.

        Raises:
            FileNotFoundError: there is no such process.
        """
        folder = Path("/proc") / str(pid)
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines() if line
        )
        text = (folder / "stat").read_text()
        fields = text[text.rindex(")") + 2 :].split()
        ticks = os.sysconf("SC_CLK_TCK")
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return cls(
            rss_mb=_mb(status["VmRSS"]),
            peak_mb=_mb(status["VmHWM"]),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / ticks,
            uptime_seconds=uptime - int(fields[19]) / ticks,
        )

    def cpu_percent_since(self, earlier: "Usage") -> float:
        """CPU use between two looks, in percent of one core."""
        seconds = self.uptime_seconds - earlier.uptime_seconds
        return 100.0 * (self.cpu_seconds - earlier.cpu_seconds) / seconds if seconds else 0.0


def _mb(text: str) -> float:
    amount, unit = text.split()
    if unit != "kB":  # the kernel's word for KiB; it has no other
        raise ValueError(f"memory in {unit}")
    return int(amount) * 1024 / 1e6
