"""Traces of reconciles, sent to a collector by OTLP over HTTP.

Which traces are kept is known when they end: those of a pass that changed something, decided
something or failed, and of the others a share. Sending is a courtesy, as with CloudEvents: what
waits is bounded, what cannot be sent is dropped and counted, and no pass ever waits for it.

The SDK makes the spans and encodes them; they are posted by aiohttp, which the process has already.
All of this runs in the event loop's thread.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import aiohttp
import structlog
from multidict import CIMultiDict
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span as AnySpan
from opentelemetry.trace import (
    SpanKind,
    StatusCode,
    format_span_id,
    format_trace_id,
    get_current_span,
)

from tidegate import __version__
from tidegate.actions import Plan, WriteStatus
from tidegate.runtime.cache import Key
from tidegate.runtime.kube import KubeError, NotFoundError
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracing import OFF, Look, Span, Tracer

log: Final = structlog.get_logger(__name__)

PATH: Final = "/v1/traces"
"""Of OTLP over HTTP, below the collector's address."""
CONTENT_TYPE: Final = "application/x-protobuf"
WAITING: Final = 2048
"""Spans that wait to be sent, about a KiB each; a trace that has no room beside them is dropped."""
BATCH: Final = 50
"""Spans of one request; encoding them holds the event loop up for some milliseconds."""
GATHER_S: Final = 1.0
TIMEOUT_S: Final = 5.0
TRIES: Final = 3
PAUSE_S: Final = 1.0
"""Before the second try; twice as long before the third."""
LONGEST: Final = 1024
"""Characters of an attribute."""
ONCE_MORE: Final = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP has a client try again."""
NOT_HTTP: Final = "its answer is not HTTP: is it the port of gRPC (4317)? HTTP mostly has 4318"

_GENERATION: Final = "tidegate.generation"
_RESULT: Final = "tidegate.result"
_DECISION: Final = "tidegate.decision"
_ANSWERED: Final = ("Ready", "Reconciling")


def with_trace_id(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the trace under way in a line of the log."""
    span = get_current_span()
    # One that has ended is still the current one of tasks that were begun under it.
    if span.is_recording():
        context = span.get_span_context()
        line["trace_id"] = format_trace_id(context.trace_id)
        line["span_id"] = format_span_id(context.span_id)
    return line


class Sender:
    """Posts spans, a batch at a time.

    Args:
        endpoint: the collector's address; `PATH` goes below it.
        metrics: counts.
        headers: sent with each request.
        room: spans that may wait.
        gather_s: for how long spans are gathered before they are sent.
        timeout_s: of one try.
        pause_s: before the second try.
    """

    def __init__(
        self,
        endpoint: str,
        metrics: Metrics,
        headers: Mapping[str, str],
        *,
        room: int = WAITING,
        gather_s: float = GATHER_S,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._url = endpoint.rstrip("/") + PATH
        self._count = metrics.trace_spans
        self._headers = CIMultiDict(headers)
        self._headers["Content-Type"] = CONTENT_TYPE
        self._room = room
        self._gather_s = gather_s
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._waiting: deque[ReadableSpan] = deque()
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._problem = ""

    def put(self, trace: Sequence[ReadableSpan]) -> None:
        """Have a trace sent some time, whole or not at all; never waits."""
        if len(self._waiting) + len(trace) > self._room:
            self._count.labels("dropped").inc(len(trace))
            return
        self._waiting.extend(trace)
        self._none.clear()
        self._some.set()

    async def drain(self) -> None:
        """Wait until all was sent or given up, and gather no more; `run` runs meanwhile."""
        self._hurry.set()
        await self._none.wait()

    async def run(self) -> None:
        """Send what comes, for ever."""
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self._some.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._gather_s):
                        await self._hurry.wait()
                self._some.clear()
                while self._waiting:
                    size = min(BATCH, len(self._waiting))
                    await self._send(session, [self._waiting.popleft() for _ in range(size)])
                self._none.set()

    async def _send(self, session: aiohttp.ClientSession, spans: Sequence[ReadableSpan]) -> None:
        try:
            body = encode_spans(spans).SerializeToString()
            rejected, problem = await self._post(session, body)
        except Exception as error:
            # What cannot be traced must not end the process.
            rejected, problem = len(spans), repr(error)
        rejected = min(rejected, len(spans)) if not problem else len(spans)
        self._count.labels("sent").inc(len(spans) - rejected)
        self._count.labels("failed").inc(rejected)
        if problem and problem != self._problem:
            log.warning("traces not sent", url=self._url, problem=problem)
        elif self._problem and not problem:
            log.info("traces are sent again", url=self._url)
        self._problem = problem

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> tuple[int, str]:
        """Try some times. Returns how many spans were refused, and what is wrong with the rest."""
        problem = ""
        for tried in range(TRIES):
            if tried:
                await asyncio.sleep(self._pause_s * 2 ** (tried - 1))
            try:
                async with session.post(
                    self._url, data=body, headers=self._headers, allow_redirects=False
                ) as response:
                    answer = await response.content.read(1 << 16)
                    if response.status < 300:
                        return _rejected(answer), ""
                    problem = f"status {response.status}"
                    if response.status not in ONCE_MORE:
                        return 0, problem
            except TimeoutError:
                problem = f"no answer within {self._timeout_s:g} s"
            except aiohttp.ClientResponseError:
                problem = NOT_HTTP
            except (aiohttp.ClientError, OSError) as error:
                problem = str(error) or type(error).__name__
        return 0, problem


