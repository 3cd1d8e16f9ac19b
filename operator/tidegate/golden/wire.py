"""The v2 inference protocol with its binary tensor extension. Pure."""

import json
import struct
from typing import Any

from tidegate.golden.element import element_of, flattened, pack
from tidegate.golden.request import Answer, GoldenRequest, Output, Tensor


def encode(request: GoldenRequest) -> tuple[bytes, int]:
    """Body of a v2 inference request, and the length of the JSON at its beginning."""
    tensors = [pack(tensor) for tensor in request.inputs]
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
                values = [element_of(v, entry["datatype"]) for v in flattened(entry["data"])]
                raw = pack(Tensor(entry["name"], entry["datatype"], shape, tuple(values)))
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
