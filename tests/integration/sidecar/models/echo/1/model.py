"""Sums the bytes of a tensor of any size."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One sum for each request."""

    def execute(self, requests):
        """The sum of each request's bytes."""
        answers = []
        for request in requests:
            data = pb_utils.get_input_tensor_by_name(request, "data").as_numpy()
            total = np.array([data.sum(dtype=np.int64)])
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("sum", total)]))
        return answers
