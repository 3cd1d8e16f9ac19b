"""The kinds of objects that the operator reads and writes, and where the API server keeps them."""

from dataclasses import dataclass
from typing import Final

from tidegate.api.names import API_VERSION, KIND, MANAGED_BY, MANAGED_BY_LABEL, PLURAL

MANAGED_SELECTOR: Final = f"{MANAGED_BY_LABEL}={MANAGED_BY}"


@dataclass(frozen=True)
class Kind:
    """One namespaced kind.

    Attributes:
        api_version: for example ``apps/v1``.
        kind: for example ``Deployment``.
        plural: the resource's name in a URL.
        optional: whether a cluster may lack it; without it, nothing of it is made.
        selector: label selector of the objects that concern us; empty: all.
    """

    api_version: str
    kind: str
    plural: str
    optional: bool = False
    selector: str = MANAGED_SELECTOR

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version inside the group."""
        return self.api_version.rpartition("/")[2]

    @property
    def root(self) -> str:
        """The path under which the group's resources lie."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"

    def path(self, namespace: str | None, name: str | None = None, sub: str | None = None) -> str:
        """The path of a collection (all namespaces if None), an object or its subresource."""
        path = self.root if namespace is None else f"{self.root}/namespaces/{namespace}"
        return "/".join(part for part in (path, self.plural, name, sub) if part)

    def __str__(self) -> str:
        return self.kind


MODEL_DEPLOYMENT: Final = Kind(API_VERSION, KIND, PLURAL, selector="")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
POD: Final = Kind("v1", "Pod", "pods")
EVENT: Final = Kind("v1", "Event", "events")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")

CHILDREN: Final = (
    DEPLOYMENT,
    Kind("v1", "Service", "services"),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("apps/v1", "ControllerRevision", "controllerrevisions"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", optional=True),
    Kind("gateway.networking.k8s.io/v1", "GRPCRoute", "grpcroutes", optional=True),
    Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", optional=True),
    Kind("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates", optional=True),
    # Optional: without the right to it nothing but following sources is lost.
    Kind("batch/v1", "CronJob", "cronjobs", optional=True),
)
WATCHED: Final = (MODEL_DEPLOYMENT, *CHILDREN, POD)

_BY_NAME: Final = {(k.api_version, k.kind): k for k in (*WATCHED, EVENT, LEASE)}


def kind_of(api_version: str, kind: str) -> Kind:
    """The kind of that name.

    Raises:
        LookupError: the operator knows no such kind.
    """
    try:
        return _BY_NAME[api_version, kind]
    except KeyError:
        raise LookupError(f"the operator handles no {api_version} {kind}") from None
