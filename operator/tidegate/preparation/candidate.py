"""A model as it could be served: a file, its tensors, and how it came to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TensorSpec:
    """An input or an output.

    Attributes:
        name: of the tensor.
        datatype: Triton's word, such as ``FP32``.
        shape: with the batch axis; -1 is dynamic.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """One way to serve a model.

    Attributes:
        name: such as ``fp32`` or ``int8-dynamic``.
        path: of the file (or folder) that holds it.
        platform: ``onnxruntime`` or ``openvino``.
        inputs: what it takes.
        outputs: what it gives.
        size_bytes: on disc.
        steps: what was done, in order.
        notes: what is worth knowing, by topic.
    """

    name: str
    path: Path
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size_bytes: int
    steps: tuple[str, ...]
    notes: Mapping[str, str]
