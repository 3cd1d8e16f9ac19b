"""A model whose latency and outcome the request chooses."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Outcome 0 answers, 1 answers with an error."""

    def execute(self, requests):
        """Sleeps once, then answers each request as it asked."""
        seconds = [pb_utils.get_input_tensor_by_name(r, "seconds").as_numpy() for r in requests]
        time.sleep(max(float(s.max()) for s in seconds))
        answers = []
        for request, slept in zip(requests, seconds, strict=True):
            outcome = pb_utils.get_input_tensor_by_name(request, "outcome").as_numpy()
            if outcome.any():
                answers.append(
                    pb_utils.InferenceResponse(error=pb_utils.TritonError("as asked: an error"))
                )
            else:
                answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("slept", slept)]))
        return answers
