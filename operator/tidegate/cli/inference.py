"""Asking a model by the v2 inference protocol: at an address, or through the API server."""

import http.client
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from tidegate import golden
from tidegate.cli.client import Client
from tidegate.cli.trouble import Misuse, Trouble
from tidegate.golden import Answer, GoldenRequest
from tidegate.resources.services import HTTP_PORT

TIMEOUT_S: Final = 30.0
HEADER_LENGTH: Final = "Inference-Header-Content-Length"

Send = Callable[[str, str, bytes | None, dict[str, str]], tuple[int, dict[str, str], bytes]]
"""Method, path, body, headers to status, headers (lower case), body. Raises OSError."""


@dataclass
class Address:
    """A model's address, on one connection that is kept open; for one thread.

    Attributes:
        url: such as ``http://localhost:8000``.
        host: the name to ask for at a gateway; '' means the address's own.
        timeout_s: of one request.
    """

    url: str
    host: str = ""
    timeout_s: float = TIMEOUT_S

    def __post_init__(self) -> None:
        self._connection: http.client.HTTPConnection | None = None
        parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Misuse(f"{self.url!r} is no http(s) address", "such as http://localhost:8000")
        self._parts = parts

    def __call__(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; once more where a connection kept open was closed meanwhile."""
        headers = headers | ({"Host": self.host} if self.host else {})
        while True:
            reused = self._connection is not None
            connection = self._connection or self._open()
            try:
                connection.request(method, self._parts.path.rstrip("/") + path, body, headers)
                answer = connection.getresponse()
                found = {k.lower(): v for k, v in answer.getheaders()}
                return answer.status, found, answer.read()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.close()
                if not reused:
                    raise
            except http.client.HTTPException as error:
                self.close()
                raise OSError(str(error) or type(error).__name__) from error
            except OSError:
                self.close()
                raise

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            trust = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(
                host, port, timeout=self.timeout_s, context=trust
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=self.timeout_s)
        return self._connection


def through_api_server(client: Client, namespace: str, service: str) -> Send:
    """A Service asked through the API server: works from anywhere, needs services/proxy."""
    base = (
        f"/api/v1/namespaces/{quote(namespace, safe='')}/services/"
        f"http:{quote(service, safe='')}:{HTTP_PORT}/proxy"
    )

    def send(
        method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        status, found, raw = client.raw(method, base + path, body, headers)
        if status == 403 and b'"kind":"Status"' in raw.replace(b" ", b""):
            raise Trouble(
                f"you may not ask Service {service} through the API server",
                f"ask for services/proxy in {namespace}, or: kubectl port-forward "
                f"service/{service} {HTTP_PORT} and --url http://localhost:{HTTP_PORT}",
            )
        return status, {k.lower(): v for k, v in found.items()}, raw

    return send


def metadata(send: Send, model: str) -> dict[str, Any]:
    """The model's inputs and outputs, as it says them.

    Raises:
        Trouble: it does not answer.
    """
    try:
        status, _, raw = send("GET", f"/v2/models/{quote(model, safe='')}", None, {})
    except OSError as error:
        raise Trouble(f"the model does not answer: {error}", "is it the right address?") from None
    if status != 200:
        said = raw[:200].decode("utf-8", "replace")
        raise Trouble(
            f"model {model} is not served there (HTTP {status}: {said})", "name it: --model"
        )
    found: dict[str, Any] = json.loads(raw)
    return found


def ask(send: Send, model: str, request: GoldenRequest) -> Answer:
    """Send a request; the answer.

    Raises:
        OSError: none came.
        ValueError: it is none of the protocol's.
    """
    body, length = golden.encode(request)
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)}
    name = quote(request.model or model, safe="")
    status, found, raw = send("POST", f"/v2/models/{name}/infer", body, headers)
    said = found.get(HEADER_LENGTH.lower())
    return golden.decode(status, raw, int(said) if said else None)
