"""What every optimisation ends with: the next candidate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import NothingToDo, PreparationError

CONVERTED: Final = "onnxruntime"


def stepped(
    before: Candidate, name: str, out: Path, step: str, notes: Mapping[str, str]
) -> Candidate:
    """The candidate in ``out``, with one step more than the one before.

    Raises:
        PreparationError: ONNX Runtime does not take it, or its inputs or outputs have changed.
    """
    label = name if before.name in ("", "fp32") else f"{before.name}-{name}"
    made = session.candidate(label, out, (*before.steps, step), {**before.notes, **notes})
    for side, was, now in (
        ("inputs", before.inputs, made.inputs),
        ("outputs", before.outputs, made.outputs),
    ):
        if [(t.name, t.datatype) for t in was] != [(t.name, t.datatype) for t in now]:
            raise PreparationError(f"{step} changed the {side}: {was} became {now}")
    return made


def require_onnx(candidate: Candidate) -> None:
    """Only an ONNX file can be worked on.

    Raises:
        PreparationError: it is something else.
    """
    if candidate.platform != CONVERTED:
        raise PreparationError(
            f"{candidate.name} is for {candidate.platform}: optimise the ONNX model it was made of"
        )


def weights(model: Any, operators: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Constant float weights of these operators: the initialiser and its node, by name.

    Those that several nodes share are left out: what suits one may not suit the other.
    """
    from onnx import TensorProto

    initial = {i.name: i for i in model.graph.initializer}
    users: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            users[name] = users.get(name, 0) + 1
    return {
        node.input[1]: (initial[node.input[1]], node)
        for node in model.graph.node
        if node.op_type in operators
        and node.domain in ("", "ai.onnx")
        and len(node.input) > 1
        and node.input[1] in initial
        and users[node.input[1]] == 1
        and initial[node.input[1]].data_type == TensorProto.FLOAT
    }


def require_weights(found: Mapping[str, Any], what: str) -> None:
    """Stop where there are none.

    Raises:
        NothingToDo: as for trees.
    """
    if not found:
        raise NothingToDo(
            f"{what}: the model has no MatMul, Gemm or Conv with constant 32-bit weights (trees "
            "have none)"
        )
