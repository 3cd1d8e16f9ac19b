"""An OpenTelemetry Collector as a process: the project's own receiver, login and file exporter."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any, Final

import yaml

from e2e.cluster import gobuild
from e2e.cluster.kube import wait_for
from e2e.cluster.processes import log_tail, require_running, spawn
from e2e.cluster.progress import Progress
from e2e.ports import free_ports
from tests.unit.runtime.collector import Received

NAME: Final = "otel-collector"
READY: Final = "Everything is ready"
START_SECONDS: Final = 60.0
HOST: Final = "127.0.0.1"


@dataclass
class Collector:
    """What it took lies in a file, as OTLP's JSON, and is still there after a start anew.

    Attributes:
        folder: for its configuration, log and file.
        token: without it as a bearer, `http` answers 401.
        http: OTLP over HTTP.
        grpc: OTLP over gRPC.
        small: OTLP over HTTP, for requests of at most 100 bytes.
        full: OTLP over HTTP, of a pipeline whose file has no room.
    """

    folder: Path
    token: str
    http: str = ""
    grpc: str = ""
    small: str = ""
    full: str = ""
    _process: Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        doors = [f"{HOST}:{port}" for port in free_ports(4)]
        self.http, self.grpc, self.small, self.full = (f"http://{door}" for door in doors)
        file = {"path": str(self._file), "append": True, "flush_interval": "50ms"}
        self._config.write_text(
            yaml.safe_dump(
                {
                    "extensions": {"bearertokenauth": {"token": self.token}},
                    "receivers": {
                        "otlp": {
                            "protocols": {
                                "http": {
                                    "endpoint": doors[0],
                                    "auth": {"authenticator": "bearertokenauth"},
                                },
                                "grpc": {"endpoint": doors[1]},
                            }
                        },
                        "otlp/small": _http(doors[2], max_request_body_size=100),
                        "otlp/full": _http(doors[3]),
                    },
                    "exporters": {
                        "file": file,
                        "file/full": file | {"path": "/dev/full", "flush_interval": "1ms"},
                    },
                    "service": {
                        "extensions": ["bearertokenauth"],
                        "pipelines": {
                            "traces": {"receivers": ["otlp", "otlp/small"], "exporters": ["file"]},
                            "traces/full": {"receivers": ["otlp/full"], "exporters": ["file/full"]},
                        },
                    },
                }
            ),
            encoding="utf-8",
        )

    @property
    def _config(self) -> Path:
        return self.folder / "collector.yaml"

    @property
    def _file(self) -> Path:
        return self.folder / "spans.jsonl"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / "collector.log"

    def start(self) -> None:
        """Start it if it does not run, and wait until it listens.

        Raises:
            ProcessFailed: it ended; the message holds its log's end.
        """
        if self._process is not None:
            return
        self.log.unlink(missing_ok=True)
        process = spawn(
            NAME,
            [gobuild.build(NAME, Progress()), "--config", self._config],
            owner=str(self.folder),
            log=self.log,
            die_with_parent=True,
        )
        self._process = process

        def listens() -> bool:
            require_running(process, NAME, self.log)
            return READY in self.log.read_text(encoding="utf-8")

        wait_for(
            listens,
            "the collector listens",
            timeout_seconds=START_SECONDS,
            state=lambda: log_tail(self.log),
        )

    def kill(self) -> None:
        """End it at once, with no time for anything; again is nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def taken(self) -> list[tuple[dict[str, Any], str, Received]]:
        """What it wrote: of which process, by which tracer, and the span."""
        # It holds the file open and writes by the buffer: the last line may not be whole yet.
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        return [
            (_attributes(of_process["resource"]), scoped["scope"]["name"], _span(span))
            for line in text.splitlines(keepends=True)
            if line.endswith("\n")
            for of_process in json.loads(line)["resourceSpans"]
            for scoped in of_process["scopeSpans"]
            for span in scoped["spans"]
        ]

    def spans(self) -> list[Received]:
        """The spans of all that it wrote."""
        return [span for *_, span in self.taken()]


@contextmanager
def collecting(folder: Path, token: str) -> Iterator[Collector]:
    """A collector until the block ends; builds it the first time, which takes a minute or two."""
    found = Collector(folder, token)
    try:
        found.start()
        yield found
    finally:
        found.kill()


def _http(endpoint: str, **more: Any) -> dict[str, Any]:
    return {"protocols": {"http": {"endpoint": endpoint, **more}}}


def _span(span: dict[str, Any]) -> Received:
    return Received(
        trace=span["traceId"],
        id=span["spanId"],
        parent=span.get("parentSpanId", ""),
        name=span["name"],
        kind=span["kind"],
        start_ns=int(span["startTimeUnixNano"]),
        end_ns=int(span["endTimeUnixNano"]),
        status=span["status"].get("code", 0),
        said=span["status"].get("message", ""),
        about=_attributes(span),
        events=tuple(event["name"] for event in span.get("events", ())),
    )


def _attributes(of: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for pair in of.get("attributes", ()):
        ((form, value),) = pair["value"].items()
        # OTLP's JSON has whole numbers in quotes.
        found[pair["key"]] = int(value) if form == "intValue" else value
    return found
