"""Every way a fetch can fail: one exception tree, one class a reason.

A message names the field, its value and the mend, and never holds a credential: addresses go
through `redact`. The class name is the reason in the termination message.
"""

import errno
from urllib.parse import urlsplit, urlunsplit


class FetchError(Exception):
    """A fetch failed. Raise a subclass.

    Attributes:
        message: what is wrong with which field, and how to mend it.
    """

    retryable: bool = False

    def __init__(self, field: str, value: object, problem: str, mend: str) -> None:
        self.field = field
        self.message = f"{field} {_show(value)}: {problem}. {mend}."
        super().__init__(self.message)

    @property
    def reason(self) -> str:
        """The CamelCase reason, as in the termination message."""
        return type(self).__name__


class SourceMoved(FetchError):
    """The source's bytes are not the ones that this revision is pinned to."""


class ChangedWhileReading(SourceMoved):
    """A file was overwritten between listing and reading; a fresh start may find it at rest."""

    @property
    def reason(self) -> str:
        """For the outside it is a source that moved."""
        return SourceMoved.__name__


class ArtifactGone(FetchError):
    """The pinned bytes are no longer at the source."""


class SourceNotFound(FetchError):
    """Nothing is at this address."""


class SourceUnreachable(FetchError):
    """The source does not answer, or breaks off; trying again may help."""

    retryable = True

    def __init__(
        self,
        field: str,
        value: object,
        problem: str,
        mend: str,
        retry_after_s: float | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(field, value, problem, mend)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class AccessDenied(FetchError):
    """The source refuses these credentials."""


class CredentialsMissing(FetchError):
    """The source asks for credentials, and none, or not all of them, are mounted."""


class ChecksumMismatch(FetchError):
    """The bytes do not have the digest that was asked for."""


class SignatureMissing(FetchError):
    """The platform's policy wants the files signed, and they bring no signature."""


class SignatureInvalid(FetchError):
    """The files' signature is by none of the platform's keys, or not of these files."""


class ArtifactEmpty(FetchError):
    """The source has no files, or only empty ones."""


class ArtifactInvalid(FetchError):
    """The files are broken: truncated, of the wrong kind, with names that cannot be used."""


class ArchiveUnsafe(FetchError):
    """An archive with links, paths that lead outside, or a bomb."""


class LayoutAmbiguous(FetchError):
    """The files fit more than one backend, or no model folder."""


class UnknownBackend(FetchError):
    """No backend is known, or allowed, for these files."""


class ConfigInvalid(FetchError):
    """``config.pbtxt``, the tuning, the override, or the request itself is wrong."""


class AddressRefused(FetchError):
    """The platform's policy does not let a model come from this host or address."""


class SchemeRefused(FetchError):
    """The platform's policy does not let a model come from this kind of source."""


class TooLarge(FetchError):
    """More bytes or files than the platform's policy allows."""


class DiskFull(FetchError):
    """The volume has no room for the model."""


REASONS: tuple[type[FetchError], ...] = tuple(FetchError.__subclasses__())


def redact(url: str) -> str:
    """The address without user information and without query (presigned URLs hold secrets)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<not a URL>"
    host = parts.netloc.rpartition("@")[2]
    query = "..." if parts.query else ""
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


def disk_full(exc: OSError, where: object) -> DiskFull | None:
    """The `DiskFull` behind an OS error; None if it is about something else."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            "volume",
            where,
            f"no room left ({exc.strerror})",
            "Raise spec.runtime.resources.ephemeralStorage, or use a larger claim or node disk",
        )
    return None


def _show(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 300 else text[:297] + "...")
