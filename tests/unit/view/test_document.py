"""The document that all views stand on: the same keys in every state, and nothing but JSON."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli import documents as d
from tidegate import view
from tidegate.view.pods import cold_start


def keys(value: Any) -> Any:
    """The keys of a document's objects, at the levels that are always there."""
    return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None


def whole(document: d.Document, **more: Any) -> dict[str, Any]:
    return view.document(document, now=d.NOW, **{"pods": d.PODS, **more})


@pytest.mark.parametrize("name", list(d.ALL))
def test_it_is_json_with_the_same_keys_in_every_state(name: str) -> None:
    found = whole(d.ALL[name])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == set(whole(d.STEP))
    assert found.items() >= view.summary(d.ALL[name], d.NOW).items()
    if found["rollout"]:
        assert keys({**found["rollout"], "forward": None}) == keys(
            {**whole(d.STEP)["rollout"], "forward": None}
        )
    for one in found["revisions"]:
        assert set(one) == set(whole(d.STEP)["revisions"][0])


def test_a_step() -> None:
    found = whole(d.STEP, measured={d.CANARY: {"quantileMs": 83.0}})
    assert (found["state"], found["step"], found["weight"]) == (
        {"word": "Canary", "tone": "busy"},
        "2/4",
        "5%",
    )
    rollout = found["rollout"]
    assert rollout["forward"] == {
        "requests": 420,
        "needed": 180,
        "fraction": 0.7,
        "verdict": "NotYet",
    }
    assert rollout["next"]["text"] == "180 more requests, about 1m12s; in 9s"
    errors = rollout["tests"][0]
    assert (errors["test"], errors["tone"], errors["canary"]) == (
        "errors",
        "",
        {"count": 2, "requests": 420},
    )
    stable, canary = found["revisions"]
    assert (stable["role"], len(stable["pods"]), stable["weight"]) == ("stable", 3, 95)
    assert canary["pods"][0]["word"] == "CrashLoopBackOff"
    assert canary["measured"] == {"quantileMs": 83.0}
    assert stable["measured"] == {}


def test_a_rollback_keeps_its_numbers() -> None:
    found = whole(d.ROLLED_BACK)
    assert [r["role"] for r in found["revisions"]] == ["stable", "failed", "failed"]
    assert found["explanation"]["lines"][0] == "15 of 200 failed (7.5%), limit 1%."
    assert found["explanation"]["tone"] == "bad"
    assert [h["tone"] for h in found["history"]] == ["bad", "good", "faint"]
    assert [h["serving"] for h in found["history"]] == [False, True, False]


def test_pods_of_no_revision_that_the_status_names_are_leaving() -> None:
    found = whole(d.STEADY)
    assert [(r["role"], r["hash"]) for r in found["revisions"]] == [
        ("stable", d.STABLE),
        ("leaving", d.CANARY),
    ]


def test_events_come_newest_first_and_bounded() -> None:
    events = [
        {"reason": f"R{i}", "lastTimestamp": d.ago(minutes=i), "type": "Normal"} for i in range(80)
    ]
    found = whole(d.STEP, events=reversed(events))["events"]
    assert [e["reason"] for e in found] == [f"R{i}" for i in range(50)]


def starting(**times: str) -> d.Document:
    """A pod that has come so far: seconds since its creation by mark."""
    at = {mark: d.ago(seconds=100 - int(second)) for mark, second in times.items()}
    fetch: d.Document = {}
    if "fetch" in at:
        fetch = {"running": {"startedAt": at["fetch"]}}
    if "fetched" in at:
        fetch = {
            "terminated": {"exitCode": 0, "startedAt": at["fetch"], "finishedAt": at["fetched"]}
        }
    server = {"running": {"startedAt": at["server"]}} if "server" in at else {}
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": at[mark]}
        for kind, mark in (("PodScheduled", "scheduled"), ("Ready", "ready"))
        if mark in at
    ]
    return {
        "metadata": {"name": "p", "creationTimestamp": d.ago(seconds=100)},
        "status": {
            "conditions": conditions,
            "initContainerStatuses": [{"name": "fetch", "state": fetch}],
            "containerStatuses": [{"name": "triton", "state": server, "restartCount": 0}],
        },
    }


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({}, [("schedule", 100, False)]),
        ({"scheduled": "2"}, [("schedule", 2, True), ("image", 98, False)]),
        (
            {"scheduled": "2", "fetch": "12"},
            [("schedule", 2, True), ("image", 10, True), ("fetch", 88, False)],
        ),
        (
            {"scheduled": "2", "fetch": "12", "fetched": "40", "server": "45"},
            [("schedule", 2, True), ("image", 10, True), ("fetch", 28, True), ("load", 55, False)],
        ),
        (
            {"scheduled": "2", "fetch": "12", "fetched": "40", "server": "45", "ready": "75"},
            [("schedule", 2, True), ("image", 10, True), ("fetch", 28, True), ("load", 30, True)],
        ),
    ],
)
def test_where_the_time_of_a_start_goes(
    times: dict[str, str], expected: list[tuple[str, float, bool]]
) -> None:
    found = cold_start(starting(**times), d.NOW)
    assert [(s["phase"], s["seconds"], s["done"]) for s in found] == expected


def test_a_pod_that_restarted_tells_no_start() -> None:
    pod = starting(scheduled="2")
    pod["status"]["containerStatuses"][0]["restartCount"] = 1
    assert cold_start(pod, d.NOW) == []


@given(st.sampled_from(sorted(d.ALL)), st.randoms(use_true_random=False))
def test_any_field_may_be_missing(name: str, random: Random) -> None:
    def thinned(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: thinned(v) for k, v in value.items() if random.randrange(6)}
        return [thinned(v) for v in value] if isinstance(value, list) else value

    document = {**d.ALL[name], "status": thinned(d.ALL[name].get("status"))}
    json.dumps(whole(document))
