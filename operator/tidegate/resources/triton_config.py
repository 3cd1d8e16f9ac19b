"""What a ModelDeployment says about Triton's ``config.pbtxt``.

A pod's ``config.pbtxt`` is three layers: the model's own file (or a generated one), the typed
tuning of ``spec.model.config``, and its ``override``, merged in that order by the fetch container
with `tidegate.resources.model_config.merge`. This module makes the second and checks the third,
so that a mistake shows as a condition before a pod starts.

Pure.
"""

from typing import Any, Final

from tidegate.api.spec import (
    Accelerator,
    DynamicBatching,
    GraphLevel,
    InstanceKind,
    Model,
    ModelTuning,
    PriorityQueue,
    TimeoutAction,
)
from tidegate.api.units import duration_ms
from tidegate.resources.model_config import (
    ModelConfig,
    parse_json,
    parse_pbtxt,
    to_pbtxt,
)

OVERRIDE: Final = "model.config.override"
WARMUP_NAME: Final = "tidegate"
"""Name of the warm-up that ``model.config.warmup`` asks for; see `complete_warmup`."""

_GRAPH_LEVEL: Final = {GraphLevel.BASIC: -1, GraphLevel.EXTENDED: 1, GraphLevel.ALL: 0}
"""Triton's ONNX Runtime backend: -1 basic, 1 with extended fusions, 0 (its default) all."""


def tuning_pbtxt(model: Model, *, gpu_count: int) -> str:
    """The typed tuning as a partial config.pbtxt; empty where nothing is asked for.

    Args:
        model: ``spec.model``; its ``triton_version`` becomes the version policy.
        gpu_count: ``spec.runtime.gpu.count``; decides where instances of kind Auto run.
    """
    tuning = model.config
    config = ModelConfig()
    if model.triton_version is not None:
        config.version_policy.specific.versions.append(model.triton_version)
    if tuning.max_batch_size is not None:
        config.max_batch_size = tuning.max_batch_size
    if tuning.dynamic_batching is not None:
        _dynamic_batching(config.dynamic_batching, tuning)
    if tuning.instances is not None:
        group = config.instance_group.add()
        group.count = tuning.instances.count
        on_gpu = tuning.instances.kind is InstanceKind.GPU or (
            tuning.instances.kind is InstanceKind.AUTO and gpu_count > 0
        )
        group.kind = group.KIND_GPU if on_gpu else group.KIND_CPU
    if tuning.optimization is not None:
        _optimization(config, tuning)
    if tuning.response_cache is not None:
        config.response_cache.enable = tuning.response_cache
    if tuning.warmup is not None:
        warmup = config.model_warmup.add()
        warmup.name = WARMUP_NAME
        warmup.batch_size = tuning.warmup.batch_size
        warmup.count = tuning.warmup.requests
    return to_pbtxt(config)


def _dynamic_batching(batching: Any, tuning: ModelTuning) -> None:
    wanted = tuning.dynamic_batching
    assert wanted is not None
    batching.SetInParent()  # an empty block switches it on
    batching.preferred_batch_size.extend(wanted.preferred_sizes)
    if wanted.max_queue_delay is not None:
        batching.max_queue_delay_microseconds = duration_ms(wanted.max_queue_delay) * 1000
    if wanted.max_queue_size is not None or wanted.queue_timeout is not None:
        # Otherwise the model's own policy stays.
        _set_policy(batching.default_queue_policy, wanted)
    if wanted.priorities:
        batching.priority_levels = len(wanted.priorities)
        batching.default_priority_level = wanted.default_priority or len(wanted.priorities)
        for level, queue in enumerate(wanted.priorities, 1):
            # Also where it says nothing: then this level has no limits, rather than the default's.
            batching.priority_queue_policy[level].SetInParent()
            _set_policy(batching.priority_queue_policy[level], queue)


