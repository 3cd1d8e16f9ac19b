"""What a model lacks for golden requests, and an answer for one of them. Pure."""

import math
from collections.abc import Iterable
from typing import Any

from tidegate.golden.element import DATATYPES, FLOATS, INTEGERS, element_of, pack, unpack
from tidegate.golden.request import (
    DEFAULT_TOLERANCES,
    EXACT,
    SHOWN_ERROR_CHARS,
    Answer,
    ExpectedError,
    ExpectedOutput,
    GoldenRequest,
    Object,
    Output,
    Tensor,
    Tolerance,
    Value,
    listing,
    shorten,
    show,
)


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
                    f"{path}.name is {show(tensor.name)}, but model {model} has inputs "
                    f"{listing(inputs)}."
                )
            elif tensor.datatype != inputs[tensor.name]:
                found.append(
                    f"{path}.datatype is {tensor.datatype}, but input {tensor.name} of model "
                    f"{model} is {inputs[tensor.name]}."
                )
        found += [
            f"{request}: expected.outputs[{i}].name is {show(output.name)}, but model {model} "
            f"has outputs {listing(outputs)}."
            for i, output in enumerate(request.outputs)
            if output.name not in outputs
        ]
    return tuple(found)


def compare(request: GoldenRequest, answer: Answer) -> str:
    """What differs most from what was expected; empty: nothing."""
    if request.error is not None:
        return _compare_error(request.error, answer)
    if answer.status != 200:
        return f"answered HTTP {answer.status}: {shorten(answer.error, SHOWN_ERROR_CHARS)}"
    for expected in request.outputs:
        found = _compare_output(expected, answer.outputs.get(expected.name))
        if found:
            return f"output {expected.name}: {found}"
    return ""


def _compare_error(expected: ExpectedError, answer: Answer) -> str:
    if answer.status != expected.status:
        got = f"HTTP {answer.status}" + (
            f": {shorten(answer.error, SHOWN_ERROR_CHARS)}" if answer.error else ""
        )
        return f"expected HTTP {expected.status}, got {got}"
    if expected.contains not in answer.error:
        return (
            f"expected an error that contains {show(expected.contains)}, "
            f"got {shorten(answer.error, SHOWN_ERROR_CHARS)}"
        )
    return ""


def _compare_output(expected: ExpectedOutput, output: Output | None) -> str:
    if output is None:
        return "is not in the answer"
    if output.datatype not in DATATYPES:
        return f"has the unknown datatype {show(output.datatype)}"
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
        want_text = show(expected.data[at])
    else:
        want_text = f"one of {listing(expected.one_of or ())}"
    numeric = output.datatype not in ("BYTES", "BOOL")
    return (
        f"expected {want_text} at {_index(at, output.shape)}, got {show(got[at])}"
        + (f" (tolerance {tolerance})" if numeric else "")
        + (f"; {len(wrong)} of {len(got)} elements differ" if len(got) > 1 else "")
    )


def _excess(expected: Any, got: Value, datatype: str, tolerance: Tolerance) -> float:
    """By how much an element lies outside; 0: it fits, infinite: it is something else."""
    try:
        want = element_of(expected, datatype) if not isinstance(expected, bytes) else expected
    except ValueError:
        # 1.5 beside an INT8 and "a" beside a number are different; 3.0 beside an INT8 is not.
        if datatype not in INTEGERS or not isinstance(expected, int | float):
            return math.inf
        want = expected
    if isinstance(want, bytes | bool) or isinstance(got, bytes | bool):
        return 0.0 if type(want) is type(got) and want == got else math.inf
    if datatype in FLOATS:
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
        raw = pack(Tensor("", datatype, (1,), (value,)))
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
