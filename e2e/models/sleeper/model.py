"""Sleeps for a batch of n as long as its parameters say, alpha + beta n ms; answers "slept"."""

import json
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """A server of which everything is known."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._alpha_s, self._beta_s = (
            float(parameters[name]["string_value"]) / 1000 for name in ("alpha_ms", "beta_ms")
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One batch."""
        time.sleep(self._alpha_s + self._beta_s * len(requests))
        said = np.array([[b"slept"]], dtype=object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("label", said)]) for _ in requests]