def _rejected(answer: bytes) -> int:
    """Spans that a collector says it did not take, though it took the request."""
    found = ExportTraceServiceResponse()
    try:
        found.ParseFromString(answer)
    except ValueError:
        return 0
    return int(found.partial_success.rejected_spans)


class Keeper(SpanProcessor):
    """Holds the spans of each trace until its root ends, and then keeps them or not.

    Args:
        sender: takes those that are kept.
        idle_ratio: share of the passes that is kept though nothing came of them, 0 to 1.
    """

    def __init__(self, sender: Sender, idle_ratio: float) -> None:
        self._sender = sender
        # The last 64 bits of an id are random: the same share as the SDK's own sampler takes.
        self._idle_below = round(idle_ratio * (1 << 64))
        self._open: dict[int, list[ReadableSpan]] = {}

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        """A root opens its trace."""
        if span.parent is None:
            self._open[_trace_of(span)] = []

    def on_end(self, span: ReadableSpan) -> None:
        """A child is held; a root decides about all."""
        trace = _trace_of(span)
        if span.parent is not None:
            if (held := self._open.get(trace)) is not None:
                held.append(span)
            return
        held = self._open.pop(trace, [])
        about = span.attributes or {}
        idle = about.get(_RESULT) == "idle" and _DECISION not in about
        if not idle or trace & ((1 << 64) - 1) < self._idle_below:
            self._sender.put([span, *held])


def _trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    return 0 if context is None else context.trace_id


class Noted(Span):
    """A span that remembers what it is told."""

    def __init__(self, span: AnySpan) -> None:
        self._span = span

    def note(self, name: str, value: str | float) -> None:
        """Say something about it, by the attribute `tidegate.NAME`."""
        self._span.set_attribute(f"tidegate.{name}", value)


