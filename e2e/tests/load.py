"""Asking a model once; `e2e.load` asks again and again."""

import time
from collections.abc import Callable, Mapping
from typing import Final

import httpx
import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from e2e.cluster.kube import wait_for
from e2e.load import Answer

TIMEOUT_S: Final = 30.0
ANSWER_SECONDS: Final = 60.0


class HttpClient:
    """Asks one model over one keep-alive connection."""

    def __init__(self, address: str, model: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = f"http://{address}/v2/models/{model}/infer"
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False, headers=headers)

    def ask(self, text: str) -> Answer:
        """Send one request.

        Raises:
            httpx.HTTPError: no answer, or a status other than 200.
        """
        tensor = {"name": "content", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
        reply = self._client.post(self._url, json={"inputs": [tensor]})
        if reply.status_code != 200:
            raise httpx.HTTPStatusError(
                f"{reply.status_code} {reply.text[:300]}", request=reply.request, response=reply
            )
        return {o["name"]: o["data"][0] for o in reply.json()["outputs"]}

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()


class GrpcClient:
    """Asks one model over one channel."""

    def __init__(self, address: str, model: str, authority: str | None = None) -> None:
        arguments = [("grpc.default_authority", authority)] if authority else None
        self._model = model
        self._client = tritonclient.grpc.InferenceServerClient(address, channel_args=arguments)

    def ask(self, text: str) -> Answer:
        """Send one request.

        Raises:
            InferenceServerException: no answer, or a status other than OK.
        """
        content = tritonclient.grpc.InferInput("content", [1, 1], "BYTES")
        content.set_data_from_numpy(np.array([[text.encode()]], dtype=object))
        reply = self._client.infer(self._model, [content], client_timeout=TIMEOUT_S)
        found = {}
        for output in reply.get_response().outputs:
            value = reply.as_numpy(output.name).reshape(-1)[0]
            found[output.name] = value.decode() if isinstance(value, bytes) else value.item()
        return found

    def close(self) -> None:
        """Give the channel back."""
        self._client.close()


def ask_http(address: str, model: str, text: str, host: str | None = None) -> Answer:
    """One answer on a connection of its own; `host`: the name to ask for at a gateway.

    A connection that is refused is tried again for a while: kube-proxy learns of a pod's address
    after the pod is Ready. Whether clients lose anything is asked of `e2e.load.Load`, not of this.
    """
    client = HttpClient(address, model, {"Host": host} if host else None)
    until = time.monotonic() + ANSWER_SECONDS
    try:
        while True:
            try:
                return client.ask(text)
            except httpx.ConnectError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
    finally:
        client.close()


def ask_grpc(address: str, model: str, text: str, host: str | None = None) -> Answer:
    """One answer on a channel of its own; `host`: the name to ask for at a gateway."""
    client = GrpcClient(address, model, host)
    try:
        return client.ask(text)
    finally:
        client.close()


def await_answer(ask: Callable[[], Answer], what: str, state: Callable[[], str]) -> Answer:
    """Ask until there is an answer: an address that just came is not everywhere at once.

    Raises:
        NotReached: with the last error and what `state` says.
    """
    last = ""

    def probe() -> Answer | None:
        nonlocal last
        try:
            return ask()
        except (httpx.HTTPError, InferenceServerException) as error:
            last = repr(error)
            return None

    return wait_for(probe, what, timeout_seconds=ANSWER_SECONDS, state=lambda: f"{last}\n{state()}")
