"""Which tracer the settings ask for: the one place that knows of OpenTelemetry's being optional.

`tidegate.runtime.otlp` is imported only where `tracing.endpoint` is set (ADR 0023).
"""

from tidegate.runtime.settings import Settings, SettingsError
from tidegate.runtime.telemetry import LogProcessor, Metrics
from tidegate.runtime.tracing import OFF, Tracer


def tracer(settings: Settings, metrics: Metrics) -> Tracer:
    """The one that the settings ask for."""
    if not settings.tracing_endpoint:
        return OFF
    from tidegate.runtime.otlp import Traces

    return Traces(
        settings.tracing_endpoint,
        metrics,
        identity=settings.identity,
        namespace=settings.lease_namespace,
        headers=settings.tracing_headers,
        idle_ratio=settings.tracing_idle_ratio,
    )


def log_processors(settings: Settings) -> tuple[LogProcessor, ...]:
    """What puts a trace's id into the lines of the log.

    Raises:
        SettingsError: traces are asked for, and OpenTelemetry is not installed.
    """
    if not settings.tracing_endpoint:
        return ()
    try:
        from tidegate.runtime.otlp import with_trace_id
    except ImportError as error:
        raise SettingsError(
            f"TIDEGATE_TRACING_ENDPOINT={settings.tracing_endpoint} needs OpenTelemetry: {error}; "
            "install tidegate[operator,tracing], or leave the endpoint out"
        ) from error
    return (with_trace_id,)
