"""What a user may ask for: the ``spec`` of a ModelDeployment.

These types are the one source: the CRD's schema, its defaults and the field reference are made
from them (`tidegate.api.crd`), and the operator parses specs with them. Field names are
snake_case here and camelCase in a manifest.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tidegate.api.units import (
    DURATION_PATTERN,
    PERCENT_PATTERN,
    QUANTILE_PATTERN,
    QUANTITY_PATTERN,
)

DNS_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
DNS_LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_VALUE_PATTERN: Final = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
SET_LABEL_VALUE_PATTERN: Final = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
QUALIFIED_NAME_PATTERN: Final = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
"""Of label keys, annotation keys and taint keys."""
RESOURCE_PATTERN: Final = (
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,52}[A-Za-z0-9])?$"
)
"""Of extended resources; 54 characters, since a quota's name puts ``requests.`` before it."""
IMAGE_PATTERN: Final = (
    r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?/)?"
    r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
)
ENDPOINT_PATTERN: Final = r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"
REGION_PATTERN: Final = r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$"
MODEL_NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
BACKEND_PATTERN: Final = r"^[a-z][a-z0-9_]*$"
ENV_NAME_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
TEXT_PATTERN: Final = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
"""Without control characters but tab and line ends: a container's environment cannot hold a NUL,
and YAML none of the others."""
HEADER_NAME_PATTERN: Final = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
HEADER_VALUE_PATTERN: Final = r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"
HOSTNAME_PATTERN: Final = (
    r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
)
CONDITION_PATTERN: Final = r"^[A-Z][A-Za-z0-9]*$"
HEADROOM_PATTERN: Final = r"^(Auto|[0-9]{1,3})$"
SHA256_PATTERN: Final = r"^[0-9a-f]{64}$"

LIST_SET: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}
"""Marks a list whose items are unique and have no order of their own."""


def list_map(*keys: str) -> dict[str, Any]:
    """Marks a list whose items are told apart by these fields of theirs."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def _text_of_int(value: object) -> object:
    """A manifest may say ``cpu: 2``; inside, such a value is text like its siblings."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


INT_OR_STRING: Final[dict[str, Any]] = {"x-kubernetes-int-or-string": True}

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=32)]
"""For example ``100ms``, ``30s``, ``5m``, ``1h30m``."""
Percent = Annotated[str, Field(pattern=PERCENT_PATTERN, max_length=8)]
"""For example ``1%`` or ``0.1%``."""
Quantity = Annotated[
    Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)],
    BeforeValidator(_text_of_int),
    Field(json_schema_extra=INT_OR_STRING),
]
"""For example ``500m``, ``2`` or ``4Gi``."""
ObjectName = Annotated[str, Field(pattern=DNS_PATTERN, min_length=1, max_length=253)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=63)]
SetLabelValue = Annotated[str, Field(pattern=SET_LABEL_VALUE_PATTERN, min_length=1, max_length=63)]
"""A label value that is not empty."""
MAX_INT32: Final = 2**31 - 1


class Block(BaseModel):
    """Base of every block: camelCase in manifests, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class OnChange(StrEnum):
    """What to do when the bytes behind an unchanged URI change."""

    REFUSE = "Refuse"
    NEW_REVISION = "NewRevision"


class Source(Block):
    """Where the model's files come from."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        description="Where the model's files lie: s3://bucket/path, https://host/path, "
        "hf://owner/name[@revision], pvc://claim/path, oci://registry/repository:tag, "
        "image:///path (inside the runtime image), gs://bucket/path, as://account/container/path, "
        "mlflow://model/version.",
    )
    sha256: str | None = Field(
        None,
        pattern=SHA256_PATTERN,
        # Longer than it can be, so that the pattern's message answers sha256:<digits>.
        max_length=128,
        description="Digest of the model's file tree. Absent: the first fetch pins it.",
    )
    secret_name: ObjectName | None = Field(
        None, description="Secret of this namespace with the credentials; only pods mount it."
    )
    endpoint: str | None = Field(
        None,
        max_length=512,
        pattern=ENDPOINT_PATTERN,
        description="Address of the service behind s3, gs, as, hf or mlflow where it is not the "
        "public one, for example https://minio.example.com [the profile's].",
    )
    region: str | None = Field(
        None, pattern=REGION_PATTERN, max_length=64, description="Region of an s3 store."
    )
    on_change: OnChange = Field(
        OnChange.REFUSE,
        description="Refuse: pods never load other bytes than the first fetch. NewRevision: "
        "changed bytes become a new revision that goes through the rollout.",
    )


