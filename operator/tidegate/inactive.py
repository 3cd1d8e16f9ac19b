"""Fields that are accepted and checked, but not acted on by this version: status lists them."""

from collections.abc import Callable
from typing import Final

from tidegate.api.spec import (
    MirrorMode,
    OnChange,
    Rollout,
    Scaling,
    ScalingMode,
    Sidecar,
    Spec,
    Strategy,
    Surge,
)
from tidegate.api.status import InactiveField


def _unmeasured(spec: Spec) -> bool:
    return spec.runtime.sidecar is Sidecar.OFF


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
        "rollout.steps",
        "only the strategy Canary goes by steps; BlueGreen and Recreate move all traffic at once",
        lambda s: s.rollout.strategy is not Strategy.CANARY and s.rollout.steps != Rollout().steps,
    ),
    (
        "rollout.mirror",
        "requests are copied by a gateway only",
        lambda s: s.traffic.gateway is None and s.rollout.mirror != Rollout().mirror,
    ),
    (
        "rollout.mirror",
        "copies come from the old revision, which Recreate stops first",
        lambda s: (
            s.traffic.gateway is not None
            and s.rollout.strategy is Strategy.RECREATE
            and s.rollout.mirror != Rollout().mirror
        ),
    ),
    (
        "rollout.pin",
        "a gateway leads requests by their headers; without traffic.gateway the new revision is "
        "reached by its own Service",
        lambda s: s.traffic.gateway is None and bool(s.rollout.pin.headers),
    ),
    (
        "rollout.onInconclusive",
        "read at the steps of a Canary behind traffic.gateway, and where mirror.mode is Required",
        lambda s: (
            s.rollout.on_inconclusive != Rollout().on_inconclusive
            and (
                s.traffic.gateway is None
                or s.rollout.strategy is Strategy.RECREATE
                or (
                    s.rollout.strategy is Strategy.BLUE_GREEN
                    and s.rollout.mirror.mode is not MirrorMode.REQUIRED
                )
            )
        ),
    ),
    (
        "rollout.surge",
        "Recreate asks for no extra pods: the old ones go first",
        lambda s: s.rollout.strategy is Strategy.RECREATE and s.rollout.surge != Rollout().surge,
    ),
    (
        "rollout.surgeWait",
        "only surge Auto waits so long, and Recreate not at all",
        lambda s: (
            s.rollout.surge_wait != Rollout().surge_wait
            and (s.rollout.surge is not Surge.AUTO or s.rollout.strategy is Strategy.RECREATE)
        ),
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
        "rollout.falseRollbackRate",
        "nothing is measured while runtime.sidecar is Off; promote by hand",
        lambda s: _unmeasured(s) and s.rollout.false_rollback_rate != Rollout().false_rollback_rate,
    ),
    (
        "rollout.confidence",
        "nothing is measured while runtime.sidecar is Off; promote by hand",
        lambda s: _unmeasured(s) and s.rollout.confidence != Rollout().confidence,
    ),
    (
        "rollout.againstStable",
        "nothing is measured while runtime.sidecar is Off; promote by hand",
        lambda s: _unmeasured(s) and s.rollout.against_stable != Rollout().against_stable,
    ),
    (
        "slo.latency",
        "nothing measures it while runtime.sidecar is Off",
        lambda s: s.slo.latency is not None and _unmeasured(s),
    ),
)


def inactive_fields(spec: Spec) -> tuple[InactiveField, ...]:
    """The fields of this spec that have no effect yet, each with what happens instead.

    A field that equals its default is not listed: the API server fills defaults in, so nobody can
    tell who wrote it.
    """
    return tuple(InactiveField(field=f, reason=r) for f, r, applies in _CHECKS if applies(spec))
