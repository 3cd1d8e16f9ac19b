"""From a framework's file to ONNX, by the framework's own exporter, checked against the original.

Each framework has a module with ``load(path, samples) -> Original``; what comes after is the same
for all: export, a served batch axis, the oldest format version that carries it, and the numeric
check.
"""

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.check import FLOAT32, Agreement, Tolerance, compare, require
from tidegate.preparation.convert.original import Original
from tidegate.preparation.convert.plain import plain
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.samples import Samples

OPSET: Final = 18
"""Of the default domain: understood by any Triton from 2023 on."""


class Framework(StrEnum):
    """What a model was trained with."""

    SKLEARN = "sklearn"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    TORCH = "torch"
    TENSORFLOW = "tensorflow"
    ONNX = "onnx"


SUFFIXES: Final = {
    ".joblib": Framework.SKLEARN,
    ".pkl": Framework.SKLEARN,
    ".pickle": Framework.SKLEARN,
    ".json": Framework.XGBOOST,
    ".ubj": Framework.XGBOOST,
    ".txt": Framework.LIGHTGBM,
    ".lgb": Framework.LIGHTGBM,
    ".pt2": Framework.TORCH,
    ".pt": Framework.TORCH,
    ".pth": Framework.TORCH,
    ".keras": Framework.TENSORFLOW,
    ".h5": Framework.TENSORFLOW,
    ".onnx": Framework.ONNX,
}
PMML: Final = (
    "PMML is not converted: no exporter from PMML to ONNX is kept up, and Triton has no runtime "
    "for it. Convert the estimator that the PMML was written from (scikit-learn, XGBoost, "
    "LightGBM), or wrap a PMML scorer as a model of Triton's Python backend and deploy that "
    "without preparing"
)


def framework_of(path: Path) -> Framework:
    """What a file is of, by its name.

    Raises:
        PreparationError: it does not say, it is PMML, or it is not there.
    """
    if path.suffix.lower() == ".pmml":
        raise PreparationError(PMML)
    if not path.exists():
        raise PreparationError(f"{path} does not exist")
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            return Framework.TENSORFLOW
        raise PreparationError(f"{path} is a folder without saved_model.pb: name the model's file")
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise PreparationError(
            f"{path}: what it was trained with cannot be told from its name; "
            f"known are {', '.join(SUFFIXES)}, or say one of {', '.join(Framework)}"
        )
    return found


def load(path: Path, samples: Samples, framework: Framework | None = None) -> Original:
    """Load a model with what it was trained with.

    Raises:
        PreparationError: it cannot be loaded, or the samples do not fit it.
    """
    chosen = framework_of(path) if framework is None else framework
    opener: Callable[[Path, Samples], Original] = import_module(f"{__name__}.{chosen}").load
    return opener(path, samples)


def convert(
    model: Path,
    samples: Samples,
    out: Path,
    *,
    framework: Framework | None = None,
    opset: int = OPSET,
    tolerance: Tolerance = FLOAT32,
    name: str = "fp32",
) -> Candidate:
    """Convert a model and check it on the samples.

    Args:
        model: the framework's file.
        samples: golden data; labels are not looked at.
        out: the ONNX file to write.
        framework: where the file's name does not say it.
        opset: of the default domain; exporters that know only older ones write those.
        tolerance: what the answers may differ by.
        name: of the candidate.

    Returns:
        The candidate; its notes hold the versions, the opset, and the check of each output.

    Raises:
        PreparationError: the exporter does not know an operator, or the answers differ: then it
            names the tensor and the sample. The converted file is kept, for a look at it.
    """
    original = load(model, samples, framework)
    try:
        made = original.export(opset)
    except PreparationError:
        raise
    except Exception as problem:  # of the exporters' many kinds
        raise PreparationError(
            f"{original.framework}'s exporter cannot convert {model}: {one_line(problem)}"
        ) from problem
    plain(made)
    _make_servable(made)
    session.write(made, out)
    found = session.candidate(name, out, [f"convert {original.framework}"])
    agreements = agreement(found, original, samples, tolerance)
    require(agreements)
    notes = {
        "opset": ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in made.opset_import),
        "versions": ", ".join(f"{n} {v}" for n, v in sorted(original.versions.items())),
        "batch": "any" if all(t.shape[:1] == (-1,) for t in found.inputs) else "fixed",
        **{f"check of {a.output}": a.sentence() for a in agreements},
    }
    return Candidate(
        found.name,
        found.path,
        found.platform,
        found.inputs,
        found.outputs,
        found.size_bytes,
        found.steps,
        notes,
    )


def agreement(
    candidate: Candidate, original: Original, samples: Samples, tolerance: Tolerance = FLOAT32
) -> list[Agreement]:
    """Compare a converted model with the original on the samples it was loaded with.

    Raises:
        PreparationError: one of them fails, or an output is missing or has another shape.
    """
    try:
        before = original.predict()
    except PreparationError:
        raise
    except Exception as problem:
        raise PreparationError(
            f"the {original.framework} model itself fails on the samples: {one_line(problem)}"
        ) from problem
    return compare(before, session.run(candidate.path, samples), tolerance)


def _make_servable(model: Any) -> None:
    """Mend what exporters leave: doubled opsets, fixed batches of outputs, a needless version."""
    from onnx.helper import find_min_ir_version_for, make_opsetid

    opsets = {o.domain: o.version for o in model.opset_import}
    opsets.setdefault("", OPSET)
    del model.opset_import[:]
    model.opset_import.extend(make_opsetid(d, v) for d, v in sorted(opsets.items()))
    # An older server knows older versions of the format only.
    model.ir_version = min(
        model.ir_version, max(8, find_min_ir_version_for(model.opset_import, ignore_unknown=True))
    )
    initial = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initial]
    if not all(_is_dynamic(i) for i in inputs):
        return
    for tensor in (*inputs, *model.graph.output):
        shape = tensor.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].Clear()
            shape.dim[0].dim_param = "batch"


def _is_dynamic(tensor: Any) -> bool:
    dims = tensor.type.tensor_type.shape.dim
    return bool(dims) and not dims[0].HasField("dim_value")