class TimeoutAction(StrEnum):
    """What happens to a request that waited too long."""

    REJECT = "Reject"
    DELAY = "Delay"


class PriorityQueue(Block):
    """The queue of one priority."""

    max_queue_size: int | None = Field(
        None, ge=0, le=1_000_000, description="As dynamicBatching.maxQueueSize."
    )
    queue_timeout: Duration | None = Field(None, description="As dynamicBatching.queueTimeout.")
    timeout_action: TimeoutAction = Field(
        TimeoutAction.REJECT, description="As dynamicBatching.timeoutAction."
    )


class DynamicBatching(Block):
    """Triton's dynamic batcher."""

    preferred_sizes: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        (), max_length=16, description="Batch sizes to prefer, ascending."
    )
    max_queue_delay: Duration | None = Field(
        None, description="How long a request may wait for a fuller batch."
    )
    max_queue_size: int | None = Field(
        None, ge=0, le=1_000_000, description="Requests that may wait; more are refused. 0: no end."
    )
    queue_timeout: Duration | None = Field(
        None, description="How long a request may wait in the queue [for ever]."
    )
    timeout_action: TimeoutAction = Field(
        TimeoutAction.REJECT,
        description="Then. Reject: refuse it. Delay: serve it after all others.",
    )
    priorities: tuple[PriorityQueue, ...] = Field(
        (),
        max_length=8,
        description="Queues by priority, most urgent first, instead of the one above. A request "
        "says which: parameter priority, from 1.",
    )
    default_priority: int | None = Field(
        None, ge=1, le=8, description="Of requests that do not say [the last]."
    )


class InstanceKind(StrEnum):
    """Where an instance runs."""

    AUTO = "Auto"
    GPU = "GPU"
    CPU = "CPU"


class Instances(Block):
    """Copies of the model inside one Triton."""

    count: int = Field(1, ge=1, le=64, description="Copies for each device.")
    kind: InstanceKind = Field(InstanceKind.AUTO, description="Auto follows gpu.count.")


class GraphLevel(StrEnum):
    """Graph optimisation of the backend."""

    BASIC = "Basic"
    EXTENDED = "Extended"
    ALL = "All"


class Accelerator(StrEnum):
    """An execution accelerator of the ONNX Runtime or OpenVINO backend."""

    TENSORRT = "TensorRT"
    OPENVINO = "OpenVINO"
    CUDA_GRAPHS = "CUDAGraphs"


class Optimization(Block):
    """Triton's optimisation settings."""

    graph_level: GraphLevel | None = Field(None, description="Graph optimisation of the backend.")
    accelerators: tuple[Accelerator, ...] = Field(
        (),
        max_length=4,
        description="Execution accelerators, where the backend has them.",
        json_schema_extra=LIST_SET,
    )


class Warmup(Block):
    """Requests that Triton runs before the model counts as ready."""

    requests: int = Field(1, ge=1, le=1000, description="How many.")
    batch_size: int = Field(1, ge=1, le=65536, description="Items in each.")


