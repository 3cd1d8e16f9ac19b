"""A model as an OCI artifact: one layer a file, named by its path, as the fetch container reads it.

Blobs go first, known by their digests, then the manifest. It gets a tag made of the tree's digest
at once, since registries clear away what has none; the tag that may be followed moves last.

A small client on ``requests`` rather than the ORAS project's: that one reads a whole file into
memory or needs a kind of upload that not every registry takes, must be told which login a registry
wants, and tries a wrong address for minutes.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from tidegate.fetch.digest import file_sha256
from tidegate.preparation.publish.target import (
    REPORT_SUFFIX,
    SHOWN,
    Files,
    Sent,
    StoreError,
    Tell,
    parsed,
)
from tidegate.preparation.publish.web import Web, said

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
EMPTY: Final = "application/vnd.oci.empty.v1+json"
FILE: Final = "application/octet-stream"
MODEL: Final = "application/vnd.tidegate.model.v1"
REPORT: Final = "application/vnd.tidegate.report.v1"
TITLE: Final = "org.opencontainers.image.title"
DIGEST: Final = "dev.tidegate.sha256"
"""Annotation: digest of the tree."""
THERE: Final = frozenset({200, 301, 302, 303, 307, 308})
"""Of a blob: here, or with a store that would not take a HEAD by the address it gives."""
ANSWERS: Final = THERE | {201, 202, 204, 404, 401}


class Registry:
    """A repository of a registry.

    Args:
        uri: ``oci://registry/repository[:tag]``.
        endpoint: where its API is, if not at https://registry.
        tell: is told what is sent.
    """

    def __init__(self, uri: str, endpoint: str, tell: Tell) -> None:
        match = parsed(uri)
        self._host, self._name, self._tag = match["host"], match["name"], match["tag"]
        self._endpoint, self._tell = endpoint, tell
        self._base = f"{(endpoint or f'https://{self._host}').rstrip('/')}/v2/{self._name}"
        self._shown = f"oci://{self._host}/{self._name}"
        self._web = Web(self._shown)
        self._authorization: dict[str, str] = {}
        self._manifest = b""
        self._sha256 = ""

    def send(self, files: Files, sha256: str) -> Sent:
        """See `Target.send`."""
        self._sha256 = sha256
        document, sent = self._artifact(files, MODEL, {DIGEST: f"sha256:{sha256}"})
        self._manifest = document
        self._put(document, sha256[:SHOWN])
        digest = hashlib.sha256(document).hexdigest()
        return Sent(f"{self._shown}@sha256:{digest}", self._endpoint, sent)

    def file(self, papers: Files) -> None:
        """See `Target.file`: an artifact of its own, by a tag beside the model's."""
        document, _ = self._artifact(papers, REPORT, {DIGEST: f"sha256:{self._sha256}"})
        self._put(document, self._sha256[:SHOWN] + REPORT_SUFFIX)

    def announce(self) -> str:
        """See `Target.announce`."""
        if not self._tag:
            return ""
        self._put(self._manifest, self._tag)
        return f"{self._shown}:{self._tag}"

    def _artifact(
        self, files: Files, kind: str, annotations: Mapping[str, str]
    ) -> tuple[bytes, int]:
        """The manifest of files whose blobs are there; how many were sent."""
        sent, layers = 0, []
        for name, path in files.items():
            digest, size = f"sha256:{file_sha256(path)}", path.stat().st_size
            sent += self._blob(digest, path, name)
            layers.append(
                {"mediaType": FILE, "digest": digest, "size": size, "annotations": {TITLE: name}}
            )
        empty = b"{}"
        digest = f"sha256:{hashlib.sha256(empty).hexdigest()}"
        self._blob(digest, empty, "")
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": EMPTY, "digest": digest, "size": len(empty)},
            "layers": layers,
            "annotations": dict(annotations),
        }
        return json.dumps(document, sort_keys=True).encode(), sent

    def _blob(self, digest: str, body: bytes | Path, name: str) -> bool:
        """Send a blob; False: it is there."""
        if self._ask("HEAD", f"{self._base}/blobs/{digest}").status_code in THERE:
            return False
        if name:
            self._tell(f"sending {name}")
        begun = self._checked("POST", f"{self._base}/blobs/uploads/", body=b"")
        location = urljoin(begun.url, begun.headers.get("Location", ""))
        url = f"{location}{'&' if urlsplit(location).query else '?'}digest={digest}"
        self._checked("PUT", url, body=body, headers={"Content-Type": FILE})
        return True

    def _put(self, document: bytes, tag: str) -> None:
        url = f"{self._base}/manifests/{tag}"
        self._checked("PUT", url, body=document, headers={"Content-Type": MANIFEST})

    def _checked(self, method: str, url: str, **request: Any) -> Any:
        answer = self._ask(method, url, **request)
        if answer.status_code not in (201, 202):
            raise StoreError(f"{self._shown} refuses: {said(answer)}")
        return answer

    def _ask(self, method: str, url: str, **request: Any) -> Any:
        """Ask, with the login that the registry wants, which may have run out meanwhile."""
        given = request.pop("headers", {})
        # An upload may go to another host (a store's presigned address), which gets no login.
        own = urlsplit(url).netloc == urlsplit(self._base).netloc
        for attempt in (1, 2):
            headers = {**given, **(self._authorization if own else {})}
            answer = self._web.ask(method, url, headers=headers, accept=ANSWERS, **request)
            if answer.status_code != 401 or attempt == 2 or not own:
                break
            self._authorization = self._login(answer.headers.get("WWW-Authenticate", ""))
        if answer.status_code == 401:
            raise StoreError(f"{self._shown} refuses this login: docker login {self._host}")
        return answer

    def _login(self, challenge: str) -> dict[str, str]:
        kind, _, rest = challenge.partition(" ")
        basic = _basic(self._host)
        if kind.lower() == "basic":
            if not basic:
                raise StoreError(f"{self._shown} asks for a login: docker login {self._host}")
            return basic
        fields = dict(re.findall(r'([a-z_]+)="([^"]*)"', rest))
        realm = fields.get("realm", "")
        if kind.lower() != "bearer" or not realm:
            raise StoreError(f"{self._shown} asks for a login that is not known: {kind[:40]}")
        if self._base.startswith("https://") and not realm.startswith("https://"):
            raise StoreError(f"{self._shown} asks for a login in clear text")
        # For all that follows: a first HEAD is challenged for pulling only.
        scope = {"scope": f"repository:{self._name}:pull,push"}
        query = {k: v for k, v in fields.items() if k == "service"} | scope
        answer = self._web.ask(
            "GET", realm, headers=basic, query=query, accept=frozenset({200, 401, 403})
        )
        token = None
        if answer.status_code == 200:
            found = answer.json()
            token = found.get("token") or found.get("access_token")
        if not token:
            raise StoreError(f"{self._shown} refuses this login: docker login {self._host}")
        return {"Authorization": f"Bearer {token}"}


def _basic(host: str) -> dict[str, str]:
    """The login of `docker login`, as a header; empty: none is known.

    Raises:
        StoreError: the file cannot be read, or its helper fails.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    helper = known.get("credHelpers", {}).get(host) or known.get("credsStore")
    entry = known.get("auths", {}).get(host, {})
    try:
        if entry.get("auth"):
            pair = base64.b64decode(entry["auth"], validate=True).decode()
        elif entry.get("username"):
            pair = f"{entry['username']}:{entry['password']}"
        elif helper:
            pair = _helped(helper, host)
        else:
            return {}
    except (binascii.Error, UnicodeDecodeError, KeyError) as error:
        raise StoreError(f"{path}: no login for {host} in it") from error
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _helped(helper: str, host: str) -> str:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, check=True, timeout=60
        )
        found = json.loads(done.stdout)
        return f"{found['Username']}:{found['Secret']}"
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise StoreError(f"{program} gives no login for {host}: docker login {host}") from error
