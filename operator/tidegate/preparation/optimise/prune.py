"""Pruning by magnitude: single weights become 0, or whole units leave the graph.

Unstructured pruning (Han et al., Learning both Weights and Connections, 2015) changes no shape:
with dense kernels it is as fast as before, and smaller only once compressed. Structured pruning
removes the units of a layer, or the filters of a convolution, with the least L1 norm (Li et al.,
Pruning Filters for Efficient ConvNets, 2017): it is smaller and faster with any runtime. Neither
is trained again here, so the accuracy gate decides how much a model bears.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from tidegate.preparation import session
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import NothingToDo, PreparationError
from tidegate.preparation.optimise.step import require_onnx, require_weights, stepped, weights

PRUNED: Final = ("MatMul", "Gemm", "Conv")
ELEMENTWISE: Final = frozenset(
    {
        *("Relu", "LeakyRelu", "Elu", "Selu", "Sigmoid", "Tanh", "Softplus", "Clip"),
        *("HardSigmoid", "HardSwish", "Gelu", "Identity", "Cast", "Dropout"),
    }
)
BY_CHANNEL: Final = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
"""What works on each channel alone; between convolutions only."""


def prune_unstructured(candidate: Candidate, out: Path, share: float) -> Candidate:
    """Set the smallest weights, of all layers together, to 0.

    Args:
        candidate: a model with 32-bit weights.
        out: the file to write.
        share: of the weights, above 0 and below 1.

    Raises:
        NothingToDo: there are no 32-bit weights.
        PreparationError: the share is not a share.
    """
    _check(share)
    require_onnx(candidate)
    model = session.read(candidate.path)
    found = weights(model, PRUNED)
    require_weights(found, "pruning")
    arrays = {name: numpy_helper.to_array(tensor) for name, (tensor, _) in found.items()}
    limit = float(np.quantile(np.concatenate([np.abs(a).ravel() for a in arrays.values()]), share))
    zeros = total = 0
    for name, array in arrays.items():
        kept = np.where(np.abs(array) <= limit, np.float32(0.0), array)
        zeros, total = zeros + int((kept == 0.0).sum()), total + kept.size
        found[name][0].CopyFrom(numpy_helper.from_array(kept, name))
    session.write(model, out)
    sparsity = f"{zeros / total:.1%} of {total:,} weights are 0"
    return stepped(
        candidate, f"pruned-{share:g}", out, f"prune weights {share:g}", {"sparsity": sparsity}
    )


def prune_structured(candidate: Candidate, out: Path, share: float) -> Candidate:
    """Remove the weakest units of every layer whose next layer can be narrowed with it.

    Args:
        candidate: a model with 32-bit weights.
        out: the file to write.
        share: of each such layer's units, above 0 and below 1; one stays at least.

    Raises:
        NothingToDo: no layer's units can be removed.
        PreparationError: the share is not a share.
    """
    _check(share)
    require_onnx(candidate)
    model = session.read(candidate.path)
    before = _parameters(model)
    layers = units = 0
    for pair in list(_pairs(model)):
        gone = pair.remove(model, share)
        layers, units = layers + (gone > 0), units + gone
    if units == 0:
        raise NothingToDo(
            "structured pruning: no layer is followed, over operators that work on each unit "
            "alone, by one that could be narrowed"
        )
    del model.graph.value_info[:]  # the shapes in between have changed
    session.write(model, out)
    after = _parameters(model)
    notes = {
        "sparsity": f"{units} units of {layers} layers removed: {after:,} of {before:,} parameters"
    }
    return stepped(candidate, f"narrowed-{share:g}", out, f"remove units {share:g}", notes)


@dataclass
class _Pair:
    """Two layers in a row: ``first``'s outputs are ``second``'s inputs, unit by unit.

    Attributes:
        first: initialiser of the weights that make the units.
        first_axis: of its units.
        second: of the weights that use them.
        second_axis: of the units there.
        beside: initialisers in between, with the units on this axis.
        flattened: initialiser of the shape, where a Reshape flattens in between; else ''.
    """

    first: str
    first_axis: int
    second: str
    second_axis: int
    beside: list[tuple[str, int]]
    flattened: str = ""

    def remove(self, model: Any, share: float) -> int:
        """Remove that share of the units; returns how many."""
        tensors = {i.name: i for i in model.graph.initializer}
        array = numpy_helper.to_array(tensors[self.first])
        count = array.shape[self.first_axis]
        following = numpy_helper.to_array(tensors[self.second])
        block, odd = divmod(following.shape[self.second_axis], count)
        gone = int(count * share)
        if odd or gone == 0:
            return 0
        others = tuple(i for i in range(array.ndim) if i != self.first_axis)
        order = np.argsort(np.abs(array).sum(axis=others), kind="stable")
        kept = np.sort(order[gone:])
        _keep(tensors[self.first], kept, self.first_axis)
        for name, axis in self.beside:
            _keep(tensors[name], kept, axis)
        # A flattened feature map has a block of inputs for each of its channels.
        inputs = (kept[:, None] * block + np.arange(block)[None, :]).ravel()
        _keep(tensors[self.second], inputs, self.second_axis)
        if self.flattened:
            shape = tensors[self.flattened]
            rows = int(numpy_helper.to_array(shape)[0])
            changed = np.array([rows, len(inputs)], np.int64)
            shape.CopyFrom(numpy_helper.from_array(changed, shape.name))
        return gone


def _pairs(model: Any) -> Iterator[_Pair]:
    """Every two layers in a row that nothing else depends on in between."""
    found = weights(model, PRUNED)
    dims = {i.name: list(i.dims) for i in model.graph.initializer}
    outputs = {o.name for o in model.graph.output}
    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for name, (_, node) in found.items():
        axes = _axes(node, len(dims[name]))
        if axes is None:
            continue
        units_axis, _ = axes
        units = dims[name][units_axis]
        conv, flat, shape = node.op_type == "Conv", False, ""
        beside = [(n, 0) for n in node.input[2:] if n]
        if any(dims.get(n) != [units] or len(users[n]) > 1 for n, _ in beside):
            continue
        tensor = node.output[0]
        while tensor not in outputs and len(users.get(tensor, ())) == 1:
            follower = users[tensor][0]
            if follower.op_type in PRUNED and follower.input[0] == tensor:
                weight = follower.input[1]
                taken = _axes(follower, len(dims[weight])) if weight in found else None
                if taken is not None and (follower.op_type == "Conv") == (conv and not flat):
                    yield _Pair(name, units_axis, weight, taken[1], beside, shape)
                break
            if follower.op_type == "Flatten" and conv and not flat:
                if _attribute(follower, "axis", 1) != 1:
                    break
                flat = True
            elif follower.op_type == "Reshape" and conv and not flat:
                shape, flat = follower.input[1], True
                if dims.get(shape) != [2] or len(users[shape]) > 1:
                    break
            elif follower.op_type in BY_CHANNEL:
                if not conv or flat:
                    break
            elif follower.op_type == "BatchNormalization" and not flat:
                # After a MatMul, axis 1 may be another than the units'.
                extra = list(follower.input[1:])
                if node.op_type == "MatMul" or any(
                    dims.get(n) != [units] or len(users[n]) > 1 for n in extra
                ):
                    break
                beside += [(n, 0) for n in extra]
            elif follower.op_type == "Add" and not flat:
                added = next((n for n in follower.input if n != tensor), tensor)
                axis = _channel_axis(dims.get(added, []), units, conv)
                if axis is None or len(users[added]) > 1:
                    break
                beside.append((added, axis))
            elif follower.op_type not in ELEMENTWISE or follower.input[0] != tensor:
                break
            tensor = follower.output[0]


def _axes(node: Any, rank: int) -> tuple[int, int] | None:
    """Axes of the units and of the inputs in a layer's weights."""
    if node.op_type == "Conv":
        return (0, 1) if _attribute(node, "group", 1) == 1 else None
    if rank != 2:
        return None
    if node.op_type == "Gemm":
        if _attribute(node, "transA", 0):
            return None
        return (0, 1) if _attribute(node, "transB", 0) else (1, 0)
    return 1, 0


def _channel_axis(dims: list[int], units: int, conv: bool) -> int | None:
    """The axis of the units in what is added to a layer; None where it is no bias."""
    axis = len(dims) - (3 if conv else 1)
    if axis < 0 or dims[axis] != units or any(n != 1 for i, n in enumerate(dims) if i != axis):
        return None
    return axis


def _attribute(node: Any, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _keep(tensor: Any, kept: NDArray[np.intp], axis: int) -> None:
    array = np.take(numpy_helper.to_array(tensor), kept, axis=axis)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _parameters(model: Any) -> int:
    return int(sum(np.prod(i.dims, dtype=np.int64) for i in model.graph.initializer))


def _check(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise PreparationError(f"a share of {share} cannot be pruned: it must be between 0 and 1")
