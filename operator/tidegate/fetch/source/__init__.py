"""The port that every kind of source stands behind: list the files, read a range of one.

One module a scheme, imported only when that scheme is asked for, so that a pod pays memory and
start-up time for one client library only.
"""

import hashlib
import importlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from tidegate.fetch.address import AddressPolicy
from tidegate.fetch.credentials import Credentials
from tidegate.fetch.errors import ConfigInvalid, SchemeRefused, redact
from tidegate.fetch.request import FetchRequest
from tidegate.fetch.trust import Trust

VERSION_FORMAT = "v1"
"""A new one wherever `Listing.identity` is made otherwise: an upgrade is no change of a source."""


@dataclass(frozen=True)
class RemoteFile:
    """One file at a source.

    Attributes:
        path: where it belongs below the model's root, with ``/``.
        size: bytes; None if the source does not tell before the end.
        version: changes when the bytes change (an ETag, a digest); None if there is no such thing.
        key: the source's own name for it.
        sha256: hex, where the source itself vouches for it; checked.
        unpack: None, or the folder (``""``: the root) that its content is extracted into.
    """

    path: str
    size: int | None
    version: str | None = None
    key: str = ""
    sha256: str | None = None
    unpack: str | None = None


@dataclass(frozen=True)
class Listing:
    """All files of a source at one moment.

    Attributes:
        files: in any order.
        ranges: whether parts of a file can be asked for.
        single: the URI names one object rather than a folder.
        layers: the files are layers of a container image, unpacked in order, with whiteouts.
        address: a URI under which these very files stay, where the asked one may move on (an
            alias, a tag, a branch); None: there is no such thing.
    """

    files: tuple[RemoteFile, ...]
    ranges: bool = True
    single: bool = False
    layers: bool = False
    address: str | None = None

    @property
    def identity(self) -> str | None:
        """Equal for equal bytes, as far as the source tells; None if it tells too little."""
        if any(f.version is None and f.sha256 is None for f in self.files):
            return None
        rows = sorted((f.path, f.size, f.version, f.sha256, f.unpack) for f in self.files)
        return repr((self.layers, rows))

    @property
    def version(self) -> str | None:
        """The same, short; only versions of one format (the part before ``-``) can be compared."""
        identity = self.identity
        if identity is None:
            return None
        return f"{VERSION_FORMAT}-{hashlib.sha256(identity.encode()).hexdigest()[:40]}"


class Source(Protocol):
    """A place that models come from. Errors are `tidegate.fetch.errors`; transient ones retryable.

    Methods do not try again by themselves: `tidegate.fetch.retry` does.
    """

    async def listing(self) -> Listing:
        """The files there are."""
        ...

    def read(self, file: RemoteFile, offset: int, length: int | None) -> AsyncIterator[bytes]:
        """The bytes of ``file`` from ``offset``, ``length`` of them (None: to the end).

        A source without ranges is only asked for the whole. The iterator may end early; it is
        the reader who counts.
        """
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


@dataclass(frozen=True)
class Context:
    """What a source is made from."""

    request: FetchRequest
    credentials: Credentials
    addresses: AddressPolicy
    trust: Trust = field(default_factory=Trust)


_MODULES = {
    "s3": "s3",
    "https": "https",
    "http": "https",
    "hf": "hf",
    "pvc": "local",
    "image": "local",
    "oci": "oci",
    "gs": "gs",
    "as": "azure",
    "mlflow": "mlflow",
}
SCHEMES = tuple(_MODULES)


def open_source(context: Context) -> Source:
    """The source of the request's URI.

    Raises:
        SchemeRefused: the scheme is not allowed.
        ConfigInvalid: the URI is not well formed.
        CredentialsMissing: the Secret lacks a key.
    """
    request = context.request
    scheme = request.scheme
    if scheme not in _MODULES:
        raise SchemeRefused(
            "spec.model.source.uri",
            request.uri.partition("?")[0],
            f"scheme {scheme!r} is not known",
            f"Use one of: {', '.join(SCHEMES)}",
        )
    if request.endpoint is not None:
        parts = urlsplit(request.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ConfigInvalid(
                "spec.model.source.endpoint",
                redact(request.endpoint),
                "it must be http(s)://host[:port], without user name",
                "Correct it; credentials belong into the Secret",
            )
        context.addresses.check_host(parts.hostname)
    module = importlib.import_module(f"tidegate.fetch.source.{_MODULES[scheme]}")
    source: Source = module.open_source(context)
    return source
