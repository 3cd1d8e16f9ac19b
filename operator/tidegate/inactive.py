"""Fields that are accepted and checked, but not acted on by this version: status lists them."""

from collections.abc import Callable
from typing import Final

from tidegate.api.spec import (
    OnChange,
    Rollout,
    Scaling,
    ScalingMode,
    Sidecar,
    Slo,
    Spec,
    Strategy,
)
from tidegate.api.status import InactiveField

_ROLLOUT_DEFAULTS: Final = Rollout()
_ACTIVE_ROLLOUT: Final = frozenset({"strategy", "paused", "progress_deadline"})

_CHECKS: Final[tuple[tuple[str, str, Callable[[Spec], bool]], ...]] = (
    (
        "slo",
        "the latency target is a bucket edge of the sidecar's histogram; no decision uses the "
        "measurements yet",
        lambda s: s.slo != Slo(),
    ),
    (
        "scaling.mode",
        "SLO: replicas stay at scaling.minReplicas",
        lambda s: s.scaling_mode is ScalingMode.SLO,
    ),
    (
        "scaling.maxReplicas",
        "read in SLO mode only, which is not acted on yet",
        lambda s: s.scaling.max_replicas != Scaling().max_replicas,
    ),
    (
        "scaling.headroom",
        "read in SLO mode only, which is not acted on yet",
        lambda s: s.scaling.headroom != Scaling().headroom,
    ),
    (
        "replicas",
        "read in Fixed and External mode only; set scaling.mode",
        lambda s: s.replicas is not None and s.scaling_mode is ScalingMode.SLO,
    ),
    (
        "rollout.strategy",
        "Canary: a new revision gets all traffic at once when all its pods are ready, as with "
        "BlueGreen",
        lambda s: s.rollout.strategy is Strategy.CANARY,
    ),
    (
        "model.source.onChange",
        "NewRevision: changed bytes are refused, as with Refuse",
        lambda s: s.model.source.on_change is OnChange.NEW_REVISION,
    ),
    (
        "traffic.timeout",
        "read where traffic.gateway is set; without a gateway there is no time limit",
        lambda s: s.traffic.timeout is not None and s.traffic.gateway is None,
    ),
    (
        "slo.latency",
        "nothing measures it while runtime.sidecar is Off",
        lambda s: s.slo.latency is not None and s.runtime.sidecar is Sidecar.OFF,
    ),
    (
        "goldenRequests",
        "golden requests are not sent yet",
        lambda s: s.golden_requests is not None,
    ),
    (
        "traffic.gateway.grpcHostnames",
        "no GRPCRoute is made yet; the HTTPRoute's hostnames serve gRPC too",
        lambda s: s.traffic.gateway is not None and bool(s.traffic.gateway.grpc_hostnames),
    ),
)


def inactive_fields(spec: Spec) -> tuple[InactiveField, ...]:
    """The fields of this spec that have no effect yet, each with what happens instead.

    A field that equals its default is not listed: the API server fills defaults in, so nobody can
    tell who wrote it.
    """
    found = [InactiveField(field=f, reason=r) for f, r, applies in _CHECKS if applies(spec)]
    for name, field in sorted(Rollout.model_fields.items()):
        changed = getattr(spec.rollout, name) != getattr(_ROLLOUT_DEFAULTS, name)
        if changed and name not in _ACTIVE_ROLLOUT:
            found.append(
                InactiveField(
                    field=f"rollout.{field.alias or name}", reason="canary steps are not taken yet"
                )
            )
    return tuple(found)
