"""Gives back what it gets."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Of each input that came, an output of the same value."""

    def execute(self, requests):
        """The inputs as outputs."""
        answers = []
        for request in requests:
            outputs = [
                pb_utils.Tensor(f"{tensor.name()}_again", tensor.as_numpy())
                for tensor in request.inputs()
            ]
            answers.append(pb_utils.InferenceResponse(outputs))
        return answers
