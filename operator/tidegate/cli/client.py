"""A small synchronous client of the Kubernetes API, on the standard library.

Raw documents in and out. One connection, kept open; what was sent over one that the server had
closed meanwhile is sent again, which all requests of this package can bear.
"""

import base64
import difflib
import http.client
import ipaddress
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, unquote, urlencode, urlsplit

from tidegate import __version__
from tidegate.api import names
from tidegate.cli.kubeconfig import Access
from tidegate.cli.trouble import Exit, Trouble

Document = dict[str, Any]

TIMEOUT_S: Final = 30.0
USER_AGENT: Final = f"kubectl-tidegate/{__version__}"
JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
CHUNK: Final = 500
"""Objects in one answer to a list."""


class ApiError(Trouble):
    """The API server refused.

    Attributes:
        status: HTTP status.
        reason: the API server's word for it.
        retry_after_s: how long it asks to wait.
    """

    def __init__(
        self, status: int, reason: str, message: str, mend: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message, mend, code=Exit.NOT_FOUND if status == 404 else Exit.ERROR)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class Unreachable(Trouble):
    """The API server does not answer."""


class _Https(http.client.HTTPSConnection):
    """With a name of its own to look for in the server's certificate, and Nagle off."""

    name: str
    trust: ssl.SSLContext

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)  # a proxy's tunnel, too
        self.sock = self.trust.wrap_socket(self.sock, server_hostname=self.name)


class Client:
    """One API server, as one user."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._connection: http.client.HTTPConnection | None = None
        self._headers: list[tuple[str, str]] = []

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Objects.

    def get(self, namespace: str, name: str) -> Document:
        """One ModelDeployment.

        Raises:
            Trouble: there is none, or it may not be read, or no answer came.
        """
        try:
            return self.request("GET", deployment_path(namespace, name))
        except ApiError as error:
            if error.status == 404 and error.reason == "NotFound" and _object_missing(error, name):
                raise ApiError(
                    404,
                    error.reason,
                    f"no ModelDeployment {name} in namespace {namespace}",
                    self._nearest(namespace, name) or "see tidegate list -A",
                ) from None
            raise

    def _nearest(self, namespace: str, name: str) -> str:
        """What may have been meant; '' where nothing is alike, or names may not be read."""
        try:
            found = [d["metadata"]["name"] for d in self.list(deployment_path(namespace))]
        except Trouble:
            return ""
        alike = difflib.get_close_matches(name, found, n=1)
        return f"did you mean {alike[0]}?" if alike else ""

    def list(
        self,
        path: str,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        chunk: int = CHUNK,
    ) -> list[Document]:
        """All objects of a collection.

        Raises:
            Trouble: it may not be read, or no answer came.
        """
        params = {"limit": str(chunk)}
        if labels:
            params["labelSelector"] = ",".join(f"{k}={v}" for k, v in labels.items())
        if fields:
            params["fieldSelector"] = ",".join(f"{k}={v}" for k, v in fields.items())
        found: list[Document] = []
        while True:
            try:
                page = self.request("GET", path, params=params)
            except ApiError as error:
                if error.status != 410 or "continue" not in params:
                    raise
                # The list changed for too long while it was read: once more, all in one.
                found, params = [], {**params, "limit": "0"}
                del params["continue"]
                continue
            found += page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return found
            params["continue"] = token

    def user(self) -> str:
        """The name by which the API server knows who asks.

        Raises:
            Trouble: no answer came.
        """
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = self.request("POST", path, body=review)
        return str(answer["status"]["userInfo"]["username"])

    # Requests.

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Document:
        """Send one request; the answer's document.

        Raises:
            ApiError: for each status from 400 up.
            Unreachable: no answer came.
        """
        text = self.text(method, path, body=body, params=params, content_type=content_type)
        try:
            answer: Document = json.loads(text)
        except ValueError:
            raise Unreachable(
                f"{self.access.server} does not answer as a Kubernetes API server does",
                "look at the kubeconfig's server and proxy",
            ) from None
        return answer

    def text(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> str:
        """The same; the answer as text.

        Raises:
            ApiError: for each status from 400 up.
            Unreachable: no answer came.
        """
        data = None if body is None else json.dumps(body).encode()
        status, headers, raw = self.raw(
            method, path, data, {"Content-Type": content_type}, params=params
        )
        text = raw.decode("utf-8", "replace")
        if status < 400:
            return text
        try:
            answer = json.loads(text)
            message, reason = str(answer.get("message") or ""), str(answer.get("reason") or "")
        except (ValueError, AttributeError):
            message, reason = text.strip()[:200], ""
        after = headers.get("Retry-After", "")
        raise ApiError(
            status,
            reason,
            message or f"the API server answers {status}",
            _mend(status, message),
            float(after) if after.isdigit() else 0.0,
        )

    def raw(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """The same with bytes in and out; the answer's status and headers, whatever they are.

        Raises:
            Unreachable: no answer came.
        """
        target = urlsplit(self.access.server).path + path
        target += f"?{urlencode(params)}" if params else ""
        answer = self._send(method, target, data, headers or {})
        if answer[0] == 401:
            # An exec plugin's or a file's token may have run out in a long watch.
            self.close()
            answer = self._send(method, target, data, headers or {})
        return answer

    def _send(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        for fresh in (False, True):
            reused = self._connection is not None
            try:
                connection = self._connection or self._connect()
                connection.putrequest(method, target)
                for key, value in self._headers:
                    connection.putheader(key, value)
                if data is not None:
                    for key, value in headers.items():
                        connection.putheader(key, value)
                    connection.putheader("Content-Length", str(len(data)))
                connection.endheaders(data)
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                self.close()
                if reused and not fresh:
                    continue
                raise _unreachable(self.access, error) from None
        raise AssertionError("unreachable code")

    def _connect(self) -> http.client.HTTPConnection:
        found = self.access.credentials()
        self._headers = [
            ("User-Agent", USER_AGENT),
            ("Accept", JSON),
            *self.access.impersonation(),
        ]
        if authorization := found.authorization():
            self._headers.append(("Authorization", authorization))
        address = urlsplit(self.access.server)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise Trouble(f"the kubeconfig's server {self.access.server} is no http(s) address")
        secure = address.scheme == "https"
        port = address.port or (443 if secure else 80)
        proxy = urlsplit(_proxy(self.access.proxy, address.scheme, address.hostname, port))
        if proxy.hostname and proxy.scheme != "http":
            raise Trouble(
                f"the proxy's scheme {proxy.scheme} is not supported", "use an http:// proxy"
            )
        host, at = (
            (proxy.hostname, proxy.port or 80) if proxy.hostname else (address.hostname, port)
        )
        connection: http.client.HTTPConnection
        if secure:
            connection = _Https(host, at, timeout=TIMEOUT_S)
            connection.name = self.access.server_name or address.hostname
            connection.trust = _trust(self.access, found.certificate, found.key)
        else:
            connection = http.client.HTTPConnection(host, at, timeout=TIMEOUT_S)
        if proxy.hostname:
            login = {}
            if proxy.username:
                pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
                login = {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
            connection.set_tunnel(address.hostname, port, login)
        self._connection = connection
        return connection


def deployment_path(namespace: str | None, name: str = "") -> str:
    """The path of the ModelDeployments, in one namespace or (None) in all, or of one of them."""
    scope = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
    tail = f"/{quote(name, safe='')}" if name else ""
    return f"/apis/{names.API_VERSION}{scope}/{names.PLURAL}{tail}"


def pods_path(namespace: str, name: str = "", part: str = "") -> str:
    """The path of the pods, of one, or of a part of it such as ``log``."""
    tail = f"/{quote(name, safe='')}" if name else ""
    tail += f"/{part}" if part else ""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods{tail}"


def events_path(namespace: str) -> str:
    """The path of the events."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/events"


