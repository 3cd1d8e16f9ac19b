"""What the nodes offer to a pod that waits for a GPU, where the operator may read nodes. Pure.

Without that right the scheduler's own words are all there is: they count the nodes that do not
fit, and say neither which GPUs there are nor whether a node with more room would help. What other
pods hold is not read, and taints are not looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tidegate.api.units import quantity

NAMED: Final = 5
"""So many values of a label, or resources, are named in a message."""
FREE: Final = "Free some, add a node, or ask for fewer."
"""The mend where GPUs of that kind are taken."""


class Label(NamedTuple):
    """A label that a pod asks its node to have: one of some values, or a number above one.

    Attributes:
        key: of the label.
        operator: ``In`` or ``Gt``.
        values: as in a node affinity.
    """

    key: str
    operator: str
    values: tuple[str, ...]

    def holds(self, value: str | None) -> bool:
        """Whether a node with this value (None: without the label) will do."""
        if value is None:
            return False
        if self.operator == "In":
            return value in self.values
        try:
            return int(value) > int(self.values[0])
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.operator == "In":
            return f"{self.key} {' or '.join(self.values)}"
        return f"{self.key} above {self.values[0]}"


class Asked(NamedTuple):
    """What a pod asks a node for.

    Attributes:
        resource: the GPU resource.
        number: how many.
        labels: that the node has to have, as far as they are ``In`` or ``Gt``.
    """

    resource: str
    number: int
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Node:
    """What is kept of a node.

    Attributes:
        offers: allocatable devices by resource, such as ``{"nvidia.com/gpu": 8}``; none with 0.
        labels: those that waiting pods ask for.
        cordoned: it takes no new pods.
    """

    offers: Mapping[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)
    cordoned: bool = False


@dataclass(frozen=True)
class Nodes:
    """All nodes, as they were read.

    Attributes:
        items: those that offer any device.
        keys: labels that were kept; of others nothing is known.
    """

    items: tuple[Node, ...] = ()
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Room:
    """Why no node takes a pod.

    Attributes:
        text: for people.
        mend: what would free it.
        taken: some nodes would do if they had room.
    """

    text: str
    mend: str
    taken: bool = False


def node(document: Mapping[str, Any], keys: Iterable[str]) -> Node:
    """What is kept of a Node.

    Args:
        document: as the API server has it.
        keys: labels to keep.
    """
    labels = document["metadata"].get("labels") or {}
    found = (document.get("status") or {}).get("allocatable") or {}
    offers = {k: int(quantity(str(v))) for k, v in found.items() if "/" in k}
    return Node(
        offers={k: v for k, v in offers.items() if v > 0},
        labels={k: labels[k] for k in keys if k in labels},
        cordoned=bool((document.get("spec") or {}).get("unschedulable")),
    )


def waits_for(pod: Mapping[str, Any]) -> Asked | None:
    """What a pod asks for that the scheduler found no node for; None: it does not wait for GPUs.

    Pods with resource claims are left out: what a claim can have is not told by nodes.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return None
    conditions = (pod.get("status") or {}).get("conditions") or ()
    if not any(
        c.get("type") == "PodScheduled"
        and c.get("status") == "False"
        and c.get("reason") != "SchedulingGated"
        for c in conditions
    ):
        return None
    return _asked(pod.get("spec") or {})


def _asked(spec: Mapping[str, Any]) -> Asked | None:
    for container in spec.get("containers") or ():
        limits = (container.get("resources") or {}).get("limits") or {}
        for resource, count in limits.items():
            if "/" in resource:
                return Asked(resource, int(quantity(str(count))), _labels(spec))
    return None


def _labels(spec: Mapping[str, Any]) -> tuple[Label, ...]:
    found = [Label(k, "In", (v,)) for k, v in sorted((spec.get("nodeSelector") or {}).items())]
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or []
    if len(terms) == 1:  # Of several, any would do: nothing can be said of one label.
        found += [
            Label(e["key"], e["operator"], tuple(e.get("values") or ()))
            for e in terms[0].get("matchExpressions") or ()
            if e["operator"] in ("In", "Gt")
        ]
    return tuple(found)


def room_for(pod: Mapping[str, Any], nodes: Nodes | None) -> Room | None:
    """Why no node takes a pod, and what would free it.

    Args:
        pod: one that waits.
        nodes: as they were read; None: they are not read.

    Returns:
        None where nothing better can be said than the scheduler does.
    """
    asked = waits_for(pod)
    if nodes is None or asked is None or not nodes.keys >= {label.key for label in asked.labels}:
        return None
    resource = asked.resource
    having = [n for n in nodes.items if resource in n.offers]
    if not having:
        others = sorted({r for n in nodes.items for r in n.offers})
        also = f"; nodes offer {_named(others)}" if others else ""
        return Room(
            f"no node offers {resource}{also}",
            "Add a node that does (GPUs are offered by a device plugin), or ask for one that "
            "there is (runtime.gpu.resource).",
        )
    for label in asked.labels:
        if not any(label.holds(n.labels.get(label.key)) for n in having):
            there = sorted({n.labels[label.key] for n in having if label.key in n.labels})
            return Room(
                f"no node that offers {resource} has the label {label}; "
                + (f"nodes have {_named(there)}" if there else "none has that label"),
                "Ask for one that there is, or add such a node.",
            )
    fitting = [n for n in having if all(x.holds(n.labels.get(x.key)) for x in asked.labels)]
    if not fitting:
        return Room(
            f"no node that offers {resource} has all of the labels "
            + ", ".join(map(str, asked.labels)),
            "Ask for fewer of them, or add such a node.",
        )
    most = max(n.offers[resource] for n in fitting)
    if most < asked.number:
        return Room(
            f"no node offers {asked.number} {resource} at once; "
            f"the most on one that fits is {most}",
            "Ask for fewer (runtime.gpu.count), or add a larger node.",
        )
    large = [n for n in fitting if n.offers[resource] >= asked.number]
    usable = [n for n in large if not n.cordoned]
    if not usable:
        return Room(
            f"{_offer(large)} {resource} as asked for, and cordoned", "Uncordon one, or add a node."
        )
    total = sum(n.offers[resource] for n in usable)
    return Room(f"{_offer(usable)} {resource}, {total} in all, all taken or not fit", FREE, True)


def _offer(nodes: Sequence[Node]) -> str:
    return "1 node offers" if len(nodes) == 1 else f"{len(nodes)} nodes offer"


def _named(values: Sequence[str]) -> str:
    more = f" and {len(values) - NAMED} more" if len(values) > NAMED else ""
    return ", ".join(values[:NAMED]) + more
