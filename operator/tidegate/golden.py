"""Golden requests: what is sent to a pod, and what it must answer.

A ConfigMap holds them; each key ``*.json`` is one request (``docs/guide/golden-requests.md`` has
the format). `parse` reads them and names what is wrong, `check_against_metadata` names tensors
that the model does not have, `encode` and `decode` speak the v2 inference protocol with its binary
tensor extension, and `compare` says what an answer lacks.

The tensors travel as binary, although they are written as JSON: JSON has no FP16, no BF16 and no
bytes that are not text; Triton refuses the first two there. Pure: knows no clock, does no IO.
"""

import base64
import binascii
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
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

_INTEGERS: Final = {
    **{f"INT{bits}": (code, bits, True) for code, bits in (("b", 8), ("h", 16), ("i", 32))},
    **{f"UINT{bits}": (code, bits, False) for code, bits in (("B", 8), ("H", 16), ("I", 32))},
    "INT64": ("q", 64, True),
    "UINT64": ("Q", 64, False),
}
"""struct's code, bits, signed."""
_FLOATS: Final = {"FP16": "e", "BF16": "", "FP32": "f", "FP64": "d"}
DATATYPES: Final = ("BOOL", *_INTEGERS, *_FLOATS, "BYTES")
"""Of the v2 inference protocol."""
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Numbers that JSON has no way to write."""
_WIRE_PARAMETERS: Final = frozenset({"binary_data_output", "binary_data_size", "binary_data"})

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


# Reading a ConfigMap.


def parse(config_map: Object) -> tuple[GoldenRequest, ...]:
    """The golden requests of a ConfigMap, by key; at least one.

    Raises:
        GoldenError: one of them cannot be read.
    """
    where = f"ConfigMap {config_map['metadata']['name']}"
    texts = {k: v for k, v in (config_map.get("data") or {}).items() if k.endswith(SUFFIX)}
    for key in config_map.get("binaryData") or {}:
        if key.endswith(SUFFIX):
            raise GoldenError(f"{where}, {key}: is not UTF-8 text. Store the file as UTF-8.")
    if not texts:
        raise GoldenError(
            f"{where}: has no key that ends in {SUFFIX}. Add one for each golden request."
        )
    if len(texts) > MAX_REQUESTS:
        raise GoldenError(f"{where}: has {len(texts)} golden requests, at most {MAX_REQUESTS}.")
    size = sum(len(text.encode()) for text in texts.values())
    if size > MAX_BYTES:
        raise GoldenError(f"{where}: has {size} bytes of golden requests, at most {MAX_BYTES}.")
    return tuple(_parse_one(f"{where}, {key}", key, texts[key]) for key in sorted(texts))


def _parse_one(where: str, key: str, text: str) -> GoldenRequest:
    try:
        document = json.loads(text, object_pairs_hook=_no_field_twice)
        return _Reader(where).request(key, document)
    except json.JSONDecodeError as error:
        raise GoldenError(
            f"{where}: is not JSON: {error.msg} in line {error.lineno}, column {error.colno}."
        ) from error
    except RecursionError as error:
        raise GoldenError(f"{where}: is nested too deeply. Write data as a flat list.") from error
    except _TwiceError as error:
        raise GoldenError(f"{where}: {error}") from None
    except GoldenError:
        raise
    except ValueError as error:  # such as an integer of thousands of digits
        raise GoldenError(f"{where}: is not JSON: {error}.") from error


class _TwiceError(ValueError):
    pass


def _no_field_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"field {_shown(twice)} stands twice in one object. Keep one.")
    return found


class _Reader:
    """Reads one document; knows where it is, for the errors."""

    def __init__(self, where: str) -> None:
        self._where = where

    def error(self, path: str, problem: str) -> GoldenError:
        return GoldenError(f"{self._where}: {path}{' ' if path else ''}{problem}")

    def request(self, key: str, document: Any) -> GoldenRequest:
        allowed = ("name", "model", "inputs", "parameters", "expected")
        fields = self.fields(document, "", allowed)
        for needed in ("inputs", "expected"):
            if needed not in fields:
                raise self.error(needed, "is missing. A golden request needs inputs and expected.")
        inputs = self.entries(fields["inputs"], "inputs")
        tensors = tuple(self.tensor(entry, f"inputs[{i}]") for i, entry in enumerate(inputs))
        self.distinct([t.name for t in tensors], "inputs")
        outputs, refusal = self.expected(fields["expected"])
        return GoldenRequest(
            key=key,
            name=self.text(fields.get("name", key.removesuffix(SUFFIX)), "name"),
            model=self.text(fields["model"], "model") if "model" in fields else "",
            inputs=tensors,
            parameters=self.parameters(fields.get("parameters", {})),
            outputs=outputs,
            error=refusal,
        )

    def fields(self, value: Any, path: str, allowed: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(path, f"is {_shown(value)}; it must be an object.")
        for name in value:
            if name not in allowed:
                inner = f"{path}.{name}" if path else name
                raise self.error(inner, f"is no field. Fields here: {', '.join(allowed)}.")
        return value

    def entries(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self.error(path, f"is {_shown(value)}; it must be a list with an entry or more.")
        return value

    def text(self, value: Any, path: str) -> str:
        if not isinstance(value, str) or not value or len(value) > 253:
            raise self.error(path, f"is {_shown(value)}; it must be a text of 1 to 253 characters.")
        return value

    def distinct(self, names: list[str], path: str) -> None:
        for name in names:
            if names.count(name) > 1:
                raise self.error(path, f"name {_shown(name)} twice. Keep one.")

    def tensor(self, value: Any, path: str) -> Tensor:
        allowed = ("name", "datatype", "shape", "data")
        fields = self.fields(value, path, allowed)
        for needed in allowed:
            if needed not in fields:
                raise self.error(f"{path}.{needed}", f"is missing. It needs {', '.join(allowed)}.")
        datatype = fields["datatype"]
        if datatype not in DATATYPES:
            raise self.error(
                f"{path}.datatype", f"is {_shown(datatype)}; it must be one of {_list(DATATYPES)}."
            )
        shape = self.shape(fields["shape"], f"{path}.shape")
        flat = self.flat(fields["data"], f"{path}.data")
        if len(flat) != math.prod(shape):
            raise self.error(
                f"{path}.data",
                f"has {len(flat)} elements, but shape {list(shape)} has room for "
                f"{math.prod(shape)}. Correct one of the two.",
            )
        data = []
        for at, element in enumerate(flat):
            try:
                data.append(_element(element, datatype))
            except ValueError as error:
                raise self.error(
                    f"{path}.data", f"element {at} is {_shown(element)}; {error}."
                ) from None
        tensor = Tensor(self.text(fields["name"], f"{path}.name"), datatype, shape, tuple(data))
        try:
            _pack(tensor)
        except (OverflowError, struct.error):
            raise self.error(f"{path}.data", f"holds a number too large for {datatype}.") from None
        return tensor

    def shape(self, value: Any, path: str) -> tuple[int, ...]:
        good = isinstance(value, list) and all(
            isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_ELEMENTS for n in value
        )
        if not good or math.prod(value) > MAX_ELEMENTS:
            raise self.error(
                path,
                f"is {_shown(value)}; it must be a list of sizes from 0, with at most "
                f"{MAX_ELEMENTS} elements in all.",
            )
        return tuple(value)

    def flat(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.error(path, f"is {_shown(value)}; it must be a list of values.")
        return list(_flat(value))

    def parameters(self, value: Any) -> dict[str, str | int | float | bool]:
        if not isinstance(value, dict):
            raise self.error("parameters", f"is {_shown(value)}; it must be an object.")
        for name, given in value.items():
            path = f"parameters.{name}"
            if name in _WIRE_PARAMETERS:
                raise self.error(path, "is set by Tidegate itself. Leave it out.")
            if not isinstance(given, str | int | float | bool):
                raise self.error(
                    path, f"is {_shown(given)}; it must be a text, a number, true or false."
                )
        return value

    def expected(self, value: Any) -> tuple[tuple[ExpectedOutput, ...], ExpectedError | None]:
        fields = self.fields(value, "expected", ("outputs", "error"))
        if len(fields) != 1:
            raise self.error("expected", "must have outputs or error, and one of them only.")
        if "error" in fields:
            return (), self.refusal(fields["error"])
        entries = self.entries(fields["outputs"], "expected.outputs")
        outputs = tuple(self.output(e, f"expected.outputs[{i}]") for i, e in enumerate(entries))
        self.distinct([o.name for o in outputs], "expected.outputs")
        return outputs, None

    def refusal(self, value: Any) -> ExpectedError:
        fields = self.fields(value, "expected.error", ("status", "contains"))
        status = fields.get("status")
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise self.error(
                "expected.error.status",
                f"is {_shown(status)}; it must be an HTTP status from 400 to 599.",
            )
        if "contains" not in fields:
            return ExpectedError(status)
        return ExpectedError(status, self.text(fields["contains"], "expected.error.contains"))

    def output(self, value: Any, path: str) -> ExpectedOutput:
        allowed = ("name", "data", "oneOf", "shape", "tolerance", "ignore")
        fields = self.fields(value, path, allowed)
        if "name" not in fields:
            raise self.error(f"{path}.name", "is missing.")
        ignore = fields.get("ignore", False)
        if not isinstance(ignore, bool):
            raise self.error(f"{path}.ignore", f"is {_shown(ignore)}; it must be true or false.")
        ways: list[str] = [way for way in ("data", "oneOf") if way in fields]
        if ignore and (ways or "tolerance" in fields):
            what = (ways or ["tolerance"])[0]
            raise self.error(f"{path}.ignore", f"contradicts {what}. Leave one of them out.")
        if len(ways) > 1:
            raise self.error(path, "has data and oneOf. Leave one of them out.")
        if not ways and not ignore and "shape" not in fields:
            raise self.error(path, "says nothing. Give data, oneOf or shape, or ignore: true.")
        if "tolerance" in fields and not ways:
            raise self.error(f"{path}.tolerance", "has nothing to compare. Add data or oneOf.")
        shape = self.shape(fields["shape"], f"{path}.shape") if "shape" in fields else None
        data = self.values(fields["data"], f"{path}.data") if "data" in fields else None
        if data is not None and shape is not None and len(data) != math.prod(shape):
            raise self.error(
                f"{path}.data",
                f"has {len(data)} elements, but shape {list(shape)} has room for "
                f"{math.prod(shape)}. Correct one of the two.",
            )
        one_of = None
        if "oneOf" in fields:
            one_of = self.values(
                self.entries(fields["oneOf"], f"{path}.oneOf"), f"{path}.oneOf", limit=100
            )
        return ExpectedOutput(
            name=self.text(fields["name"], f"{path}.name"),
            data=data,
            one_of=one_of,
            shape=shape,
            tolerance=(
                self.tolerance(fields["tolerance"], f"{path}.tolerance")
                if "tolerance" in fields
                else None
            ),
        )

    def values(self, value: Any, path: str, limit: int = MAX_ELEMENTS) -> tuple[Any, ...]:
        flat = self.flat(value, path)
        if len(flat) > limit:
            raise self.error(path, f"has {len(flat)} elements, at most {limit}.")
        for at, element in enumerate(flat):
            if isinstance(element, str | float) or (
                isinstance(element, int) and abs(element) < 1 << 64
            ):
                continue
            try:
                flat[at] = _from_base64(element)
            except ValueError as error:
                raise self.error(path, f"element {at} is {_shown(element)}; {error}.") from None
        return tuple(flat)

    def tolerance(self, value: Any, path: str) -> Tolerance:
        fields = self.fields(value, path, ("absolute", "relative"))
        for name, given in fields.items():
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if not number or not 0 <= given < math.inf:
                raise self.error(
                    f"{path}.{name}", f"is {_shown(given)}; it must be a number from 0."
                )
        if not fields:
            raise self.error(path, "says nothing. Give absolute, relative or both.")
        return Tolerance(**{name: float(given) for name, given in fields.items()})


def _flat(value: list[Any]) -> Iterator[Any]:
    for element in value:
        if isinstance(element, list):
            yield from _flat(element)
        else:
            yield element


def _element(value: Any, datatype: str) -> Value:
    """A JSON value as an element; ValueError says what it must be."""
    if datatype == "BOOL":
        if isinstance(value, bool):
            return value
        raise ValueError("a BOOL is true or false")
    if datatype == "BYTES":
        return value.encode() if isinstance(value, str) else _from_base64(value)
    if datatype in _INTEGERS:
        _, bits, signed = _INTEGERS[datatype]
        low = -(1 << (bits - 1)) if signed else 0
        high = (1 << (bits - 1 if signed else bits)) - 1
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"{datatype} holds whole numbers from {low} to {high}")
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"it is too large for {datatype}") from None
    raise ValueError(f'{datatype} holds numbers, "NaN", "Infinity" and "-Infinity"')


def _from_base64(value: Any) -> bytes:
    if isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("that is no base64") from None
    raise ValueError('it must be a value, or bytes as {"base64": "..."}')


# Against the model.


def check_against_metadata(requests: Iterable[GoldenRequest], metadata: Object) -> tuple[str, ...]:
    """What golden requests want of a model and it does not have; empty: all is there.

    Args:
        requests: for this model.
        metadata: the v2 model metadata, as ``GET /v2/models/<model>`` answers.
    """
    inputs = {t["name"]: t["datatype"] for t in metadata.get("inputs") or ()}
    outputs = [t["name"] for t in metadata.get("outputs") or ()]
    model = metadata.get("name", "")
    found = []
    for request in requests:
        if request.error is not None:
            continue  # that the model has no such tensor may be what it is to answer
        for i, tensor in enumerate(request.inputs):
            path = f"{request}: inputs[{i}]"
            if tensor.name not in inputs:
                found.append(
                    f"{path}.name is {_shown(tensor.name)}, but model {model} has inputs "
                    f"{_list(inputs)}."
                )
            elif tensor.datatype != inputs[tensor.name]:
                found.append(
                    f"{path}.datatype is {tensor.datatype}, but input {tensor.name} of model "
                    f"{model} is {inputs[tensor.name]}."
                )
        found += [
            f"{request}: expected.outputs[{i}].name is {_shown(output.name)}, but model {model} "
            f"has outputs {_list(outputs)}."
            for i, output in enumerate(request.outputs)
            if output.name not in outputs
        ]
    return tuple(found)


# The wire.


def encode(request: GoldenRequest) -> tuple[bytes, int]:
    """Body of a v2 inference request, and the length of the JSON at its beginning."""
    tensors = [_pack(tensor) for tensor in request.inputs]
    header: dict[str, Any] = {
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
            for tensor, raw in zip(request.inputs, tensors, strict=True)
        ]
    }
    if request.outputs:
        header["outputs"] = [
            {"name": output.name, "parameters": {"binary_data": True}} for output in request.outputs
        ]
    if request.parameters:
        header["parameters"] = dict(request.parameters)
    head = json.dumps(header).encode()
    return b"".join((head, *tensors)), len(head)


def decode(status: int, body: bytes, header_length: int | None) -> Answer:
    """An answer from its HTTP status, its body and the header Inference-Header-Content-Length.

    Raises:
        ValueError: it is no answer of the v2 protocol; says why.
    """
    if status != 200:
        return Answer(status, error=_error_text(body))
    length = len(body) if header_length is None else header_length
    try:
        header = json.loads(body[:length])
        outputs, at = {}, length
        for entry in header.get("outputs") or ():
            size = (entry.get("parameters") or {}).get("binary_data_size")
            shape = tuple(int(n) for n in entry["shape"])
            if size is None:  # an older or another server that answers in JSON all the same
                values = [_element(v, entry["datatype"]) for v in _flat(entry["data"])]
                raw = _pack(Tensor(entry["name"], entry["datatype"], shape, tuple(values)))
            else:
                raw, at = body[at : at + size], at + size
            outputs[entry["name"]] = Output(entry["datatype"], shape, raw)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
        raise ValueError(f"the answer is no v2 inference response: {error!r}") from error
    return Answer(status, outputs)


def _error_text(body: bytes) -> str:
    text = body[:4096].decode("utf-8", "replace")
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text


def _pack(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        # _element gives bytes for BYTES.
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
    return _INTEGERS[datatype][0] if datatype in _INTEGERS else _FLOATS[datatype]


def _to_bfloat16(value: float) -> bytes:
    """Two bytes, rounded to the nearest, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    if not math.isnan(value):
        bits += 0x7FFF + ((bits >> 16) & 1)
    return struct.pack("<H", (bits >> 16) & 0xFFFF)


