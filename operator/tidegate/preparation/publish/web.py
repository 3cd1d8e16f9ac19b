"""HTTP to a store: one session, its errors in one line."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from tidegate.preparation.errors import INSTALL, one_line
from tidegate.preparation.publish.target import StoreError

CONNECT_S: Final = 15
READ_S: Final = 300
"""A registry that checks a large file's digest answers late."""
BLOCK: Final = 1 << 20


class Web:
    """A session.

    Args:
        shown: the address that is published to, for messages.
    """

    def __init__(self, shown: str) -> None:
        try:
            import requests
        except ModuleNotFoundError:
            raise StoreError(f"requests is not installed: {INSTALL}") from None
        self._shown = shown
        self._session = requests.Session()
        # Else requests puts a login of ~/.netrc in place of the one that it is given.
        self._session.auth = _as_it_is

    def ask(
        self,
        method: str,
        url: str,
        *,
        accept: frozenset[int] = frozenset(range(200, 300)),
        headers: Mapping[str, str] | None = None,
        body: bytes | Path | None = None,
        json: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask, and get a `requests.Response`.

        Args:
            method: such as ``PUT``.
            url: absolute.
            accept: statuses that are an answer.
            headers: of the request.
            body: bytes, or a file that is sent in pieces.
            json: a document instead.
            query: parameters.

        Raises:
            StoreError: no connection, or another status; with what the server says.
        """
        import requests

        try:
            if isinstance(body, Path):
                with body.open("rb") as f:
                    answer = self._send(method, url, headers, f if body.stat().st_size else b"")
            else:
                answer = self._send(method, url, headers, body, json, query)
        except requests.RequestException as error:
            raise StoreError(f"{self._shown}: {_plain(url)}: {one_line(error)}") from error
        if answer.status_code not in accept:
            raise StoreError(f"{self._shown}: {_plain(url)} answers {said(answer)}")
        return answer

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: Any,
        json: Any = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        return self._session.request(
            method,
            url,
            params=query,
            headers=dict(headers or {}),
            data=body,
            json=json,
            timeout=(CONNECT_S, READ_S),
            allow_redirects=method == "GET",
        )

    def digest(self, url: str, headers: Mapping[str, str]) -> str:
        """SHA-256 of what lies there, in hex, in constant memory.

        Raises:
            StoreError: nothing does, or it breaks off.
        """
        import requests

        found = hashlib.sha256()
        try:
            with self._session.get(
                url, headers=dict(headers), timeout=(CONNECT_S, READ_S), stream=True
            ) as answer:
                answer.raise_for_status()
                for block in answer.iter_content(BLOCK):
                    found.update(block)
        except requests.RequestException as error:
            raise StoreError(f"{self._shown}: {_plain(url)}: {one_line(error)}") from error
        return found.hexdigest()


def said(answer: Any) -> str:
    """Status, and the beginning of what a server says of it."""
    text = " ".join(answer.text.split())[:200]
    return f"{answer.status_code} {answer.reason or ''} {text}".strip()


def _plain(url: str) -> str:
    """Without query: upload addresses hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _as_it_is(request: Any) -> Any:
    return request
