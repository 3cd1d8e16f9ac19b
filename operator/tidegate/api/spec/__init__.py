"""What a user may ask for: the ``spec`` of a ModelDeployment.

These types are the one source: the CRD's schema, its defaults and the field reference are made
from them (`tidegate.api.crd`), and the operator parses specs with them. Each block of a spec has a
module here; who reads specs imports their types from this package.
"""

from typing import Any

from pydantic import Field

from tidegate.api.block import Block
from tidegate.api.spec.golden import GoldenRequests, LoadTest
from tidegate.api.spec.gpu import DeviceRequest, Gpu
from tidegate.api.spec.model import Model, OnChange, Source
from tidegate.api.spec.placement import (
    TaintEffect,
    Toleration,
    TolerationOperator,
    TopologySpread,
    Unsatisfiable,
)
from tidegate.api.spec.rollout import (
    AgainstStable,
    ErrorsAgainstStable,
    Inconclusive,
    Mirror,
    MirrorMode,
    OnInconclusive,
    Pin,
    Rollout,
    Step,
    Strategy,
    Surge,
)
from tidegate.api.spec.runtime import Cache, EnvVar, Resources, Runtime, Sidecar
from tidegate.api.spec.scaling import Scaling, ScalingMode
from tidegate.api.spec.slo import Latency, Slo
from tidegate.api.spec.traffic import Gateway, Overload, ParentRef, Peer, Traffic
from tidegate.api.spec.tuning import (
    Accelerator,
    DynamicBatching,
    GraphLevel,
    InstanceKind,
    Instances,
    ModelTuning,
    Optimization,
    PriorityQueue,
    TimeoutAction,
    Warmup,
)

__all__ = [
    "Accelerator",
    "AgainstStable",
    "Cache",
    "DeviceRequest",
    "DynamicBatching",
    "EnvVar",
    "ErrorsAgainstStable",
    "Gateway",
    "GoldenRequests",
    "Gpu",
    "GraphLevel",
    "Inconclusive",
    "InstanceKind",
    "Instances",
    "Latency",
    "LoadTest",
    "Mirror",
    "MirrorMode",
    "Model",
    "ModelTuning",
    "OnChange",
    "OnInconclusive",
    "Optimization",
    "Overload",
    "ParentRef",
    "Peer",
    "Pin",
    "PriorityQueue",
    "Resources",
    "Rollout",
    "Runtime",
    "Scaling",
    "ScalingMode",
    "Sidecar",
    "Slo",
    "Source",
    "Spec",
    "Step",
    "Strategy",
    "Surge",
    "TaintEffect",
    "TimeoutAction",
    "Toleration",
    "TolerationOperator",
    "TopologySpread",
    "Traffic",
    "Unsatisfiable",
    "Warmup",
    "parse",
]


class Spec(Block):
    """The spec of a ModelDeployment."""

    replicas: int | None = Field(
        None,
        ge=0,
        le=1000,
        description="Read in Fixed and External mode only; never defaulted. External "
        "needs a value to begin with.",
    )
    model: Model = Field(description="Which model, from where.")
    runtime: Runtime = Field(default_factory=Runtime, description="The pods.")
    slo: Slo = Field(default_factory=Slo, description="What clients are promised.")
    scaling: Scaling = Field(default_factory=Scaling, description="The number of replicas.")
    rollout: Rollout = Field(
        default_factory=Rollout, description="How a new revision earns traffic."
    )
    golden_requests: GoldenRequests | None = Field(
        None, description="Requests with known answers [none]."
    )
    traffic: Traffic = Field(default_factory=Traffic, description="How requests reach the model.")
    history_limit: int = Field(10, ge=1, le=50, description="Old revisions to keep.")

    @property
    def scaling_mode(self) -> ScalingMode:
        """The mode in force: SLO where a latency objective is given, otherwise Fixed."""
        if self.scaling.mode is not None:
            return self.scaling.mode
        return ScalingMode.SLO if self.slo.latency is not None else ScalingMode.FIXED


def parse(spec: dict[str, Any]) -> Spec:
    """A spec from its manifest form.

    Raises:
        pydantic.ValidationError: a field is unknown, missing or malformed.
    """
    return Spec.model_validate(spec)
