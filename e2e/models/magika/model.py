"""Serves a generation of Magika with ONNX Runtime in Triton's Python backend.

Magika looks at a few hundred bytes from a file's beginning, middle and end, without surrounding
whitespace. What differs between generations stands in ``magika.json`` beside the network (see
``build.py``); this file is the same for all.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Input ``content``: a file's bytes. Outputs: ``label`` and ``score`` in [0, 1]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the network of this version."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self.settings = Settings(json.loads((folder / "magika.json").read_text()))
        options = onnxruntime.SessionOptions()
        # One small network: more threads cost more than they bring, and spinning steals a core.
        options.intra_op_num_threads = int(os.environ.get("MAGIKA_THREADS", "1"))
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Label and score of each file of each request."""
        responses = []
        for request in requests:
            contents = pb_utils.get_input_tensor_by_name(request, "content").as_numpy()
            found = [self.identify(bytes(content)) for content in contents.reshape(-1)]
            labels = np.array([label.encode() for label, _ in found], dtype=object)
            scores = np.array([score for _, score in found], dtype=np.float32)
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor("label", labels.reshape(contents.shape)),
                        pb_utils.Tensor("score", scores.reshape(contents.shape)),
                    ]
                )
            )
        return responses

    def identify(self, content: bytes) -> tuple[str, float]:
        """Label and score of one file.

        One at a time: on a CPU a batch is no faster, and its scores would depend on the other
        files in it (by up to 0.006), so that the same file could get two answers.
        """
        answer = self.settings.without_network(content)
        if answer is not None:
            return answer
        features = self.settings.features(content)
        if features is None:
            return self.settings.text_or_not(content)
        [[scores]] = self.session.run(["target_label"], {"bytes": features[np.newaxis]})
        return self.settings.decide(int(scores.argmax()), float(scores.max()))


class Settings:
    """One generation's ``magika.json``, and the steps before and after its network."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.begin = data["begin"]
        self.middle = data["middle"]
        self.end = data["end"]
        self.block = data["block"]
        self.padding = data["padding"]
        self.fewest = data["fewest_bytes"]
        self.smallest_file = data["smallest_file"]
        self.dtype = np.dtype(data["dtype"])
        self.labels = data["labels"]
        self.text = frozenset(data["text_labels"])
        self.overwrite = data["overwrite"]
        self.thresholds = data["thresholds"]

    def without_network(self, content: bytes) -> tuple[str, float] | None:
        """The answer for a file too small to be judged, else None."""
        if not content:
            return "empty", 1.0
        if len(content) < self.smallest_file:
            return self.text_or_not(content)
        return None

    def text_or_not(self, content: bytes) -> tuple[str, float]:
        """All that can be said of a file without enough bytes."""
        try:
            content[: self.block].decode("utf-8")
        except UnicodeDecodeError:
            return "unknown", 1.0
        return "txt", 1.0

    def features(self, content: bytes) -> "np.ndarray[Any, Any] | None":
        """What the network sees; None if too little is left without whitespace."""
        if self.middle:
            first, centre, last = self._three_parts(content)
        else:
            size = min(self.block, len(content))
            first, centre, last = content[:size].lstrip(), b"", content[-size:].rstrip()
        if len(first) < self.fewest:
            return None
        seen = np.full(self.begin + self.middle + self.end, self.padding, self.dtype)
        first = first[: self.begin]
        seen[: len(first)] = np.frombuffer(first, np.uint8)
        if self.middle:
            skipped = max(0, len(centre) - self.middle) // 2
            centre = centre[skipped : skipped + self.middle]
            at = self.begin + (self.middle - len(centre)) // 2
            seen[at : at + len(centre)] = np.frombuffer(centre, np.uint8)
        last = last[-self.end :]
        if last:
            seen[-len(last) :] = np.frombuffer(last, np.uint8)
        return seen

    def _three_parts(self, content: bytes) -> tuple[bytes, bytes, bytes]:
        """Beginning, middle and end of the content without its surrounding whitespace."""
        if len(content) < 2 * self.block + self.middle:
            stripped = content.strip()
            return stripped, stripped, stripped
        first = content[: self.block].lstrip()
        last = content[-self.block :].rstrip()
        start, stop = self.block - len(first), len(content) - (self.block - len(last))
        at = start + (stop - start - self.middle) // 2
        return first, content[at : at + self.middle], last

    def decide(self, index: int, score: float) -> tuple[str, float]:
        """The network's label where it is sure enough, otherwise only text or not."""
        seen = self.labels[index]
        label = self.overwrite.get(seen, seen)
        if score < self.thresholds[seen]:
            label = "txt" if label in self.text else "unknown"
        return label, score
