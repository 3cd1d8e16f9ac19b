"""The simulated API server: one ModelDeployment, its children, and writes of a plan to them.

Only what a plan can tell apart: applies that change nothing, generations, who owns ``replicas``.
What a real API server makes of the same actions is shown by the contract tests.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tidegate.actions import (
    Action,
    Annotate,
    Apply,
    Delete,
    Scale,
    WriteStatus,
)
from tidegate.api.names import API_VERSION, KIND
from tidegate.observed import Ref
from tidegate.record import Record
from tidegate.resources.route import API_VERSION as ROUTE_VERSION
from tidegate.resources.route import KIND as ROUTE_KIND
from tidegate.resources.route import record_carried, shares_of
from tidegate.resources.services import revision_of

NAMESPACE: Final = "simulated"
GATEWAY: Final = "gateway.envoyproxy.io/gatewayclass-controller"
"""The controller that accepts the route: one that mirrors."""


def rfc3339(at: datetime) -> str:
    """As the API server writes times: whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Objects:
    """A ModelDeployment and its children, as they live.

    Attributes:
        name: of the ModelDeployment.
        spec: its spec, as written.
        generation: of the spec.
        status: its status.
        children: by reference.
    """

    name: str
    spec: dict[str, Any]
    generation: int = 1
    status: dict[str, Any] = field(default_factory=dict)
    children: dict[Ref, dict[str, Any]] = field(default_factory=dict)
    _made: int = 0

    @property
    def deployment(self) -> dict[str, Any]:
        """The ModelDeployment."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": self.name,
                "namespace": NAMESPACE,
                "uid": "owner",
                "generation": self.generation,
            },
            "spec": self.spec,
            "status": self.status,
        }

    def edit(self, spec: dict[str, Any]) -> None:
        """A new spec."""
        if spec != self.spec:
            self.spec = spec
            self.generation += 1

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The children of a kind, by name."""
        return [o for ref, o in sorted(self.children.items()) if ref.kind == kind]

    @property
    def record(self) -> Record:
        """The decision in force."""
        return record_carried(self.name, self.children) or Record(stable="")

    def shares(self) -> dict[str, float]:
        """Share of the clients' requests by revision: as the route says, else the entry Service."""
        route = self.children.get(Ref(ROUTE_VERSION, ROUTE_KIND, self.name))
        if route is not None:
            found = shares_of(route).items()
            return {service.removeprefix(f"{self.name}-"): share for service, share in found}
        entry = self.children.get(Ref("v1", "Service", self.name))
        revision = None if entry is None else revision_of(entry)
        return {revision: 1.0} if revision else {}

    def carry_out(self, action: Action, now: datetime) -> bool:
        """Do it, unless it is so already; returns whether anything changed.

        Raises:
            TypeError: it is an action on pods, or an event.
        """
        match action:
            case Apply(manifest=manifest):
                return self._apply(action.ref, manifest, now)
            case Annotate(ref=ref, annotations=annotations):
                live = self.children.get(ref)
                have = {} if live is None else live["metadata"].get("annotations") or {}
                if live is None or annotations.items() <= have.items():
                    return False
                meta = {**live["metadata"], "annotations": have | annotations}
                self.children[ref] = {**live, "metadata": meta}
                return True
            case Scale(ref=ref, replicas=number):
                return self.scale(ref, number)
            case Delete(ref=ref, uid=uid):
                there = self.children.get(ref)
                if there is None or there["metadata"]["uid"] != uid:
                    return False
                del self.children[ref]
                return True
            case WriteStatus(status=status):
                if status == self.status:
                    return False
                self.status = status
                return True
        raise TypeError(f"a {type(action).__name__} is not about an object")

    def scale(self, ref: Ref, number: int) -> bool:
        """Set the replicas of a Deployment; returns whether that changed them."""
        found = self.children.get(ref)
        if found is None or found["spec"]["replicas"] == number:
            return False
        self.children[ref] = {**found, "spec": {**found["spec"], "replicas": number}}
        return True

    def _apply(self, ref: Ref, wish: dict[str, Any], now: datetime) -> bool:
        live = self.children.get(ref)
        manifest = {**wish, "metadata": dict(wish["metadata"])}
        meta = manifest["metadata"]
        if live is None:
            self._made += 1
            meta |= {
                "uid": f"object-{self._made}",
                "creationTimestamp": rfc3339(now),
                "generation": 1,
            }
            self.children[ref] = self._accepted(ref, manifest)
            return True
        if ref.kind == "Deployment":
            manifest["spec"] = {**wish["spec"], "replicas": live["spec"]["replicas"]}
        meta |= {k: live["metadata"][k] for k in ("uid", "creationTimestamp", "generation")}
        notes = (live["metadata"].get("annotations") or {}) | (meta.get("annotations") or {})
        if notes:
            meta["annotations"] = notes
        if "status" in live:
            manifest["status"] = live["status"]
        if manifest == live:
            return False
        if manifest.get("spec") != live.get("spec"):
            meta["generation"] += 1
        self.children[ref] = self._accepted(ref, manifest)
        return True

    def _accepted(self, ref: Ref, manifest: dict[str, Any]) -> dict[str, Any]:
        """A route with what its gateways say of it: they take it at once."""
        if ref.api_version != ROUTE_VERSION:
            return manifest
        said = {"status": "True", "observedGeneration": manifest["metadata"]["generation"]}
        conditions = [
            {"type": "Accepted", "reason": "Accepted", **said},
            {"type": "ResolvedRefs", "reason": "ResolvedRefs", **said},
        ]
        parents = [
            {"parentRef": parent, "controllerName": GATEWAY, "conditions": conditions}
            for parent in manifest["spec"]["parentRefs"]
        ]
        return {**manifest, "status": {"parents": parents}}
