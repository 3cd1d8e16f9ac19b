"""Settings from the environment, and the platform file."""

from pathlib import Path

import pytest

from tidegate.runtime.settings import Settings, SettingsError, load_platform


def test_what_the_chart_sets() -> None:
    settings = Settings.from_environment(
        {
            "POD_NAME": "tidegate-operator-0",
            "POD_NAMESPACE": "models",
            "TIDEGATE_PLATFORM_FILE": "/etc/tidegate/platform.yaml",
            "TIDEGATE_WATCH_NAMESPACES": "a, b,",
            "TIDEGATE_LEASE_NAME": "my-lease",
            "TIDEGATE_LOG_LEVEL": "DEBUG",
            "TIDEGATE_LOG_FORMAT": "console",
            "TIDEGATE_HTTP_PORT": "9000",
            "TIDEGATE_READ_NODES": "true",
            "TIDEGATE_PROMETHEUS_URL": "https://prometheus.example/team",
            "TIDEGATE_EVENT_SINK_URL": "http://broker.events/default",
            "TIDEGATE_EVENT_SINK_HEADERS": "Authorization=Bearer%20b",
            "TIDEGATE_TRACING_ENDPOINT": "http://collector.monitoring:4318",
            "TIDEGATE_TRACING_HEADERS": "x-team=ml, Authorization=Bearer%20a,",
            "TIDEGATE_TRACING_IDLE_RATIO": "0.05",
        }
    )
    assert settings.namespaces == ("a", "b")
    assert settings.lease_namespace == "models"
    assert settings.lease_name == "my-lease"
    assert settings.http_port == 9000
    assert settings.log_level == "debug"
    assert settings.read_nodes
    assert settings.prometheus_url == "https://prometheus.example/team"
    assert settings.event_sink_url == "http://broker.events/default"
    assert settings.event_sink_headers == {"Authorization": "Bearer b"}
    assert settings.tracing_endpoint == "http://collector.monitoring:4318"
    assert settings.tracing_headers == {"x-team": "ml", "Authorization": "Bearer a"}
    assert settings.tracing_idle_ratio == 0.05
    assert "Bearer" not in repr(settings)
    assert settings.identity.startswith("tidegate-operator-0_")


def test_two_processes_in_one_pod_are_two() -> None:
    environ = {"POD_NAME": "p"}
    first, second = (Settings.from_environment(environ).identity for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"TIDEGATE_HTTP_PORT": "eighty"}, "TIDEGATE_HTTP_PORT=eighty"),
        ({"TIDEGATE_HTTP_PORT": "-1"}, "TIDEGATE_HTTP_PORT=-1"),
        ({"TIDEGATE_LOG_LEVEL": "loud"}, "choose one of debug"),
        ({"TIDEGATE_WORKERS": "0"}, "at least 1"),
        ({"TIDEGATE_RENEW_DEADLINE_SECONDS": "20"}, "lease times must grow"),
        ({"TIDEGATE_LEASE_DURATION_SECONDS": "nan"}, "out of range"),
        ({"TIDEGATE_PROMETHEUS_URL": "prometheus:9090"}, "TIDEGATE_PROMETHEUS_URL=prometheus:9090"),
        ({"TIDEGATE_PROMETHEUS_URL": "http://[a"}, "no address"),
        ({"TIDEGATE_PROMETHEUS_URL": "http://a/?x=1"}, "no address"),
        ({"TIDEGATE_TRACING_ENDPOINT": "collector:4317"}, "TIDEGATE_TRACING_ENDPOINT"),
        ({"TIDEGATE_TRACING_HEADERS": "secret"}, "holds no headers"),
        ({"TIDEGATE_TRACING_HEADERS": "a=b%0d%0ac: d"}, "holds no headers"),
        ({"TIDEGATE_TRACING_IDLE_RATIO": "1.5"}, "from 0 to 1"),
    ],
)
def test_what_cannot_work_is_refused(environ: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Settings.from_environment(environ)


def test_no_platform_file_means_defaults(tmp_path: Path) -> None:
    platform = load_platform(Settings(lease_namespace="models"))
    assert platform.operator_namespace == "models"
    assert platform.profile(None) is not None


def test_a_platform_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "platform.yaml"
    file.write_text("images: {triton: my/triton:1}\nprofiles: {big: {image: my/triton:2}}\n")
    platform = load_platform(Settings(platform_file=file))
    assert platform.images.triton == "my/triton:1"
    big = platform.profile("big")
    assert big is not None
    assert big.image == "my/triton:2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("images: [", "platform settings"),
        ("- a", "holds a list"),
        ("immages: {}", "immages"),
        (None, "No such file"),
    ],
)
def test_a_bad_platform_file_is_named(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "platform.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=told) as caught:
        load_platform(Settings(platform_file=file))
    assert str(file) in str(caught.value)
