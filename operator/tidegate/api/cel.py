"""Rules in CEL, and what they are often made of."""

from dataclasses import dataclass

from tidegate.api import patterns, units


@dataclass(frozen=True)
class Rule:
    """A CEL rule of the CRD.

    Attributes:
        at: the node that is ``self``: a path below the resource, ``[]`` for the items of a list
            and ``{}`` for the values of a map.
        rule: what must be true.
        message: what the author reads otherwise; CEL stands in ``{...}``.
        field: the field below `at` that is to blame, where it is not `at` itself.
    """

    at: str
    rule: str
    message: str
    field: str = ""


def percent(text: str) -> str:
    """CEL: the number before the sign of a percentage."""
    return f"double({text}.replace('%', ''))"


def ms(text: str) -> str:
    """CEL: the milliseconds of a duration."""
    return f"duration({text}).getMilliseconds()"


def quantity(text: str) -> str:
    """CEL: a quantity that may be written as a number or a text."""
    return f"quantity(string({text}))"


def unless_malformed(text: str, pattern: str, rule: str) -> str:
    """CEL: the rule, or silence where the text is malformed, which `FORMATS` answers already."""
    if pattern == units.QUANTITY_PATTERN:
        text = f"string({text})"
    return f"!{text}.matches({cel_string(pattern)}) || ({rule})"


def cel_string(text: str) -> str:
    """A text as a CEL string literal: the most readable of its forms that can hold it."""
    raw = "r" if "\\" in text else ""
    for quote in ("'", '"'):
        if quote not in text:
            return f"{raw}{quote}{text}{quote}"
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def positive_duration(at: str, field: str, mend: str) -> Rule:
    """A duration above 0."""
    return Rule(
        f"{at}.{field}",
        unless_malformed("self", units.DURATION_PATTERN, f"{ms('self')} > 0"),
        f"{{self}} is no time at all; {mend}",
    )


def percent_range(at: str, low: str, high: str, mend: str) -> Rule:
    """A percentage strictly above `low` and, where given, below `high` (CEL doubles)."""
    value = percent("self")
    bounds = f"{value} > {low}" + (f" && {value} < {high}" if high else "")
    return Rule(at, unless_malformed("self", units.PERCENT_PATTERN, bounds), f"{{self}} {mend}")


def memory_range(at: str, low: str, high: str, mend: str) -> Rule:
    """A quantity between two others, both included."""
    value = quantity("self")
    return Rule(
        at,
        unless_malformed(
            "self",
            units.QUANTITY_PATTERN,
            f"{value}.compareTo(quantity('{low}')) >= 0"
            f" && {value}.compareTo(quantity('{high}')) <= 0",
        ),
        f"{{self}} is {mend}",
    )


def qualified_keys(at: str, what: str) -> Rule:
    """The keys of a map of labels or annotations must be qualified names."""
    pattern = cel_string(patterns.QUALIFIED_NAME_PATTERN)
    bad = f"self.filter(k, !k.matches({pattern}) || size(k) > 253)"
    return Rule(
        at,
        f"self.all(k, k.matches({pattern}) && size(k) <= 253)",
        f"{{strings.quote({bad}[0])}} is no {what} key; "
        "write name or domain/name with at most 63 characters of name",
    )
