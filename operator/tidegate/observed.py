"""What is known of the world when a decision is made: a snapshot for one ModelDeployment.

Objects are the API server's own documents (nested dicts), never changed by a reader.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Object = Mapping[str, Any]


class Ref(NamedTuple):
    """Names an object inside the namespace of its ModelDeployment."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True)
class Failure:
    """An action of the present plan that the API server refused.

    Attributes:
        action: what was tried, such as ``Apply``.
        ref: on which object; None where it was none of the children.
        reason: the API server's word, such as ``Forbidden`` or ``Invalid``.
        message: its explanation.
    """

    action: str
    ref: Ref | None
    reason: str
    message: str


@dataclass(frozen=True)
class Observed:
    """Everything `tidegate.plan.plan` knows of one ModelDeployment.

    Attributes:
        deployment: the ModelDeployment itself.
        children: objects that it controls (owner reference with its UID), Pods apart.
        pods: pods of its Deployments.
        foreign: objects of which it would need the name, but that it does not control.
        events: Kubernetes events about its pods and ReplicaSets, newest last.
        present_kinds: optional kinds that this cluster serves, such as ``HTTPRoute``.
        models: by pod UID, what Triton says of a model that it could not load.
        failures: what could not be done; only when planned again just for the status that says so.
    """

    deployment: Object
    children: Mapping[Ref, Object] = field(default_factory=dict)
    pods: tuple[Object, ...] = ()
    foreign: frozenset[Ref] = frozenset()
    events: tuple[Object, ...] = ()
    present_kinds: frozenset[str] = frozenset()
    models: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()

    def of_kind(self, kind: str) -> list[Object]:
        """The children of one kind, by name."""
        return [o for r, o in sorted(self.children.items()) if r.kind == kind]