def retry_in_s(error: Trouble) -> float | None:
    """After how many seconds it is worth asking again; None: not at all."""
    if isinstance(error, Unreachable):
        return 1.0
    if isinstance(error, ApiError) and (error.status == 429 or error.status >= 500):
        return max(1.0, min(error.retry_after_s, 30.0))
    return None


def _object_missing(error: ApiError, name: str) -> bool:
    return f'"{name}"' in error.message


def _mend(status: int, message: str) -> str:
    if status == 401:
        return "your credentials are not accepted: log in again, or choose another --context"
    if status == 403 and ("cannot get" in message or "cannot list" in message):
        return "ask for the role view there; the chart adds ModelDeployments to it"
    if status == 404 and "could not find the requested resource" in message:
        return f"is Tidegate installed there? kubectl get crd {names.PLURAL}.{names.GROUP}"
    return ""


def _unreachable(access: Access, error: Exception) -> Trouble:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(
            f"the certificate of {access.server} is not trusted: {error.verify_message}",
            "look at the kubeconfig's certificate-authority",
        )
    if isinstance(error, ssl.SSLError):
        return Unreachable(f"no TLS connection to {access.server}: {error.reason or error}")
    return Unreachable(
        f"{access.server} does not answer: {error or type(error).__name__}",
        "is it the right --context, and does the network let you through?",
    )


def _trust(access: Access, certificate: str, key: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.authority or None)
        # Clusters' own authorities often lack what X.509 strictly asks for (key identifiers);
        # client-go does not ask for it either.
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if access.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            # The ssl module reads keys from files only: one that nobody else may read, for now.
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(f"{certificate}\n{key}\n".encode())
                pem.flush()
                context.load_cert_chain(pem.name)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise Trouble(f"the kubeconfig's certificates cannot be used: {error}") from None
    return context


def _proxy(configured: str, scheme: str, host: str, port: int) -> str:
    """The proxy's address: the kubeconfig's, else the environment's; '' means none."""
    if configured:
        return configured if "://" in configured else f"http://{configured}"
    found = next(
        (v for n in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY") if (v := os.environ.get(n))), ""
    )
    if not found or _bypassed(host, port):
        return ""
    return found if "://" in found else f"http://{found}"


def _bypassed(host: str, port: int) -> bool:
    """Whether NO_PROXY names this host: exactly, by domain, by network, or all by ``*``."""
    rules = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for rule in (r.strip().lower() for r in rules.split(",")):
        if not rule:
            continue
        if rule == "*" or host.lower() in (rule, rule.removesuffix(f":{port}")):
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(rule, strict=False):
                    return True
            except ValueError:
                pass
        elif host.lower().endswith(f".{rule.removeprefix('*').lstrip('.')}"):
            return True
    return False
