"""A warm-up by golden requests, from the ConfigMap's files to what the model is asked."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from e2e.native.processes import pod as triton_pod
from tests.integration.fetch.models import write
from tests.integration.fetch.pod import Pod

pytestmark = pytest.mark.integration

# Answers with every text it was ever asked, its warm-up's too; refuses one of them.
SCRIPT = """
import numpy as np
import triton_python_backend_utils as pb

SEEN = []


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            text = pb.get_input_tensor_by_name(request, "text").as_numpy().flatten()
            x = pb.get_input_tensor_by_name(request, "x").as_numpy()
            SEEN.append(text[0].decode() + str(x.tolist()))
            if text[0] == b"refuse":
                answers.append(pb.InferenceResponse(error=pb.TritonError("not this one")))
                continue
            seen = np.array([["|".join(SEEN).encode()]], dtype=object)
            answers.append(pb.InferenceResponse([pb.Tensor("seen", seen)]))
        return answers
"""
CONFIG = b"""backend: "python"
max_batch_size: 4
input { name: "text" data_type: TYPE_STRING dims: 1 }
input { name: "x" data_type: TYPE_FP32 dims: -1 }
output { name: "seen" data_type: TYPE_STRING dims: 1 }
"""
TUNING = 'model_warmup { name: "tidegate" batch_size: 1 count: 1 }'


def asked(text: str, x: list[float]) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]},
            {"name": "x", "datatype": "FP32", "shape": [1, len(x)], "data": x},
        ]
    }


def laid_out(pod: Pod, tmp_path: Path, *golden: dict[str, Any]) -> str:
    """The fetch container's log."""
    write(tmp_path / "source", {"m/config.pbtxt": CONFIG, "m/1/model.py": SCRIPT.encode()})
    pod.mount("etc", {"model.pbtxt": TUNING})
    outputs = [{"name": "seen", "ignore": True}]
    documents = [json.dumps(g | {"expected": {"outputs": outputs}}) for g in golden]
    pod.mount("golden", {f"{i}.json": text for i, text in enumerate(documents)})
    outcome = pod.fetch(
        "pvc://claim/m", source=str(tmp_path / "source"), policy={"allowPythonBackend": True}
    )
    outcome.ok()
    return outcome.log


def test_a_model_is_warmed_up_by_what_it_will_be_asked(pod: Pod, tmp_path: Path) -> None:
    other = asked("other", [1.0]) | {"model": "other"}
    log = laid_out(pod, tmp_path, asked("hé llo", [1.5, 2.5]), other)
    assert "it asks other" in log
    with triton_pod(pod.models) as running:
        body = json.dumps(asked("client", [0.0])).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{running.serving}/v2/models/m/infer", body)
        ) as reply:
            [output] = json.load(reply)["outputs"]
        with urllib.request.urlopen(f"{running.triton_http}/v2/models/m/stats") as reply:
            [stats] = json.load(reply)["model_stats"]
    assert output["data"] == ["hé llo[[1.5, 2.5]]|client[[0.0]]"]
    assert stats["inference_count"] == 2  # Triton counts its warm-up; the sidecar does not see it


def test_a_request_that_the_model_refuses_keeps_it_from_loading(pod: Pod, tmp_path: Path) -> None:
    laid_out(pod, tmp_path, asked("refuse", [1.0]))
    with triton_pod(pod.models, ready=False) as running:
        request = urllib.request.Request(f"{running.internal}/v2/repository/index", b"")
        with urllib.request.urlopen(request) as reply:
            [model] = json.load(reply)
    assert model["state"] == "UNAVAILABLE"
    assert "not this one" in model["reason"]
