"""How a pod serves, from the spec and from Triton's own config."""

from typing import Any

import pytest

from tidegate.api.spec import Spec, parse
from tidegate.autoscaling.server import ServerModel, server_model


def spec(config: dict[str, Any] | None = None, **more: Any) -> Spec:
    return parse(
        {
            "model": {"source": {"uri": "s3://models/magika"}, "config": config or {}},
            "slo": {"latency": {"quantile": "0.95", "target": "250ms"}},
            **more,
        }
    )


def test_a_bare_spec_batches_nothing() -> None:
    assert server_model(spec()) == ServerModel(quantile=0.95, target_ms=250.0)
    bare = parse({"model": {"source": {"uri": "s3://models/magika"}}})
    assert server_model(bare).target_ms is None


def test_the_typed_tuning() -> None:
    config = {
        "maxBatchSize": 16,
        "dynamicBatching": {"preferredSizes": [4, 8], "maxQueueDelay": "5ms", "maxQueueSize": 64},
        "instances": {"count": 2},
    }
    model = server_model(
        spec(config, runtime={"gpu": {"count": 2}}, traffic={"overload": {"maxPending": 100}})
    )
    assert model == ServerModel(4, 16, (4, 8), 5.0, 64, 100, 0.95, 250.0)


@pytest.mark.parametrize(
    ("config", "instances", "batch"),
    [
        ({"instances": {"count": 3, "kind": "CPU"}}, 3, 1),
        ({"maxBatchSize": 8}, 1, 1),  # without dynamic batching Triton forms no batches
        ({"maxBatchSize": 0, "dynamicBatching": {}}, 1, 1),
        ({"dynamicBatching": {"preferredSizes": [4]}}, 1, 4),
    ],
)
def test_what_is_left_out(config: dict[str, Any], instances: int, batch: int) -> None:
    model = server_model(spec(config, runtime={"gpu": {"count": 2}}))
    assert model.instances == (instances if "instances" in config else 1)
    assert model.max_batch == batch


def test_tritons_own_config_knows_more() -> None:
    config = {
        "name": "magika",
        "max_batch_size": 32,
        "instance_group": [
            {"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]},
            {"kind": "KIND_CPU", "count": 1},
        ],
        "dynamic_batching": {
            "preferred_batch_size": [16],
            "max_queue_delay_microseconds": 1500,
            "default_queue_policy": {"max_queue_size": 10},
        },
    }
    assert server_model(spec(), config) == ServerModel(5, 32, (16,), 1.5, 10, None, 0.95, 250.0)
    priorities = {"1": {"max_queue_size": 5}, "2": {"max_queue_size": 7}}
    config["dynamic_batching"]["priority_queue_policy"] = priorities  # type: ignore[index]
    assert server_model(spec(), config).queue_size == 12
    priorities["2"] = {}
    assert server_model(spec(), config).queue_size is None
    assert server_model(spec(), {}).max_batch == 1


@pytest.mark.parametrize(
    "config", [{"instance_group": [3]}, {"dynamic_batching": 4}, {"instance_group": 7}]
)
def test_what_is_no_config(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a Triton model config"):
        server_model(spec(), config)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"instances": 0}, "instances is 0"),
        ({"max_batch": 0}, "max_batch is 0"),
        ({"quantile": 1.0}, "quantile is 1.0"),
        ({"target_ms": 0.0}, "target_ms is 0.0"),
        ({"target_ms": float("nan")}, "target_ms is nan"),
        ({"queue_delay_ms": -1.0}, "queue_delay_ms is -1.0"),
    ],
)
def test_what_is_no_server(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ServerModel(**values)
