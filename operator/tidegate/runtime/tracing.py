"""Traces of reconciles, where the platform asks for them.

One trace is one pass over one ModelDeployment: what it was about, what was decided, and as children
the look at pods that it rests on, the plans, and each request to the API server. This module is
what all of these know: it traces nothing and imports nothing of OpenTelemetry. `otlp` does both,
and `tracers` says which of the two a process has (ADR 0023).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple

from tidegate.actions import Plan
from tidegate.runtime.cache import Key


class Look(NamedTuple):
    """One look at the pods of a rollout. Times are seconds since the epoch.

    Attributes:
        began_s: when the first pod was asked.
        ended_s: when the last had answered, or was given up.
        pods: how many were asked.
        unread: those of them that did not answer.
    """

    began_s: float
    ended_s: float
    pods: int
    unread: int


class Span:
    """Something that takes its time. This one is told of nothing."""

    def note(self, name: str, value: str | float) -> None:
        """Say something about it, by the attribute `tidegate.NAME`."""


class Tracer:
    """Traces nothing, at the cost of a call. `otlp.Traces` has the same methods."""

    def reconcile(self, key: Key) -> AbstractContextManager[Span]:
        """One pass over a ModelDeployment: a trace of its own."""
        return _NOTHING

    def planning(self) -> AbstractContextManager[Span]:
        """A plan that is made in the pass under way."""
        return _NOTHING

    def request(self, verb: str, kind: str, method: str, path: str) -> AbstractContextManager[Span]:
        """A request to the API server in the pass under way."""
        return _NOTHING

    def began(self, generation: int, look: Look | None) -> None:
        """What the pass under way begins with: a spec, and a look that it is the first to use."""

    def planned(self, generation: int, plan: Plan) -> None:
        """What the pass under way came to plan, and for which spec."""

    def decided(self, decision: str, reason: str) -> None:
        """What came into force in the pass under way."""

    def trace_id(self) -> str:
        """The trace under way, 32 hex digits; empty: there is none."""
        return ""

    async def drain(self) -> None:
        """Wait until all was sent or given up; `run` runs meanwhile."""

    async def run(self) -> None:
        """Send what was traced, for ever."""


_NOTHING: Final = nullcontext(Span())
OFF: Final = Tracer()
