"""ONNX files: what they take and give, and their answers on this machine's CPU."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.samples import Samples
from tidegate.preparation.writing import size_bytes, whole

BATCH: Final = 64
"""Samples a call, where the model takes any number."""
LARGEST_PROTOBUF_BYTES: Final = 2_000_000_000
"""Beyond this, weights lie in a file beside the model."""

DATATYPES: Final[Mapping[str, str]] = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(double)": "FP64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "BYTES",
}
"""ONNX Runtime's words for what Triton calls so."""
NUMPY: Final[Mapping[str, Any]] = {
    "FP32": np.float32,
    "FP16": np.float16,
    "FP64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "BOOL": np.bool_,
    "BYTES": np.object_,
}

Arrays = dict[str, NDArray[Any]]


def options(threads: int = 1) -> Any:
    """A session's options: so many threads, and no words on standard error."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1
    made.log_severity_level = 4
    return made


def opened(path: Path, *, threads: int = 1, made: Any = None) -> Any:
    """A session on the CPU.

    Raises:
        PreparationError: ONNX Runtime does not take the file: an operator it lacks, a bad graph.
    """
    try:
        return onnxruntime.InferenceSession(
            str(path), made or options(threads), providers=["CPUExecutionProvider"]
        )
    except Exception as problem:  # of onnxruntime's own kinds, without a common base
        raise PreparationError(f"ONNX Runtime does not load {path}: {one_line(problem)}") from None


def tensors(session: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a session.

    Raises:
        PreparationError: one is no tensor: a map or a sequence, which Triton does not serve.
    """
    return (
        tuple(_spec("input", one) for one in session.get_inputs()),
        tuple(_spec("output", one) for one in session.get_outputs()),
    )


def candidate(
    name: str, path: Path, steps: Sequence[str], notes: Mapping[str, str] | None = None
) -> Candidate:
    """What an ONNX file is as a candidate; it is opened for that.

    Raises:
        PreparationError: ONNX Runtime does not take it.
    """
    inputs, outputs = tensors(opened(path))
    beside = path.with_name(f"{path.name}.data")
    size = size_bytes(path) + (size_bytes(beside) if beside.exists() else 0)
    return Candidate(
        name, path, "onnxruntime", inputs, outputs, size, tuple(steps), dict(notes or {})
    )


def read(path: Path) -> Any:
    """The model in a file, with its weights.

    Raises:
        PreparationError: it is no ONNX model.
    """
    try:
        return onnx.load(str(path))
    except Exception as problem:  # protobuf's and onnx' own kinds, and OSError
        raise PreparationError(f"{path} is no ONNX model: {one_line(problem)}") from None


def write(model: Any, out: Path) -> None:
    """Write a model, whole or not at all; above 2 GB its weights lie beside it.

    Raises:
        PreparationError: the disc is full.
    """
    with whole(out) as folder:
        large = model.ByteSize() > LARGEST_PROTOBUF_BYTES
        beside = {"save_as_external_data": True, "location": f"{out.name}.data"} if large else {}
        onnx.save_model(model, str(folder / out.name), **beside)


def fitted(inputs: Sequence[TensorSpec], samples: Samples) -> Arrays:
    """The samples as these inputs want them: by name, type and shape.

    A model with one input takes samples with one, whatever the names.

    Raises:
        PreparationError: one is missing or has another shape.
    """
    given = samples.inputs
    if len(inputs) == 1 and len(given) == 1:
        given = {inputs[0].name: next(iter(given.values()))}
    made = {}
    for spec in inputs:
        if spec.name not in given:
            raise PreparationError(
                f"input {spec.name} is missing in the samples, which have {', '.join(given)}"
            )
        made[spec.name] = _fitted(spec, given[spec.name])
    return made


def answers(
    call: Callable[[Arrays], Arrays], inputs: Sequence[TensorSpec], samples: Samples
) -> Arrays:
    """Outputs for all samples, some at a time; the first axis is samples.

    Args:
        call: answers one batch.
        inputs: what it takes.
        samples: to be answered.

    Raises:
        PreparationError: inputs do not fit, the model fails, or an output has no axis of samples.
    """
    arrays = fitted(inputs, samples)
    fixed = {spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] > 0}
    step = fixed.pop() if len(fixed) == 1 else BATCH
    parts: list[Arrays] = []
    for begin in range(0, len(samples), step):
        batch = {name: array[begin : begin + step] for name, array in arrays.items()}
        count = len(next(iter(batch.values())))
        if count < step and any(spec.shape and spec.shape[0] > 0 for spec in inputs):
            # A model of a fixed batch gets the last sample again, and its answers are dropped.
            batch = {
                n: np.concatenate([a, a[-1:].repeat(step - count, 0)]) for n, a in batch.items()
            }
        try:
            found = call(batch)
        except Exception as problem:
            raise PreparationError(
                f"the model fails on samples {begin} to {begin + count - 1}: {one_line(problem)}"
            ) from problem
        for name, array in found.items():
            if array.ndim == 0 or len(array) < count:
                raise PreparationError(
                    f"output {name} has shape {list(array.shape)} for {count} samples: no axis of "
                    "samples"
                )
        parts.append({name: array[:count] for name, array in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run(path: Path, samples: Samples, *, threads: int = 1) -> Arrays:
    """An ONNX file's outputs for all samples.

    Raises:
        PreparationError: as `opened` and `answers`.
    """
    session = opened(path, threads=threads)
    inputs, outputs = tensors(session)
    names = [spec.name for spec in outputs]

    def call(batch: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, batch), strict=True))

    return answers(call, inputs, samples)


def _fitted(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] in (-1, 1):
        array = array[:, None]
    wanted = spec.shape[1:]
    got = array.shape[1:]
    fits = len(wanted) == len(got) and all(w in (-1, g) for w, g in zip(wanted, got, strict=True))
    if not fits:
        shape = ["samples", *wanted]
        raise PreparationError(
            f"input {spec.name} takes shape [{', '.join(map(str, shape))}], the samples have "
            f"{list(array.shape)}"
        )
    kind = NUMPY.get(spec.datatype)
    if kind is None:
        raise PreparationError(f"input {spec.name} is {spec.datatype}, which numpy does not know")
    if spec.datatype != "BYTES" and array.dtype.kind not in "biuf":
        raise PreparationError(
            f"input {spec.name} takes {spec.datatype}, the samples hold {array.dtype}"
        )
    return np.ascontiguousarray(array.astype(kind))


def _spec(side: str, one: Any) -> TensorSpec:
    datatype = DATATYPES.get(one.type)
    if datatype is None:
        raise PreparationError(f"{side} {one.name} is a {one.type}: Triton serves tensors only")
    return TensorSpec(one.name, datatype, tuple(n if isinstance(n, int) else -1 for n in one.shape))
