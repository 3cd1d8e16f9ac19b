"""A candidate as a Triton model repository: its files and its ``config.pbtxt``."""

import math
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.tuning.grid import Setting
from tidegate.resources.model_config import ModelConfig, to_pbtxt

SERVED: Final = Path(__file__).parent / "served" / "model.py"
VERSION: Final = "1"
THREADS: Final = "intra_op_thread_count"
"""Of the onnxruntime backend; our Python model reads the same name."""


class Backend(StrEnum):
    """What runs the candidate inside Triton."""

    ONNXRUNTIME = "onnxruntime"
    PYTHON = "python"
    """A small model of ours that calls ONNX Runtime, where Triton lacks that backend."""


def batches(candidate: Candidate) -> bool:
    """Whether requests can be put together: the first axis of every tensor is free."""
    tensors = (*candidate.inputs, *candidate.outputs)
    return all(t.shape and t.shape[0] == -1 for t in tensors)


def config(candidate: Candidate, name: str, setting: Setting, backend: Backend) -> str:
    """The text of config.pbtxt.

    Args:
        candidate: what is served.
        name: of the model.
        setting: as it is to be served; one execution at a time for requests of one item needs no
            batches.
        backend: what runs it.
    """
    batching = batches(candidate)
    found = ModelConfig(name=name, backend=backend.value)
    found.max_batch_size = setting.batch if batching else 0
    for spec, wanted in ((candidate.inputs, found.input), (candidate.outputs, found.output)):
        for tensor in spec:
            _describe(wanted.add(), tensor, batching)
    group = found.instance_group.add()
    group.kind = group.KIND_CPU
    group.count = setting.instances
    if batching and setting.batch > 1:
        found.dynamic_batching.SetInParent()
        if setting.delay_ms:
            found.dynamic_batching.max_queue_delay_microseconds = round(1000 * setting.delay_ms)
    found.parameters[THREADS].string_value = str(setting.threads)
    return to_pbtxt(found)


def _describe(entry: Any, tensor: TensorSpec, batching: bool) -> None:
    entry.name = tensor.name
    word = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    entry.data_type = (
        entry.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name[f"TYPE_{word}"].number
    )
    shape = tensor.shape[1:] if batching else tensor.shape
    # A tensor of nothing but the batch axis is [n] on the wire: dims [1] and a reshape to [].
    entry.dims.extend(shape or (1,))
    if not shape:
        entry.reshape.SetInParent()


def write(
    folder: Path, candidate: Candidate, name: str, setting: Setting, backend: Backend
) -> None:
    """Write ``folder/name``.

    Raises:
        ValueError: this candidate cannot be served so.
        OSError: it cannot be written.
    """
    if candidate.platform != "onnxruntime":
        raise ValueError(f"{candidate.name}: {candidate.platform} is not served by {backend} here")
    target = folder / name / VERSION
    target.mkdir(parents=True)
    (folder / name / "config.pbtxt").write_text(config(candidate, name, setting, backend))
    shutil.copyfile(candidate.path, target / "model.onnx")
    for beside in _external(candidate.path):
        shutil.copyfile(beside, target / beside.name)
    if backend is Backend.PYTHON:
        shutil.copyfile(SERVED, target / "model.py")


def _external(path: Path) -> list[Path]:
    """Weights that an ONNX file keeps beside it."""
    return sorted(path.parent.glob(f"{path.name}.data")) + sorted(
        path.parent.glob(f"{path.stem}.data")
    )


def items(tensor: TensorSpec) -> int:
    """Elements of one item; an axis that is free counts as 1."""
    return math.prod(max(1, n) for n in tensor.shape[1:])
