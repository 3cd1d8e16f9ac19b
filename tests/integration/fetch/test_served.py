"""What the fetch container lays out is loaded and served by a real Triton.

The Triton at hand has the Python backend only, so this is the part of the matrix in
docs/guide/model-sources.md that says "served".
"""

import json
import urllib.request
from pathlib import Path

import pytest

from e2e.native.processes import pod as triton_pod
from tests.integration.fetch.models import write
from tests.integration.fetch.pod import Pod

pytestmark = pytest.mark.integration

# Adds FACTOR to each element; names its own inputs and outputs.
SCRIPT = """
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        for add, name in ((config.add_input, "x"), (config.add_output, "y")):
            add({"name": name, "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            y = pb.Tensor("y", x + np.float32(FACTOR))
            answers.append(pb.InferenceResponse([y]))
        return answers
"""
TENSORS = (
    'input { name: "x" data_type: TYPE_FP32 dims: -1 } '
    'output { name: "y" data_type: TYPE_FP32 dims: -1 } '
)
ENSEMBLE = (
    'platform: "ensemble" '
    + TENSORS
    + "ensemble_scheduling { "
    + 'step { model_name: "one" model_version: -1 '
    + 'input_map { key: "x" value: "x" } output_map { key: "y" value: "z" } } '
    + 'step { model_name: "ten" model_version: -1 '
    + 'input_map { key: "x" value: "z" } output_map { key: "y" value: "y" } } }'
)


def script(factor: int) -> bytes:
    return SCRIPT.replace("FACTOR", str(factor)).encode()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({"serve.py": script(1)}, 3.0, id="bare"),
        pytest.param(
            {"config.pbtxt": b'backend: "python"' + TENSORS.encode(), "1/model.py": script(2)},
            4.0,
            id="repository",
        ),
        pytest.param({"1/model.py": script(1), "2/model.py": script(5)}, 7.0, id="versions"),
        pytest.param(
            {
                "m/config.pbtxt": ENSEMBLE.encode(),
                "one/1/model.py": script(1),
                "ten/1/model.py": script(10),
            },
            13.0,
            id="ensemble",
        ),
    ],
)
def test_triton_answers(pod: Pod, tmp_path: Path, files: dict[str, bytes], expected: float) -> None:
    source = tmp_path / "source"
    write(source, files)
    pod.fetch("pvc://models", source=str(source)).ok()
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [2.0]}]}
    with triton_pod(pod.models) as running:
        request = urllib.request.Request(
            f"{running.serving}/v2/models/m/infer", data=json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            outputs = json.load(answer)["outputs"]
    assert [o["data"] for o in outputs if o["name"] == "y"] == [[expected]]
