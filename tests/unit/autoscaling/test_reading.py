"""Triton's own numbers, from its statistics and from its metrics page."""

import json
from typing import Any

import pytest

from tidegate.autoscaling.reading import Batch, TritonStats, read_metrics, read_stats


def part(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}


def batch(size: int, count: int, infer_ns: int) -> dict[str, Any]:
    return {
        "batch_size": size,
        "compute_input": part(count, 1_000_000),
        "compute_infer": part(count, infer_ns),
        "compute_output": part(count, 500_000),
    }


def version(number: str = "1", **more: Any) -> dict[str, Any]:
    return {
        "name": "magika",
        "version": number,
        "inference_count": 7,
        "execution_count": 4,
        "inference_stats": {
            "success": part(9, 1),
            "fail": part(1, 1),
            "queue": part(9, 1),
            "cache_hit": part(2, 1),
        },
        "batch_stats": [batch(3, 1, 30_000_000), batch(1, 4, 40_000_000)],
        **more,
    }


def test_statistics() -> None:
    document = json.loads(json.dumps({"model_stats": [version()]}))
    assert read_stats(document, pending=5) == TritonStats(
        batches=(Batch(1, 4, 41.5), Batch(3, 1, 31.5)),
        succeeded=9,
        failed=1,
        cached=2,
        items=7,
        pending=5,
    )


def test_versions_add_up_and_other_models_do_not() -> None:
    document = {"model_stats": [version(), version("2"), version(name="other")]}
    stats = read_stats(document, model="magika")
    assert stats.succeeded == 18
    assert stats.batches == (Batch(1, 8, 83.0), Batch(3, 2, 63.0))
    assert read_stats(document).succeeded == 27


def test_a_model_that_served_nothing_and_numbers_as_text() -> None:
    assert read_stats({"model_stats": [{"name": "m", "version": "1"}]}) == TritonStats()
    assert read_stats({"model_stats": [version(inference_count="12")]}).items == 12
    assert read_stats({"model_stats": []}) == TritonStats()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "no model_stats"),
        ([], "no model_stats"),
        ({"model_stats": {}}, "no model_stats"),
        ({"model_stats": [3]}, "no object"),
        ({"model_stats": [version(inference_stats=3)]}, "inference_stats is '3'"),
        ({"model_stats": [version(inference_count=-1)]}, "inference_count is '-1'"),
        ({"model_stats": [version(inference_count=float("nan"))]}, "inference_count is 'nan'"),
        ({"model_stats": [version(inference_count=True)]}, "inference_count is 'True'"),
        ({"model_stats": [version(batch_stats={"a": 1})]}, "batch_stats is no list"),
        ({"model_stats": [version(batch_stats=[1])]}, "no object"),
        ({"model_stats": [version(batch_stats=[batch(0, 1, 1)])]}, "batch_size is 0"),
    ],
)
def test_what_is_no_statistics(document: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_stats(document)


PAGE = """\
# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="magika",version="1"} 12
nv_inference_request_success{model="other",version="1"} 900
nv_inference_request_failure{model="magika",reason="REJECTED",version="1"} 2
nv_inference_request_failure{model="magika",reason="OTHER",version="1"} 1
nv_inference_count{gpu_uuid="GPU-1",model="magika",version="1"} 6
nv_inference_count{gpu_uuid="GPU-2",model="magika",version="1"} 4
nv_inference_exec_count{model="magika",version="1"} 10
nv_inference_compute_input_duration_us{model="magika",version="1"} 1000
nv_inference_compute_infer_duration_us{model="magika",version="1"} 98500
nv_inference_compute_output_duration_us{model="magika",version="1"} 500
nv_inference_pending_request_count{model="magika",version="1"} 3
nv_cache_num_hits_per_model{model="magika",version="1"} 2
nv_cpu_utilization 0.5
"""


def test_metrics() -> None:
    assert read_metrics(PAGE, model="magika") == TritonStats(
        batches=(Batch(1, 10, 100.0),), succeeded=12, failed=3, cached=2, items=10, pending=3
    )


def test_metrics_know_no_batch_sizes() -> None:
    """A request's time there is its whole batch's: no line can be learned from that."""
    page = PAGE.replace(
        'exec_count{model="magika",version="1"} 10', 'exec_count{model="magika",version="1"} 9'
    )
    stats = read_metrics(page, model="magika")
    assert stats.batches == ()
    assert stats.items == 10


def test_no_pending_gauge_is_not_none_pending() -> None:
    page = "\n".join(line for line in PAGE.split("\n") if "pending" not in line)
    assert read_metrics(page, model="magika").pending is None


@pytest.mark.parametrize(
    ("page", "model", "says"),
    [
        ("", "magika", "no nv_inference_request_success of model 'magika'"),
        (PAGE, "nobody", "of model 'nobody'"),
        (PAGE.replace("} 12", "} NaN"), "magika", "nv_inference_request_success is 'NaN'"),
        (PAGE.replace("} 12", "} -4"), "magika", "is '-4'"),
        (PAGE.replace("} 12", "} +Inf"), "magika", "is '.Inf'"),
        (PAGE.replace("} 12", "} many"), "magika", "is 'many'"),
    ],
)
def test_what_is_no_metrics_page(page: str, model: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_metrics(page, model=model)