def _set_policy(policy: Any, wanted: DynamicBatching | PriorityQueue) -> None:
    if wanted.max_queue_size is not None:
        policy.max_queue_size = wanted.max_queue_size
    if wanted.queue_timeout is not None:
        policy.default_timeout_microseconds = duration_ms(wanted.queue_timeout) * 1000
        delay = wanted.timeout_action is TimeoutAction.DELAY
        policy.timeout_action = policy.DELAY if delay else policy.REJECT


def _optimization(config: Any, tuning: ModelTuning) -> None:
    wanted = tuning.optimization
    assert wanted is not None
    if wanted.graph_level is not None:
        config.optimization.graph.level = _GRAPH_LEVEL[wanted.graph_level]
    for accelerator in wanted.accelerators:
        match accelerator:
            case Accelerator.TENSORRT:
                accelerators = config.optimization.execution_accelerators
                accelerators.gpu_execution_accelerator.add().name = "tensorrt"
            case Accelerator.OPENVINO:
                accelerators = config.optimization.execution_accelerators
                accelerators.cpu_execution_accelerator.add().name = "openvino"
            case Accelerator.CUDA_GRAPHS:
                config.optimization.cuda.graphs = True


def override_pbtxt(override: str | None, *, model_name: str) -> str:
    """The user's override, read strictly and written as pbtxt; empty for none.

    Args:
        override: ``spec.model.config.override``: JSON (it starts with a brace) or pbtxt.
        model_name: the name the model is served by; an override may not change it.

    Raises:
        ValueError: field, value and mend, such as "model.config.override, line 3 column 1:
            ModelConfig has no field 'max_batchsize'; did you mean max_batch_size?".
    """
    if override is None or not override.strip():
        return ""
    read = parse_json if override.lstrip().startswith(("{", "[")) else parse_pbtxt
    config = read(override, where=OVERRIDE)
    if config.HasField("name") and config.name != model_name:
        raise ValueError(
            f"{OVERRIDE}: name is {config.name!r}, but the model is served as {model_name!r}; "
            "leave name out, or set model.name"
        )
    if config.max_batch_size < 0:
        raise ValueError(
            f"{OVERRIDE}: max_batch_size is {config.max_batch_size}; "
            "write 0 for a model without a batch dimension, otherwise at least 1"
        )
    return to_pbtxt(config)


def uses_response_cache(model: Model, *, model_name: str) -> bool:
    """Whether Triton must be started with a response cache: tuning first, override last.

    Raises:
        ValueError: the override cannot be read; see `override_pbtxt`.
    """
    override = override_pbtxt(model.config.override, model_name=model_name)
    overridden = parse_pbtxt(override, where=OVERRIDE)
    if overridden.response_cache.HasField("enable"):
        return bool(overridden.response_cache.enable)
    return bool(model.config.response_cache)


def complete_warmup(config: Any) -> None:
    """Gives the warm-up that the tuning asked for its inputs, in place; the last step of a merge.

    The tuning knows how many requests, only the merged config knows the inputs: each gets zeros,
    and 1 for each dimension left open.

    Raises:
        ValueError: a warm-up is asked for but the config names no inputs, or the batch is larger
            than the model takes.
    """
    for warmup in config.model_warmup:
        if warmup.name != WARMUP_NAME or warmup.inputs:
            continue
        if not config.input:
            raise ValueError(
                "model.config.warmup needs the model's inputs; name them in its config.pbtxt or "
                f"in {OVERRIDE} (input: name, data_type, dims), or leave warmup out"
            )
        if warmup.batch_size > max(1, config.max_batch_size):
            raise ValueError(
                f"model.config.warmup.batchSize is {warmup.batch_size}, but the model takes at "
                f"most {max(1, config.max_batch_size)} (max_batch_size)"
            )
        for each in config.input:
            sample = warmup.inputs[each.name]
            sample.data_type = each.data_type
            sample.dims.extend(1 if size < 0 else size for size in each.dims)
            sample.zero_data = True
