"""How Triton runs the model: what of its configuration a manifest may set."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tidegate.api.block import LIST_SET, Block, Duration
from tidegate.api.patterns import TEXT_PATTERN


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
