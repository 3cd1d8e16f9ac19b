"""The GPUs of a pod."""

from typing import Annotated

from pydantic import Field

from tidegate.api.block import LIST_SET, Block, ObjectName, Quantity, SetLabelValue
from tidegate.api.patterns import RESOURCE_PATTERN, TEXT_PATTERN


class DeviceRequest(Block):
    """GPUs by dynamic resource allocation instead of a counted resource."""

    device_class_name: ObjectName = Field("gpu.nvidia.com", description="DeviceClass.")
    selectors: tuple[
        Annotated[str, Field(pattern=TEXT_PATTERN, min_length=1, max_length=1024)], ...
    ] = Field((), max_length=8, description="CEL expressions that a device must satisfy.")


class Gpu(Block):
    """The GPUs of one pod."""

    count: int = Field(1, ge=0, le=16, description="GPUs of one pod; 0: CPU only.")
    resource: str = Field(
        "nvidia.com/gpu",
        pattern=RESOURCE_PATTERN,
        max_length=127,
        description="Resource to ask for: whole GPUs, a MIG profile such as "
        "nvidia.com/mig-1g.10gb, another vendor's.",
    )
    products: tuple[SetLabelValue, ...] = Field(
        (),
        max_length=16,
        description="Accepted values of the node label nvidia.com/gpu.product [any].",
        json_schema_extra=LIST_SET,
    )
    min_memory: Quantity | None = Field(
        None, description="Least memory of one GPU, by the node label nvidia.com/gpu.memory [any]."
    )
    dra: DeviceRequest | None = Field(
        None, description="Ask by a ResourceClaimTemplate instead of a counted resource."
    )