class ModelTuning(Block):
    """Typed Triton tuning; ``override`` is merged last."""

    max_batch_size: int | None = Field(
        None,
        ge=0,
        le=65536,
        description="Largest batch; 0: the model does not batch [the model's].",
    )
    dynamic_batching: DynamicBatching | None = Field(
        None, description="Dynamic batching [the model's own]."
    )
    instances: Instances | None = Field(None, description="Copies of the model [the model's own].")
    optimization: Optimization | None = Field(None, description="Optimisation [the model's own].")
    response_cache: bool | None = Field(
        None, description="Answer equal requests from Triton's local response cache [no]."
    )
    warmup: Warmup | None = Field(None, description="Requests before ready [none].")
    override: str | None = Field(
        None,
        pattern=TEXT_PATTERN,
        max_length=65536,
        description="A Triton ModelConfig as JSON or pbtxt, merged last over everything else. The "
        "API server cannot read it: a malformed one shows as a condition.",
    )


class Model(Block):
    """Which model, from where, and how Triton runs it."""

    name: Annotated[str, Field(pattern=MODEL_NAME_PATTERN, min_length=1, max_length=63)] | None = (
        Field(
            None,
            description="Name that clients ask for [metadata.name]; a repository must hold it. "
            "Cannot be changed later.",
        )
    )
    source: Source = Field(description="Where its files come from.")
    backend: Annotated[str, Field(pattern=BACKEND_PATTERN, min_length=1, max_length=63)] | None = (
        Field(None, description="Triton backend [found out from the files].")
    )
    triton_version: int | None = Field(
        None,
        ge=1,
        le=MAX_INT32,
        description="Serve this version folder only [Triton's own policy: the latest].",
    )
    config: ModelTuning = Field(default_factory=ModelTuning, description="Triton tuning.")


class Resources(Block):
    """CPU and memory of the Triton container; requests equal limits for memory."""

    cpu: Quantity = Field("1", description="CPU request.")
    memory: Quantity = Field("2Gi", description="Memory request and limit.")
    cpu_limit: Quantity | None = Field(None, description="CPU limit [none].")
    ephemeral_storage: Quantity | None = Field(None, description="Disk request and limit [none].")


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


class TolerationOperator(StrEnum):
    """How a toleration's key and value are compared."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Block):
    """A toleration of the pods."""

    key: Annotated[str, Field(pattern=QUALIFIED_NAME_PATTERN, max_length=253)] | None = Field(
        None, description="Taint key [with Exists: every key]."
    )
    operator: TolerationOperator = Field(TolerationOperator.EQUAL, description="Comparison.")
    value: LabelValue | None = Field(None, description="Taint value, with Equal.")
    effect: TaintEffect | None = Field(None, description="Taint effect [every effect].")
    toleration_seconds: int | None = Field(
        None, ge=0, le=MAX_INT32, description="With NoExecute: how long [for ever]."
    )


class Unsatisfiable(StrEnum):
    """What happens to a pod that would break the spread."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class TopologySpread(Block):
    """Spreads a revision's pods over a topology."""

    topology_key: Annotated[str, Field(pattern=QUALIFIED_NAME_PATTERN)] = Field(
        min_length=1, max_length=253, description="Node label, such as kubernetes.io/hostname."
    )
    max_skew: int = Field(1, ge=1, le=100, description="Largest difference between two places.")
    when_unsatisfiable: Unsatisfiable = Field(
        Unsatisfiable.SCHEDULE_ANYWAY, description="What happens where it cannot be kept."
    )


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


class Latency(Block):
    """A latency objective: the quantile is at most the target."""

    quantile: Annotated[str, Field(pattern=QUANTILE_PATTERN, max_length=6)] = Field(
        "0.99", description="Share of requests that must be as fast, at least 0.5."
    )
    target: Duration = Field(
        description="At least 1ms and at most two significant digits: it becomes a bucket edge."
    )


class Slo(Block):
    """What clients are promised."""

    latency: Latency | None = Field(None, description="Latency objective [none].")
    max_error_rate: Percent = Field("1%", description="Share of requests that may fail.")


class ScalingMode(StrEnum):
    """Who decides the number of replicas."""

    SLO = "SLO"
    FIXED = "Fixed"
    EXTERNAL = "External"


