"""Asks a pod golden requests, and says what is wrong with its answers.

A pod that cannot be reached, or is too busy to answer, is unknown. Only an answer, or none at all
to a request that was taken, fails a pod.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import quote

import aiohttp

from tidegate.actions import ShortLoad
from tidegate.golden import (
    Answer,
    GoldenRequest,
    check_against_metadata,
    compare,
    decode,
    encode,
)
from tidegate.observed import Object
from tidegate.resources.pod import ENVOY
from tidegate.resources.sidecar import INTERNAL_PORT, TRITON_HTTP_PORT, TRITON_READY_PATH
from tidegate.runtime.golden_load import short_load

TIMEOUT_S: Final = 60.0
"""For one request, from its first byte to the last of its answer."""
CONNECT_TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 8 << 20
MESSAGE_CHARS: Final = 600
LENGTH_HEADER: Final = "Inference-Header-Content-Length"


class UnknownError(Exception):
    """The pod could not be asked: says nothing about its answers."""


def base_url(pod: Object) -> str:
    """Where a pod is asked: its internal listener; without a sidecar, Triton itself."""
    address = pod["status"]["podIP"]
    host = f"[{address}]" if ":" in address else address
    containers = pod["spec"].get("initContainers") or ()
    sidecar = any(c["name"] == ENVOY for c in containers)
    return f"http://{host}:{INTERNAL_PORT if sidecar else TRITON_HTTP_PORT}"


class PodClient:
    """Asks pods.

    Args:
        url: of a pod.
        timeout_s: for one request.
    """

    def __init__(
        self, url: Callable[[Object], str] = base_url, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close open connections."""
        if self._session is not None:
            await self._session.close()

    async def verify(
        self, pod: Object, requests: Iterable[GoldenRequest], model: str
    ) -> tuple[bool, str]:
        """Send all golden requests. Returns whether all answers were right, and what to say.

        Raises:
            UnknownError: the pod could not be asked.
        """
        by_model: dict[str, list[GoldenRequest]] = {}
        for request in requests:
            by_model.setdefault(request.model or model, []).append(request)
        wanting: list[str] = []
        for name, group in by_model.items():
            wanting += await self._misfits(pod, name, group)
        if wanting:
            more = f" ({len(wanting) - 1} more like it)" if len(wanting) > 1 else ""
            return False, _cut(f"{wanting[0]}{more}")
        sent = 0
        wrong: list[str] = []
        for name, group in by_model.items():
            for request in group:
                sent += 1
                try:
                    found = await self._compare(pod, name, request)
                except TimeoutError:
                    # The others would have to wait as long.
                    text = f"{request}: no answer within {self._timeout_s:g} s"
                    return False, _cut("; ".join([text, *wrong]))
                if found:
                    wrong.append(f"{request}: {found}")
        if wrong:
            return False, _cut(f"{len(wrong)} of {sent} golden requests failed; {wrong[0]}")
        return True, f"{sent} of {sent} golden requests answered as expected"

    async def load(
        self, pod: Object, requests: Iterable[GoldenRequest], model: str, load: ShortLoad
    ) -> tuple[bool, str]:
        """Load one pod with those golden requests that are answered. Returns as `verify` does.

        Raises:
            UnknownError: the pod could not be asked.
        """
        usable = [r for r in requests if r.error is None]
        if not usable:
            return False, "load test: every golden request expects an error; add one that does not"
        bodies = [
            (f"/v2/models/{quote(r.model or model, safe='')}/infer", *encode(r)) for r in usable
        ]

        async def send(number: int) -> bool:
            path, body, length = bodies[number % len(bodies)]
            try:
                status, _, _ = await self._send(pod, "POST", path, body, length)
            except TimeoutError:
                return False
            return status == 200

        return await short_load(send, load, time.monotonic)

    async def _misfits(
        self, pod: Object, model: str, requests: Iterable[GoldenRequest]
    ) -> list[str]:
        """What the requests want of the model that it does not have."""
        path = f"/v2/models/{quote(model, safe='')}"
        try:
            status, body, _ = await self._send(pod, "GET", path)
            if status != 200:
                ready, _, _ = await self._send(pod, "GET", TRITON_READY_PATH)
                if ready != 200 or status == 503:
                    raise UnknownError(f"its Triton is not ready (HTTP {ready})")
                said = decode(status, body, None).error
                return [
                    f"model {model} cannot be asked: HTTP {status}: {said}. Correct model in the "
                    "golden request, or model.name."
                ]
        except TimeoutError as error:
            raise UnknownError(f"no answer to GET {path} in {self._timeout_s:g} s") from error
        try:
            return list(check_against_metadata(requests, json.loads(body)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnknownError(f"GET {path} answers no model metadata: {error!r}") from error

    async def _compare(self, pod: Object, model: str, request: GoldenRequest) -> str:
        body, length = encode(request)
        path = f"/v2/models/{quote(model, safe='')}/infer"
        status, raw, headers = await self._send(pod, "POST", path, body, length)
        if status == 503 and (request.error is None or request.error.status != 503):
            # The sidecar's word for no connection to Triton, Triton's for a full queue.
            raise UnknownError(f"HTTP 503: {decode(status, raw, None).error[:200]}")
        if len(raw) > MAX_ANSWER_BYTES:
            return f"the answer is longer than {MAX_ANSWER_BYTES} bytes"
        told = headers.get(LENGTH_HEADER, "")
        # Beside the event loop: a large tensor takes a while.
        return await asyncio.to_thread(
            _judge, request, status, raw, int(told) if told.isdecimal() else None
        )

    async def _send(
        self, pod: Object, method: str, path: str, body: bytes | None = None, length: int = 0
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Status, body (a little more than `MAX_ANSWER_BYTES` at most) and headers.

        Raises:
            UnknownError: no connection, or it broke twice.
            TimeoutError: a connection, and no answer.
        """
        headers = {}
        if body is not None:
            headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(length)}
        for last in (False, True):
            try:
                async with (
                    asyncio.timeout(self._timeout_s),
                    self._open().request(
                        method,
                        self._url(pod) + path,
                        data=body,
                        headers=headers,
                        allow_redirects=False,
                    ) as response,
                ):
                    raw = bytearray()
                    async for chunk in response.content.iter_any():
                        raw += chunk
                        if len(raw) > MAX_ANSWER_BYTES:
                            break
                    return response.status, bytes(raw), response.headers
            except aiohttp.ConnectionTimeoutError as error:
                raise UnknownError(f"no connection within {CONNECT_TIMEOUT_S:g} s") from error
            except TimeoutError:
                raise
            except (aiohttp.ClientError, OSError) as error:
                # A pod that was just started, or a connection that it closed while idle.
                if last:
                    raise UnknownError(str(error) or repr(error)) from error
        raise AssertionError

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self._session


def _judge(request: GoldenRequest, status: int, raw: bytes, length: int | None) -> str:
    try:
        answer: Answer = decode(status, raw, length)
    except ValueError as error:
        return str(error)
    return compare(request, answer)


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS - 3] + "..."
