"""The routes of a ModelDeployment that names a gateway: objects owned whole.

One HTTPRoute serves HTTP and gRPC (the sidecar speaks both on one port), since Gateway API lets an
implementation refuse an HTTPRoute and a GRPCRoute on one host. A GRPCRoute is made for
``traffic.gateway.grpcHostnames`` only, which are hosts of its own.

Each route has at most two rules:

1. The *main* rule splits by weight, and may copy requests to the canary (mirror). It takes the pin
   header off, so that no client can pass off its requests as pinned and hide them from the share.
2. The *pin* rule, while a canary is on trial and does not get all traffic anyway, leads requests
   with the headers of ``rollout.pin`` to the canary and says so in a header. No weight ever
   changes it.

The main rule comes first, although the pin rule wins where both match: which rule wins is decided
by the number of header matches, and only then by order (HTTPRouteRule and GRPCRouteRule, "matches",
in Gateway API v1). A gateway may name what it makes of a rule by the rule's position, as Envoy
Gateway does with Envoy's clusters. Were the pin rule put in front, "rule 0" would turn from
everybody's into the canary's in the moment it comes, and the endpoints of a cluster can reach Envoy
before the routes that lead to it.

A revision without weight is left out of the main rule rather than listed with weight 0, which
gateways read differently, and of which a missing Service would still spoil the route.

Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidegate.api.names import DECISION_ANNOTATION
from tidegate.api.spec import Gateway, Spec
from tidegate.api.units import duration_ms
from tidegate.observed import Object, Ref
from tidegate.record import Record
from tidegate.resources.meta import metadata
from tidegate.resources.services import GRPC_PORT, HTTP_PORT, MIRROR_PORT
from tidegate.resources.sidecar import PIN_HEADER

API_VERSION: Final = "gateway.networking.k8s.io/v1"
KIND: Final = "HTTPRoute"
GRPC_KIND: Final = "GRPCRoute"

TOTAL_WEIGHT: Final = 100_000
"""Sum of the weights of a rule: the finest percentage that a spec can name, 0.001%, is 1."""
PIN_VALUE: Final = "canary"
"""What `PIN_HEADER` says; only that it is there counts."""

_GROUP: Final = API_VERSION.partition("/")[0]


@dataclass(frozen=True)
class Split:
    """Where the requests go. Service names; shares of 0 to 1.

    Attributes:
        stable: the Service that gets what the canary does not.
        canary: the Service of the revision on trial; None: none is, neither weight nor pin. It
            must exist, also for a mirror: requests that meet a mirror without one get errors.
        weight: share of the requests that the canary answers.
        mirror: share of the requests that is copied to the canary, its answers discarded.
    """

    stable: str
    canary: str | None = None
    weight: float = 0.0
    mirror: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no route can say.

        Raises:
            ValueError: a share is outside of 0 to 1, or given to a canary that there is not.
        """
        for name, share in (("weight", self.weight), ("mirror", self.mirror)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} {share} is no share of 0 to 1")
            if share and self.canary is None:
                raise ValueError(f"{name} {share} without a canary")
        if self.canary == self.stable:
            raise ValueError(f"{self.canary} is both stable and canary")


def http_route(
    deployment: Object, spec: Spec, gateway: Gateway, split: Split, record: str
) -> dict[str, Any]:
    """The HTTPRoute, for HTTP and gRPC.

    Args:
        deployment: the ModelDeployment.
        spec: its spec.
        gateway: ``spec.traffic.gateway``.
        split: where the requests go.
        record: the decision behind it (`tidegate.record.Record.dump`); empty: none.
    """
    limits: dict[str, Any] = {}
    if spec.traffic.timeout is not None:
        limits["timeouts"] = {"request": gateway_duration(duration_ms(spec.traffic.timeout))}
    everything = {"path": {"type": "PathPrefix", "value": "/"}}
    rules = _rules(spec, split, HTTP_PORT, everything, limits)
    return _route(KIND, deployment, gateway, gateway.hostnames, rules, record)


def grpc_route(
    deployment: Object, spec: Spec, gateway: Gateway, split: Split, record: str
) -> dict[str, Any]:
    """The GRPCRoute, for ``gateway.grpcHostnames``; only to be made where there are any.

    The same as `http_route`, but Gateway API knows no timeout of a GRPCRoute.

    Raises:
        ValueError: there are no such hostnames; the route would take those of everybody else.
    """
    if not gateway.grpc_hostnames:
        raise ValueError("no grpcHostnames")
    rules = _rules(spec, split, GRPC_PORT, {}, {})
    return _route(GRPC_KIND, deployment, gateway, gateway.grpc_hostnames, rules, record)


def _route(
    kind: str,
    deployment: Object,
    gateway: Gateway,
    hostnames: Sequence[str],
    rules: list[dict[str, Any]],
    record: str,
) -> dict[str, Any]:
    meta = metadata(deployment, deployment["metadata"]["name"])
    if record:
        meta["annotations"] = {DECISION_ANNOTATION: record}
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": meta,
        "spec": {
            "parentRefs": [
                {"group": _GROUP, "kind": "Gateway"}
                | parent.model_dump(by_alias=True, exclude_none=True)
                for parent in gateway.parent_refs
            ],
            **({"hostnames": list(hostnames)} if hostnames else {}),
            "rules": rules,
        },
    }


