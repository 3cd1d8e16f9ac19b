"""How the process reaches the API server: address, trust, and a token that is read again.

kopf's own login helpers find the service account or the kubeconfig. What they return is a
snapshot; a projected service-account token is replaced in its file long before it expires, so a
session here asks for the token anew with each request.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiohttp
import kopf

from tidegate import __version__

SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
TOKEN_MAX_AGE_S: Final = 30.0
USER_AGENT: Final = f"tidegate/{__version__}"
CONNECT_TIMEOUT_S: Final = 10.0


@dataclass
class TokenFile:
    """A token that is kept in a file and read again from time to time."""

    path: Path
    clock: Callable[[], float] = time.monotonic
    _token: str = ""
    _read_at: float | None = None

    def token(self) -> str:
        """The token, at most `TOKEN_MAX_AGE_S` old; the last one if the file cannot be read."""
        now = self.clock()
        if self._read_at is None or now - self._read_at > TOKEN_MAX_AGE_S:
            try:
                self._token = self.path.read_text(encoding="utf-8").strip()
            except OSError:
                if not self._token:
                    raise
            self._read_at = now
        return self._token

    def invalidate(self) -> None:
        """Read the file at the next use: the API server did not accept what it last held."""
        self._read_at = None


@dataclass(frozen=True)
class Connection:
    """The API server and how to speak to it."""

    info: kopf.ConnectionInfo
    token_file: TokenFile | None = field(default=None)

    @property
    def server(self) -> str:
        """The address, for example ``https://10.96.0.1:443``."""
        return self.info.server.rstrip("/")

    def session(self, *, connections: int = 0) -> aiohttp.ClientSession:
        """A new session; the caller closes it. `connections` bounds them, 0 does not."""
        headers = {"User-Agent": USER_AGENT}
        token_file = self.token_file
        if token_file is None:
            headers |= self.info.as_http_headers()

        async def authorize(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            if token_file is not None:
                request.headers["Authorization"] = f"Bearer {token_file.token()}"
            response = await handler(request)
            if response.status == 401 and token_file is not None:
                token_file.invalidate()
            return response

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self.info.as_ssl_context(), limit=connections, ttl_dns_cache=30
            ),
            headers=headers,
            proxy=self.info.proxy_url,
            middlewares=(authorize,),
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S),
        )


async def close(session: aiohttp.ClientSession) -> None:
    """Close a session, and let its connections end: they do so in the event loop's next turns."""
    await session.close()
    for _ in range(3):
        await asyncio.sleep(0)


def login() -> Connection:
    """The service account of this pod, or the kubeconfig of a developer.

    Raises:
        kopf.LoginError: there is neither.
    """
    settings = kopf.OperatorSettings()
    info = kopf.login_with_service_account(settings=settings)
    if info is not None:
        host = os.environ.get("KUBERNETES_SERVICE_HOST")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if host:
            # By address: the operator must not need the cluster's DNS to do its work.
            host = f"[{host}]" if ":" in host else host
            info = replace(info, server=f"https://{host}:{port}")
        return Connection(info, TokenFile(SERVICE_ACCOUNT_TOKEN))
    info = kopf.login_with_kubeconfig(settings=settings)
    if info is None:
        raise kopf.LoginError(
            "no service account and no kubeconfig; run in a pod, or set KUBECONFIG"
        )
    return Connection(info)
