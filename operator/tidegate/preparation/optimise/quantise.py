"""INT8, by ONNX Runtime's quantisation tools: dynamic, or static with calibration."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Any, Final

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import NothingToDo, PreparationError, one_line
from tidegate.preparation.optimise.step import require_onnx, require_weights, stepped, weights
from tidegate.preparation.samples import Samples
from tidegate.preparation.writing import whole

QUANTISED: Final = ("MatMul", "Gemm", "Conv")
EXTRA: Final = {"DefaultTensorType": 1}
"""Float, where no type can be inferred past an operator of another domain."""
FEWEST_FOR_CALIBRATION: Final = 32
"""Ranges seen on fewer samples say little of the next one."""


class Calibration(StrEnum):
    """How an activation's range is taken from the calibration samples."""

    MIN_MAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


def quantise_dynamic(
    candidate: Candidate, out: Path, *, per_channel: bool = True, reduce_range: bool = True
) -> Candidate:
    """8-bit weights; activations are quantised at each call by their own range.

    Args:
        candidate: a model with 32-bit weights.
        out: the file to write.
        per_channel: a scale for each output channel, else one for each weight.
        reduce_range: 7 bits of weights: older CPUs' 8-bit products overflow with all eight, and
            the same model would answer otherwise there.

    Raises:
        NothingToDo: there are no 32-bit weights.
        PreparationError: the tool fails on this model.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def work(source: Path, target: Path) -> None:
        quantize_dynamic(
            source,
            target,
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
            extra_options=EXTRA,
        )

    return _quantised(candidate, out, "int8-dynamic", "int8 dynamic", work)


def quantise_static(
    candidate: Candidate,
    out: Path,
    calibration: Samples | None,
    *,
    method: Calibration = Calibration.MIN_MAX,
    per_channel: bool = True,
    reduce_range: bool = True,
) -> Candidate:
    """8-bit weights and activations; their ranges are those of the calibration samples.

    Args:
        candidate: a model with 32-bit weights.
        out: the file to write.
        calibration: samples like those that will come; not those that it is judged on.
        method: how a range is taken.
        per_channel: as in `quantise_dynamic`.
        reduce_range: as in `quantise_dynamic`.

    Raises:
        NothingToDo: there are no 32-bit weights.
        PreparationError: calibration samples are missing, too few or do not fit, or the tool
            fails on this model.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    if calibration is None:
        raise PreparationError(
            "INT8 static needs calibration data: give samples, or take INT8 dynamic"
        )
    if len(calibration) < FEWEST_FOR_CALIBRATION:
        raise PreparationError(
            f"INT8 static needs {FEWEST_FOR_CALIBRATION} calibration samples at least, there are "
            f"{len(calibration)}"
        )
    arrays, count = session.fitted(candidate.inputs, calibration), len(calibration)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """The samples, some at a time."""

        def __init__(self) -> None:
            fixed = candidate.inputs[0].shape[0]
            step = fixed if fixed > 0 else min(session.BATCH, count)
            # Whole batches: histograms are taken of arrays of one shape.
            end = count - count % step
            self._batches = iter(
                {name: array[i : i + step] for name, array in arrays.items()}
                for i in range(0, end, step)
            )

        def get_next(self) -> Any:
            return next(self._batches, None)

    methods = {
        Calibration.MIN_MAX: CalibrationMethod.MinMax,
        Calibration.ENTROPY: CalibrationMethod.Entropy,
        Calibration.PERCENTILE: CalibrationMethod.Percentile,
    }

    def work(source: Path, target: Path) -> None:
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[method],
            op_types_to_quantize=list(QUANTISED),
            extra_options=EXTRA,
        )

    step = f"int8 static ({method}, {count} samples)"
    return _quantised(candidate, out, "int8-static", step, work)


def _quantised(
    candidate: Candidate, out: Path, name: str, step: str, work: Callable[[Path, Path], None]
) -> Candidate:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    require_onnx(candidate)
    require_weights(weights(session.read(candidate.path), QUANTISED), "INT8")
    with whole(out) as folder, _quiet():
        inferred = folder / "inferred.onnx"
        try:
            quant_pre_process(candidate.path, inferred, skip_symbolic_shape=True)
            _flatten_biases(inferred)
            work(inferred, folder / out.name)
        except OSError:
            raise
        except Exception as problem:  # of onnx', onnxruntime's and numpy's kinds
            raise PreparationError(f"{step} fails on this model: {one_line(problem)}") from problem
        inferred.unlink()
        made = session.read(folder / out.name)
        count = sum("Quantize" in node.op_type for node in made.graph.node)
        if count == 0:
            raise NothingToDo(f"{step}: ONNX Runtime found nothing to quantise in this model")
    return stepped(candidate, name, out, step, {"quantised": f"{count} (de)quantising nodes"})


def _flatten_biases(path: Path) -> None:
    """Give a Gemm's bias of shape [1, n] shape [n]: ONNX Runtime 1.31 fails on the former.

    Its own preparation makes them, of MatMul and Add (onnxruntime issue 24815).
    """
    model = session.read(path)
    initial = {i.name: i for i in model.graph.initializer}
    users = [name for node in model.graph.node for name in node.input]
    for node in model.graph.node:
        bias = initial.get(node.input[2]) if node.op_type == "Gemm" and node.input[2:] else None
        rows = bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1
        if bias is not None and rows and users.count(bias.name) == 1:
            del bias.dims[0]
    session.write(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tools' words on standard output and the root logger: what they advise is done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        root.setLevel(level)
