"""What is taken in: numbers and short labels, and nothing else."""

import json
from typing import Any

import pytest

from tidegate.quality.policy import Policy
from tidegate.quality.sample import MOST_AT_ONCE, SampleError, read_labels, read_samples

SAMPLE = {"revision": "abc123", "id": "r-1", "label": "cat", "values": {"score": 0.9, "age": 31}}


def samples(*items: Any) -> bytes:
    return json.dumps({"samples": items}).encode()


def labels(*items: Any) -> bytes:
    return json.dumps({"labels": items}).encode()


def test_a_sample() -> None:
    (found,) = read_samples(samples(SAMPLE))
    assert found.values == {"score": 0.9, "age": 31}
    left = found.redacted(Policy(leave_out=("age",)))
    assert (left.label, left.values, left.id) == ("cat", {"score": 0.9}, "r-1")
    left = found.redacted(Policy(leave_out=("label", "score")))
    assert (left.label, left.values) == (None, {"age": 31})


@pytest.mark.parametrize(("given", "text"), [(3, "3"), (True, "true"), ("cat", "cat")])
def test_classes_may_be_numbered(given: Any, text: str) -> None:
    assert read_samples(samples({"revision": "a", "label": given}))[0].label == text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"values": {"comment": "my name is Ann"}}, "samples.0.values.comment"),
        ({"values": {"x": [1.0]}}, "samples.0.values.x"),
        ({"values": {"x": True}}, "samples.0.values.x"),
        ({"values": {"label": 1.0}}, "outside of values"),
        ({"values": {"a b": 1.0}}, "values"),
        ({"values": {f"v{i}": 1.0 for i in range(51)}}, "values"),
        ({"label": "x" * 65}, "label"),
        ({"label": ""}, "label"),
        ({"label": "\x1b[2Jcat"}, "label"),
        ({"label": "cat\u202e"}, "label"),
        ({"label": 0.5}, "label"),
        ({"image": "..."}, "image"),
        ({"revision": "../x"}, "revision"),
        ({"revision": None}, "revision"),
        ({"id": "x" * 129}, "id"),
    ],
)
def test_what_is_refused_is_named_and_not_repeated(change: dict[str, Any], named: str) -> None:
    with pytest.raises(SampleError) as refused:
        read_samples(
            samples(SAMPLE, {**SAMPLE, **change})
            if "samples.0" not in named
            else samples({**SAMPLE, **change})
        )
    assert named in str(refused.value)
    assert "Ann" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"samples": []}',
        b"\xff",
        samples(*[SAMPLE] * (MOST_AT_ONCE + 1)),
        b'{"samples": [{"revision": "a", "values": {"x": NaN}}]}',
        b'{"samples": [{"revision": "a", "values": {"x": 1e999}}]}',
        b'{"samples": [{"revision": "a", "values": {"x": 1' + b"0" * 400 + b"}}]}",
    ],
)
def test_no_samples(body: bytes) -> None:
    with pytest.raises(SampleError):
        read_samples(body)


def test_labels_one_by_one_or_counted() -> None:
    one, many = read_labels(
        labels({"id": "r-1", "label": "cat"}, {"revision": "a", "labels": 10, "right": 9})
    )
    assert (one.id, one.label) == ("r-1", "cat")
    assert (many.revision, many.labels, many.right) == ("a", 10, 9)


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"id": "r-1"},
        {"id": "r-1", "label": "cat", "revision": "a"},
        {"revision": "a", "labels": 10},
        {"revision": "a", "labels": 10, "right": 11},
        {"revision": "a", "labels": -1, "right": -1},
        {"revision": "a", "labels": 1.5, "right": 1},
        {"revision": "a", "labels": True, "right": 1},
    ],
)
def test_labels_that_cannot_be_used(item: dict[str, Any]) -> None:
    with pytest.raises(SampleError):
        read_labels(labels(item))
