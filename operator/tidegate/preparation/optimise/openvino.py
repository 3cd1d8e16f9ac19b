"""OpenVINO's own format (``.xml`` with ``.bin``), for Triton's OpenVINO backend."""

from pathlib import Path
from typing import Any, Final

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.optimise.step import require_onnx
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import Arrays
from tidegate.preparation.writing import size_bytes, whole

DATATYPES: Final = {
    "f32": "FP32",
    "f16": "FP16",
    "bf16": "BF16",
    "f64": "FP64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "boolean": "BOOL",
}


def to_openvino(candidate: Candidate, out: Path, *, fp16: bool = False) -> Candidate:
    """Convert to OpenVINO's IR.

    Args:
        candidate: an ONNX model.
        out: the ``.xml`` to write; the weights lie beside it.
        fp16: 16-bit weights on disc.

    Raises:
        PreparationError: OpenVINO is not installed, or does not know an operator.
    """
    openvino = _package()
    require_onnx(candidate)
    try:
        model = openvino.convert_model(str(candidate.path))
    except Exception as problem:
        raise PreparationError(
            f"OpenVINO does not convert {candidate.path}: {one_line(problem)}"
        ) from problem
    precision = _compiled(openvino, model).get_property("INFERENCE_PRECISION_HINT")
    with whole(out) as folder:
        openvino.save_model(model, str(folder / out.name), compress_to_fp16=fp16)
    return Candidate(
        name="openvino" if candidate.name == "fp32" else f"{candidate.name}-openvino",
        path=out,
        platform="openvino",
        inputs=tuple(_spec(one) for one in model.inputs),
        outputs=tuple(_spec(one) for one in model.outputs),
        size_bytes=size_bytes(out) + size_bytes(out.with_suffix(".bin")),
        steps=(*candidate.steps, "openvino fp16" if fp16 else "openvino"),
        notes={
            **candidate.notes,
            "openvino": openvino.__version__,
            # On CPUs with 16-bit units OpenVINO's usual choice is less than the model's 32 bits.
            "precision here": precision.get_type_name(),
        },
    )


def run(path: Path, samples: Samples, *, threads: int = 1) -> Arrays:
    """An IR's outputs for all samples, on the CPU.

    Raises:
        PreparationError: OpenVINO is not installed, or does not take the file or the samples.
    """
    compiled = _compiled(_package(), str(path), threads)
    names = [one.get_any_name() for one in compiled.outputs]

    def call(batch: Arrays) -> Arrays:
        found = compiled(batch)
        return {name: found[i].copy() for i, name in enumerate(names)}

    return session.answers(call, [_spec(one) for one in compiled.inputs], samples)


def _compiled(openvino: Any, model: Any, threads: int = 1) -> Any:
    try:
        return openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})
    except Exception as problem:
        raise PreparationError(
            f"OpenVINO does not load the model: {one_line(problem)}"
        ) from problem


def _spec(one: Any) -> TensorSpec:
    kind = one.get_element_type().get_type_name()
    if kind not in DATATYPES:
        raise PreparationError(f"OpenVINO's tensor {one.get_any_name()} is a {kind}")
    shape = tuple(n.get_length() if n.is_static else -1 for n in one.get_partial_shape())
    return TensorSpec(one.get_any_name(), DATATYPES[kind], shape)


def _package() -> Any:
    try:
        import openvino
    except ImportError:
        raise PreparationError(
            "OpenVINO is not installed here: install tidegate[preparation-frameworks]"
        ) from None
    return openvino
