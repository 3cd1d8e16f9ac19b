"""Fields that are accepted and checked, but not acted on by this version: status lists them."""

from collections.abc import Callable
from typing import Final

from tidegate.api.spec import (
    OnChange,
    Rollout,
    Scaling,
    ScalingMode,
    Sidecar,
    Spec,
    Strategy,
)
from tidegate.api.status import InactiveField

_CHECKS: Final[tuple[tuple[str, str, Callable[[Spec], bool]], ...]] = (
    (
        "scaling.maxReplicas",
        "read in SLO mode only; set scaling.mode",
        lambda s: (
            s.scaling_mode is not ScalingMode.SLO
            and s.scaling.max_replicas != Scaling().max_replicas
        ),
    ),
    (
        "scaling.headroom",
        "read in SLO mode only; set scaling.mode",
        lambda s: (
            s.scaling_mode is not ScalingMode.SLO and s.scaling.headroom != Scaling().headroom
        ),
    ),
    (
        "replicas",
        "read in Fixed and External mode only; set scaling.mode",
        lambda s: s.replicas is not None and s.scaling_mode is ScalingMode.SLO,
    ),
    (
        "rollout.steps",
        "steps need traffic.gateway: without it a new revision gets all traffic at once when its "
        "pods are ready and its golden requests passed, and is watched while it bakes",
        lambda s: (
            s.rollout.strategy is Strategy.CANARY
            and s.traffic.gateway is None
            and s.rollout.steps != Rollout().steps
        ),
    ),
    (
        "rollout.mirror",
        "requests are copied by a gateway only",
        lambda s: s.traffic.gateway is None and s.rollout.mirror != Rollout().mirror,
    ),
    (
        "model.source.onChange",
        "image:// is a path in the runtime image, which is pinned with the revision",
        lambda s: (
            s.model.source.on_change is OnChange.NEW_REVISION
            and s.model.source.uri.lower().startswith("image://")
        ),
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
)


def inactive_fields(spec: Spec) -> tuple[InactiveField, ...]:
    """The fields of this spec that have no effect yet, each with what happens instead.

    A field that equals its default is not listed: the API server fills defaults in, so nobody can
    tell who wrote it.
    """
    return tuple(InactiveField(field=f, reason=r) for f, r, applies in _CHECKS if applies(spec))
