"""What golden requests are made of, and how values are shown in messages. Pure."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Object = Mapping[str, Any]

MAX_REQUESTS: Final = 64
"""In one ConfigMap: they are sent one after the other, to each new pod."""
MAX_BYTES: Final = 1 << 20
"""Of all requests of a ConfigMap together; the API server takes no larger ConfigMap."""
MAX_ELEMENTS: Final = 1 << 20
"""Of one tensor."""
SHOWN_CHARS: Final = 80
"""Of a value in a message."""
SHOWN_ERROR_CHARS: Final = 300
"""Of a server's own words."""
SUFFIX: Final = ".json"


Value = bool | int | float | bytes
"""An element of a tensor; text is its UTF-8 bytes."""


class GoldenError(ValueError):
    """A golden request that cannot be read; the text names key, field, value and mend."""


@dataclass(frozen=True)
class Tensor:
    """An input.

    Attributes:
        name: of the model's input.
        datatype: one of `DATATYPES`.
        shape: sizes, batch included.
        data: elements in row-major order; as many as the shape has places.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: tuple[Value, ...]


@dataclass(frozen=True)
class Tolerance:
    """A number fits if ``abs(got - expected) <= absolute + relative * abs(expected)``."""

    absolute: float = 0.0
    relative: float = 0.0

    def __str__(self) -> str:
        return f"absolute {self.absolute:g}, relative {self.relative:g}"


EXACT: Final = Tolerance()
DEFAULT_TOLERANCES: Final = {
    "FP64": Tolerance(1e-6, 1e-5),
    "FP32": Tolerance(1e-6, 1e-5),
    "FP16": Tolerance(1e-3, 1e-2),
    "BF16": Tolerance(1e-3, 1e-2),
}
"""Where a request says nothing: what the order of a sum may change, and no more."""


@dataclass(frozen=True)
class ExpectedOutput:
    """What one output must be.

    Attributes:
        name: of the model's output.
        data: elements in row-major order, as written; None: not compared so.
        one_of: each element must be one of these; None: not compared so.
        shape: sizes; None: any.
        tolerance: for numbers; None: `DEFAULT_TOLERANCES`.
    """

    name: str
    data: tuple[Any, ...] | None = None
    one_of: tuple[Any, ...] | None = None
    shape: tuple[int, ...] | None = None
    tolerance: Tolerance | None = None


@dataclass(frozen=True)
class ExpectedError:
    """The model must refuse.

    Attributes:
        status: HTTP status.
        contains: part of the message; empty: any.
    """

    status: int
    contains: str = ""


@dataclass(frozen=True)
class GoldenRequest:
    """One request and its answer.

    Attributes:
        key: of the ConfigMap.
        name: for people.
        model: to ask; empty: the ModelDeployment's.
        inputs: tensors to send.
        parameters: of the request.
        outputs: what the answer must hold; others are not asked for.
        error: or that it must be refused.
    """

    key: str
    name: str
    model: str
    inputs: tuple[Tensor, ...]
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    outputs: tuple[ExpectedOutput, ...] = ()
    error: ExpectedError | None = None

    def __str__(self) -> str:
        return self.key if f"{self.name}{SUFFIX}" == self.key else f"{self.name} ({self.key})"


@dataclass(frozen=True)
class Output:
    """An output as it came.

    Attributes:
        datatype: one of `DATATYPES`.
        shape: sizes.
        raw: binary, little endian, row-major.
    """

    datatype: str
    shape: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        status: HTTP status.
        outputs: by name; empty where it refused.
        error: its words where it refused.
    """

    status: int
    outputs: Mapping[str, Output] = field(default_factory=dict)
    error: str = ""


def show(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return f"bytes {shorten(value.hex())}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.9g}"
    return shorten(json.dumps(value, ensure_ascii=False, default=str))


def shorten(text: str, limit: int = SHOWN_CHARS) -> str:
    """A text in one line, and not too long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def listing(values: Iterable[Any]) -> str:
    """The first values, or that there are none."""
    shown = [v if isinstance(v, str) else show(v) for v in values]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "") or "none"
