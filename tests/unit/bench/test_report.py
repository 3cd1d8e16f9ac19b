import json
from pathlib import Path

import pytest

from e2e.bench.report import Report, Row, Usage, busy_share, quantile


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([5.0], 0.5, 5.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 101)), 1.0, 100),
        (list(range(1, 1001)), 0.999, 999),
        ([1.0, 9.0], 0.51, 9.0),
    ],
)
def test_a_quantile_is_a_value_that_was_measured(
    values: list[float], q: float, expected: float
) -> None:
    assert quantile(values, q) == expected


@pytest.mark.parametrize(("values", "q"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_what_is_no_quantile_is_refused(values: list[float], q: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        quantile(values, q)


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ((0.0,), ["x", "0", "", "s", ""]),
        ((12345.0,), ["x", "12345", "", "s", ""]),
        ((0.01234, 1.234, 123.4), ["x", "1.23", "0.0123 .. 123", "s", ""]),
    ],
)
def test_a_row_shows_median_and_spread(values: tuple[float, ...], cells: list[str]) -> None:
    assert Row("x", "s", values).cells() == cells


def test_a_quantity_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        Row("x", "s", ())


def test_a_report_keeps_every_value_and_says_where_and_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("some_bench", "something")
    report.add("time", "s", [2.0, 1.0, 4.0], aim="at most 3")
    report.facts["size"] = 7
    report.notes.append("mind the noise")
    path = report.finish(tmp_path / "new")
    shown = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["rows"] == [
        {
            "name": "time",
            "unit": "s",
            "median": 2.0,
            "min": 1.0,
            "max": 4.0,
            "values": [2.0, 1.0, 4.0],
            "aim": "at most 3",
        }
    ]
    assert found["facts"] == {"size": 7}
    assert found["machine"]["cores"] >= 1
    assert len(found["load_average"]["before"]) == 3
    assert found["command"].startswith("python -m e2e.bench.some_bench")
    for text in ("something", "1 .. 4", "at most 3", "mind the noise", str(path)):
        assert text in shown


def test_cpu_use_is_of_the_time_between_two_looks() -> None:
    before = Usage(rss_mb=1, peak_mb=1, cpu_seconds=2.0, uptime_seconds=10.0)
    after = Usage(rss_mb=1, peak_mb=1, cpu_seconds=2.5, uptime_seconds=20.0)
    assert after.cpu_percent_since(before) == pytest.approx(5.0)
    assert before.cpu_percent_since(before) == 0.0


def test_this_very_process_has_usage() -> None:
    found = Usage.of(int(Path("/proc/self").readlink().name))
    assert 0 < found.rss_mb <= found.peak_mb
    assert found.cpu_seconds > 0
    assert found.uptime_seconds > 0


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ("cpu 10 0 10 100 0 0 0 0 0 0\n", "cpu 20 0 20 180 0 0 0 0 0 0\n", 0.2),
        ("cpu 0 0 0 0 0 0 0 0\n", "cpu 5 0 0 3 2 0 0 0\n", 0.5),
        ("cpu 1 1 1 1 1 1 1 1\n", "cpu 1 1 1 1 1 1 1 1\n", 0.0),
    ],
)
def test_how_busy_a_machine_was_between_two_looks(before: str, after: str, share: float) -> None:
    assert busy_share(before, after) == pytest.approx(share)
