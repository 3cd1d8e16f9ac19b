"""A collector of traces: a real HTTP server that decodes OTLP."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.unit.runtime.server import Sink
from tidegate.runtime.otlp import CONTENT_TYPE, PATH


@dataclass(frozen=True)
class Received:
    """One span as it came over the wire.

    Attributes:
        status: 0 unset, 1 ok, 2 error.
        events: their names.
    """

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    said: str
    about: dict[str, Any]
    events: tuple[str, ...]


def decoded(body: bytes) -> tuple[list[Received], dict[str, Any]]:
    """The spans of a request, and what it says of the process."""
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    found, resource = [], {}
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for scope in of_resource.scope_spans:
            found += [
                Received(
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    name=span.name,
                    kind=span.kind,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    status=span.status.code,
                    said=span.status.message,
                    about=_attributes(span.attributes),
                    events=tuple(event.name for event in span.events),
                )
                for span in scope.spans
            ]
    return found, resource


def _attributes(pairs: Any) -> dict[str, Any]:
    return {p.key: getattr(p.value, p.value.WhichOneof("value")) for p in pairs}


@dataclass
class Collector(Sink):
    """Takes spans.

    Attributes:
        rejects: spans that it says it does not take, of each request.
        spans: those that it took.
        resource: what was said of the process last.
    """

    path: str = PATH
    rejects: int = 0
    spans: list[Received] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)

    async def take(self, body: bytes) -> web.Response:
        assert self.headers["Content-Type"] == CONTENT_TYPE
        spans, self.resource = decoded(body)
        self.spans += spans
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.rejects
        return web.Response(body=answer.SerializeToString(), content_type=CONTENT_TYPE)

    def named(self, name: str) -> list[Received]:
        """The spans of that name."""
        return [span for span in self.spans if span.name == name]

    def trace(self, id_: str) -> list[Received]:
        """The spans of one trace, its root first."""
        found = [span for span in self.spans if span.trace == id_]
        return sorted(found, key=lambda span: bool(span.parent))


@contextlib.asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector that listens until the block ends."""
    found = Collector()
    async with found.listening():
        yield found
