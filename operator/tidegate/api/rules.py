"""What a ModelDeployment may not say, and what its author reads then.

One readable table. `RULES` holds what a schema cannot say: fields that contradict each other,
values that cannot work. With the patterns of the types (`tidegate.api.formats`) they become
``x-kubernetes-validations`` of the CRD (`tidegate.api.crd`), evaluated by the API server, so
nothing malformed is ever stored.

A message names the value and the mend; the API server puts the field before it. ``{...}`` in a
message is CEL. What CEL cannot see (files, other objects, the text of an override) becomes a
condition in status instead.
"""

from typing import Final

from tidegate.api import names, spec, units
from tidegate.api.cel import (
    Rule,
    cel_string,
    memory_range,
    ms,
    percent,
    percent_range,
    positive_duration,
    quantity,
    unless_malformed,
)

SCHEMES: Final[dict[str, tuple[str, str]]] = {
    "s3": (r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)+/?$", "s3://bucket/path"),
    "gs": (r"^gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/]+)+/?$", "gs://bucket/path"),
    "as": (
        r"^as://[a-z0-9]{3,24}/[a-z0-9$][a-z0-9-]{1,62}(/[^/]+)+/?$",
        "as://account/container/path",
    ),
    "https": (
        r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[^/?]+)+/?([?][^?]*)?$",
        "https://host/path, with the host in lower case",
    ),
    "hf": (
        r"^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9._-]+)?(/[^/@]+)*/?$",
        "hf://owner/name, hf://owner/name@revision or hf://owner/name@revision/path",
    ),
    "pvc": (r"^pvc://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[^/]+)*/?$", "pvc://claim/path"),
    "oci": (
        r"^oci://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        "oci://registry/repository:tag or oci://registry/repository@sha256:<64 hex digits>",
    ),
    "image": (r"^image:///?[^/]+(/[^/]+)*/?$", "image:///path/in/the/runtime/image"),
    "mlflow": (
        r"^mlflow://[^/@]+/([0-9]{1,9}|@?[A-Za-z][A-Za-z0-9_-]*)$",
        "mlflow://model/version or mlflow://model/@alias",
    ),
}
"""Scheme -> what its URI looks like (RE2), and the same for people."""

SCHEMES_WITH_ENDPOINT: Final = ("s3", "hf", "gs", "as", "mlflow")

OWN_CONDITIONS: Final = (
    "Available",
    "Ready",
    "Reconciling",
    "Stalled",
    "SLOMet",
    "SLOInfeasible",
    "WaitingForGPU",
    "MetricsAvailable",
    "RuntimeOutdated",
    "SourceFollowed",
    "AnswersRight",
    "Drifted",
)

