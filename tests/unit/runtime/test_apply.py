"""Pauses between put-backs, and what a Deployment's next apply says of replicas."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.runtime.apply import PutBacks, with_replicas_of


def test_the_first_time_is_at_once_and_then_it_takes_ever_longer() -> None:
    put_backs = PutBacks(first_s=1.0, limit_s=8.0)
    now, pauses = 0.0, []
    for _ in range(6):
        pause = put_backs.wait_s("u", now)
        pauses.append(pause)
        now += pause
        put_backs.done("u", now)
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert put_backs.wait_s("another", now) == 0.0


def test_after_a_calm_time_counting_begins_anew() -> None:
    put_backs = PutBacks(first_s=1.0, calm_s=100.0)
    for now in (0.0, 1.0, 3.0):
        put_backs.done("u", now)
    assert put_backs.wait_s("u", 4.0) > 0.0
    assert put_backs.wait_s("u", 104.0) == 0.0
    put_backs.done("u", 104.0)
    assert put_backs.wait_s("u", 104.0) == 1.0


@given(st.lists(st.floats(0, 500), max_size=20))
def test_pauses_never_pass_the_limit(steps: list[float]) -> None:
    put_backs = PutBacks(first_s=1.0, limit_s=60.0)
    now = 0.0
    for step in steps:
        now += step
        assert 0.0 <= put_backs.wait_s("u", now) <= 60.0
        put_backs.done("u", now)


def live(replicas: int, *managers: str) -> dict[str, Any]:
    return {
        "metadata": {
            "managedFields": [
                {"manager": m, "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
                for m in managers
            ]
        },
        "spec": {"replicas": replicas},
    }


@pytest.mark.parametrize(
    ("managers", "expected"),
    [
        # Never scaled: leaving it out would give the default of 1.
        (("tidegate",), 0),
        (("tidegate", "tidegate-scale"), None),
        (("tidegate-scale",), None),
        (("kubectl",), None),
        ((), None),
    ],
)
def test_replicas_in_a_later_apply(managers: tuple[str, ...], expected: int | None) -> None:
    manifest = {"spec": {"replicas": 5, "template": {}}}
    document = with_replicas_of(live(0, *managers), manifest)
    assert document["spec"].get("replicas") == expected
    assert document["spec"]["template"] == {}
    assert manifest["spec"]["replicas"] == 5
