"""Serves ``model.onnx`` with ONNX Runtime in Triton's Python backend.

For servers without the onnxruntime backend. A batch of requests becomes one run.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Inputs and outputs are those of the network."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the network of this version."""
        config = json.loads(args["model_config"])
        threads = config["parameters"]["intra_op_thread_count"]["string_value"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads)
        options.inter_op_num_threads = 1
        # Threads that spin while nothing is to do take processor time from the other instances.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [entry["name"] for entry in config["input"]]
        self._outputs = [entry["name"] for entry in config["output"]]
        self._batches = int(config.get("max_batch_size", 0)) > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests if the model takes batches, else one for each."""
        arrays = [
            {name: _read(pb_utils.get_input_tensor_by_name(request, name)) for name in self._inputs}
            for request in requests
        ]
        if not self._batches or len(arrays) == 1:
            return [self._answer(self._session.run(self._outputs, feed)) for feed in arrays]
        together = {name: np.concatenate([feed[name] for feed in arrays]) for name in self._inputs}
        found = self._session.run(self._outputs, together)
        answers, at = [], 0
        for feed in arrays:
            end = at + len(feed[self._inputs[0]])
            answers.append(self._answer([output[at:end] for output in found]))
            at = end
        return answers

    def _answer(self, outputs: list[Any]) -> Any:
        tensors = [
            pb_utils.Tensor(name, _written(array))
            for name, array in zip(self._outputs, outputs, strict=True)
        ]
        return pb_utils.InferenceResponse(tensors)


def _read(tensor: Any) -> Any:
    """As ONNX Runtime takes it: text is text there."""
    array = tensor.as_numpy()
    if array.dtype != np.object_:
        return array
    return np.array([x.decode() for x in array.reshape(-1)], object).reshape(array.shape)


def _written(array: Any) -> Any:
    """As Triton takes it: text is bytes there."""
    array = np.asarray(array)
    if array.dtype.kind not in "OU":
        return array
    return np.array([str(x).encode() for x in array.reshape(-1)], object).reshape(array.shape)
