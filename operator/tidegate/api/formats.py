"""The patterns of the types in words, for the messages of the API server.

A duration that is none is answered with how to write one, not with a regular expression.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tidegate.api import patterns, units


class Shown(Enum):
    """Whether a message repeats the value that it is about."""

    ALWAYS = auto()
    WITHOUT_USER = auto()
    """Not one that holds a user and perhaps a password."""
    NEVER = auto()
    """It may be longer than a message (5,120 bytes)."""


@dataclass(frozen=True)
class Format:
    """A pattern of the types, in words.

    Attributes:
        name: what such a value is called, with its article.
        mend: how to write one.
        shown: whether the message repeats the value.
    """

    name: str
    mend: str
    shown: Shown = Shown.ALWAYS


FORMATS: Final[dict[str, Format]] = {
    units.DURATION_PATTERN: Format("a duration", "write for example 100ms, 30s, 5m or 1h30m"),
    units.PERCENT_PATTERN: Format(
        "a percentage", "write for example 1% or 0.1%, at most 100% and three decimals"
    ),
    units.QUANTITY_PATTERN: Format("a quantity", "write for example 500m, 2 or 4Gi"),
    units.QUANTILE_PATTERN: Format(
        "a quantile", "write for example 0.99, at least 0.5 and below 1"
    ),
    patterns.DNS_PATTERN: Format(
        "an object name", "use lower-case letters, digits, '-' and '.', such as my-object"
    ),
    patterns.DNS_LABEL_PATTERN: Format(
        "a name", "use lower-case letters, digits and '-', such as my-name"
    ),
    patterns.LABEL_VALUE_PATTERN: Format(
        "a label value", "use letters, digits, '-', '_' and '.', with a letter or digit at the ends"
    ),
    patterns.SET_LABEL_VALUE_PATTERN: Format(
        "a label value", "use letters, digits, '-', '_' and '.', with a letter or digit at the ends"
    ),
    patterns.QUALIFIED_NAME_PATTERN: Format(
        "a qualified name", "write name or domain/name, such as nvidia.com/gpu"
    ),
    patterns.RESOURCE_PATTERN: Format(
        "an extended resource",
        "write domain/name, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb",
    ),
    patterns.IMAGE_PATTERN: Format(
        "an image", "write [registry/]name:tag or name@sha256:<64 hex digits>"
    ),
    patterns.ENDPOINT_PATTERN: Format(
        "an endpoint",
        "write http(s)://host[:port][/path] without user, password or query; credentials go into "
        "the Secret that secretName names",
        Shown.WITHOUT_USER,
    ),
    patterns.REGION_PATTERN: Format("a region", "write for example eu-central-1"),
    patterns.MODEL_NAME_PATTERN: Format(
        "a model name",
        "use letters, digits, '_', '-' and '.', starting with a letter, digit or '_'",
    ),
    patterns.BACKEND_PATTERN: Format("a Triton backend", "write for example onnxruntime or python"),
    patterns.ENV_NAME_PATTERN: Format(
        "an environment variable's name", "use letters, digits and '_', not starting with a digit"
    ),
    patterns.TEXT_PATTERN: Format(
        "plain text", "leave out control characters, such as NUL", Shown.NEVER
    ),
    patterns.HEADER_NAME_PATTERN: Format("a header name", "write for example x-canary"),
    patterns.HEADER_VALUE_PATTERN: Format(
        "a header value", "use printable ASCII without spaces at the ends", Shown.NEVER
    ),
    patterns.HOSTNAME_PATTERN: Format(
        "a hostname", "write for example models.example.com or *.example.com, in lower case"
    ),
    patterns.CONDITION_PATTERN: Format(
        "a condition type", "use CamelCase letters and digits, such as DataDriftChecked"
    ),
    patterns.HEADROOM_PATTERN: Format(
        "a headroom", "write Auto, or a number of replicas up to 999"
    ),
    patterns.SHA256_PATTERN: Format(
        "a sha256 digest", "write 64 lower-case hex digits, without a sha256: before them"
    ),
}
