"""How a pod asks for GPUs: counted resources or claims, node labels, tolerations.

Node labels are those of GPU feature discovery. Memory is labelled in MiB.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.api.spec import DeviceRequest, Gpu
from tidegate.api.units import quantity

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
MEMORY_LABEL: Final = "nvidia.com/gpu.memory"
NVIDIA_TAINT: Final = "nvidia.com/gpu"
CLAIM: Final = "gpu"
"""Name of the pod's resource claim, and of the one request in it."""
MIB: Final = 1 << 20


@dataclass(frozen=True)
class GpuRequest:
    """What asking for GPUs adds to a pod and to its Triton container."""

    limits: dict[str, str] = field(default_factory=dict)
    node_terms: tuple[dict[str, Any], ...] = ()
    tolerations: tuple[dict[str, Any], ...] = ()
    pod_claims: tuple[dict[str, Any], ...] = ()
    container_claims: tuple[dict[str, Any], ...] = ()


def gpu_request(gpu: Gpu, *, tolerate: bool, claim_template: str) -> GpuRequest:
    """What to add to the pod.

    Args:
        gpu: what the user asks for.
        tolerate: whether to tolerate the usual taint of GPU nodes.
        claim_template: name of the revision's ResourceClaimTemplate (see `claim_template_spec`).
    """
    if gpu.count == 0:
        return GpuRequest()
    tolerations = (
        ({"key": taint_key(gpu), "operator": "Exists", "effect": "NoSchedule"},) if tolerate else ()
    )
    if gpu.dra is not None:
        return GpuRequest(
            tolerations=tolerations,
            pod_claims=({"name": CLAIM, "resourceClaimTemplateName": claim_template},),
            container_claims=({"name": CLAIM},),
        )
    terms: list[dict[str, Any]] = []
    if gpu.products:
        terms.append({"key": PRODUCT_LABEL, "operator": "In", "values": list(gpu.products)})
    if gpu.min_memory is not None:
        # ``Gt`` is strict and takes whole numbers; a GPU with exactly as much is enough.
        least_mib = -(-int(quantity(gpu.min_memory)) // MIB)
        terms.append({"key": MEMORY_LABEL, "operator": "Gt", "values": [str(least_mib - 1)]})
    return GpuRequest(
        limits={gpu.resource: str(gpu.count)}, node_terms=tuple(terms), tolerations=tolerations
    )


def taint_key(gpu: Gpu) -> str:
    """Key of the taint that keeps other pods off nodes with such GPUs."""
    return NVIDIA_TAINT if gpu.resource.startswith("nvidia.com/") else gpu.resource


def claim_template_spec(dra: DeviceRequest, count: int) -> dict[str, Any]:
    """The ``spec`` of the ResourceClaimTemplate of a revision that asks for ``count`` devices.

    Products and memory are selectors here: admission refuses the fields that say them otherwise.
    """
    exactly: dict[str, Any] = {
        "deviceClassName": dra.device_class_name,
        "allocationMode": "ExactCount",
        "count": count,
    }
    if dra.selectors:
        exactly["selectors"] = [{"cel": {"expression": e}} for e in dra.selectors]
    return {"spec": {"devices": {"requests": [{"name": CLAIM, "exactly": exactly}]}}}