class Scaling(Block):
    """How the number of replicas follows the load."""

    mode: ScalingMode | None = Field(
        None, description="SLO where slo.latency is given, otherwise Fixed."
    )
    min_replicas: int = Field(
        1, ge=0, le=1000, description="Least replicas in SLO mode; 0 is refused for now."
    )
    max_replicas: int = Field(10, ge=1, le=1000, description="Most replicas in SLO mode.")
    headroom: Annotated[
        Annotated[str, Field(pattern=HEADROOM_PATTERN, max_length=4)], BeforeValidator(_text_of_int)
    ] = Field(
        "Auto",
        description="Spare replicas: Auto, or a number.",
        json_schema_extra=INT_OR_STRING,
    )


class Strategy(StrEnum):
    """How a new revision takes over."""

    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    RECREATE = "Recreate"


class Step(Block):
    """One step of a canary."""

    weight: Percent = Field(description="Share of the traffic.")
    hold: Duration = Field("30s", description="Least time at this weight.")


class ErrorsAgainstStable(StrEnum):
    """What to do when a canary is worse than stable."""

    ROLL_BACK = "RollBack"
    HOLD = "Hold"
    IGNORE = "Ignore"


class AgainstStable(Block):
    """Comparison with the stable revision."""

    errors: ErrorsAgainstStable = Field(
        ErrorsAgainstStable.ROLL_BACK, description="If it fails more often than stable."
    )
    latency: ErrorsAgainstStable = Field(
        ErrorsAgainstStable.HOLD, description="If it is slower than stable, within the SLO."
    )
    margin: Percent = Field(
        "50%", description="By how much of the SLO's budget it may be worse than stable."
    )


class MirrorMode(StrEnum):
    """Whether live requests are copied to a new revision before it serves."""

    AUTO = "Auto"
    OFF = "Off"
    REQUIRED = "Required"


class Mirror(Block):
    """Copies of live requests, answers discarded."""

    mode: MirrorMode = Field(
        MirrorMode.AUTO,
        description='Auto: where the gateway can. Required: no rollout without. "Off" in quotes, '
        "or YAML reads false.",
    )
    percent: Percent = Field("10%", description="Share of the requests that is copied.")
    min_requests: int = Field(
        200, ge=1, le=1_000_000, description="Copies to see before the first step."
    )
    deadline: Duration = Field("10m", description="Longest wait for them.")


