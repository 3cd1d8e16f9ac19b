"""A model that sleeps, and tells how long a batch of how many items took it."""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Sleeps once for a batch, longer for a larger one."""

    def initialize(self, args):
        """Reads the two constants."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._alpha_s, self._beta_s = (
            float(parameters[name]["string_value"]) / 1000 for name in ("alpha_ms", "beta_ms")
        )

    def execute(self, requests):
        """Every answer of a batch says the same."""
        began = time.perf_counter()
        items = sum(
            pb_utils.get_input_tensor_by_name(r, "content").as_numpy().shape[0] for r in requests
        )
        time.sleep(self._alpha_s + self._beta_s * items)
        took_ms = (time.perf_counter() - began) * 1000
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor("items", np.full((1, 1), items, np.int32)),
                    pb_utils.Tensor("took_ms", np.full((1, 1), took_ms, np.float32)),
                ]
            )
            for _ in requests
        ]
