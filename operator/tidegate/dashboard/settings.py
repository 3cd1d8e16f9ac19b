"""How the dashboard's process is set up: environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

CA_FILE: Final = Path("/var/run/secrets/tidegate/ca.crt")
"""Where the chart mounts the cluster's authority; there is no token beside it."""


class SettingsError(ValueError):
    """A setting that the process cannot start with; the text names it and the mend."""


@dataclass(frozen=True)
class Settings:
    """The process's settings.

    Attributes:
        api_server: address of the API server.
        ca_file: PEM of its authority; None: the system's.
        port: where the dashboard answers; 0: any free one.
        namespaces: looked into for readers who may not list all.
        tls_certificate: PEM with which it answers HTTPS; None: it answers HTTP.
        tls_key: its key.
        max_streams: open streams, over all readers.
        measure: whether it reads the sidecars of models that are looked at.
    """

    api_server: str
    ca_file: Path | None = None
    port: int = 8080
    namespaces: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_streams: int = 500
    measure: bool = True

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Settings from the variables that the chart sets.

        Raises:
            SettingsError: one is missing or cannot be used.
        """
        server = environ.get("TIDEGATE_API_SERVER", "")
        if not server and (host := environ.get("KUBERNETES_SERVICE_HOST", "")):
            # By address: it needs no DNS to do its work.
            host = f"[{host}]" if ":" in host else host
            server = f"https://{host}:{environ.get('KUBERNETES_SERVICE_PORT') or '443'}"
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                f"TIDEGATE_API_SERVER={server} is no address; run in a pod, or write one such as "
                "https://10.96.0.1:443"
            )
        ca_file = environ.get("TIDEGATE_CA_FILE", "")
        folder = environ.get("TIDEGATE_TLS_FOLDER", "")
        return cls(
            api_server=server.rstrip("/"),
            ca_file=Path(ca_file) if ca_file else CA_FILE if CA_FILE.exists() else None,
            port=_whole(environ, "TIDEGATE_HTTP_PORT", cls.port, 65535),
            namespaces=tuple(
                n.strip() for n in environ.get("TIDEGATE_NAMESPACES", "").split(",") if n.strip()
            ),
            tls_certificate=Path(folder) / "tls.crt" if folder else None,
            tls_key=Path(folder) / "tls.key" if folder else None,
            max_streams=_whole(environ, "TIDEGATE_MAX_STREAMS", cls.max_streams, 100_000),
            measure=environ.get("TIDEGATE_MEASURE", "true").lower() != "false",
        )


def _whole(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) > most:
        raise SettingsError(f"{name}={text} is no whole number up to {most}")
    return int(text)
