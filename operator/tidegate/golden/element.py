"""Elements of tensors: from JSON, to the binary form of the v2 protocol and back. Pure."""

import base64
import binascii
import math
import struct
from collections.abc import Iterator
from typing import Any, Final

from tidegate.golden.request import Output, Tensor, Value

INTEGERS: Final = {
    **{f"INT{bits}": (code, bits, True) for code, bits in (("b", 8), ("h", 16), ("i", 32))},
    **{f"UINT{bits}": (code, bits, False) for code, bits in (("B", 8), ("H", 16), ("I", 32))},
    "INT64": ("q", 64, True),
    "UINT64": ("Q", 64, False),
}
"""struct's code, bits, signed."""
FLOATS: Final = {"FP16": "e", "BF16": "", "FP32": "f", "FP64": "d"}
DATATYPES: Final = ("BOOL", *INTEGERS, *FLOATS, "BYTES")
"""Of the v2 inference protocol."""
SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Numbers that JSON has no way to write."""


def flattened(value: list[Any]) -> Iterator[Any]:
    """Elements of nested lists, in row-major order."""
    for element in value:
        if isinstance(element, list):
            yield from flattened(element)
        else:
            yield element


def element_of(value: Any, datatype: str) -> Value:
    """A JSON value as an element; ValueError says what it must be."""
    if datatype == "BOOL":
        if isinstance(value, bool):
            return value
        raise ValueError("a BOOL is true or false")
    if datatype == "BYTES":
        return value.encode() if isinstance(value, str) else from_base64(value)
    if datatype in INTEGERS:
        _, bits, signed = INTEGERS[datatype]
        low = -(1 << (bits - 1)) if signed else 0
        high = (1 << (bits - 1 if signed else bits)) - 1
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"{datatype} holds whole numbers from {low} to {high}")
    if isinstance(value, str) and value in SPECIAL:
        return SPECIAL[value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"it is too large for {datatype}") from None
    raise ValueError(f'{datatype} holds numbers, "NaN", "Infinity" and "-Infinity"')


def from_base64(value: Any) -> bytes:
    """The bytes of ``{"base64": "..."}``; ValueError says what it must be."""
    if isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("that is no base64") from None
    raise ValueError('it must be a value, or bytes as {"base64": "..."}')


def pack(tensor: Tensor) -> bytes:
    """Its elements in binary, little endian."""
    if tensor.datatype == "BYTES":
        # `element_of` gives bytes for BYTES.
        parts = [value for value in tensor.data if isinstance(value, bytes)]
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    if tensor.datatype == "BF16":
        return b"".join(_to_bfloat16(float(value)) for value in tensor.data)
    return struct.pack(f"<{len(tensor.data)}{_code(tensor.datatype)}", *tensor.data)


def unpack(output: Output) -> list[Value]:
    """The elements.

    Raises:
        ValueError: the bytes do not hold as many as the shape says.
    """
    count = math.prod(output.shape)
    values: list[Value] = []
    if output.datatype == "BYTES":
        at = 0
        while at < len(output.raw):
            if at + 4 > len(output.raw):
                break
            (length,) = struct.unpack_from("<I", output.raw, at)
            values.append(output.raw[at + 4 : at + 4 + length])
            at += 4 + length
        whole = at == len(output.raw)
    elif output.datatype == "BF16":
        halves = struct.unpack(f"<{len(output.raw) // 2}H", output.raw[: len(output.raw) // 2 * 2])
        values += struct.unpack(
            f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(h << 16 for h in halves))
        )
        whole = len(output.raw) % 2 == 0
    else:
        code = _code(output.datatype)
        size = struct.calcsize(f"<{code}")
        whole = len(output.raw) == count * size
        if whole:
            values += struct.unpack(f"<{count}{code}", output.raw)
    if not whole or len(values) != count:
        raise ValueError(f"{len(output.raw)} bytes are no {output.datatype}{list(output.shape)}")
    return values


def _code(datatype: str) -> str:
    if datatype == "BOOL":
        return "?"
    return INTEGERS[datatype][0] if datatype in INTEGERS else FLOATS[datatype]


def _to_bfloat16(value: float) -> bytes:
    """Two bytes, rounded to the nearest, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    if not math.isnan(value):
        bits += 0x7FFF + ((bits >> 16) & 1)
    return struct.pack("<H", (bits >> 16) & 0xFFFF)
