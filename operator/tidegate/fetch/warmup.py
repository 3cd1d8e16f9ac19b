"""Warm-up with what the golden requests ask, where their ConfigMap is there and fits the model.

``model.config.warmup`` alone warms up with zeros. A model whose time depends on what it is asked
(texts, masks, shapes left open) is warm only for zeros then, so the inputs of golden requests take
their place. The ConfigMap shapes no pod: it is read when a pod starts, and one that is missing, or
of which nothing fits, leaves the zeros.

All but `read_golden` is pure.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tidegate.fetch.progress import log
from tidegate.golden import SUFFIX, GoldenError, GoldenRequest, Tensor, encode, parse
from tidegate.resources.triton_config import WARMUP_NAME

MOST: Final = 8
"""Golden requests that warm up: each runs as often as the warm-up says, in each instance."""
FOLDER: Final = "warmup"
"""Triton's own, inside the model's folder."""


def read_golden(folder: Path) -> tuple[GoldenRequest, ...]:
    """The golden requests of a mounted ConfigMap; none if it is missing or cannot be read."""
    try:
        files = {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.glob(f"*{SUFFIX}"))}
        if not files:
            return ()
        return parse({"metadata": {"name": "of the golden requests"}, "data": files})
    except (OSError, UnicodeError, GoldenError) as error:
        log("warning", "golden requests do not warm up the model", error=str(error))
        return ()


def warm_up_with(
    config: Any, requests: Iterable[GoldenRequest], model: str
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Put golden requests in the place of the warm-up's zeros, in place; the first `MOST` that fit.

    Args:
        config: of the model, merged.
        requests: from `read_golden`.
        model: the name that it is served by.

    Returns:
        Files by path in the model's folder, and by key why a golden request does not fit.
    """
    asked = next((w for w in config.model_warmup if w.name == WARMUP_NAME and not w.inputs), None)
    if asked is None:
        return {}, {}
    files: dict[str, bytes] = {}
    unfit: dict[str, str] = {}
    made: list[Any] = []
    for request in requests:
        if problem := _problem(config, request, model):
            unfit[request.key] = problem
        elif len(made) < MOST:
            number = len(made) + 1
            warmup = type(asked)()
            warmup.CopyFrom(asked)
            warmup.name = f"{WARMUP_NAME}-{number}"
            for place, (tensor, raw) in enumerate(_packed(config, request), 1):
                path = f"{WARMUP_NAME}-{number}-{place}"
                sample = warmup.inputs[tensor.name]
                sample.data_type = _type_of(config, tensor.name)
                sample.dims.extend(_item_shape(config, tensor))
                sample.input_data_file = path
                files[f"{FOLDER}/{path}"] = raw
            made.append(warmup)
    if made:
        config.model_warmup.remove(asked)
        config.model_warmup.extend(made)
    return files, unfit


def _problem(config: Any, request: GoldenRequest, model: str) -> str:
    """Why Triton could not warm up with this request; empty: it can."""
    if request.model not in ("", model):
        return f"it asks {request.model}"
    if request.error is not None:
        return "it expects an error"
    if request.parameters:
        return "it has parameters, which a warm-up has not"
    if config.HasField("sequence_batching") or config.HasField("ensemble_scheduling"):
        return "Triton warms up neither sequences nor ensembles"
    known = {each.name: each for each in config.input}
    given = {tensor.name for tensor in request.inputs}
    if not known:
        return "the configuration names no inputs"
    if missing := [name for name, each in known.items() if not each.optional and name not in given]:
        return f"it has no input {missing[0]}"
    for tensor in request.inputs:
        wanted = known.get(tensor.name)
        if wanted is None:
            return f"the model has no input {tensor.name}"
        if _datatype(wanted) != tensor.datatype:
            return f"{tensor.name} is {tensor.datatype}, the model takes {_datatype(wanted)}"
        shape, dims = _item_shape(config, tensor), list(wanted.dims)
        if len(shape) != len(dims) or any(
            have != want and want >= 0 for have, want in zip(shape, dims, strict=True)
        ):
            return f"{tensor.name} is {shape} an item, the model takes {dims}"
        if 0 in tensor.shape:
            return f"{tensor.name} is empty"
    return ""


def _datatype(entry: Any) -> str:
    """Of the v2 protocol."""
    name: str = (
        entry.DESCRIPTOR.fields_by_name["data_type"]
        .enum_type.values_by_number[entry.data_type]
        .name
    )
    text = name.removeprefix("TYPE_")
    return "BYTES" if text == "STRING" else text


def _type_of(config: Any, name: str) -> int:
    return int(next(each.data_type for each in config.input if each.name == name))


def _item_shape(config: Any, tensor: Tensor) -> list[int]:
    """Without the batch, where the model has one."""
    return list(tensor.shape[1:] if config.max_batch_size > 0 else tensor.shape)


def _packed(config: Any, request: GoldenRequest) -> list[tuple[Tensor, bytes]]:
    """The inputs, of a batch its first item, as Triton reads them from files."""
    tensors = [
        replace(t, shape=(1, *t.shape[1:]), data=t.data[: len(t.data) // t.shape[0]])
        if config.max_batch_size > 0
        else t
        for t in request.inputs
    ]
    body, length = encode(replace(request, inputs=tuple(tensors)))
    header: Mapping[str, Any] = json.loads(body[:length])
    packed, at = [], length
    for tensor, told in zip(tensors, header["inputs"], strict=True):
        size = int(told["parameters"]["binary_data_size"])
        packed.append((tensor, body[at : at + size]))
        at += size
    return packed
