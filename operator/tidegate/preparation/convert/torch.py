"""PyTorch programs (``.pt2``, written by ``torch.export.save``), by PyTorch's own exporter."""

from pathlib import Path
from typing import Any

import numpy as np

from tidegate.preparation.convert.original import Original, versions
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import Arrays

OLDEST_OPSET = 18
"""The exporter writes this opset, and converts up from it."""
SAVE_AS = (
    "save it as a program: torch.export.save(torch.export.export(model.eval(), (example,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2')"
)


def load(path: Path, samples: Samples) -> Original:
    """Load an exported program; its inputs take the samples' by position, its names are kept.

    Raises:
        PreparationError: it is no such program, or PyTorch is not installed.
    """
    if path.suffix != ".pt2":
        raise PreparationError(f"{path} holds weights or Python classes, not a graph: {SAVE_AS}")
    try:
        import torch
    except ImportError:
        raise PreparationError(
            "PyTorch is not installed here: install tidegate[preparation-frameworks]"
        ) from None
    try:
        program = torch.export.load(str(path))
    except Exception as problem:  # of torch's and its unpickler's many kinds
        raise PreparationError(
            f"{path} is no PyTorch program ({one_line(problem)}): {SAVE_AS}"
        ) from problem
    taken = list(program.graph_signature.user_inputs)
    if len(taken) != len(samples.inputs):
        raise PreparationError(
            f"the PyTorch model takes {len(taken)} inputs, the samples have "
            f"{', '.join(samples.inputs)}"
        )
    given = samples.inputs
    names = taken if all(name in given for name in taken) else list(given)
    wanted = [program.graph_signature.user_outputs]
    outputs = [f"output_{i}" if i else "output" for i in range(len(wanted[0]))]
    module = program.module()

    def export(opset: int) -> Any:
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=max(opset, OLDEST_OPSET),
            input_names=names,
            output_names=outputs,
            verbose=False,
        )
        if made is None:
            raise PreparationError("PyTorch's exporter gave no model")
        return made.model_proto

    def predict() -> Arrays:
        kinds = _kinds(program, taken)
        arrays = [
            torch.from_numpy(np.ascontiguousarray(given[name])).to(kind)
            for name, kind in zip(names, kinds, strict=True)
        ]
        parts = []
        with torch.no_grad():
            for begin in range(0, len(samples), 64):
                found = module(*[array[begin : begin + 64] for array in arrays])
                parts.append(found if isinstance(found, tuple | list) else [found])
        return {
            name: np.concatenate([part[i].numpy() for part in parts])
            for i, name in enumerate(outputs)
        }

    return Original("PyTorch", versions("torch", "onnxscript", "onnx"), export, predict)


def _kinds(program: Any, names: list[str]) -> list[Any]:
    placeholders = {
        node.name: node.meta["val"].dtype
        for node in program.graph.nodes
        if node.op == "placeholder"
    }
    return [placeholders[name] for name in names]
