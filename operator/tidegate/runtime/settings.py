"""How the operator's process is set up: environment variables, and the platform file."""

import os
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import ValidationError

from tidegate.platform import Platform

DEFAULT_NAMESPACE = "tidegate-system"
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name, RFC 9110."""


class SettingsError(ValueError):
    """A setting that the process cannot start with; the text names it and the mend."""


@dataclass(frozen=True)
class Settings:
    """The process's settings.

    Attributes:
        namespaces: namespaces to serve; empty: all.
        platform_file: YAML with the platform settings; None: their defaults.
        lease_name: name of the Lease that the replicas compete for.
        lease_namespace: where it lies.
        identity: this process, as the Lease names it.
        lease_duration_s: a standby takes over when the Lease was not renewed for so long.
        renew_deadline_s: the holder writes nothing that long after its last renewal.
        retry_period_s: pause between renewals, and between a standby's looks.
        http_port: port of ``/healthz``, ``/readyz`` and ``/metrics``; 0: any free one.
        log_level: debug, info, warning or error.
        log_format: json or console.
        workers: ModelDeployments that are reconciled at the same time.
        sweep_period_s: pause between comparisons of the cache with the API server.
        stale_watch_limit_s: a watch behind for so long makes ``/healthz`` fail.
        discovery_period_s: pause between looks for optional kinds.
        shutdown_grace_s: time for reconciles in flight at SIGTERM.
        read_nodes: whether nodes may be listed, to say what a pod that waits for a GPU lacks.
        prometheus_url: where the counters of pods are that cannot be read; empty: nowhere.
        event_sink_url: where audit records are posted as CloudEvents; empty: nowhere.
        event_sink_headers: sent with them.
        tracing_endpoint: the collector that traces are sent to by OTLP over HTTP; empty: none.
        tracing_headers: sent with them.
        tracing_idle_ratio: share of the traces in which nothing happened that is kept, 0 to 1.
    """

    namespaces: tuple[str, ...] = ()
    platform_file: Path | None = None
    lease_name: str = "tidegate-operator"
    lease_namespace: str = DEFAULT_NAMESPACE
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}_{uuid.uuid4()}")
    lease_duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0
    http_port: int = 8080
    log_level: str = "info"
    log_format: str = "json"
    workers: int = 8
    sweep_period_s: float = 60.0
    stale_watch_limit_s: float = 300.0
    discovery_period_s: float = 300.0
    shutdown_grace_s: float = 5.0
    read_nodes: bool = False
    prometheus_url: str = ""
    event_sink_url: str = ""
    event_sink_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tracing_endpoint: str = ""
    tracing_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tracing_idle_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what could not work."""
        if not 0 < self.retry_period_s < self.renew_deadline_s < self.lease_duration_s:
            raise SettingsError(
                "lease times must grow: retry period < renew deadline < lease duration; got "
                f"{self.retry_period_s}, {self.renew_deadline_s}, {self.lease_duration_s} seconds"
            )
        if self.workers < 1:
            raise SettingsError(f"workers is {self.workers}; at least 1 is needed")
        if not 0 <= self.tracing_idle_ratio <= 1:
            raise SettingsError(
                f"the share of idle traces is {self.tracing_idle_ratio}; it goes from 0 to 1"
            )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Settings from the variables that the chart sets.

        Raises:
            SettingsError: a variable's value cannot be used.
        """
        namespace = environ.get("POD_NAMESPACE") or DEFAULT_NAMESPACE
        platform_file = environ.get("TIDEGATE_PLATFORM_FILE")
        pod = environ.get("POD_NAME") or socket.gethostname()
        return cls(
            namespaces=tuple(
                n.strip()
                for n in environ.get("TIDEGATE_WATCH_NAMESPACES", "").split(",")
                if n.strip()
            ),
            platform_file=Path(platform_file) if platform_file else None,
            lease_name=environ.get("TIDEGATE_LEASE_NAME") or cls.lease_name,
            lease_namespace=namespace,
            # Never the pod's name alone: a container that restarts in its pod is another process.
            identity=f"{pod}_{uuid.uuid4()}",
            lease_duration_s=_number(
                environ, "TIDEGATE_LEASE_DURATION_SECONDS", cls.lease_duration_s
            ),
            renew_deadline_s=_number(
                environ, "TIDEGATE_RENEW_DEADLINE_SECONDS", cls.renew_deadline_s
            ),
            retry_period_s=_number(environ, "TIDEGATE_RETRY_PERIOD_SECONDS", cls.retry_period_s),
            http_port=int(_number(environ, "TIDEGATE_HTTP_PORT", cls.http_port)),
            log_level=_choice(
                environ, "TIDEGATE_LOG_LEVEL", cls.log_level, ("debug", "info", "warning", "error")
            ),
            log_format=_choice(environ, "TIDEGATE_LOG_FORMAT", cls.log_format, ("json", "console")),
            workers=int(_number(environ, "TIDEGATE_WORKERS", cls.workers)),
            sweep_period_s=_number(environ, "TIDEGATE_SWEEP_PERIOD_SECONDS", cls.sweep_period_s),
            read_nodes=_choice(environ, "TIDEGATE_READ_NODES", "false", ("true", "false"))
            == "true",
            prometheus_url=_url(environ, "TIDEGATE_PROMETHEUS_URL"),
            event_sink_url=_url(environ, "TIDEGATE_EVENT_SINK_URL"),
            event_sink_headers=_headers(environ, "TIDEGATE_EVENT_SINK_HEADERS"),
            tracing_endpoint=_url(environ, "TIDEGATE_TRACING_ENDPOINT"),
            tracing_headers=_headers(environ, "TIDEGATE_TRACING_HEADERS"),
            tracing_idle_ratio=_number(
                environ, "TIDEGATE_TRACING_IDLE_RATIO", cls.tracing_idle_ratio
            ),
        )


def load_platform(settings: Settings) -> Platform:
    """The platform settings from the file that the chart writes.

    Raises:
        SettingsError: the file is missing, no YAML, or says something unknown.
    """
    defaults = {"operatorNamespace": settings.lease_namespace}
    if settings.platform_file is None:
        return Platform.model_validate(defaults)
    try:
        document = yaml.safe_load(settings.platform_file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(
            f"TIDEGATE_PLATFORM_FILE={settings.platform_file}: {error}; "
            "point it to a YAML file with the platform settings"
        ) from error
    if not isinstance(document, dict):
        raise SettingsError(
            f"TIDEGATE_PLATFORM_FILE={settings.platform_file} holds a {type(document).__name__}; "
            "write a mapping such as `images: {triton: ...}`"
        )
    try:
        return Platform.model_validate(defaults | document)
    except ValidationError as error:
        raise SettingsError(f"TIDEGATE_PLATFORM_FILE={settings.platform_file}: {error}") from error


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise SettingsError(f"{name}={text} is no number") from None
    if not 0 <= value < 1e9:
        raise SettingsError(f"{name}={text} is out of range; it must be positive")
    return value


def _url(environ: Mapping[str, str], name: str) -> str:
    text = environ.get(name, "")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and not parts.query
    except ValueError:
        usable = False
    if text and not usable:
        raise SettingsError(
            f"{name}={text} is no address; write one such as http://prometheus.monitoring:9090"
        )
    return text


def _headers(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """`name=value,name=value`, values percent-encoded, as OpenTelemetry's own variable has them."""
    found = {}
    for part in environ.get(name, "").strip().split(","):
        header, equals, value = part.partition("=")
        header, value = header.strip(), unquote(value.strip())
        if part and not (equals and _HEADER.fullmatch(header) and value.isprintable()):
            # Not what it says: it may be a secret.
            raise SettingsError(f"{name} holds no headers; write them as name=value,name=value")
        if part:
            found[header] = value
    return found


def _choice(environ: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    text = environ.get(name, "").lower() or default
    if text not in choices:
        raise SettingsError(f"{name}={text} is unknown; choose one of {', '.join(choices)}")
    return text
