"""Which certificate authorities are believed: the system's, and the profile's CA bundle."""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

DEBIAN_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Trust:
    """TLS settings for all client libraries.

    Attributes:
        bundle: a PEM file with all authorities; None: the system's.
    """

    bundle: Path | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """For libraries that take a context."""
        return ssl.create_default_context(cafile=str(self.bundle) if self.bundle else None)


def build_trust(ca: Path, work: Path) -> Trust:
    """The system's authorities and those in ``ca`` (if it is there), as one file below ``work``.

    The names that client libraries look up in the environment are set to it.
    """
    if not ca.is_file():
        return Trust()
    work.mkdir(parents=True, exist_ok=True)
    bundle = work / "ca-bundle.pem"
    bundle.write_bytes(_system_authorities() + b"\n" + ca.read_bytes())
    for name in ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        os.environ[name] = str(bundle)
    return Trust(bundle)


def _system_authorities() -> bytes:
    """The system's own list; not what SSL_CERT_FILE says, which a profile may have set."""
    for path in (ssl.get_default_verify_paths().openssl_cafile, DEBIAN_BUNDLE):
        if Path(path).is_file():
            return Path(path).read_bytes()
    return b""
