"""Golden requests from a ConfigMap, or what is wrong with them. Pure."""

import json
import math
import struct
from typing import Any, Final

from tidegate.golden.element import DATATYPES, element_of, flattened, from_base64, pack
from tidegate.golden.request import (
    MAX_BYTES,
    MAX_ELEMENTS,
    MAX_REQUESTS,
    SUFFIX,
    ExpectedError,
    ExpectedOutput,
    GoldenError,
    GoldenRequest,
    Object,
    Tensor,
    Tolerance,
    listing,
    show,
)

_WIRE_PARAMETERS: Final = frozenset({"binary_data_output", "binary_data_size", "binary_data"})


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
        raise _TwiceError(f"field {show(twice)} stands twice in one object. Keep one.")
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
            raise self.error(path, f"is {show(value)}; it must be an object.")
        for name in value:
            if name not in allowed:
                inner = f"{path}.{name}" if path else name
                raise self.error(inner, f"is no field. Fields here: {', '.join(allowed)}.")
        return value

    def entries(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self.error(path, f"is {show(value)}; it must be a list with an entry or more.")
        return value

    def text(self, value: Any, path: str) -> str:
        if not isinstance(value, str) or not value or len(value) > 253:
            raise self.error(path, f"is {show(value)}; it must be a text of 1 to 253 characters.")
        return value

    def distinct(self, names: list[str], path: str) -> None:
        for name in names:
            if names.count(name) > 1:
                raise self.error(path, f"name {show(name)} twice. Keep one.")

    def tensor(self, value: Any, path: str) -> Tensor:
        allowed = ("name", "datatype", "shape", "data")
        fields = self.fields(value, path, allowed)
        for needed in allowed:
            if needed not in fields:
                raise self.error(f"{path}.{needed}", f"is missing. It needs {', '.join(allowed)}.")
        datatype = fields["datatype"]
        if datatype not in DATATYPES:
            raise self.error(
                f"{path}.datatype", f"is {show(datatype)}; it must be one of {listing(DATATYPES)}."
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
                data.append(element_of(element, datatype))
            except ValueError as error:
                raise self.error(
                    f"{path}.data", f"element {at} is {show(element)}; {error}."
                ) from None
        tensor = Tensor(self.text(fields["name"], f"{path}.name"), datatype, shape, tuple(data))
        try:
            pack(tensor)
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
                f"is {show(value)}; it must be a list of sizes from 0, with at most "
                f"{MAX_ELEMENTS} elements in all.",
            )
        return tuple(value)

    def flat(self, value: Any, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.error(path, f"is {show(value)}; it must be a list of values.")
        return list(flattened(value))

    def parameters(self, value: Any) -> dict[str, str | int | float | bool]:
        if not isinstance(value, dict):
            raise self.error("parameters", f"is {show(value)}; it must be an object.")
        for name, given in value.items():
            path = f"parameters.{name}"
            if name in _WIRE_PARAMETERS:
                raise self.error(path, "is set by Tidegate itself. Leave it out.")
            if not isinstance(given, str | int | float | bool):
                raise self.error(
                    path, f"is {show(given)}; it must be a text, a number, true or false."
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
                f"is {show(status)}; it must be an HTTP status from 400 to 599.",
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
            raise self.error(f"{path}.ignore", f"is {show(ignore)}; it must be true or false.")
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
                flat[at] = from_base64(element)
            except ValueError as error:
                raise self.error(path, f"element {at} is {show(element)}; {error}.") from None
        return tuple(flat)

    def tolerance(self, value: Any, path: str) -> Tolerance:
        fields = self.fields(value, path, ("absolute", "relative"))
        for name, given in fields.items():
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if not number or not 0 <= given < math.inf:
                raise self.error(f"{path}.{name}", f"is {show(given)}; it must be a number from 0.")
        if not fields:
            raise self.error(path, "says nothing. Give absolute, relative or both.")
        return Tolerance(**{name: float(given) for name, given in fields.items()})
