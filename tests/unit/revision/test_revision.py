"""Identity: what makes another revision, and what does not. The vectors hold across releases."""

from typing import Any

import pytest

from tidegate.api.spec import parse
from tidegate.revision import pod_shape, revision_hash

S3 = {"source": {"uri": "s3://models/magika/v3"}}

# A running fleet is known by these names: a change here restarts every model pod of every user.
GOLDEN: list[tuple[dict[str, Any], str]] = [
    ({"model": S3}, "nc3bjeceh4"),
    ({"model": {**S3, "name": "magika"}}, "eghmempk2c"),
    ({"model": S3, "runtime": {"gpu": {"count": 0}}}, "ew7cm4eiru"),
    ({"model": S3, "runtime": {"resources": {"cpu": "500m", "memory": "4Gi"}}}, "lcutcnm25r"),
    (
        {
            "model": {
                **S3,
                "config": {"maxBatchSize": 8, "dynamicBatching": {"preferredSizes": [4, 8]}},
            },
            "runtime": {"gpu": {"resource": "nvidia.com/mig-1g.10gb"}, "env": [{"name": "A"}]},
        },
        "6up57amxn4",
    ),
]


@pytest.mark.parametrize(("spec", "expected"), GOLDEN)
def test_golden_vectors(spec: dict[str, Any], expected: str) -> None:
    assert revision_hash(pod_shape(parse(spec))) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"slo": {"maxErrorRate": "5%"}},
        {"slo": {"latency": {"target": "50ms"}}},
        {"scaling": {"mode": "Fixed", "minReplicas": 3}, "replicas": 4},
        {"rollout": {"paused": True, "steps": [{"weight": "10%"}]}},
        {"traffic": {"timeout": "10s", "allowFrom": [{"podLabels": {"a": "b"}}]}},
        {"goldenRequests": {"configMapName": "golden"}},
        {"historyLimit": 3},
        {"model": {"source": {**S3["source"], "onChange": "NewRevision"}}},
        {"runtime": {"gpu": {"count": 1, "resource": "nvidia.com/gpu"}}},
        {"runtime": {"resources": {"cpu": "1000m", "memory": "2048Mi"}}},
        {"runtime": {"sidecar": "On"}},
        {"model": {**S3, "config": {}}},
    ],
)
def test_what_does_not_shape_pods_or_equals_a_default_is_the_same_revision(
    other: dict[str, Any],
) -> None:
    assert pod_shape(parse({"model": S3, **other})) == pod_shape(parse({"model": S3}))


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"source": {"uri": "s3://models/magika/v4"}}},
        {"model": {"source": {**S3["source"], "sha256": "0" * 64}}},
        {"model": {"source": {**S3["source"], "secretName": "s"}}},
        {"model": {**S3, "tritonVersion": 2}},
        {"model": {**S3, "config": {"override": "max_batch_size: 4"}}},
        {"runtime": {"image": "a/b:1"}},
        {"runtime": {"gpu": {"count": 2}}},
        {"runtime": {"resources": {"cpu": "1001m"}}},
        {"runtime": {"profile": "big"}},
        {"runtime": {"env": [{"name": "A", "value": "b"}]}},
        {"runtime": {"sidecar": "Off"}},
        {"runtime": {"podLabels": {"team": "a"}}},
    ],
)
def test_what_shapes_pods_is_another_revision(other: dict[str, Any]) -> None:
    hashes = {revision_hash(pod_shape(parse({"model": S3, **o}))) for o in (other, {})}
    assert len(hashes) == 2


def test_newer_fields_at_their_defaults_leave_a_revision_its_name() -> None:
    """As the API server fills them in for a manifest that was written before they existed."""
    filled = {"preferredSizes": [4, 8], "timeoutAction": "Reject", "priorities": []}
    spec, before = GOLDEN[-1]
    config = {**spec["model"]["config"], "dynamicBatching": filled}
    now = parse({**spec, "model": {**spec["model"], "config": config}})
    assert revision_hash(pod_shape(now)) == before
    queued = {**filled, "queueTimeout": "1s"}
    other = parse({"model": {**S3, "config": {**config, "dynamicBatching": queued}}})
    assert revision_hash(pod_shape(other)) != before


def test_changed_bytes_behind_one_address_are_another_revision() -> None:
    shape = pod_shape(parse({"model": S3}))
    assert len({revision_hash(shape, d) for d in (None, "sha256:a", "sha256:b")}) == 3


def test_the_order_of_fields_does_not_matter() -> None:
    one = parse({"model": S3, "runtime": {"nodeSelector": {"a": "1", "b": "2"}}})
    two = parse({"runtime": {"nodeSelector": {"b": "2", "a": "1"}}, "model": S3})
    assert revision_hash(pod_shape(one)) == revision_hash(pod_shape(two))