class Traces(Tracer):
    """Traces passes over ModelDeployments, and what is done in them.

    Args:
        endpoint: the collector's address.
        metrics: counts.
        identity: this process.
        namespace: its own.
        headers: sent with each request.
        idle_ratio: share of the passes that is kept though nothing came of them, 0 to 1.
        room: spans that may wait.
        gather_s: for how long spans are gathered before they are sent.
        timeout_s: of one try to send.
        pause_s: before the second try.
    """

    def __init__(
        self,
        endpoint: str,
        metrics: Metrics,
        *,
        identity: str,
        namespace: str,
        headers: Mapping[str, str] | None = None,
        idle_ratio: float = 0.0,
        room: int = WAITING,
        gather_s: float = GATHER_S,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._sender = Sender(
            endpoint,
            metrics,
            headers or {},
            room=room,
            gather_s=gather_s,
            timeout_s=timeout_s,
            pause_s=pause_s,
        )
        about = {
            "service.name": "tidegate-operator",
            "service.version": __version__,
            "service.instance.id": identity,
            "k8s.namespace.name": namespace,
        }
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(about),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=LONGEST),
        )
        provider.add_span_processor(Keeper(self._sender, idle_ratio))
        self._tracer = provider.get_tracer("tidegate")

    @contextmanager
    def reconcile(self, key: Key) -> Iterator[Span]:
        """One pass over a ModelDeployment: a trace of its own."""
        about = {"k8s.namespace.name": key.namespace, "tidegate.modeldeployment": key.name}
        with self._tracer.start_as_current_span("reconcile", Context(), attributes=about) as span:
            yield Noted(span)
            if isinstance(span, ReadableSpan) and (span.attributes or {}).get(_RESULT) == "failed":
                span.set_status(StatusCode.ERROR)

    def planning(self) -> AbstractContextManager[Span]:
        """A plan that is made in the pass under way."""
        return self._child("plan", SpanKind.INTERNAL, {})

    def request(self, verb: str, kind: str, method: str, path: str) -> AbstractContextManager[Span]:
        """A request to the API server in the pass under way."""
        about = {"http.request.method": method, "url.path": path}
        return self._child(f"{verb} {kind}", SpanKind.CLIENT, about)

    def began(self, generation: int, look: Look | None) -> None:
        """What the pass under way begins with: a spec, and a look that it is the first to use.

        A look has a task of its own, and wakes the pass that judges by it: it began, and mostly
        ended, before its parent did.
        """
        span = get_current_span()
        span.set_attribute(_GENERATION, generation)
        if look is None or not span.is_recording():
            return
        about = {"tidegate.pods": look.pods, "tidegate.unread": look.unread}
        child = self._tracer.start_span(
            "look at pods", attributes=about, start_time=round(look.began_s * 1e9)
        )
        child.end(round(look.ended_s * 1e9))

    def planned(self, generation: int, plan: Plan) -> None:
        """What the pass under way came to plan, and for which spec."""
        span = get_current_span()
        span.set_attribute(_GENERATION, generation)
        for action in plan.actions:
            if isinstance(action, WriteStatus):
                for condition in action.status.get("conditions") or ():
                    if condition["type"] in _ANSWERED:
                        name = f"tidegate.{condition['type'].lower()}"
                        span.set_attribute(name, f"{condition['status']}: {condition['reason']}")

    def decided(self, decision: str, reason: str) -> None:
        """What came into force in the pass under way."""
        span = get_current_span()
        if not isinstance(span, SdkSpan) or not span.is_recording():
            return
        before = (span.attributes or {}).get(_DECISION)
        # Seldom, a pass ends one rollout and begins the next.
        span.set_attribute(_DECISION, f"{before}, {decision}" if before else decision)
        span.add_event(decision, {"tidegate.reason": reason} if reason else None)

    def trace_id(self) -> str:
        """The trace under way, 32 hex digits; empty: there is none."""
        span = get_current_span()
        return format_trace_id(span.get_span_context().trace_id) if span.is_recording() else ""

    async def drain(self) -> None:
        """Wait until all was sent or given up; `run` runs meanwhile."""
        await self._sender.drain()

    async def run(self) -> None:
        """Send what was traced, for ever."""
        await self._sender.run()

    def _child(
        self, name: str, kind: SpanKind, about: Mapping[str, str]
    ) -> AbstractContextManager[Span]:
        """A span below the current one; nothing outside of a pass, and in what outlives one."""
        if not get_current_span().is_recording():
            return OFF.planning()
        return self._recorded(name, kind, about)

    @contextmanager
    def _recorded(self, name: str, kind: SpanKind, about: Mapping[str, str]) -> Iterator[Span]:
        # Errors are told by the span's status; a stack would be the larger part of it.
        with self._tracer.start_as_current_span(
            name,
            kind=kind,
            attributes=dict(about),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield Noted(span)
            except Exception as error:
                if isinstance(error, KubeError) and error.code:
                    span.set_attribute("http.response.status_code", error.code)
                # Where something is looked for, that it is not there is an answer.
                if not isinstance(error, NotFoundError):
                    span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}"[:LONGEST])
                raise
