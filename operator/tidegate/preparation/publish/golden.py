"""Golden requests out of samples: what the tuned server answers is what pods must answer."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from tidegate import golden
from tidegate.cli import recording
from tidegate.cli.inference import Address, ask
from tidegate.preparation.candidate import Candidate, TensorSpec

COUNT: Final = 8
"""Requests that are recorded."""
TIMES: Final = 3
"""Each is sent so often: what differs between the answers gets a tolerance."""
OTHER_PROCESSOR: Final = 0.01
"""Of an output's largest value: another processor sums in another order, and INT8 kernels differ
with the instructions there are."""

Columns = Mapping[str, Any]
"""Arrays by input name; the first axis is the samples."""


def documents(samples: Columns, inputs: Sequence[TensorSpec], count: int) -> list[dict[str, Any]]:
    """Requests of one item each, spread over the samples.

    Raises:
        ValueError: an input is missing.
    """
    missing = [t.name for t in inputs if t.name not in samples]
    if missing:
        raise ValueError(f"the data has no input {', '.join(missing)}; it has {', '.join(samples)}")
    total = len(samples[inputs[0].name])
    count = min(count, total)
    return [
        {"inputs": [_tensor(t, samples[t.name][i * total // count]) for t in inputs]}
        for i in range(count)
    ]


def _tensor(spec: TensorSpec, item: Any) -> dict[str, Any]:
    flat = item.reshape(-1).tolist() if hasattr(item, "reshape") else [item]
    shape = [1, *getattr(item, "shape", ())]
    if spec.datatype in ("FP16", "FP32", "FP64", "BF16"):
        data: list[Any] = [float(x) for x in flat]
    elif spec.datatype == "BYTES":
        data = [str(x) for x in flat]
    elif spec.datatype == "BOOL":
        data = [bool(x) for x in flat]
    else:
        data = [int(x) for x in flat]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data}


def requests(found: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> list[Any]:
    """The same as the load sends them."""
    return [recording.prepared(f"{i}.json", one, outputs) for i, one in enumerate(found)]


def record(
    address: str, model: str, candidate: Candidate, samples: Columns, *, name: str
) -> dict[str, Any]:
    """The ConfigMap with what a server answers.

    Args:
        address: of the tuned server.
        model: to ask.
        candidate: that it serves.
        samples: to choose from.
        name: of the ConfigMap.

    Raises:
        tidegate.cli.trouble.Trouble: it does not answer.
    """
    door = Address(address)
    outputs = [o.name for o in candidate.outputs]
    found = {}
    try:
        for number, document in enumerate(documents(samples, candidate.inputs, COUNT)):
            key = f"sample-{number}.json"
            request = recording.prepared(key, document, outputs)
            recorded = recording.record(
                key, document, partial(ask, door, model, request), times=TIMES
            )
            found[key] = recording.Recorded(_tolerant(recorded.document, candidate))
    finally:
        door.close()
    made = recording.config_map(name, "", found)
    del made["metadata"]["namespace"]  # the one that it is applied to
    return made


def _tolerant(document: dict[str, Any], candidate: Candidate) -> dict[str, Any]:
    floats = {o.name for o in candidate.outputs if o.datatype in golden.DEFAULT_TOLERANCES}
    outputs = []
    for output in document["expected"]["outputs"]:
        numbers = [abs(x) for x in output.get("data") or () if isinstance(x, int | float)]
        if output["name"] in floats and numbers:
            known = output.get("tolerance", {}).get("absolute", 0.0)
            absolute = max(known, float(f"{OTHER_PROCESSOR * max(numbers):.1g}"))
            output = {**output, "tolerance": {"absolute": absolute}}
        outputs.append(output)
    return {**document, "expected": {"outputs": outputs}}