# Comparing.


def compare(request: GoldenRequest, answer: Answer) -> str:
    """What differs most from what was expected; empty: nothing."""
    if request.error is not None:
        return _compare_error(request.error, answer)
    if answer.status != 200:
        return f"answered HTTP {answer.status}: {_short(answer.error, SHOWN_ERROR_CHARS)}"
    for expected in request.outputs:
        found = _compare_output(expected, answer.outputs.get(expected.name))
        if found:
            return f"output {expected.name}: {found}"
    return ""


def _compare_error(expected: ExpectedError, answer: Answer) -> str:
    if answer.status != expected.status:
        got = f"HTTP {answer.status}" + (
            f": {_short(answer.error, SHOWN_ERROR_CHARS)}" if answer.error else ""
        )
        return f"expected HTTP {expected.status}, got {got}"
    if expected.contains not in answer.error:
        return (
            f"expected an error that contains {_shown(expected.contains)}, "
            f"got {_short(answer.error, SHOWN_ERROR_CHARS)}"
        )
    return ""


def _compare_output(expected: ExpectedOutput, output: Output | None) -> str:
    if output is None:
        return "is not in the answer"
    if output.datatype not in DATATYPES:
        return f"has the unknown datatype {_shown(output.datatype)}"
    if expected.shape is not None and expected.shape != output.shape:
        return f"expected shape {list(expected.shape)}, got {list(output.shape)}"
    if expected.data is None and expected.one_of is None:
        return ""
    if expected.data is not None and len(expected.data) != math.prod(output.shape):
        return (
            f"expected {len(expected.data)} elements, got {math.prod(output.shape)} "
            f"(shape {list(output.shape)})"
        )
    try:
        got = unpack(output)
    except ValueError as error:
        return str(error)
    tolerance = expected.tolerance or DEFAULT_TOLERANCES.get(output.datatype, EXACT)
    if expected.data is not None:
        wrong = [
            (excess, at)
            for at, (want, have) in enumerate(zip(expected.data, got, strict=True))
            if (excess := _excess(want, have, output.datatype, tolerance)) > 0
        ]
    else:
        choices = expected.one_of or ()
        wrong = [
            (excess, at)
            for at, have in enumerate(got)
            if (excess := min(_excess(w, have, output.datatype, tolerance) for w in choices)) > 0
        ]
    if not wrong:
        return ""
    # Of equals, the first.
    at = max(wrong, key=lambda found: (found[0], -found[1]))[1]
    if expected.data is not None:
        want_text = _shown(expected.data[at])
    else:
        want_text = f"one of {_list(expected.one_of or ())}"
    numeric = output.datatype not in ("BYTES", "BOOL")
    return (
        f"expected {want_text} at {_index(at, output.shape)}, got {_shown(got[at])}"
        + (f" (tolerance {tolerance})" if numeric else "")
        + (f"; {len(wrong)} of {len(got)} elements differ" if len(got) > 1 else "")
    )


