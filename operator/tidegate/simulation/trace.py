"""Traces as text: counts for each interval, or one line for each request.

What is understood (comma-separated, a first line of names is optional):

- *requests*: a column of times, seconds or ISO 8601; named ``timestamp`` or ``time``, or the only
  column and ascending with fractions or dates. Other columns are passed over.
- *counts*: a column ``requests`` (or ``count``, ``rps``) beside a column of times, which gives the
  interval; or columns of counts alone, one row for each interval of 60 s, one column for each job.

Rows may come in any order where they have times. ``rps`` are rates wherever they stand.
"""

import csv
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from tidegate.simulation.load import Load, of_requests

TIMES: Final = frozenset({"timestamp", "time", "time_s", "t"})
COUNTS: Final = frozenset({"requests", "count", "counts"})
RATES: Final = frozenset({"rps", "rate", "requests_per_s"})
LONGEST_S: Final = 31 * 86_400.0
"""Some ten minutes to play; of a longer trace one time is mostly wrong."""
MEND_LONG: Final = f"give a part of it, {LONGEST_S / 86_400:g} days at most"

_Row = tuple[int, list[str]]
"""Line of the text, and its cells."""


class TraceError(ValueError):
    """A trace that cannot be read.

    Attributes:
        line: of the text, from 1.
        column: from 1; 0: the whole line.
        what: what is wrong there.
        mend: what to do.
    """

    def __init__(self, line: int, column: int, what: str, mend: str) -> None:
        where = f"line {line}" + (f", column {column}" if column else "")
        super().__init__(f"{where}: {what}; {mend}")
        self.line, self.column, self.what, self.mend = line, column, what, mend


class ColumnError(TraceError):
    """The column that was asked for is not there, or none was and there are several."""


def read(text: str, *, name: str = "trace", column: str = "", interval_s: float = 60.0) -> Load:
    """A load from a trace.

    Args:
        text: of the file.
        name: of the load.
        column: which column of counts, by name or number from 1; empty: the only one.
        interval_s: of each row of counts that has no time beside it.

    Raises:
        TraceError: it says where and what.
    """
    rows = _rows(text)
    if not rows:
        raise TraceError(1, 0, "the trace is empty", "give a file with counts or times")
    names: list[str] = []
    if not any(_is_value(cell) for cell in rows[0][1]):
        names = [cell.strip().lower() for cell in rows[0][1]]
        rows = rows[1:]
        if not rows:
            raise TraceError(1, 0, "names, but no values", "give at least one row")
    width = len(names or rows[0][1])
    for number, row in rows:
        if len(row) != width:
            what = f"{_columns(len(row))}, but {width} in the first row"
            raise TraceError(number, 0, what, "put the same number into each row")
    times = next((i for i, each in enumerate(names) if each in TIMES), None)
    if times is None and not names and width == 1 and not column and _looks_like_times(rows):
        times = 0
    at: list[float] = []
    if times is not None:
        at, rows = _by_time(rows, times)
        if not column and not (COUNTS | RATES) & set(names):
            return of_requests(name, at)
    i = _chosen(names, width, column)
    if i == times:
        return of_requests(name, at)
    step_s = _interval(rows, at, times) if times is not None else interval_s
    load = _of_counts(name, rows, i, step_s, rate=bool(names) and names[i] in RATES)
    if load.duration_s > LONGEST_S:
        what = f"{len(rows)} rows of {load.step_s:g} s are {load.duration_s / 86_400:.3g} days"
        raise TraceError(rows[-1][0], 0, what, MEND_LONG)
    return load


def _rows(text: str) -> list[_Row]:
    """Those that are not empty."""
    # What spreadsheets write before the first name belongs to no name.
    reader = csv.reader(text.removeprefix("\ufeff").splitlines())
    try:
        return [
            (number, row) for number, row in enumerate(reader, 1) if any(c.strip() for c in row)
        ]
    except csv.Error as error:
        mend = "give comma-separated values"
        raise TraceError(reader.line_num, 0, str(error), mend) from None


def _columns(n: int) -> str:
    return "1 column" if n == 1 else f"{n} columns"


def _chosen(names: Sequence[str], width: int, column: str) -> int:
    if not column:
        named = [i for i, each in enumerate(names) if each in COUNTS | RATES]
        if width == 1 or len(named) == 1:
            return named[0] if named else 0
        raise ColumnError(
            1, 0, f"{width} columns of counts", f"say which with --column, 1 to {width}"
        )
    if column.lower() in names:
        return names.index(column.lower())
    if column.isdecimal() and 1 <= int(column) <= width:
        return int(column) - 1
    known = ", ".join(names) if names else f"1 to {width}"
    raise ColumnError(1, 0, f"no column {column!r}", f"there are {known}")


def _of_counts(name: str, rows: Sequence[_Row], i: int, step_s: float, *, rate: bool) -> Load:
    values = []
    for number, row in rows:
        value = _number(row[i])
        if value is None or not 0.0 <= value < math.inf:
            raise TraceError(
                number, i + 1, f"{row[i].strip()[:40]!r} is no count", "write a number, 0 or more"
            )
        values.append(value if rate else value / step_s)
    return Load(name, tuple(values), step_s)


def _by_time(rows: Sequence[_Row], i: int) -> tuple[list[float], list[_Row]]:
    """The times, ascending, and the rows in that order."""
    found: list[tuple[float, _Row]] = []
    for number, row in rows:
        at = _time(row[i])
        if at is None:
            raise TraceError(
                number,
                i + 1,
                f"{row[i].strip()[:40]!r} is no time",
                "write seconds, or 2026-01-31 12:00:00.5",
            )
        found.append((at, (number, row)))
    found.sort(key=lambda each: each[0])
    (first, _), (last, (number, _)) = found[0], found[-1]
    if last - first > LONGEST_S:
        what = f"{(last - first) / 86_400:.3g} days after the first time"
        raise TraceError(number, i + 1, what, MEND_LONG)
    return [at for at, _ in found], [row for _, row in found]


def _interval(rows: Sequence[_Row], at: Sequence[float], i: int) -> float:
    if len(at) < 2:
        raise TraceError(rows[0][0], 0, "one row shows no interval", "give at least two rows")
    step_s = at[1] - at[0]
    for (number, _), a, b in zip(rows[1:], at, at[1:], strict=False):
        if step_s <= 0.0 or abs(b - a - step_s) > 0.01 * step_s:
            raise TraceError(
                number,
                i + 1,
                f"{b - a:g} s after the row before, not {step_s:g}",
                "use one interval",
            )
    return step_s


def _looks_like_times(rows: Sequence[_Row]) -> bool:
    first = rows[0][1][0]
    if _number(first) is None:
        return True
    values = [_number(row[0]) for _, row in rows[:1000]]
    known = [v for v in values if v is not None]
    ascending = all(a <= b for a, b in pairwise(known))
    return ascending and any(v != int(v) for v in known)


def _is_value(text: str) -> bool:
    return _time(text) is not None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _time(text: str) -> float | None:
    number = _number(text)
    if number is not None:
        return number
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
