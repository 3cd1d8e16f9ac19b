"""Traces as text: what is understood, and what is said of the rest."""

import pytest

from tidegate.simulation.load import Load, multiplied, of_requests
from tidegate.simulation.trace import TraceError, read


def test_counts_alone_are_a_minute_each() -> None:
    load = read("60\n120\n0\n")
    assert load.rates == (1.0, 2.0, 0.0)
    assert load.duration_s == 180.0
    assert read("60\n120\n", interval_s=30.0).rates == (2.0, 4.0)


@pytest.mark.parametrize("column", ["2", "b", "B"])
def test_one_of_several_columns(column: str) -> None:
    assert read("a,b\n60,6\n120,12\n", column=column).rates == (0.1, 0.2)


def test_counts_and_rates_beside_their_times() -> None:
    assert read("time,requests\n0,50\n10,100\n").rates == (5.0, 10.0)
    assert read("t,rps\n0,50\n10,100\n").rates == (50.0, 100.0)
    assert read("timestamp,count\n2026-01-01 00:00:00,5\n2026-01-01T00:00:05,10\n").step_s == 5.0


@pytest.mark.parametrize("column", ["", "rps", "2"])
def test_rates_are_rates_wherever_they_stand(column: str) -> None:
    assert read("time,rps\n0,50\n10,100\n", column=column).rates == (50.0, 100.0)
    assert read("time,rps\n0,50\n10,100\n", column=column).step_s == 10.0
    assert read("minute,rps\n0,50\n1,100\n", column=column).rates == (50.0, 100.0)
    assert read("rps\n50\n100\n", interval_s=30.0).rates == (50.0, 100.0)


def test_one_of_several_columns_beside_times() -> None:
    load = read("timestamp,a,b\n0,10,20\n10,30,40\n", column="b")
    assert (load.rates, load.step_s) == ((2.0, 4.0), 10.0)


def test_the_newest_row_may_come_first() -> None:
    assert read("time,rps\n20,3\n10,2\n0,1\n").rates == (1.0, 2.0, 3.0)


def test_what_a_spreadsheet_writes_first_is_no_name() -> None:
    assert read("\ufefftime,rps\n0,50\n10,100\n").step_s == 10.0
    assert read("\ufeff60\n120\n").rates == (1.0, 2.0)


def test_a_line_for_each_request() -> None:
    text = "TIMESTAMP,ContextTokens\n2023-11-16 18:17:04.5,3180\n2023-11-16 18:17:03.9799600,4808\n"
    load = read(text)
    assert load.requests_at == pytest.approx((0.0, 0.52004))
    assert load.arrivals(1) == list(load.requests_at)
    assert read("0.5\n1.5\n9.25\n").requests_at == (0.0, 1.0, 8.75)


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("", 1, 0, "empty"),
        ("\n\n", 1, 0, "empty"),
        ("a,b\n", 1, 0, "no values"),
        ("1\n2\nx\n", 3, 1, "'x' is no count"),
        ("1\n\n-2\n", 3, 1, "'-2' is no count"),
        ("1\nnan\n", 2, 1, "'nan' is no count"),
        ("1,2\n3,4\n", 1, 0, "2 columns"),
        ("time,requests\n0,1\n10,?\n", 3, 2, "'?' is no count"),
        ("time,requests\n0,1\nlater,2\n", 3, 1, "'later' is no time"),
        ("time,requests\n0,1\n10,2\n25,2\n", 4, 1, "15 s after"),
        ("time,requests\n0,1\n", 2, 0, "one row"),
        ("time,requests\n0,1\n10\n", 3, 0, "1 column, but 2"),
        ("time,requests\n20,1\n10,2\n5,3\n", 2, 1, "10 s after"),
        ("a\n" + "9" * 200_000, 2, 0, "field larger than field limit"),
        ("0.5\n1.5\n17637730.5\n", 3, 1, "204 days after the first time"),
        ("rps\n" + "1\n" * 44_641, 44_642, 0, "44641 rows of 60 s are 31 days"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, line: int, column: int, what: str) -> None:
    with pytest.raises(TraceError) as found:
        read(text)
    error = found.value
    assert (error.line, error.column) == (line, column)
    assert what in str(error)
    assert "; " in str(error)
    assert f"line {line}" in str(error)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(TraceError, match=r"no column 'c'; there are a, b"):
        read("a,b\n1,2\n", column="c")


def test_requests_are_multiplied_near_where_they_are() -> None:
    load = of_requests("x", [10.0, 40.0, 41.0])
    more = multiplied(load, 2.5, 1)
    assert 6 <= len(more.requests_at) <= 9
    assert all(any(0 <= t - o <= 1.001 for o in (0, 30, 31)) for t in more.requests_at)
    assert len(multiplied(load, 0.5, 3).requests_at) < 3
    assert multiplied(Load("y", (1.0,), 5.0), 3.0, 1).rates == (3.0,)