def _excess(expected: Any, got: Value, datatype: str, tolerance: Tolerance) -> float:
    """By how much an element lies outside; 0: it fits, infinite: it is something else."""
    try:
        want = _element(expected, datatype) if not isinstance(expected, bytes) else expected
    except ValueError:
        # 1.5 beside an INT8 and "a" beside a number are different; 3.0 beside an INT8 is not.
        if datatype not in _INTEGERS or not isinstance(expected, int | float):
            return math.inf
        want = expected
    if isinstance(want, bytes | bool) or isinstance(got, bytes | bool):
        return 0.0 if type(want) is type(got) and want == got else math.inf
    if datatype in _FLOATS:
        want = _rounded(want, datatype)
    if math.isnan(want) or math.isnan(got):
        return 0.0 if math.isnan(want) and math.isnan(got) else math.inf
    if want == got:
        return 0.0
    if math.isinf(want) or math.isinf(got):
        return math.inf
    difference = abs(got - want)
    return max(0.0, difference - (tolerance.absolute + tolerance.relative * abs(want)))


def _rounded(value: float, datatype: str) -> float:
    """The nearest that the datatype can hold: no FP32 is 0.1."""
    try:
        raw = _pack(Tensor("", datatype, (1,), (value,)))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(unpack(Output(datatype, (1,), raw))[0])


def _index(at: int, shape: tuple[int, ...]) -> list[int]:
    """A flat place as an index in each dimension."""
    index = []
    for size in reversed(shape):
        at, rest = divmod(at, size)
        index.append(rest)
    return index[::-1]


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return f"bytes {_short(value.hex())}"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.9g}"
    return _short(json.dumps(value, ensure_ascii=False, default=str))


def _short(text: str, limit: int = SHOWN_CHARS) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def _list(values: Iterable[Any]) -> str:
    shown = [v if isinstance(v, str) else _shown(v) for v in values]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "") or "none"
