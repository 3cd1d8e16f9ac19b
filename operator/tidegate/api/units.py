"""The textual units of the resource: durations, percentages, quantities.

Each kind of text has a pattern (the CRD refuses what does not match, see `tidegate.api.rules`) and
a parser to a plain number whose unit stands in the function's name. The patterns are read by
Python's `re`, by pydantic's engine and by the API server's RE2, so they use only what all three
understand alike.
"""

import math
import re
from decimal import Decimal
from typing import Final

DURATION_PATTERN: Final = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
"""Gateway API's duration (GEP-2257): bounded, so that its nanoseconds fit 64 bits."""
PERCENT_PATTERN: Final = r"^(100(\.0{1,3})?|[0-9]{1,2}(\.[0-9]{1,3})?)%$"
QUANTITY_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,3})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
QUANTILE_PATTERN: Final = r"^0\.[5-9][0-9]{0,3}$"

_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h)")
_MILLISECONDS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_SUFFIX: Final[dict[str, Decimal]] = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{s: Decimal(1000) ** (i + 1) for i, s in enumerate("kMGTPE")},
    **{f"{s}i": Decimal(1024) ** (i + 1) for i, s in enumerate("KMGTPE")},
}


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``1h30m`` or ``100ms``.

    Raises:
        ValueError: the text is no duration.
    """
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(f"{text!r} is no duration; write for example 100ms, 30s, 5m or 1h30m")
    return sum(int(n) * _MILLISECONDS[unit] for n, unit in _DURATION_PART.findall(text))


def duration_s(text: str) -> float:
    """Seconds of a duration such as ``1h30m`` or ``100ms``; errors as `duration_ms`."""
    return duration_ms(text) / 1000


def fraction(percent: str) -> float:
    """The share in [0, 1] that a percentage such as ``0.1%`` stands for.

    Raises:
        ValueError: the text is no percentage.
    """
    if not re.fullmatch(PERCENT_PATTERN, percent):
        raise ValueError(f"{percent!r} is no percentage; write for example 1% or 0.1%")
    return float(Decimal(percent[:-1]) / 100)


def quantile(text: str) -> float:
    """The probability in [0.5, 1) that a quantile such as ``0.99`` stands for.

    Raises:
        ValueError: the text is no quantile.
    """
    if not re.fullmatch(QUANTILE_PATTERN, text):
        raise ValueError(f"{text!r} is no quantile; write for example 0.99")
    return float(text)


def quantity(text: str | int | float) -> Decimal:
    """The number a Kubernetes quantity such as ``500m`` or ``2Gi`` stands for (base unit).

    Raises:
        ValueError: the text is no quantity.
    """
    text = str(text)
    if not re.fullmatch(QUANTITY_PATTERN, text):
        raise ValueError(f"{text!r} is no quantity; write for example 500m, 2 or 4Gi")
    number, suffix = re.match(r"^([0-9.]+)(.*)$", text).groups()  # type: ignore[union-attr]
    return Decimal(number) * _SUFFIX[suffix]


def canonical_quantity(text: str | int | float) -> str:
    """The form in which the API server stores a quantity, so that comparing finds no difference.

    Follows apimachinery's ``Quantity.String``: the suffix family is kept, the mantissa is a whole
    number below the next suffix where that loses nothing (``1024Mi`` is ``1Gi``, ``1000m`` is
    ``1``). Finer than milli is rounded up first, so that ``124999.5m`` is ``125``.
    """
    text = str(text)
    value = Decimal(math.ceil(quantity(text) * 1000)) / 1000
    if value == 0:
        return "0"
    if text.endswith("i"):
        # Bytes that fill no Ki are written without a suffix, and read back as a decimal number.
        for power, suffix in reversed(list(enumerate(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"], 1))):
            if value % 1024**power == 0:
                return f"{int(value / 1024**power)}{suffix}"
    for power, suffix in reversed(list(enumerate(["m", "", "k", "M", "G", "T", "P", "E"], -1))):
        unit = Decimal(1000) ** power
        if value % unit == 0:
            return f"{int(value / unit)}{suffix}"
    raise AssertionError(f"{value} is not a whole number of milli-units")