class Surge(StrEnum):
    """Whether extra pods are asked for during a rollout."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class OnInconclusive(StrEnum):
    """What to do when the evidence does not decide before the deadline."""

    HOLD = "Hold"
    PROMOTE = "Promote"
    ROLL_BACK = "RollBack"


class Inconclusive(Block):
    """What to do when the evidence does not decide."""

    action: OnInconclusive = Field(OnInconclusive.HOLD, description="What to do.")
    deadline: Duration = Field("24h", description="After how long in one step.")


class Pin(Block):
    """Requests with these headers always reach the canary."""

    headers: dict[
        Annotated[str, Field(pattern=HEADER_NAME_PATTERN, max_length=256)],
        Annotated[str, Field(pattern=HEADER_VALUE_PATTERN, min_length=1, max_length=4096)],
    ] = Field(default_factory=dict, max_length=8, description="All must match, exactly.")


DEFAULT_STEPS: tuple[Step, ...] = (
    Step(weight="1%"),
    Step(weight="5%"),
    Step(weight="25%"),
    Step(weight="50%"),
)


class Rollout(Block):
    """How a new revision earns traffic."""

    strategy: Strategy = Field(Strategy.CANARY, description="How a new revision takes over.")
    steps: tuple[Step, ...] = Field(
        DEFAULT_STEPS,
        min_length=1,
        max_length=20,
        description="Shares of the traffic, ascending; 100% follows the last by promotion.",
    )
    false_rollback_rate: Percent = Field(
        "0.1%", description="Chance that a good revision is rolled back, over the whole rollout."
    )
    confidence: Percent = Field("95%", description="Certainty that promotion asks for.")
    against_stable: AgainstStable = Field(
        default_factory=AgainstStable, description="Comparison with the stable revision."
    )
    mirror: Mirror = Field(default_factory=Mirror, description="Copies of live requests.")
    surge: Surge = Field(
        Surge.AUTO, description="Extra pods during a rollout: Auto asks, then swaps one of N."
    )
    surge_wait: Duration = Field("5m", description="How long Auto waits for room.")
    on_inconclusive: Inconclusive = Field(
        default_factory=Inconclusive, description="What to do when the evidence does not decide."
    )
    progress_deadline: Duration = Field(
        "30m", description="Longest time until a new revision's first pod is ready."
    )
    bake: Duration = Field("10m", description="How long the old pods stay after promotion.")
    keep_failed: Duration = Field("0s", description="How long a failed revision's pods stay.")
    gates: tuple[
        Annotated[str, Field(pattern=CONDITION_PATTERN, min_length=1, max_length=63)], ...
    ] = Field(
        (),
        max_length=8,
        description="Conditions that outside parties set; unknown is not success.",
        json_schema_extra=LIST_SET,
    )
    paused: bool = Field(False, description="Hold the rollout where it is.")
    pin: Pin = Field(default_factory=Pin, description="Requests that always reach the canary.")


class LoadTest(Block):
    """A short load of golden requests on a first revision, before it serves."""

    rate: int = Field(10, ge=1, le=100, description="Requests a second to each pod.")
    duration: Duration = Field("10s", description="How long, at most 2m.")


class GoldenRequests(Block):
    """Requests with known answers, sent to each new pod."""

    config_map_name: ObjectName = Field(description="ConfigMap of this namespace.")
    every: Duration | None = Field(
        None, description="Again on this schedule, at least 10s [only at start]."
    )
    load_test: LoadTest | None = Field(
        None, description="Also load a first revision with them; slo says what is too much [no]."
    )


class ParentRef(Block):
    """A Gateway to attach to."""

    name: ObjectName = Field(description="Name of the Gateway.")
    namespace: (
        Annotated[str, Field(pattern=DNS_LABEL_PATTERN, min_length=1, max_length=63)] | None
    ) = Field(None, description="Its namespace [this one].")
    section_name: ObjectName | None = Field(None, description="One listener of it [all].")


Hostname = Annotated[str, Field(pattern=HOSTNAME_PATTERN, min_length=1, max_length=253)]


class Gateway(Block):
    """Exposure through a Gateway API gateway."""

    parent_refs: tuple[ParentRef, ...] = Field(
        min_length=1, max_length=4, description="Gateways to attach to."
    )
    hostnames: tuple[Hostname, ...] = Field(
        (),
        max_length=8,
        description="Hosts, for HTTP and gRPC alike [the listener's].",
        json_schema_extra=LIST_SET,
    )
    grpc_hostnames: tuple[Hostname, ...] = Field(
        (),
        max_length=8,
        description="Hosts for gRPC only, distinct from hostnames.",
        json_schema_extra=LIST_SET,
    )


class Overload(Block):
    """Refusing early instead of answering late."""

    max_pending: int | None = Field(
        None, ge=1, le=100_000, description="Requests in flight in one pod before 503 [no limit]."
    )
    reserved: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="So many beside, for requests with the header x-tidegate-priority: high, which "
        "take no others [none].",
    )


class Peer(Block):
    """Who may reach the pods: a selector of namespaces, of pods, or both."""

    namespace_labels: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=8, description="Of namespaces [this namespace]."
    )
    pod_labels: dict[str, LabelValue] = Field(
        default_factory=dict, max_length=8, description="Of pods [all in those namespaces]."
    )


class Traffic(Block):
    """How requests reach the model."""

    gateway: Gateway | None = Field(None, description="Exposure by a gateway [inside only].")
    timeout: Duration | None = Field(None, description="Of one request at the gateway [none].")
    overload: Overload | None = Field(None, description="Refusing early [never].")
    allow_from: tuple[Peer, ...] = Field(
        (), max_length=16, description="Ingress peers of the NetworkPolicy [everyone]."
    )


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
