"""Which GPUs a pod may ask for."""

from typing import Final

from tidegate.api import units
from tidegate.api.cel import Rule, quantity, unless_malformed

_MIG: Final = "self.resource.contains('/mig-')"

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.runtime.gpu",
        "self.count > 0 || !has(self.products) || size(self.products) == 0",
        "products asks for a GPU and count 0 for none; raise count, or leave out products",
        ".products",
    ),
    Rule(
        "spec.runtime.gpu",
        "self.count > 0 || !has(self.minMemory)",
        "minMemory asks for a GPU and count 0 for none; raise count, or leave out minMemory",
        ".minMemory",
    ),
    Rule(
        "spec.runtime.gpu",
        "self.count > 0 || !has(self.dra)",
        "dra asks for a GPU and count 0 for none; raise count, or leave out dra",
        ".dra",
    ),
    Rule(
        "spec.runtime.gpu",
        "self.count > 0 || self.resource == 'nvidia.com/gpu'",
        "resource {self.resource} asks for a GPU and count 0 for none; raise count, or leave out "
        "resource",
        ".resource",
    ),
    Rule(
        "spec.runtime.gpu",
        "!has(self.dra) || self.resource == 'nvidia.com/gpu'",
        "resource {self.resource} and dra are two ways to ask for the same GPU; leave out one",
        ".resource",
    ),
    Rule(
        "spec.runtime.gpu",
        "!has(self.dra) || !has(self.products) || size(self.products) == 0",
        "products does not reach dra; write a selector such as "
        "device.attributes['gpu.nvidia.com'].productName == '{self.products[0]}'",
        ".products",
    ),
    Rule(
        "spec.runtime.gpu",
        "!has(self.dra) || !has(self.minMemory)",
        "minMemory does not reach dra; write a selector such as device.capacity['gpu.nvidia.com']"
        ".memory.compareTo(quantity('{self.minMemory}')) >= 0",
        ".minMemory",
    ),
    Rule(
        "spec.runtime.gpu",
        f"!{_MIG} || self.count <= 1",
        "{self.count} MIG devices of {self.resource}: a process can use one only; ask for one of a "
        "larger profile, or for more replicas",
        ".count",
    ),
    Rule(
        "spec.runtime.gpu",
        f"!{_MIG} || !has(self.minMemory)",
        "minMemory is of the whole GPU, not of {self.resource}; pick the profile by its size",
        ".minMemory",
    ),
    Rule(
        "spec.runtime.gpu",
        "self.resource.startsWith('nvidia.com/') || !(has(self.minMemory) || (has(self.products)"
        " && size(self.products) > 0))",
        "products and minMemory read labels of NVIDIA nodes, which {self.resource} has not; use "
        "runtime.nodeSelector",
        ".resource",
    ),
    Rule(
        "spec.runtime.gpu.resource",
        "!self.matches('^([a-z0-9.-]+[.])?kubernetes[.]io/') && !self.startsWith('requests.')",
        "{self} is no GPU; write for example nvidia.com/gpu or nvidia.com/mig-1g.10gb",
    ),
    Rule(
        "spec.runtime.gpu.minMemory",
        unless_malformed(
            "self",
            units.QUANTITY_PATTERN,
            f"{quantity('self')}.compareTo(quantity('1Mi')) >= 0"
            f" && {quantity('self')}.compareTo(quantity('64Ti')) <= 0",
        ),
        "{self} is no memory of a GPU; it counts in bytes, write for example 40Gi",
    ),
)
