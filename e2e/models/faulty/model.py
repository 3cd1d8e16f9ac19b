"""Serves a generation of Magika with a fault, in Triton's Python backend.

Beside it lie the very model that the good repositories have (``genuine.py``, the network, its
settings), ``fault.py`` and ``fault.json``. What it has said of a content it says again without
asking the network: a small machine has better uses for its processor. The time a request takes is
waited for, not burnt, and any number wait at once: answers go through the requests' response
senders, from one thread for all.
"""

import heapq
import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from fault import EXIT, RAISE, SLEEP, Fault  # type: ignore[import-not-found]
from genuine import TritonPythonModel as Genuine  # type: ignore[import-not-found]

MOST_KNOWN = 1000
"""Contents whose answers are kept."""


class TritonPythonModel:
    """Outputs as Magika's, and ``served_by``: which version it is."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the network, unless loading is the fault."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self.fault: Any = Fault.load_text((folder / "fault.json").read_text())
        if self.fault.load == RAISE:
            raise RuntimeError(f"{self.fault.says}: the weights do not fit this network")
        if self.fault.load == EXIT:
            os._exit(1)
        if self.fault.load == SLEEP:
            _for_ever()
        self.genuine = Genuine()
        self.genuine.initialize(args)
        if self.fault.wrong:
            labels = self.genuine.settings.labels
            self.genuine.settings.labels = [*labels[1:], labels[0]]
        self.later = Later()
        self.leaked: list[bytes] = []
        self.known: dict[bytes, tuple[str, float]] = {}
        self.numbers = itertools.count()

    def execute(self, requests: list[Any]) -> None:
        """Sees to each request; the answers are sent later."""
        arrived = time.monotonic()
        for request in requests:
            number = next(self.numbers)
            if self.fault.hangs(number):
                _for_ever()
            if self.fault.leak_mib:
                self.leaked.append(os.urandom(1 << 20) * self.fault.leak_mib)
            due = arrived + self.fault.takes_s(number)
            if error := self._error(number):
                if self.fault.fail_by == RAISE:
                    raise RuntimeError(error)
                answer = pb_utils.InferenceResponse(error=pb_utils.TritonError(error))
            else:
                answer = self._answer(request)
            self.later.send(due, request.get_response_sender(), answer)

    def _error(self, number: int) -> str:
        if self.fault.fails(number):
            return f"{self.fault.says}: request {number} fails"
        most = self.fault.most_in_flight
        if most and len(self.later) >= most:
            return f"{self.fault.says}: out of memory, {most} requests are under way already"
        return ""

    def _answer(self, request: Any) -> Any:
        contents = pb_utils.get_input_tensor_by_name(request, "content").as_numpy()
        found = [self._identify(bytes(content)) for content in contents.reshape(-1)]
        outputs = {
            "label": np.array([label.encode() for label, _ in found], dtype=object),
            "score": np.array([score for _, score in found], dtype=np.float32),
            "served_by": np.full(len(found), self.fault.says.encode(), dtype=object),
        }
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(k, v.reshape(contents.shape)) for k, v in outputs.items()]
        )

    def _identify(self, content: bytes) -> tuple[str, float]:
        if content not in self.known:
            if len(self.known) >= MOST_KNOWN:
                self.known.clear()
            self.known[content] = self.genuine.identify(content)
        return self.known[content]


class Later:
    """Sends answers when they are due, from a thread of its own."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Any, Any]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, due: float, sender: Any, answer: Any) -> None:
        """Send it at that time of the monotonic clock."""
        with self._changed:
            heapq.heappush(self._waiting, (due, next(self._order), sender, answer))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting or self._waiting[0][0] > time.monotonic():
                    rest = self._waiting[0][0] - time.monotonic() if self._waiting else None
                    self._changed.wait(rest)
                _, _, sender, answer = heapq.heappop(self._waiting)
            sender.send(answer, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _for_ever() -> None:
    while True:
        time.sleep(3600)
