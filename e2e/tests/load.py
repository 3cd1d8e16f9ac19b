"""Asking a model: once, or again and again while something happens to it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx
import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from e2e.cluster.kube import wait_for

TIMEOUT_S: Final = 30.0
ANSWER_SECONDS: Final = 60.0
Answer = dict[str, Any]
"""The first element of each output, by its name."""


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
    """One answer on a connection of its own; `host`: the name to ask for at a gateway."""
    client = HttpClient(address, model, {"Host": host} if host else None)
    try:
        return client.ask(text)
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


@dataclass(frozen=True)
class Request:
    """One request of a load and what became of it.

    Attributes:
        at_s: when it was sent, seconds since the load began.
        took_s: until its end.
        client: which client sent it.
        answer: its outputs; None: it failed.
        error: why; empty: it did not.
    """

    at_s: float
    took_s: float
    client: str
    answer: Answer | None
    error: str = ""


@dataclass
class Load:
    """Asks from threads of its own, each with its own connection, at a fixed rate.

    Every request is kept. It ends by itself after `limit_s`, whatever becomes of the test.

    Attributes:
        http: ``host:port`` that speaks HTTP.
        grpc: ``host:port`` that speaks gRPC; None: HTTP only.
        model: its name.
        text: what is sent.
        http_clients: how many connections ask over HTTP.
        rate_hz: requests a second of each client.
        limit_s: the longest time it goes on.
    """

    http: str
    grpc: str | None
    model: str
    text: str
    http_clients: int = 1
    rate_hz: float = 10.0
    limit_s: float = 300.0
    requests: list[Request] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        clients: list[tuple[str, HttpClient | GrpcClient]] = [
            (f"HTTP {n}", HttpClient(self.http, self.model)) for n in range(self.http_clients)
        ]
        if self.grpc is not None:
            clients.append(("gRPC", GrpcClient(self.grpc, self.model)))
        self._threads = [
            threading.Thread(target=self._run, args=(name, client), name=f"load {name}")
            for name, client in clients
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, client: HttpClient | GrpcClient) -> None:
        due = 0.0
        try:
            while due < self.limit_s:
                now = time.monotonic() - self._began
                if self._stop.wait(max(0.0, due - now)):
                    return
                self.requests.append(self._one(name, client))
                # Late is late: no burst makes up for what was not sent.
                due = max(due + 1 / self.rate_hz, time.monotonic() - self._began)
        finally:
            client.close()

    def _one(self, name: str, client: HttpClient | GrpcClient) -> Request:
        at_s = time.monotonic() - self._began
        answer, error = None, ""
        try:
            answer = client.ask(self.text)
        except (httpx.HTTPError, InferenceServerException) as problem:
            error = repr(problem)
        return Request(at_s, time.monotonic() - self._began - at_s, name, answer, error)

    @property
    def failures(self) -> list[Request]:
        """The requests that failed."""
        return [r for r in list(self.requests) if r.error]

    def await_more(self, count: int = 20) -> None:
        """Go on until every client sent so many more.

        Raises:
            AssertionError: they have come to their end.
        """
        before = self._counts()
        while True:
            now = self._counts()
            if all(now[name] - before[name] >= count for name in before):
                return
            alive = any(thread.is_alive() for thread in self._threads)
            assert alive, f"the load ended by itself: {now}"
            time.sleep(0.02)

    def _counts(self) -> dict[str, int]:
        names = [thread.name.removeprefix("load ") for thread in self._threads]
        seen = [r.client for r in list(self.requests)]
        return {name: seen.count(name) for name in names}

    def assert_no_failure(self, at_least: int = 50) -> None:
        """All were answered, and there were enough of them to say so."""
        failed = self.failures
        shown = "\n".join(f"{r.at_s:7.2f} s {r.client}: {r.error}" for r in failed[:10])
        assert not failed, f"{len(failed)} of {len(self.requests)} requests failed:\n{shown}"
        assert len(self.requests) >= at_least, f"only {len(self.requests)} requests were sent"


def answers(requests: Sequence[Request], output: str) -> list[Any]:
    """What an output said, in the order of sending; failed ones left out."""
    ordered = sorted(requests, key=lambda r: r.at_s)
    return [r.answer[output] for r in ordered if r.answer is not None]
