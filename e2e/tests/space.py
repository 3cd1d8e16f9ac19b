"""One namespace of the tests, and what they do in it: apply, wait, look."""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from e2e.cluster import addons
from e2e.cluster.installation import operator_pods
from e2e.cluster.kube import KubeClient, Object, wait_for
from e2e.cluster.settings import Settings

API: Final = "tidegate.dev/v1alpha1"
KIND: Final = "ModelDeployment"
SETTINGS: Final = Settings()
SECRET: Final = "s3"
"""In each namespace: the S3 server's credentials."""
READY_SECONDS: Final = 120.0
"""Nothing here takes a quarter of it; it ends a test that hangs."""
OWNED: Final = (
    *(("apps/v1", "Deployment"), ("apps/v1", "ReplicaSet"), ("apps/v1", "ControllerRevision")),
    *(("v1", "Service"), ("v1", "ConfigMap"), ("v1", "Pod")),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("resource.k8s.io/v1", "ResourceClaimTemplate"),
)
"""Every kind that a ModelDeployment may leave behind."""


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The two documents as one: maps are merged, everything else is replaced."""
    found = dict(copy.deepcopy(dict(base)))
    for key, value in more.items():
        old = found.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            found[key] = merged(old, value)
        else:
            found[key] = copy.deepcopy(value)
    return found


def model_deployment(name: str, uri: str, spec: Mapping[str, Any] | None = None) -> Object:
    """A small ModelDeployment on the CPU.

    Args:
        name: its name.
        uri: its model's; s3 sources get the endpoint and the Secret of the tests.
        spec: what else it shall have, merged over the rest.
    """
    source: dict[str, Any] = {"uri": uri}
    if uri.startswith("s3://"):
        source |= {"endpoint": SETTINGS.s3_endpoint, "secretName": SECRET}
    base = {
        "model": {"source": source},
        "runtime": {"gpu": {"count": 0}, "resources": {"cpu": "50m", "memory": "1Gi"}},
        "scaling": {"mode": "Fixed"},
        "replicas": 1,
        # The former revision's pods go as soon as the new one is promoted.
        "rollout": {"bake": "0s"},
    }
    return {
        "apiVersion": API,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": merged(base, spec or {}),
    }


def condition(found: Object, type_: str) -> Object:
    """A condition of a ModelDeployment; empty: it has none of that type."""
    for one in (found.get("status") or {}).get("conditions") or ():
        if one["type"] == type_:
            result: Object = one
            return result
    return {}


def stable(found: Object) -> Object:
    """The revision that gets the traffic, as status says it."""
    result: Object = ((found.get("status") or {}).get("revisions") or {}).get("stable") or {}
    return result


def is_current(found: Object) -> bool:
    """Whether status speaks of the newest spec."""
    seen = (found.get("status") or {}).get("observedGeneration")
    return bool(seen == found["metadata"]["generation"])


@dataclass(frozen=True)
class Space:
    """A namespace that enforces Pod Security ``restricted``.

    Attributes:
        kube: the cluster, as its administrator.
        name: of the namespace.
    """

    kube: KubeClient
    name: str

    def create(self) -> None:
        """Make it, with the S3 credentials; what a killed run left is removed first."""
        self.delete()
        level = {f"pod-security.kubernetes.io/{m}": "restricted" for m in ("enforce", "warn")}
        self.kube.apply_all(
            [
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {"name": self.name, "labels": level},
                },
                self.s3_secret(SECRET),
            ]
        )

    def s3_secret(self, name: str) -> Object:
        """A Secret with the S3 server's credentials."""
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.name},
            "stringData": {
                "AWS_ACCESS_KEY_ID": SETTINGS.s3_access_key,
                "AWS_SECRET_ACCESS_KEY": SETTINGS.s3_secret_key,
            },
        }

    def empty(self) -> None:
        """Begin to delete what runs in it."""
        for api, kind in ((API, KIND), ("apps/v1", "Deployment"), ("v1", "Pod")):
            path = self.kube.path(api, kind, self.name)
            if self.kube.get("v1", "Namespace", self.name) is not None:
                self.kube.request("DELETE", path)

    def delete(self) -> None:
        """Delete it and all that is in it, and wait until nothing is left.

        What runs goes first: the namespace controller looks again only after half the pods' grace
        period, however soon they have gone.
        """
        self.empty()
        wait_for(
            lambda: not self.kube.list("v1", "Pod", self.name),
            f"no pods in {self.name}",
            timeout_seconds=READY_SECONDS,
            state=lambda: addons.describe_pods(self.kube, self.name),
        )
        self.kube.delete("v1", "Namespace", self.name)
        wait_for(
            lambda: self.kube.get("v1", "Namespace", self.name) is None,
            f"namespace {self.name} gone",
            timeout_seconds=READY_SECONDS,
            state=lambda: addons.describe_pods(self.kube, self.name),
        )

    def apply(self, item: Object) -> Object:
        """Apply an object in this namespace."""
        return self.kube.apply(item, namespace=self.name)

    def get(self, api: str, kind: str, name: str) -> Object | None:
        """An object of this namespace."""
        return self.kube.get(api, kind, name, self.name)

    def require(self, api: str, kind: str, name: str) -> Object:
        """An object that must be there."""
        found = self.get(api, kind, name)
        assert found is not None, f"no {kind} {name} in {self.name}"
        return found

    def live(self, name: str) -> Object:
        """A ModelDeployment as it is now."""
        return self.require(API, KIND, name)

    def patch(self, name: str, spec: Mapping[str, Any]) -> Object:
        """Merge into a ModelDeployment's spec."""
        return self.kube.request(
            "PATCH",
            self.kube.path(API, KIND, self.name, name),
            body={"spec": spec},
            content_type="application/merge-patch+json",
        )

    def pods(self, name: str) -> list[Object]:
        """The pods of a ModelDeployment that are not on their way out, oldest first."""
        found = self.kube.list("v1", "Pod", self.name, f"tidegate.dev/deployment={name}")
        staying = [p for p in found if "deletionTimestamp" not in p["metadata"]]
        return sorted(staying, key=lambda p: p["metadata"]["creationTimestamp"])

    def restarts(self, name: str) -> dict[str, int]:
        """UID of each pod, with how often its containers were started again."""
        return {
            pod["metadata"]["uid"]: sum(
                status["restartCount"]
                for kind in ("initContainerStatuses", "containerStatuses")
                for status in pod["status"].get(kind, [])
            )
            for pod in self.pods(name)
        }

    def owned(self, name: str) -> dict[tuple[str, str], Object]:
        """Everything of a ModelDeployment, by kind and name: by its label or by its owner."""
        found = {}
        for api, kind in OWNED:
            for item in self.kube.list(api, kind, self.name):
                meta = item["metadata"]
                labelled = (meta.get("labels") or {}).get("tidegate.dev/deployment") == name
                owners = meta.get("ownerReferences") or ()
                if labelled or any(o["kind"] == KIND and o["name"] == name for o in owners):
                    found[kind, meta["name"]] = item
        return found

    def address(self, name: str) -> str:
        """``ip:port`` of a Service that speaks HTTP."""
        service = self.require("v1", "Service", name)
        return f"{service['spec']['clusterIP']}:8000"

    def grpc_address(self, name: str) -> str:
        """``ip:port`` of a Service that speaks gRPC."""
        service = self.require("v1", "Service", name)
        return f"{service['spec']['clusterIP']}:8001"

    # Waiting.

    def until(
        self, name: str, probe: Callable[[Object], bool], what: str, seconds: float = READY_SECONDS
    ) -> Object:
        """Wait until a ModelDeployment is as `probe` wants it; returns it.

        Raises:
            NotReached: with its conditions, its pods and the operator's last words about it.
        """

        def look() -> Object | None:
            found = self.live(name)
            return found if probe(found) else None

        return wait_for(
            look,
            f"{KIND} {self.name}/{name}: {what}",
            timeout_seconds=seconds,
            state=lambda: self.told(name),
        )

    def ready(self, name: str) -> Object:
        """Wait until the newest spec is live."""
        return self.until(
            name,
            lambda found: is_current(found) and condition(found, "Ready").get("status") == "True",
            "Ready",
        )

    def not_ready(self, name: str, reason: str, *texts: str) -> Object:
        """Wait until the newest spec is Ready=False for that reason, with all texts in the message.

        Returns:
            The condition.
        """

        def probe(found: Object) -> bool:
            ready = condition(found, "Ready")
            return (
                is_current(found)
                and (ready.get("status"), ready.get("reason")) == ("False", reason)
                and all(text in ready["message"] for text in texts)
            )

        what = f"Ready=False, {reason}, with {texts!r} in the message"
        return condition(self.until(name, probe, what), "Ready")

    def told(self, name: str) -> str:
        """What there is to say of a ModelDeployment that is not as a test wants it."""
        found = self.get(API, KIND, name) or {}
        lines = [
            f"{c['type']}={c['status']} {c['reason']} (generation "
            f"{c.get('observedGeneration')}): {c.get('message')}"
            for c in (found.get("status") or {}).get("conditions") or ()
        ]
        return "\n".join(
            [
                f"generation {(found.get('metadata') or {}).get('generation')}",
                *lines,
                addons.describe_pods(self.kube, self.name),
                *operator_log(self.kube, f"{self.name}/{name}"),
            ]
        )


def operator_log(kube: KubeClient, about: str, lines: int = 25) -> list[str]:
    """The operator's last lines that hold that text."""
    found: list[tuple[str, str]] = []
    for pod in operator_pods(kube):
        path = kube.path("v1", "Pod", addons.OPERATOR_NAMESPACE, pod["metadata"]["name"])
        for line in kube.text(f"{path}/log", {"tailLines": "400"}).splitlines():
            if about not in line:
                continue
            try:
                at = str(json.loads(line).get("timestamp", ""))
            except ValueError:
                at = ""
            found.append((at, line))
    return [line for _, line in sorted(found)[-lines:]]
