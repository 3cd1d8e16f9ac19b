"""How many replicas a revision is to have."""

from dataclasses import dataclass

from tidegate.api.spec import ScalingMode, Spec


@dataclass(frozen=True)
class Replicas:
    """A number and why.

    Attributes:
        desired: replicas of the revision that serves.
        reason: for people.
    """

    desired: int
    reason: str


def replicas(spec: Spec) -> Replicas:
    """The replicas that the spec asks for."""
    mode = spec.scaling_mode
    if mode is ScalingMode.SLO:
        return Replicas(
            spec.scaling.min_replicas,
            "scaling.mode SLO is not acted on yet: scaling.minReplicas is kept",
        )
    if spec.replicas is None:
        return Replicas(spec.scaling.min_replicas, f"{mode}: scaling.minReplicas")
    return Replicas(spec.replicas, f"{mode}: spec.replicas")


def before_pin(wanted: int, *, pinned: bool) -> int:
    """One pod alone until the model's bytes are pinned, so that no two load different bytes."""
    return wanted if pinned else min(1, wanted)
