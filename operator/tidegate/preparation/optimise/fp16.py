"""Half precision: 16-bit weights and arithmetic between 32-bit inputs and outputs."""

import warnings
from pathlib import Path
from typing import Any

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.optimise.step import require_onnx, require_weights, stepped, weights


def to_fp16(candidate: Candidate, out: Path) -> Candidate:
    """Convert; inputs and outputs keep their types, so clients see no difference.

    Made for GPUs: a CPU without 16-bit arithmetic converts back and forth and is slower.

    Raises:
        NothingToDo: there are no 32-bit weights.
        PreparationError: an operator cannot be converted.
    """
    from onnxconverter_common import float16

    require_onnx(candidate)
    model = session.read(candidate.path)
    require_weights(weights(model, ("MatMul", "Gemm", "Conv")), "FP16")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            made = float16.convert_float_to_float16(model, keep_io_types=True)
        except Exception as problem:
            raise PreparationError(f"FP16 cannot be made: {one_line(problem)}") from problem
    _mend_casts(made)
    session.write(made, out)
    cut = sum("truncate" in str(w.message) for w in told)
    notes = {"fp16": f"{cut} tensors had values too large or too small for 16 bits"} if cut else {}
    return stepped(candidate, "fp16", out, "fp16", notes)


def _mend_casts(model: Any) -> None:
    """Let casts to 32 bits give what the converter has noted of their outputs: 16 bits."""
    from onnx import TensorProto

    halves = {
        v.name
        for v in model.graph.value_info
        if v.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    for node in model.graph.node:
        if node.op_type == "Cast" and node.output[0] in halves:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
