"""An exported graph in plain operators: what other tools can infer types of and quantise.

skl2onnx writes a standardising step as ``Scaler`` of the domain ai.onnx.ml, of which neither the
16-bit nor the 8-bit converters know the type, and casts of float to float behind it. PyTorch's
exporter states the shapes of weights twice, and the second stays when a weight is transposed.
"""

from typing import Any

import numpy as np


def plain(model: Any) -> None:
    """Replace ``Scaler`` by Sub and Mul, drop idle casts and weights' doubled shapes; in place."""
    _without_scalers(model)
    _without_casts(model)
    _without_doubled_shapes(model)


def _without_scalers(model: Any) -> None:
    from onnx import helper, numpy_helper

    graph, made = model.graph, []
    floats = {i.name for i in graph.input if i.type.tensor_type.elem_type == 1}
    for node in graph.node:
        offset, scale = _scaling(node)
        if scale is None or node.input[0] not in floats:
            made.append(node)
            continue
        # The operator's definition: Y = (X - offset) * scale.
        name = node.name or node.output[0]
        constants = {f"{name}_offset": offset, f"{name}_scale": scale}
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
        made.append(
            helper.make_node(
                "Sub", [node.input[0], f"{name}_offset"], [f"{name}_centred"], f"{name}_sub"
            )
        )
        made.append(
            helper.make_node(
                "Mul", [f"{name}_centred", f"{name}_scale"], [node.output[0]], f"{name}_mul"
            )
        )
    del graph.node[:]
    graph.node.extend(made)


def _scaling(node: Any) -> tuple[Any, Any]:
    if node.op_type != "Scaler" or node.domain != "ai.onnx.ml":
        return None, None
    values = {a.name: np.array(a.floats, np.float32) for a in node.attribute}
    return values.get("offset", np.zeros(1, np.float32)), values.get(
        "scale", np.ones(1, np.float32)
    )


def _without_casts(model: Any) -> None:
    from onnx import shape_inference

    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    types = {
        v.name: v.type.tensor_type.elem_type
        for v in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    outputs = {o.name for o in graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        target = next((a.i for a in node.attribute if a.name == "to"), None)
        idle = node.op_type == "Identity" or (
            node.op_type == "Cast" and target == types.get(node.input[0])
        )
        if idle and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _without_doubled_shapes(model: Any) -> None:
    graph = model.graph
    initial = {i.name for i in graph.initializer}
    kept = [v for v in graph.value_info if v.name not in initial]
    del graph.value_info[:]
    graph.value_info.extend(kept)
