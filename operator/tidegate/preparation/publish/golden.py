"""Golden requests out of samples: what the tuned server answers is what pods must answer.

Their ConfigMap is named by its content: a version's known answers stay while the next version,
which answers otherwise, is on trial, and after it was rolled back.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from tidegate import golden
from tidegate.api.names import GOLDEN_OF_LABEL
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
DIGEST_LENGTH: Final = 10
"""Hexadecimal digits of the content's sha256 in the name."""
STAYS: Final = {
    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
    "argocd.argoproj.io/sync-options": "Prune=false",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
}
"""A folder in git holds the newest ConfigMap only; those before it must outlive that."""

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


def record(address: str, model: str, candidate: Candidate, samples: Columns) -> dict[str, Any]:
    """The ConfigMap with what a server answers.

    Args:
        address: of the tuned server.
        model: to ask; the ModelDeployment has the same name.
        candidate: that it serves.
        samples: to choose from.

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
    return config_map(model, found)


def config_map(name: str, found: Mapping[str, recording.Recorded]) -> dict[str, Any]:
    """The ConfigMap, named by its content, which cannot be changed under that name.

    Args:
        name: of the ModelDeployment.
        found: golden requests by key.

    Raises:
        tidegate.cli.trouble.Trouble: they are too many, or too large.
    """
    made = recording.config_map(f"{name}-golden", "", found)
    text = json.dumps(made["data"], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
    made["metadata"] = {  # no namespace: the one that it is applied to
        "name": f"{name}-golden-{digest}",
        "labels": {GOLDEN_OF_LABEL: name},
        "annotations": dict(STAYS),
    }
    return made | {"immutable": True}


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
