"""What a plan may ask of the world. Carried out by `tidegate.runtime`, in order."""

from dataclasses import dataclass
from typing import Any, Literal

from tidegate.observed import Ref


@dataclass(frozen=True)
class Apply:
    """Server-side apply of a whole child by the children's manager.

    The edge skips it where the live object already says the same, and refuses it where an object
    of that name exists that the ModelDeployment does not control.
    """

    manifest: dict[str, Any]

    @property
    def ref(self) -> Ref:
        """The object that is applied."""
        m = self.manifest
        return Ref(m["apiVersion"], m["kind"], m["metadata"]["name"])


@dataclass(frozen=True)
class Annotate:
    """Merge annotations into a child (for what is learned after its birth)."""

    ref: Ref
    annotations: dict[str, str]


@dataclass(frozen=True)
class Scale:
    """Set the replicas of a child Deployment by the scale manager."""

    ref: Ref
    replicas: int


@dataclass(frozen=True)
class Delete:
    """Delete a child, if it still has this UID."""

    ref: Ref
    uid: str


@dataclass(frozen=True)
class DeletePod:
    """Delete a pod, if it still has this UID."""

    name: str
    uid: str
    reason: str


@dataclass(frozen=True)
class Event:
    """A Kubernetes event about the ModelDeployment; the same event twice is told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class WriteStatus:
    """Apply the status document, unless it already says the same."""

    status: dict[str, Any]


Action = Apply | Annotate | Scale | Delete | DeletePod | Event | WriteStatus


@dataclass(frozen=True)
class Plan:
    """Actions in order, and when to look again at the latest (seconds; None: on events only)."""

    actions: tuple[Action, ...] = ()
    requeue_after_s: float | None = None