CREDENTIAL_QUERY: Final = (
    r"[?&](?i:x-amz-(signature|credential|security-token)|x-goog-(signature|credential)|sig"
    r"|signature|token|access_token|auth|apikey|api_key|key|password|passwd|secret)="
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


def _keys(at: str, what: str) -> Rule:
    """The keys of a map of labels or annotations must be qualified names."""
    pattern = cel_string(spec.QUALIFIED_NAME_PATTERN)
    bad = f"self.filter(k, !k.matches({pattern}) || size(k) > 253)"
    return Rule(
        at,
        f"self.all(k, k.matches({pattern}) && size(k) <= 253)",
        f"{{strings.quote({bad}[0])}} is no {what} key; "
        "write name or domain/name with at most 63 characters of name",
    )


def _own_keys(at: str, what: str, free: str) -> Rule:
    """Keys by which other controllers are steered are not the author's to set."""
    own = f"k.matches({cel_string(_OWN_KEY)}) && !k.matches({cel_string(free)})"
    return Rule(
        at,
        f"!self.exists(k, {own})",
        f"{{self.filter(k, {own})[0]}} is reserved; leave out {what} of tidegate.dev, "
        "kubernetes.io and k8s.io",
    )


_STEP_WEIGHTS: Final = f"self.map(s, {percent('s.weight')})"
_STEPS_WELL_FORMED: Final = f"self.all(s, s.weight.matches({cel_string(units.PERCENT_PATTERN)}))"
_MEMORY: Final = quantity("self.resources.memory")
_MIG: Final = "self.resource.contains('/mig-')"
_CONNECTION_HEADERS: Final = (
    "['host', 'content-length', 'transfer-encoding', 'connection', 'te', 'upgrade']"
)
_HEADER: Final = cel_string(spec.HEADER_NAME_PATTERN)
_SLO_MODE: Final = "(has(self.scaling.mode) ? self.scaling.mode == 'SLO' : has(self.slo.latency))"
_REF_SAME_GATEWAY: Final = (
    "a.name == b.name && has(a.__namespace__) == has(b.__namespace__)"
    " && (!has(a.__namespace__) || a.__namespace__ == b.__namespace__)"
)
_REF_SAME_LISTENER: Final = (
    "(!has(a.sectionName) || !has(b.sectionName) || a.sectionName == b.sectionName)"
)

RULES: Final[tuple[Rule, ...]] = (
    # The resource itself.
    Rule(
        "",
        f"self.metadata.name.matches('^[a-z][a-z0-9-]{{0,{names.MAX_NAME_LENGTH - 1}}}$')",
        "{strings.quote(self.metadata.name)} cannot name the objects made from it; use at most "
        f"{names.MAX_NAME_LENGTH} lower-case letters, digits and '-', starting with a letter",
        ".metadata.name",
    ),
    Rule(
        "",
        "(has(self.spec.model.name) ? self.spec.model.name : self.metadata.name) =="
        " (has(oldSelf.spec.model.name) ? oldSelf.spec.model.name : self.metadata.name)",
        "clients ask for this model as "
        "{has(oldSelf.spec.model.name) ? oldSelf.spec.model.name : self.metadata.name} and the name"
        " cannot change; make another ModelDeployment for the new name",
        ".spec.model.name",
    ),
    # Where the model comes from.
    Rule(
        "spec.model.source.uri",
        f"self.matches('^({'|'.join(SCHEMES)})://')",
        "{strings.quote(self.split(':')[0])} is no scheme that Tidegate fetches from; begin with "
        + ", ".join(f"{s}://" for s in SCHEMES),
    ),
    Rule(
        "spec.model.source.uri",
        "!self.matches('^[a-z0-9]+://[^/]*@') && !self.matches("
        + cel_string(CREDENTIAL_QUERY)
        + ")",
        "the address holds credentials; put them into a Secret and name it in secretName",
    ),
    Rule(
        "spec.model.source.uri",
        "self.matches('^[A-Za-z0-9._~%+=@:,()/?&$-]*$')",
        "{strings.quote(self)} holds a space or a character that an address cannot; "
        "percent-encode it, or rename the file",
    ),
    Rule(
        "spec.model.source.uri",
        "!self.matches('/[.][.]?(/|$)') && !self.matches('%(2[eEfF]|5[cC]|00)')",
        "{strings.quote(self)} steps out of its folder; leave out '.', '..', %2e, %2f and %5c",
    ),
    *(
        Rule(
            "spec.model.source.uri",
            f"!self.startsWith('{scheme}://') || self.matches({cel_string(pattern)})"
            + (" || self.matches('^[a-z0-9]+://[^/]*@')" if scheme in ("https", "oci") else ""),
            f"{{strings.quote(self)}} is no {scheme} address; write {example}",
        )
        for scheme, (pattern, example) in SCHEMES.items()
    ),
    Rule(
        "spec.model.source",
        "!has(self.secretName) || !self.uri.matches('^(pvc|image)://')",
        "secretName {self.secretName} is of no use to {self.uri.split(':')[0]}, which takes no "
        "credentials; leave it out",
        ".secretName",
    ),
    Rule(
        "spec.model.source",
        f"!has(self.endpoint) || self.uri.matches('^({'|'.join(SCHEMES_WITH_ENDPOINT)})://')",
        "an endpoint is of no use to {self.uri.split(':')[0]}; leave it out, or use "
        + ", ".join(SCHEMES_WITH_ENDPOINT),
        ".endpoint",
    ),
    Rule(
        "spec.model.source",
        "!has(self.region) || self.uri.startsWith('s3://')",
        "region {self.region} is of no use to {self.uri.split(':')[0]}; leave it out, or use s3",
        ".region",
    ),
    Rule(
        "spec.model.source",
        "self.onChange != 'NewRevision' || !has(self.sha256)",
        "NewRevision contradicts sha256, which allows one content only; leave out one of the two",
        ".onChange",
    ),
    Rule(
        "spec.model.source",
        "self.onChange != 'NewRevision' || !self.uri.contains('@sha256:')",
        "NewRevision contradicts an address by digest, behind which nothing changes; name a tag, "
        "or leave out onChange",
        ".onChange",
    ),
    # How Triton runs it.
    Rule(
        "spec.model.config",
        "!has(self.dynamicBatching) || !has(self.maxBatchSize) || self.maxBatchSize > 0",
        "maxBatchSize 0 turns batching off; raise it, or leave out dynamicBatching",
        ".maxBatchSize",
    ),
    Rule(
        "spec.model.config",
        "!has(self.dynamicBatching) || !has(self.dynamicBatching.preferredSizes)"
        " || !has(self.maxBatchSize)"
        " || self.dynamicBatching.preferredSizes.all(n, n <= self.maxBatchSize)",
        "preferredSizes goes up to {self.dynamicBatching.preferredSizes.max()}, above maxBatchSize "
        "{self.maxBatchSize}; lower it, or raise maxBatchSize",
        ".dynamicBatching",
    ),
    Rule(
        "spec.model.config.dynamicBatching.preferredSizes",
        "self.isSorted() && self.all(a, self.exists_one(b, a == b))",
        "{self} is not ascending; sort the sizes and name each once",
    ),
    *(
        positive_duration(
            f"spec.model.config.dynamicBatching{at}",
            "queueTimeout",
            "write for example 500ms, or leave it out",
        )
        for at in ("", ".priorities[]")
    ),
    Rule(
        "spec.model.config.dynamicBatching",
        "!has(self.defaultPriority)"
        " || has(self.priorities) && self.defaultPriority <= self.priorities.size()",
        "defaultPriority is {self.defaultPriority}, and there are "
        "{has(self.priorities) ? self.priorities.size() : 0} priorities; name one of them",
        ".defaultPriority",
    ),
    Rule(
        "spec.traffic.overload",
        "!has(self.reserved) || has(self.maxPending)",
        "reserved adds to maxPending, which is not set; set it, or leave out reserved",
        ".reserved",
    ),
    Rule(
        "spec.model.config",
        "!has(self.warmup) || !has(self.maxBatchSize)"
        " || self.warmup.batchSize <= (self.maxBatchSize == 0 ? 1 : self.maxBatchSize)",
        "warm-up with batches of {self.warmup.batchSize} is above maxBatchSize "
        "{self.maxBatchSize}; lower it",
        ".warmup.batchSize",
    ),
    Rule(
        "spec.model.config.override",
        "self.matches('[^ \\t\\r\\n]')",
        "an empty override says nothing; write a ModelConfig as JSON or pbtxt, or leave it out",
    ),
    # The pods.
    Rule(
        "spec.runtime.image",
        f"!self.matches({cel_string(spec.IMAGE_PATTERN)})"
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
    _keys("spec.runtime.nodeSelector", "label"),
    _keys("spec.runtime.podLabels", "label"),
    _keys("spec.runtime.podAnnotations", "annotation"),
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
    # What clients are promised.
    Rule(
        "spec.slo.latency.target",
        unless_malformed("self", units.DURATION_PATTERN, f"{ms('self')} >= 1"),
        "{self} is below 1ms, which cannot be measured; write 1ms or more",
    ),
    Rule(
        "spec.slo.latency.target",
        unless_malformed("self", units.DURATION_PATTERN, f"{ms('self')} <= 3600000"),
        "{self} is above 1h; write 1h or less",
    ),
    Rule(
        "spec.slo.latency.target",
        unless_malformed(
            "self",
            units.DURATION_PATTERN,
            f"[1, 10, 100, 1000, 10000, 100000].exists(p, {ms('self')} % p == 0"
            f" && {ms('self')} / p < 100)",
        ),
        "{self} has more than two significant digits in milliseconds; round it, for example to "
        "100ms, 250ms or 1500ms",
    ),
    percent_range(
        "spec.slo.maxErrorRate",
        "0.0",
        "100.0",
        "can be neither kept nor broken; write a share above 0% and below 100%, such as 0.1%",
    ),
    # The number of replicas.
    Rule(
        "spec.scaling.minReplicas",
        "self >= 1",
        "{self}: scaling to zero is not there yet; write 1 or more",
    ),
    Rule(
        "spec.scaling",
        "self.minReplicas <= self.maxReplicas",
        "minReplicas {self.minReplicas} is above maxReplicas {self.maxReplicas}; lower it, or "
        "raise maxReplicas",
        ".minReplicas",
    ),
    Rule(
        "spec",
        "!has(self.scaling.mode) || self.scaling.mode != 'SLO' || has(self.slo.latency)",
        "SLO scales by a latency objective and there is none; set slo.latency, or mode Fixed",
        ".scaling.mode",
    ),
    Rule(
        "spec",
        f"self.runtime.sidecar != 'Off' || !{_SLO_MODE}",
        "Off leaves nothing to measure by, and scaling by the SLO needs it; turn the sidecar on, "
        "or set scaling.mode to Fixed or External",
        ".runtime.sidecar",
    ),
    Rule(
        # Reading /scale fails where replicas is absent, so an autoscaler would never begin.
        "spec",
        "!has(self.scaling.mode) || self.scaling.mode != 'External' || has(self.replicas)",
        "External lets another controller write replicas through /scale, which needs a value to "
        "begin with; set replicas",
        ".replicas",
    ),
    # What needs the sidecar or the GPU.
    Rule(
        "spec",
        "self.runtime.sidecar != 'Off' || self.rollout.mirror.mode != 'Required'",
        "Required copies of requests are counted by the sidecar, which is Off; turn it on, or set "
        "mirror.mode to Off",
        ".rollout.mirror.mode",
    ),
    Rule(
        "spec",
        "self.runtime.sidecar != 'Off' || self.rollout.onInconclusive.action != 'Promote'",
        "Promote without a sidecar promotes unseen; turn the sidecar on, or use Hold and promote "
        "by hand",
        ".rollout.onInconclusive.action",
    ),
    Rule(
        "spec",
        "self.runtime.sidecar != 'Off' || !has(self.traffic) || !has(self.traffic.overload)",
        "the sidecar refuses overload and is Off; turn it on, or leave out traffic.overload",
        ".traffic.overload",
    ),
    Rule(
        "spec",
        "self.runtime.gpu.count > 0 || !has(self.model.config)"
        " || !has(self.model.config.instances) || self.model.config.instances.kind != 'GPU'",
        "kind GPU needs a GPU and runtime.gpu.count is 0; raise it, or use Auto or CPU",
        ".model.config.instances.kind",
    ),
    Rule(
        "spec",
        "self.runtime.gpu.count > 0 || !has(self.model.config)"
        " || !has(self.model.config.optimization)"
        " || !has(self.model.config.optimization.accelerators)"
        " || self.model.config.optimization.accelerators.all(a, a == 'OpenVINO')",
        "TensorRT and CUDAGraphs need a GPU and runtime.gpu.count is 0; raise it, or leave them "
        "out",
        ".model.config.optimization.accelerators",
    ),
    Rule(
        "spec",
        "!has(self.traffic) || !has(self.traffic.timeout) || !has(self.slo.latency) || "
        + unless_malformed(
            "self.traffic.timeout",
            units.DURATION_PATTERN,
            unless_malformed(
                "self.slo.latency.target",
                units.DURATION_PATTERN,
                f"{ms('self.traffic.timeout')} >= {ms('self.slo.latency.target')}",
            ),
        ),
        "timeout {self.traffic.timeout} cuts requests off before slo.latency.target "
        "{self.slo.latency.target}; raise it",
        ".traffic.timeout",
    ),
    # How a new revision earns traffic.
    percent_range(
        "spec.rollout.steps[].weight",
        "0.0",
        "100.0",
        "is no step; write a share above 0% and below 100%, promotion follows the last by itself",
    ),
    Rule(
        "spec.rollout.steps",
        f"!{_STEPS_WELL_FORMED} || ({_STEP_WEIGHTS}.isSorted()"
        f" && {_STEP_WEIGHTS}.all(a, {_STEP_WEIGHTS}.exists_one(b, a == b)))",
        "{self.map(s, s.weight)} is not ascending; sort the weights and name each once",
    ),
    percent_range(
        "spec.rollout.falseRollbackRate",
        "0.0",
        "20.0",
        "is no chance to plan with; write more than 0% and less than 20%, such as 0.1%",
    ),
    percent_range(
        "spec.rollout.confidence",
        "50.0",
        "100.0",
        "is no certainty to be had; write more than 50% and less than 100%, such as 95%",
    ),
    Rule(
        "spec.rollout.mirror",
        "self.mode == 'Off' || "
        + unless_malformed(
            "self.percent", units.PERCENT_PATTERN, f"{percent('self.percent')} > 0.0"
        ),
        "{self.percent} copies nothing; write more than 0%, or set mode to Off",
        ".percent",
    ),
    Rule(
        "spec.rollout",
        "self.strategy != 'Recreate' || self.mirror.mode != 'Required'",
        "Required copies come from the old revision, which Recreate stops first; use Canary or "
        "BlueGreen, or set mirror.mode to Off",
        ".mirror.mode",
    ),
    Rule(
        "spec.rollout",
        "self.strategy != 'BlueGreen' || self.surge != 'Never'",
        "Never leaves no room for the second set of pods that BlueGreen needs; use Canary or "
        "Recreate, or surge Auto",
        ".surge",
    ),
    Rule(
        "spec.rollout",
        "self.strategy != 'Recreate' || self.surge != 'Always'",
        "Always asks for extra pods and Recreate for none; use Canary or BlueGreen, or leave out "
        "surge",
        ".surge",
    ),
    positive_duration(
        "spec.rollout", "progressDeadline", "give a new revision time to load, for example 30m"
    ),
    positive_duration("spec.rollout.mirror", "deadline", "write for example 10m"),
    positive_duration("spec.rollout.onInconclusive", "deadline", "write for example 24h"),
    Rule(
        "spec.rollout.gates[]",
        f"!(self in [{', '.join(repr(c) for c in OWN_CONDITIONS)}])",
        "{self} is set by Tidegate itself; name a condition that another party sets",
    ),
    Rule(
        "spec.rollout.pin.headers",
        f"self.all(k, k.matches({cel_string(spec.HEADER_NAME_PATTERN)}) && size(k) <= 256)",
        "{strings.quote(self.filter(k, !k.matches("
        + _HEADER
        + "))[0])} is no header name; write for example "
        "x-canary",
    ),
    Rule(
        "spec.rollout.pin.headers",
        "self.all(a, self.exists_one(b, a.lowerAscii() == b.lowerAscii()))",
        "{self.filter(a, !self.exists_one(b, a.lowerAscii() == b.lowerAscii()))[0].lowerAscii()} "
        "is named twice, since case does not count; name it once",
    ),
    Rule(
        "spec.rollout.pin.headers",
        f"!self.exists(k, k.lowerAscii() in {_CONNECTION_HEADERS})",
        f"{{self.filter(k, k.lowerAscii() in {_CONNECTION_HEADERS})[0]}} belongs to the "
        "connection; use a header of your own, such as x-canary",
    ),
    # Golden requests and traffic.
    Rule(
        "spec.goldenRequests.every",
        unless_malformed("self", units.DURATION_PATTERN, f"{ms('self')} >= 10000"),
        "{self} is too often; write 10s or more, or leave it out",
    ),
    Rule(
        "spec.goldenRequests.loadTest.duration",
        unless_malformed(
            "self", units.DURATION_PATTERN, f"{ms('self')} >= 1000 && {ms('self')} <= 120000"
        ),
        "{self} is no short load; write 1s to 2m",
    ),
    positive_duration("spec.traffic", "timeout", "write for example 30s, or leave it out"),
    Rule(
        "spec.traffic.gateway",
        "!has(self.hostnames) || !has(self.grpcHostnames)"
        " || !self.hostnames.exists(h, h in self.grpcHostnames)",
        "{self.hostnames.filter(h, h in self.grpcHostnames)} stands in hostnames too, "
        "which serve gRPC already; leave it out here",
        ".grpcHostnames",
    ),
    Rule(
        "spec.traffic.gateway.parentRefs",
        f"self.all(a, self.exists_one(b, {_REF_SAME_GATEWAY} && {_REF_SAME_LISTENER}))",
        "{self.map(r, r.name)} names a gateway twice; name it once, or each time with "
        "another sectionName",
    ),
    *(
        Rule(
            f"spec.traffic.gateway.{field}[]",
            "!self.matches('^[0-9.]+$')",
            "{self} is an IP address; write a hostname such as models.example.com",
        )
        for field in ("hostnames", "grpcHostnames")
    ),
    Rule(
        "spec.traffic.allowFrom[]",
        "(has(self.namespaceLabels) && size(self.namespaceLabels) > 0)"
        " || (has(self.podLabels) && size(self.podLabels) > 0)",
        "an empty peer says nothing; name namespaceLabels, podLabels or both",
    ),
    _keys("spec.traffic.allowFrom[].namespaceLabels", "label"),
    _keys("spec.traffic.allowFrom[].podLabels", "label"),
)
