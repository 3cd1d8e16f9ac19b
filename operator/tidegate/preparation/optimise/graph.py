"""ONNX Runtime's own graph optimisation, done once instead of at every load."""

from pathlib import Path

import onnxruntime

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.optimise.step import require_onnx, stepped
from tidegate.preparation.writing import whole


def optimise_graph(candidate: Candidate, out: Path) -> Candidate:
    """Fold constants and fuse operators, up to the extended level.

    Not the last level: what it makes fits the CPU that made it only.

    Raises:
        PreparationError: ONNX Runtime does not take the model, or the disc is full.
    """
    require_onnx(candidate)
    before = len(session.read(candidate.path).graph.node)
    with whole(out) as folder:
        options = session.options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(folder / out.name)
        session.opened(candidate.path, made=options)
    after = len(session.read(out).graph.node)
    return stepped(
        candidate, "graph", out, "graph optimisation", {"nodes": f"{before} before, {after} after"}
    )
