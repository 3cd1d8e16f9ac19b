"""What pods may be: image, resources, labels, environment."""

from typing import Final

from tidegate.api import patterns, units
from tidegate.api.cel import (
    Rule,
    cel_string,
    memory_range,
    qualified_keys,
    quantity,
    unless_malformed,
)

_OWN_ENV: Final = r"^(CUDA_VISIBLE_DEVICES|NVIDIA_.*|TIDEGATE_.*)$"
_SECRET_ENV: Final = (
    r"^(AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)|AZURE_STORAGE_(KEY|SAS_TOKEN"
    r"|CONNECTION_STRING)|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|MLFLOW_TRACKING_(PASSWORD|TOKEN)"
    r"|.*(PASSWORD|SECRET_KEY))$"
)
_OWN_KEY: Final = (
    r"^(([a-z0-9.-]+[.])?tidegate[.]dev/.*|([a-z0-9.-]+[.])?(kubernetes|k8s)[.]io/.*"
    r"|kueue[.]x-k8s[.]io/.*|io[.]kubernetes[.].*|pod-template-hash)$"
)
_FREE_LABEL: Final = r"^app[.]kubernetes[.]io/(name|instance|version|component|part-of)$"
_FREE_ANNOTATION: Final = r"^cluster-autoscaler[.]kubernetes[.]io/.*$"
_MEMORY: Final = quantity("self.resources.memory")


def _own_keys(at: str, what: str, free: str) -> Rule:
    """Keys by which other controllers are steered are not the author's to set."""
    own = f"k.matches({cel_string(_OWN_KEY)}) && !k.matches({cel_string(free)})"
    return Rule(
        at,
        f"!self.exists(k, {own})",
        f"{{self.filter(k, {own})[0]}} is reserved; leave out {what} of tidegate.dev, "
        "kubernetes.io and k8s.io",
    )


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.runtime.image",
        f"!self.matches({cel_string(patterns.IMAGE_PATTERN)})"
        " || self.matches('@sha256:[0-9a-f]{64}$')"
        " || (self.matches(':[^/:]+$') && !self.endsWith(':latest'))",
        "{self} may be another image tomorrow; name a tag other than latest, or a digest",
    ),
    memory_range(
        "spec.runtime.resources.cpu",
        "1m",
        "4096",
        "no amount of CPU that a pod can get; write for example 500m or 2",
    ),
    memory_range(
        "spec.runtime.resources.cpuLimit",
        "1m",
        "4096",
        "no amount of CPU that a pod can get; write for example 500m or 2",
    ),
    memory_range(
        "spec.runtime.resources.memory",
        "64Mi",
        "64Ti",
        "outside 64Mi to 64Ti; memory counts in bytes, write for example 512Mi or 4Gi",
    ),
    memory_range(
        "spec.runtime.resources.ephemeralStorage",
        "1Mi",
        "64Ti",
        "outside 1Mi to 64Ti; disk counts in bytes, write for example 10Gi",
    ),
    memory_range(
        "spec.runtime.sharedMemory",
        "1Mi",
        "64Ti",
        "outside 1Mi to 64Ti; /dev/shm counts in bytes, write for example 64Mi",
    ),
    Rule(
        "spec.runtime.resources",
        "!has(self.cpuLimit) || "
        + unless_malformed(
            "self.cpuLimit",
            units.QUANTITY_PATTERN,
            unless_malformed(
                "self.cpu",
                units.QUANTITY_PATTERN,
                f"{quantity('self.cpuLimit')}.compareTo({quantity('self.cpu')}) >= 0",
            ),
        ),
        "cpuLimit {self.cpuLimit} is below the request cpu {self.cpu}; raise it, or lower cpu",
        ".cpuLimit",
    ),
    Rule(
        "spec.runtime",
        unless_malformed(
            "self.sharedMemory",
            units.QUANTITY_PATTERN,
            unless_malformed(
                "self.resources.memory",
                units.QUANTITY_PATTERN,
                # A memory that is too small by itself has its own message.
                f"{_MEMORY}.isLessThan(quantity('64Mi'))"
                f" || {quantity('self.sharedMemory')}.isLessThan({_MEMORY})",
            ),
        ),
        "sharedMemory {self.sharedMemory} leaves nothing of resources.memory "
        "{self.resources.memory}, to which it counts; lower it, or raise resources.memory",
        ".sharedMemory",
    ),
    qualified_keys("spec.runtime.nodeSelector", "label"),
    qualified_keys("spec.runtime.podLabels", "label"),
    qualified_keys("spec.runtime.podAnnotations", "annotation"),
    _own_keys("spec.runtime.podLabels", "labels", _FREE_LABEL),
    _own_keys("spec.runtime.podAnnotations", "annotations", _FREE_ANNOTATION),
    Rule(
        "spec.runtime.tolerations[]",
        "self.operator != 'Exists' || !has(self.value) || self.value == ''",
        "Exists takes no value, but {self.value} is given; leave it out, or use Equal",
        ".value",
    ),
    Rule(
        "spec.runtime.tolerations[]",
        "self.operator != 'Equal' || has(self.key)",
        "Equal needs a key; name one, or use Exists to bear every taint",
        ".operator",
    ),
    Rule(
        "spec.runtime.tolerations[]",
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "tolerationSeconds {self.tolerationSeconds} only goes with effect NoExecute; set it, or "
        "leave the seconds out",
        ".tolerationSeconds",
    ),
    Rule(
        "spec.runtime.priorityClassName",
        "!self.startsWith('system-')",
        "{self} is for the cluster's own parts; name a class of your platform",
    ),
    Rule(
        "spec.runtime.env[].name",
        f"!self.matches({cel_string(_OWN_ENV)})",
        "{self} is set by the GPU's device plugin or by Tidegate; ask for GPUs by runtime.gpu",
    ),
    Rule(
        "spec.runtime.env[].name",
        f"!self.matches({cel_string(_SECRET_ENV)})",
        "{self} would stand in the manifest for all to read; put it into a Secret and name that in "
        "model.source.secretName",
    ),
)
