"""A small synchronous client for the Kubernetes API, enough for the harness and its tests.

Raw dictionaries in and out. Objects are applied server-side, so applying twice is a no-op.
"""

import base64
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import yaml

Object = dict[str, Any]
T = TypeVar("T")

FIELD_MANAGER = "tidegate-e2e"


class KubeError(RuntimeError):
    """The API server refused; `status` is the HTTP status, `reason` the Status object's reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotReached(TimeoutError):
    """A wait ran out; the message says what was waited for and what was last seen."""


def documents(text: str) -> list[Object]:
    """Split a YAML stream into its non-empty objects; a List is opened up."""
    found: list[Object] = []
    for document in yaml.safe_load_all(text):
        if not document:
            continue
        if document.get("kind") == "List":
            found.extend(document.get("items", []))
        else:
            found.append(document)
    return found


def wait_for(
    probe: Callable[[], T | None],
    what: str,
    *,
    timeout_seconds: float,
    interval_seconds: float = 0.2,
    state: Callable[[], str] = lambda: "",
) -> T:
    """Call `probe` until it gives something other than None or False.

    Errors of the transport and of the API count as "not yet": a starting server gives both.

    Raises:
        NotReached: after `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    last = ""
    while True:
        try:
            result = probe()
            if result is not None and result is not False:
                return result
        except (httpx.TransportError, KubeError) as error:
            last = f" (last error: {error})"
        if time.monotonic() >= deadline:
            seen = state()
            raise NotReached(
                f"{what}: not within {timeout_seconds:.0f} s{last}{': ' + seen if seen else ''}"
            )
        time.sleep(interval_seconds)


def _ssl_context(cluster: Object, user: Object) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority := cluster.get("certificate-authority-data"):
        context = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
    elif path := cluster.get("certificate-authority"):
        context = ssl.create_default_context(cafile=path)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "client-certificate-data" in user:
        # The ssl module reads key and certificate from files only.
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]) + b"\n")
            pem.write(base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
    elif "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    return context


def _named(entries: Iterable[Object], name: str, key: str) -> Object:
    for entry in entries:
        if entry["name"] == name:
            value: Object = entry[key]
            return value
    raise ValueError(f"kubeconfig has no {key} named {name!r}")


class KubeClient:
    """One connection pool to one API server, as one user."""

    def __init__(self, kubeconfig: Path, *, user_agent: str = "tidegate-e2e") -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config["contexts"], config["current-context"], "context")
        cluster = _named(config["clusters"], context["cluster"], "cluster")
        user = _named(config["users"], context["user"], "user")
        headers = {"User-Agent": user_agent}
        if token := user.get("token"):
            headers["Authorization"] = f"Bearer {token}"
        self.server: str = cluster["server"]
        self.http = httpx.Client(
            base_url=self.server,
            verify=_ssl_context(cluster, user),
            headers=headers,
            timeout=30.0,
            trust_env=False,
        )
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request and return the decoded answer.

        Raises:
            KubeError: for every status from 400 up.
        """
        response = self.http.request(
            method,
            path,
            json=body if body is not None else None,
            params=params,
            headers={"Content-Type": content_type} if body is not None else None,
        )
        if response.status_code >= 400:
            try:
                status = response.json()
            except ValueError:
                status = {"message": response.text}
            raise KubeError(
                response.status_code, status.get("reason", ""), status.get("message", "")
            )
        answer: Object = response.json()
        return answer

    def text(self, path: str, params: Mapping[str, str] | None = None) -> str:
        """Return the body of a GET as text (logs, /readyz, metrics).

        Raises:
            KubeError: for every status from 400 up.
        """
        response = self.http.get(path, params=params)
        if response.status_code >= 400:
            raise KubeError(response.status_code, "", response.text)
        return response.text

    def path(self, api_version: str, kind: str, namespace: str | None, name: str = "") -> str:
        """Return the URL path of a kind's collection or of one object.

        Raises:
            LookupError: if the server does not serve that kind.
        """
        if kind not in self._resources.get(api_version, {}):
            # Asked again on a miss: a CRD may have come since.
            root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
            self._resources[api_version] = {
                entry["kind"]: (entry["name"], entry["namespaced"])
                for entry in self.request("GET", root)["resources"]
                if "/" not in entry["name"]
            }
        try:
            plural, namespaced = self._resources[api_version][kind]
        except KeyError:
            raise LookupError(f"the server has no {kind} in {api_version}") from None
        root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
        scope = f"/namespaces/{namespace or 'default'}" if namespaced else ""
        return f"{root}{scope}/{plural}" + (f"/{name}" if name else "")

    def path_of(self, item: Object, namespace: str | None = None) -> str:
        """Return the URL path of one object given as a dictionary."""
        metadata = item["metadata"]
        return self.path(
            item["apiVersion"],
            item["kind"],
            metadata.get("namespace", namespace),
            metadata["name"],
        )

    def apply(
        self,
        item: Object,
        *,
        namespace: str | None = None,
        field_manager: str = FIELD_MANAGER,
        force: bool = True,
    ) -> Object:
        """Apply one object server-side and return it as stored."""
        return self.request(
            "PATCH",
            self.path_of(item, namespace),
            body=item,
            params={"fieldManager": field_manager, "force": str(force).lower()},
            content_type="application/apply-patch+yaml",
        )

    def apply_all(self, items: Iterable[Object], *, namespace: str | None = None) -> None:
        """Apply objects in order: namespaces and CRDs first, then as given."""
        early = ("Namespace", "CustomResourceDefinition")
        ordered = sorted(items, key=lambda item: item["kind"] not in early)
        established: list[Object] = []
        for item in ordered:
            if item["kind"] not in early and established:
                self._await_established(established)
                established = []
            self.apply(item, namespace=namespace)
            if item["kind"] == "CustomResourceDefinition":
                established.append(item)
        self._await_established(established)

    def _await_established(self, definitions: list[Object]) -> None:
        for definition in definitions:
            path = self.path_of(definition)
            wait_for(
                partial(self._established, path),
                f"CRD {definition['metadata']['name']} established",
                timeout_seconds=30,
                interval_seconds=0.05,
            )

    def _established(self, path: str) -> bool:
        return has_condition(self.request("GET", path), "Established")

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> Object | None:
        """Return one object, None if there is none of that name."""
        try:
            return self.request("GET", self.path(api_version, kind, namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[Object]:
        """Return the items of a kind, in one namespace or (None) in all of them."""
        path = self.path(api_version, kind, namespace)
        if namespace is None:
            path = path.replace("/namespaces/default", "")
        params = {"labelSelector": selector} if selector else None
        items: list[Object] = self.request("GET", path, params=params)["items"]
        return items

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete one object; gone already is fine."""
        try:
            self.request("DELETE", self.path(api_version, kind, namespace, name))
        except KubeError as error:
            if error.status != 404:
                raise


def has_condition(item: Object, kind: str, status: str = "True") -> bool:
    """Say whether `status.conditions` holds a condition of that type and status."""
    return any(
        condition["type"] == kind and condition["status"] == status
        for condition in item.get("status", {}).get("conditions") or ()
    )


def rolled_out(item: Object) -> bool:
    """Say whether a Deployment or DaemonSet runs its newest template everywhere."""
    status = item.get("status", {})
    if status.get("observedGeneration", 0) < item["metadata"]["generation"]:
        return False
    if item["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(wanted > 0 and status.get("numberAvailable", 0) >= wanted)
    wanted = item["spec"].get("replicas", 1)
    return bool(
        status.get("updatedReplicas", 0) >= wanted and status.get("availableReplicas", 0) >= wanted
    )