def _rules(
    spec: Spec, split: Split, port: int, match: dict[str, Any], limits: dict[str, Any]
) -> list[dict[str, Any]]:
    weights = _weights(split)
    filters: list[dict[str, Any]] = [
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": [PIN_HEADER]}}
    ]
    if split.canary is not None and split.mirror > 0:
        mirror = {"backendRef": _backend(split.canary, MIRROR_PORT), **_part(split.mirror)}
        filters.append({"type": "RequestMirror", "requestMirror": mirror})
    main = {
        **({"matches": [match]} if match else {}),
        "filters": filters,
        "backendRefs": [_backend(name, port) | {"weight": w} for name, w in weights.items()],
        **limits,
    }
    if split.canary is None or split.stable not in weights or not spec.rollout.pin.headers:
        return [main]
    headers = [
        {"type": "Exact", "name": name, "value": value}
        for name, value in sorted(spec.rollout.pin.headers.items())
    ]
    said = {"set": [{"name": PIN_HEADER, "value": PIN_VALUE}]}
    pin = {
        "matches": [match | {"headers": headers}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": said}],
        "backendRefs": [_backend(split.canary, port) | {"weight": 1}],
        **limits,
    }
    return [main, pin]


def _weights(split: Split) -> dict[str, int]:
    """Weight of each Service that gets any, by name; they sum to `TOTAL_WEIGHT`."""
    canary = round(split.weight * TOTAL_WEIGHT)
    found = {split.stable: TOTAL_WEIGHT - canary}
    if split.canary is not None:
        found[split.canary] = canary
    return {name: weight for name, weight in sorted(found.items()) if weight}


def _backend(name: str, port: int) -> dict[str, Any]:
    return {"group": "", "kind": "Service", "name": name, "port": port}


def _part(share: float) -> dict[str, Any]:
    """``percent`` where that says it, else ``fraction``: gateways learned the former first."""
    parts = max(1, round(share * TOTAL_WEIGHT))
    percent, rest = divmod(parts, TOTAL_WEIGHT // 100)
    if not rest:
        return {"percent": percent}
    return {"fraction": {"numerator": parts, "denominator": TOTAL_WEIGHT}}


def gateway_duration(ms: int) -> str:
    """A duration in Gateway API's form (GEP-2257): up to four parts of at most five digits.

    Longer ones than 99999 hours, which it cannot say in every case, come out as that.
    """
    parts = []
    ms = min(ms, 99_999 * 3_600_000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, ms = divmod(ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


# What a live route says.


def record_of(carrier: Object) -> Record | None:
    """The decision that a route, or an entry Service, carries; None where none can be read."""
    found = (carrier["metadata"].get("annotations") or {}).get(DECISION_ANNOTATION)
    return Record.load(found)


def record_carried(name: str, children: Mapping[Ref, Object]) -> Record | None:
    """The decision that a ModelDeployment's route carries, else its entry Service."""
    for ref in (Ref(API_VERSION, KIND, name), Ref("v1", "Service", name)):
        carrier = children.get(ref)
        found = None if carrier is None else record_of(carrier)
        if found is not None:
            return found
    return None


def shares_of(route: Object) -> dict[str, float]:
    """Share of the requests that each Service gets by the main rule, by name.

    What the object says, not what was decided: a weight edited by hand shows here. Services
    without weight are left out.
    """
    rules = (route.get("spec") or {}).get("rules") or ()
    found: dict[str, int] = {}
    for backend in (rules[0].get("backendRefs") or ()) if rules else ():
        weight = backend.get("weight", 1)  # 1 is the API's own default
        if weight:
            found[backend["name"]] = found.get(backend["name"], 0) + weight
    total = sum(found.values())
    return {name: weight / total for name, weight in found.items()}


@dataclass(frozen=True)
class RouteState:
    """What the gateways say of a route.

    Attributes:
        accepted: every gateway that the route names has accepted just this generation of it, and
            found everything that it refers to. It does not say that the data plane has it.
        reason: why not, CamelCase, in the controller's own word, such as ``BackendNotFound``;
            `PENDING` while one has not spoken of this generation yet; empty where accepted.
        message: the same for people; empty where accepted.
        controllers: names of the controllers that answer for the route, sorted.
        can_mirror: whether all of them can copy a share of the requests; None: not known of one.
    """

    accepted: bool
    reason: str = ""
    message: str = ""
    controllers: tuple[str, ...] = ()
    can_mirror: bool | None = None


PENDING: Final = "Pending"
"""Reason of a route of which a gateway has said nothing yet."""


def route_state(route: Object, parents: Iterable[Mapping[str, Any]] | None = None) -> RouteState:
    """What the gateways say of a live HTTPRoute or GRPCRoute.

    Args:
        route: the live object.
        parents: the ``parentRefs`` that count; None: those of its spec.
    """
    namespace = route["metadata"].get("namespace")
    generation = route["metadata"].get("generation")
    wanted = (route.get("spec") or {}).get("parentRefs") or () if parents is None else parents
    said = (route.get("status") or {}).get("parents") or ()
    problems: list[tuple[str, str]] = []
    controllers: set[str] = set()
    for parent in wanted:
        ref = _parent(parent, namespace)
        entries = [e for e in said if _parent(e["parentRef"], namespace) == ref]
        answering, problem = _answer(entries, generation)
        controllers |= answering
        if problem is not None:
            problems.append((problem[0], f"Gateway {parent['name']}: {problem[1]}"))
    problems.sort(key=lambda p: p[0] == PENDING)  # a refusal says more than silence
    reason, message = problems[0] if problems else ("", "")
    names = tuple(sorted(controllers))
    return RouteState(not problems, reason, message, names, can_mirror(names))


_SILENCE: Final = "no controller has answered for this route yet; check that the Gateway exists"


def _answer(
    entries: Sequence[Mapping[str, Any]], generation: int | None
) -> tuple[set[str], tuple[str, str] | None]:
    """Which controllers answer for one parent, and what is wrong (reason, message; None: nothing).

    One good word will do: a controller that is gone leaves its last word behind, and some (Traefik)
    speak of Gateways that are another's, too. A refusal counts once all have spoken.
    """
    good, pending, refused = set(), set(), {}
    for entry in entries:
        name = str(entry.get("controllerName"))
        problem = _problem(entry, generation)
        if problem is None:
            good.add(name)
        elif problem[0] == PENDING:
            pending.add(name)
        else:
            refused[name] = problem
    if good:
        return good, None
    reason, message = next(iter(refused.values()), (PENDING, _SILENCE))
    if pending:
        others = f" {message}" if refused else ""
        reason, message = PENDING, f"{', '.join(sorted(pending))} has not answered yet.{others}"
    return pending | set(refused), (reason, message)


def _parent(ref: Mapping[str, Any], namespace: str | None) -> tuple[Any, ...]:
    """A parentRef with the API's defaults, to compare."""
    return (
        ref.get("group", _GROUP),
        ref.get("kind", "Gateway"),
        ref.get("namespace") or namespace,
        ref["name"],
        ref.get("sectionName"),
        ref.get("port"),
    )


def _problem(entry: Mapping[str, Any], generation: int | None) -> tuple[str, str] | None:
    """Reason and message of what is wrong for one parent; None: nothing."""
    conditions = {c["type"]: c for c in entry.get("conditions") or ()}
    for name, good in (("Accepted", "True"), ("ResolvedRefs", "True"), ("PartiallyInvalid", None)):
        found = conditions.get(name)
        if good is None:
            # Only there where a rule was dropped or an older one is used instead.
            if found is not None and found["status"] == "True":
                return str(found["reason"]), str(found.get("message") or name)
        elif found is None or found.get("observedGeneration", generation) != generation:
            return PENDING, ""
        elif found["status"] != good:
            return str(found["reason"]), str(found.get("message") or f"{name} {found['status']}")
    return None


MIRRORS: Final[Mapping[str, bool]] = {
    # Conformance reports of Gateway API, feature HTTPRouteRequestPercentageMirror: v1.4.0, Envoy
    # Gateway 1.6.0 (and measured with 1.9.1), Istio 1.28, Cilium 1.19.0-pre.2, GKE 1.34.4.
    "gateway.envoyproxy.io/gatewayclass-controller": True,
    "istio.io/gateway-controller": True,
    "io.cilium/gateway-controller": True,
    "networking.gke.io/gateway": True,
    # These copy all or nothing, and a canary of few pods cannot take all: kgateway 2.1.0 in the
    # reports of v1.4.0; Contour 1.33.0 in those of v1.3.0, projectcontour/contour#7021 (measured
    # with 1.33.8: asked for 50 %, it copied 200 of 200).
    "kgateway.dev/kgateway": False,
    "projectcontour.io/gateway-controller": False,
    # No mirror at all: Traefik 3.6 and Kong 2.0.6 in the reports of v1.4.0 and v1.3.0; HAProxy's
    # controllers know no such filter.
    "traefik.io/gateway-controller": False,
    "konghq.com/kic-gateway-controller": False,
    "konghq.com/gateway-operator": False,
    "haproxy.org/gateway-controller": False,
}
"""Whether an implementation copies a *share* of the requests, by ``controllerName`` as shipped.

It can be configured to another name: then it is not known here.
"""


def can_mirror(controllers: Sequence[str]) -> bool | None:
    """Whether all of these controllers can mirror a share; None: not known of one, or none there.

    Where it is not known, no mirror may be asked for: Gateway API lets requests that meet a filter
    that cannot be done end in an error (HTTPRouteFilter, "type"), so the try could cost all of the
    traffic. A yes is still to be proved by the copies that the canary's sidecars count.
    """
    found = [MIRRORS.get(name) for name in controllers]
    if False in found:
        return False
    return True if found and None not in found else None
