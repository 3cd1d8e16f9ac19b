"""The pods: image, resources, what stands beside Triton."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tidegate.api.block import (
    LIST_SET,
    Block,
    LabelValue,
    ObjectName,
    Quantity,
    SetLabelValue,
    list_map,
)
from tidegate.api.patterns import DNS_LABEL_PATTERN, ENV_NAME_PATTERN, IMAGE_PATTERN, TEXT_PATTERN
from tidegate.api.spec.gpu import Gpu
from tidegate.api.spec.placement import Toleration, TopologySpread


class Resources(Block):
    """CPU and memory of the Triton container; requests equal limits for memory."""

    cpu: Quantity = Field("1", description="CPU request.")
    memory: Quantity = Field("2Gi", description="Memory request and limit.")
    cpu_limit: Quantity | None = Field(None, description="CPU limit [none].")
    ephemeral_storage: Quantity | None = Field(None, description="Disk request and limit [none].")


class EnvVar(Block):
    """A plain environment variable of the Triton container."""

    name: str = Field(pattern=ENV_NAME_PATTERN, min_length=1, max_length=128, description="Name.")
    value: str = Field(
        "", pattern=TEXT_PATTERN, max_length=4096, description="Value, in plain text."
    )


class Cache(Block):
    """A shared cache of fetched models."""

    claim_name: ObjectName = Field(description="PersistentVolumeClaim of this namespace.")


class Sidecar(StrEnum):
    """Whether the measuring proxy runs beside Triton."""

    ON = "On"
    OFF = "Off"


class Runtime(Block):
    """The pods: image, resources, placement."""

    profile: (
        Annotated[str, Field(pattern=DNS_LABEL_PATTERN, min_length=1, max_length=63)] | None
    ) = Field(None, description="A profile that the platform team named in the chart's values.")
    image: str | None = Field(
        None,
        pattern=IMAGE_PATTERN,
        max_length=512,
        description="Triton image, by tag or digest [the profile's].",
    )
    image_pull_secrets: tuple[ObjectName, ...] = Field(
        (),
        max_length=2,
        description="Secrets of this namespace for the image.",
        json_schema_extra=LIST_SET,
    )
    service_account_name: ObjectName | None = Field(
        None, description="For workload identity; must be on the platform's list."
    )
    resources: Resources = Field(default_factory=Resources, description="CPU and memory.")
    gpu: Gpu = Field(default_factory=Gpu, description="The GPUs of one pod.")
    node_selector: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=16, description="Labels that a node must have."
    )
    tolerations: tuple[Toleration, ...] = Field(
        (), max_length=16, description="Taints that the pods bear, besides the GPU nodes' own."
    )
    topology_spread: tuple[TopologySpread, ...] = Field(
        (),
        max_length=4,
        description="Spreads a revision's pods.",
        json_schema_extra=list_map("topologyKey", "whenUnsatisfiable"),
    )
    priority_class_name: ObjectName | None = Field(None, description="PriorityClass of the pods.")
    env: tuple[EnvVar, ...] = Field(
        (),
        max_length=64,
        description="Plain environment variables of Triton; never secrets.",
        json_schema_extra=list_map("name"),
    )
    shared_memory: Quantity = Field(
        "64Mi", description="Size of /dev/shm; counts towards resources.memory."
    )
    pod_labels: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=16, description="More labels of the pods."
    )
    pod_annotations: dict[str, Annotated[str, Field(pattern=TEXT_PATTERN, max_length=4096)]] = (
        Field(default_factory=dict, max_length=16, description="More annotations of the pods.")
    )
    cache: Cache | None = Field(None, description="Shared cache of fetched models [none].")
    queue_name: SetLabelValue | None = Field(None, description="Kueue's local queue.")
    sidecar: Sidecar = Field(
        Sidecar.ON,
        description='"Off" (in quotes, or YAML reads false): no measured errors or latency; '
        "promotion by hand only.",
    )
