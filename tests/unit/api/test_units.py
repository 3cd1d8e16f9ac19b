"""Durations, percentages, quantities and quantiles: what they say and what is none."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.api import units


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1ms", 1),
        ("100ms", 100),
        ("0s", 0),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1h30m10s5ms", 5_410_005),
        ("30m1h", 5_400_000),
        ("007s", 7_000),
        ("1s1s", 2_000),
        ("99999h99999h99999h99999h", 4 * 99_999 * 3_600_000),
    ],
)
def test_duration(text: str, milliseconds: int) -> None:
    assert units.duration_ms(text) == milliseconds
    assert units.duration_s(text) == milliseconds / 1000


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "ms", "1 s", " 1s", "1s ", "1s\n", "-1s", "+1s", "1.5s", "1d", "1w", "1us"),
        *("1S", "1M", "1hour", "\u0967s", "\uff11s", "123456s", "1h1h1h1h1h", "NaN", "inf", "1e3s"),
    ],
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration; write for example 100ms"):
        units.duration_ms(text)


PARTS = st.tuples(st.integers(0, 99_999), st.sampled_from(["h", "m", "s", "ms"]))


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    whole = "".join(f"{n}{unit}" for n, unit in parts)
    assert units.duration_ms(whole) == sum(units.duration_ms(f"{n}{unit}") for n, unit in parts)
    # The API server computes with 64-bit nanoseconds.
    assert units.duration_ms(whole) * 1_000_000 < 2**63


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("0%", 0.0),
        ("1%", 0.01),
        ("0.1%", 0.001),
        ("0.001%", 0.00001),
        ("29%", 0.29),
        ("99.999%", 0.99999),
        ("100%", 1.0),
        ("100.000%", 1.0),
        ("05%", 0.05),
    ],
)
def test_percentage(text: str, share: float) -> None:
    assert units.fraction(text) == share


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "%", "0.01", "1 %", "1%%", "-1%", "101%", "100.1%", "1.%", ".5%", "0.0001%"),
        *("1%\n", "1e1%", "NaN%", "\uff11%", "1,5%"),
    ],
)
def test_no_percentage(text: str) -> None:
    with pytest.raises(ValueError, match="is no percentage; write for example 1%"):
        units.fraction(text)


@given(st.integers(0, 100_000))
def test_a_percentage_is_a_share(thousandths: int) -> None:
    text = f"{thousandths // 1000}.{thousandths % 1000:03}%"
    assert units.fraction(text) == float(Decimal(thousandths) / 100_000)
    assert 0 <= units.fraction(text) <= 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("2", "2"),
        (2, "2"),
        (0.5, "0.5"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        ("1k", "1000"),
        ("1M", "1000000"),
        ("1Ki", "1024"),
        ("2Gi", "2147483648"),
        ("1.5Gi", "1610612736"),
        ("1E", "1000000000000000000"),
        ("1Ei", "1152921504606846976"),
    ],
)
def test_quantity(text: str | float, value: str) -> None:
    assert units.quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Gi", "-1", "+1", "1 Gi", "1gi", "1GB", "1K", "1e3", "0x10", "1.", ".5", "1Gi\n"),
        *("1.0001", "1234567890123", "NaN", "inf", "\uff14Gi", "two"),
    ],
)
def test_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity; write for example 500m, 2 or 4Gi"):
        units.quantity(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        # As `kubectl get -o yaml` shows what was applied.
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("0.5", "500m"),
        (2, "2"),
        ("2.0", "2"),
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0", "0"),
        ("0Gi", "0"),
        ("0m", "0"),
        ("1000", "1k"),
        ("1000k", "1M"),
        ("4294967296", "4294967296"),
        ("1000Ki", "1000Ki"),
        ("0.001", "1m"),
        ("124999.5m", "125"),
        ("0.001Ki", "1024m"),
        ("187.5Ki", "192k"),
    ],
)
def test_canonical_quantity(text: str | int, canonical: str) -> None:
    assert units.canonical_quantity(text) == canonical


QUANTITIES = st.builds(
    lambda whole, part, suffix: f"{whole}{part}{suffix}",
    st.integers(0, 999_999),
    st.sampled_from(["", ".5", ".25", ".125"]),
    st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi"]),
)


@given(QUANTITIES)
def test_canonical_keeps_the_value_and_is_a_fixed_point(text: str) -> None:
    canonical = units.canonical_quantity(text)
    assert units.canonical_quantity(canonical) == canonical
    # Milli is the finest grain of Kubernetes; finer values are rounded up.
    difference = units.quantity(canonical) - units.quantity(text)
    assert 0 <= difference < Decimal("0.001")


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("0.99", 0.99), ("0.9999", 0.9999)])
def test_quantile(text: str, value: float) -> None:
    assert units.quantile(text) == value


@pytest.mark.parametrize(
    "text", ["", "0", "1", "1.0", "0.", ".99", "0.49", "0.99999", "99%", "p99"]
)
def test_no_quantile(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no quantile; write for example 0\.99"):
        units.quantile(text)


@given(st.text(max_size=12))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    for read, pattern in (
        (units.duration_ms, units.DURATION_PATTERN),
        (units.fraction, units.PERCENT_PATTERN),
        (units.quantity, units.QUANTITY_PATTERN),
        (units.quantile, units.QUANTILE_PATTERN),
    ):
        if re.fullmatch(pattern, text):
            assert read(text) >= 0
        else:
            with pytest.raises(ValueError, match="is no "):
                read(text)
