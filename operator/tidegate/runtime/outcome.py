"""What one pass has done so far, what it could not do, and when it wants to look again."""

from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from tidegate.actions import Action, Event
from tidegate.observed import Failure, Ref
from tidegate.runtime.cache import Key
from tidegate.runtime.kube import KubeError

log: Final = structlog.get_logger(__name__)


class ReconcileError(Exception):
    """Some actions failed; they were told of, and are to be tried again.

    Attributes:
        retry_after_s: the longest pause that the API server asked for.
    """

    def __init__(self, errors: list[KubeError]) -> None:
        super().__init__("; ".join(str(e) for e in errors))
        self.errors = errors
        self.retry_after_s = max((e.retry_after_s for e in errors), default=0.0)


@dataclass
class Outcome:
    """Of one pass.

    Attributes:
        key: whose.
        wrote: whether the world changed.
        again_after_s: look again at the latest in so many seconds; None: on events.
        events: to tell, in this order.
        errors: what the API server refused in the last round.
        failures: the same, for the plan.
    """

    key: Key
    wrote: bool = False
    again_after_s: float | None = None
    events: dict[Event, None] = field(default_factory=dict)
    errors: list[KubeError] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def again(self, after_s: float | None) -> None:
        """Look again in so many seconds, unless sooner is wanted; None: no wish."""
        if after_s is not None and (self.again_after_s is None or after_s < self.again_after_s):
            self.again_after_s = after_s

    def new_round(self) -> None:
        """What was refused before is tried again."""
        self.errors.clear()
        self.failures.clear()

    def refused(self, action: Action, error: KubeError) -> None:
        """The API server would not have that action."""
        self.errors.append(error)
        name = type(action).__name__
        reason = error.reason or type(error).__name__.removesuffix("Error")
        ref = _ref_of(action)
        self.failures.append(Failure(name, ref, reason, str(error)))
        log.warning(
            "refused",
            modeldeployment=str(self.key),
            action=name,
            object="" if ref is None else f"{ref.kind}/{ref.name}",
            reason=reason,
            problem=str(error),
        )

    def changed(self, action: Action, reason: str) -> None:
        """An action changed the world."""
        self.wrote = True
        what: dict[str, Any] = {"action": type(action).__name__}
        ref = _ref_of(action)
        if ref is not None:
            what["object"] = f"{ref.kind}/{ref.name}"
        elif hasattr(action, "name"):
            what["object"] = f"Pod/{action.name}"
        log.info("decision", modeldeployment=str(self.key), **what, reason=reason)


def _ref_of(action: Action) -> Ref | None:
    """The object that an action is about; None: it has no name of its own."""
    found: Ref | None = getattr(action, "ref", None)
    if found is not None:
        return found
    manifest = getattr(action, "manifest", None)
    if manifest is None:
        return None
    return Ref(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])
