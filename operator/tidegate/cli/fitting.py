"""How many pods of a revision the nodes have room for now. Pure.

An estimate by the scheduler's main rules (resources, node selector, required affinity, taints); the
scheduler has more: topology spread, other pods' affinity, quotas, claims of devices.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from tidegate.api.units import quantity

Document = Mapping[str, Any]
_DONE: Final = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Fit:
    """Room for pods.

    Attributes:
        pods: how many more fit now, on all nodes together.
        nodes: by node, where any fits.
        reasons: why the other nodes take none, with how many nodes say so.
    """

    pods: int = 0
    nodes: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        where = ", ".join(f"{node}: {count}" for node, count in sorted(self.nodes.items()))
        why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        total = len(self.nodes) + sum(self.reasons.values())
        if self.pods:
            return f"room for {self.pods} more pods now ({where})"
        return f"0/{total} nodes have room: {why}" if total else "there are no nodes"


def requests(pod_spec: Document) -> dict[str, Decimal]:
    """What a pod asks a node for: its containers and sidecars together, or its largest init step.

    The sum as in Kubernetes' "Resource sharing within containers" of sidecar containers.
    """
    sidecars: Counter[str] = Counter()
    largest: dict[str, Decimal] = {}
    for container in pod_spec.get("initContainers") or ():
        own = _own(container)
        if container.get("restartPolicy") == "Always":
            sidecars.update(own)
            step = dict(sidecars)
        else:
            step = {k: sidecars[k] + own.get(k, Decimal(0)) for k in {*sidecars, *own}}
        largest = {
            k: max(largest.get(k, Decimal(0)), Decimal(step.get(k, 0))) for k in {*largest, *step}
        }
    total: Counter[str] = Counter(sidecars)
    for container in pod_spec.get("containers") or ():
        total.update(_own(container))
    overhead = {k: quantity(v) for k, v in (pod_spec.get("overhead") or {}).items()}
    return {
        k: max(Decimal(total[k]), largest.get(k, Decimal(0))) + overhead.get(k, Decimal(0))
        for k in {*total, *largest, *overhead}
    }


def _own(container: Document) -> dict[str, Any]:
    found = container.get("resources") or {}
    asked = {**(found.get("limits") or {}), **(found.get("requests") or {})}
    return {k: quantity(str(v)) for k, v in asked.items()}


def fit(pod_spec: Document, nodes: Iterable[Document], pods: Iterable[Document]) -> Fit:
    """How many pods of this spec the nodes have room for.

    Args:
        pod_spec: of the pod.
        nodes: all of them.
        pods: all of the cluster's.
    """
    wanted = {k: v for k, v in requests(pod_spec).items() if v}
    used: dict[str, Counter[str]] = {}
    count: Counter[str] = Counter()
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in _DONE:
            used.setdefault(node, Counter()).update(requests(pod["spec"]))
            count[node] += 1
    places: dict[str, int] = {}
    reasons: Counter[str] = Counter()
    for node in nodes:
        name = str(node["metadata"]["name"])
        if why := refuses(pod_spec, node):
            reasons[why] += 1
            continue
        there = (node.get("status") or {}).get("allocatable") or {}
        rooms = {
            key: int((quantity(str(there.get(key, 0))) - used.get(name, Counter())[key]) // amount)
            for key, amount in wanted.items()
        }
        rooms["pods"] = int(quantity(str(there.get("pods", 110)))) - count[name]
        short = min(rooms, key=lambda key: (rooms[key], "/" not in key))
        if rooms[short] > 0:
            places[name] = rooms[short]
        else:
            reasons[f"lack {short}" if short in there else f"have no {short}"] += 1
    return Fit(sum(places.values()), places, dict(reasons))


def refuses(pod_spec: Document, node: Document) -> str:
    """Why a node takes no such pod, whatever room it has; '' where nothing is in the way."""
    labels = (node["metadata"].get("labels") or {}) | {"metadata.name": node["metadata"]["name"]}
    if (node.get("spec") or {}).get("unschedulable"):
        return "are cordoned"
    if not any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in (node.get("status") or {}).get("conditions") or ()
    ):
        return "are not ready"
    if any(labels.get(k) != v for k, v in (pod_spec.get("nodeSelector") or {}).items()):
        return "do not match the node selector"
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms") or ()
    if terms and not any(
        all(_matches(e, labels) for e in term.get("matchExpressions") or ()) for term in terms
    ):
        return "have another GPU than asked for"
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not any(
            _tolerates(t, taint) for t in pod_spec.get("tolerations") or ()
        ):
            return f"have the taint {taint.get('key')}"
    return ""


def _matches(expression: Document, labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or []
    got = labels.get(key)
    match expression.get("operator"):
        case "In":
            return got in values
        case "NotIn":
            return got not in values
        case "Exists":
            return got is not None
        case "DoesNotExist":
            return got is None
        case "Gt" | "Lt" as operator:
            try:
                difference = int(got or "") - int(values[0])
            except (ValueError, IndexError):
                return False
            return difference > 0 if operator == "Gt" else difference < 0
    return False


def _tolerates(toleration: Document, taint: Document) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (
        taint.get("value") or ""
    )
