"""HTTP for the sources that speak it themselves: redirects by hand, ranges, clear errors.

Redirects are followed one at a time so that each hop's host is judged and named, credentials are
sent to the first origin only, and a connection never falls back from TLS to clear text.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from tidegate.fetch.address import AddressPolicy, refusal_in
from tidegate.fetch.credentials import Credentials
from tidegate.fetch.errors import (
    AccessDenied,
    AddressRefused,
    ArtifactInvalid,
    ConfigInvalid,
    FetchError,
    SourceNotFound,
    SourceUnreachable,
    redact,
)
from tidegate.fetch.trust import Trust

MAX_REDIRECTS = 5
CHUNK = 1 << 20
REDIRECTS = frozenset({301, 302, 303, 307, 308})
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
URI_FIELD = "spec.model.source.uri"


class Http:
    """A session with one policy. Use `close` at the end."""

    def __init__(
        self,
        addresses: AddressPolicy,
        trust: Trust,
        credentials: Credentials,
        keys: str,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
    ) -> None:
        """Make a session.

        Args:
            addresses: judged for each hop's host.
            trust: TLS authorities.
            credentials: only to tell whether any are mounted.
            keys: the Secret's keys that would help, for messages.
            timeout: of each request.
        """
        self._addresses = addresses
        self._trust = trust
        self._credentials = credentials
        self._keys = keys
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._trust.ssl_context()),
                timeout=self._timeout,
                auto_decompress=False,
                trust_env=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    @asynccontextmanager
    async def get(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        secret_headers: Mapping[str, str] | None = None,
        accept_status: frozenset[int] = frozenset({200, 206}),
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET a URL, following redirects.

        Args:
            url: absolute.
            headers: for every hop.
            secret_headers: for the first origin only.
            accept_status: what counts as an answer.

        Raises:
            FetchError: by status; network errors and 5xx are retryable.
        """
        first, hop = urlsplit(url), url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                self._check_hop(hop, first.scheme)
                sent = {"Accept-Encoding": "identity", **(headers or {})}
                parts = urlsplit(hop)
                if (parts.scheme, parts.netloc) == (first.scheme, first.netloc):
                    sent |= secret_headers or {}
                async with self._open().get(
                    URL(hop, encoded=True), headers=sent, allow_redirects=False
                ) as response:
                    if response.status not in REDIRECTS:
                        self._check_status(response, hop, accept_status)
                        yield response
                        return
                    location = response.headers.get("Location")
                if not location:
                    raise SourceUnreachable(
                        URI_FIELD, redact(hop), "a redirect without Location", "Mend the server"
                    )
                hop = urljoin(hop, location)
            raise SourceUnreachable(
                URI_FIELD,
                redact(url),
                f"more than {MAX_REDIRECTS} redirects",
                "Mend the server",
                retryable=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._translate(exc, hop) from exc
        except ValueError as exc:  # yarl: not a URL
            raise ConfigInvalid(
                URI_FIELD, redact(hop), f"not a URL ({exc})", "Correct the address"
            ) from exc

    async def chunks(self, response: aiohttp.ClientResponse, url: str) -> AsyncIterator[bytes]:
        """The body, piece by piece.

        Raises:
            SourceUnreachable: it breaks off.
        """
        try:
            async for chunk in response.content.iter_chunked(CHUNK):
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._translate(exc, url) from exc

    def _check_hop(self, url: str, first_scheme: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AddressRefused(
                "redirect", redact(url), "not an http address", "Mend the server's redirect"
            )
        if first_scheme == "https" and parts.scheme != "https":
            raise AddressRefused(
                "redirect",
                redact(url),
                "it leads from TLS to clear text",
                "Mend the server's redirect",
            )
        self._addresses.check_host(parts.hostname)

    def _check_status(
        self, response: aiohttp.ClientResponse, url: str, accepted: frozenset[int]
    ) -> None:
        status, shown = response.status, redact(url)
        if status in accepted:
            return
        said = f"the server answers {status} {response.reason or ''}".strip()
        if status in (401, 403):
            if not self._credentials.mounted:
                raise self._credentials.missing(self._keys, f"{shown} ({status})")
            raise AccessDenied(
                URI_FIELD,
                shown,
                said,
                "Check that the Secret's credentials may read it and have not run out",
            )
        if status in (404, 410):
            raise SourceNotFound(URI_FIELD, shown, said, "Correct the address, or publish it there")
        if status in (408, 425, 429) or status >= 500:
            raise SourceUnreachable(
                URI_FIELD, shown, said, "It is tried again", _retry_after_s(response)
            )
        raise ArtifactInvalid(URI_FIELD, shown, said, "Correct the address")

    def _translate(self, exc: Exception, url: str) -> FetchError:
        if known := refusal_in(exc):
            return known
        if isinstance(exc, aiohttp.ClientConnectorCertificateError):
            return SourceUnreachable(
                URI_FIELD,
                redact(url),
                f"its certificate is not trusted ({exc.certificate_error})",
                "Name a CA bundle in the runtime profile (caBundleConfigMap)",
                retryable=False,
            )
        problem = {
            aiohttp.ClientConnectorDNSError: "its host name cannot be resolved",
            aiohttp.ConnectionTimeoutError: "no connection within 15 s",
        }.get(type(exc))
        if problem is None:
            problem = (
                "no answer within 60 s"
                if isinstance(exc, (asyncio.TimeoutError, TimeoutError))
                else f"connection failed ({exc or type(exc).__name__})"
            )
        return SourceUnreachable(
            URI_FIELD, redact(url), problem, "Check the address and that pods may reach it"
        )


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None
