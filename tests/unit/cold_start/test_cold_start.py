"""What a pod's status says of its start."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.cold_start import ColdStart, Phases, Starts, cold_start, summarise

BORN = 1_800_000_000


def time(second: float) -> str:
    """Whole seconds, as Kubernetes keeps them."""
    return datetime.fromtimestamp(BORN + int(second), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(
    scheduled: float = 1,
    fetching: float = 4,
    fetched: float = 25,
    triton: float = 31,
    loaded: float = 40,
    ready: float = 40,
    *,
    uid: str = "p",
    cached: bool = False,
    restarts: int = 0,
    copying: float | None = None,
) -> dict[str, Any]:
    """A pod that is ready; numbers are seconds since its creation."""
    message = json.dumps({"digest": "sha256:0", "seconds": 20.5, "cached": cached})
    terminated = {
        "exitCode": 0,
        "startedAt": time(fetching),
        "finishedAt": time(fetched),
        "message": message,
    }
    init: list[dict[str, Any]] = [
        {"name": "fetch", "restartCount": 0, "state": {"terminated": terminated}},
        {"name": "envoy", "restartCount": 0, "state": {"running": {"startedAt": time(fetched)}}},
    ]
    if copying is not None:
        copied = {"exitCode": 0, "startedAt": time(copying), "finishedAt": time(fetching)}
        init.insert(0, {"name": "copy-model", "state": {"terminated": copied}})
    conditions = {"PodScheduled": scheduled, "ContainersReady": loaded, "Ready": ready}
    return {
        "metadata": {"name": uid, "uid": uid, "creationTimestamp": time(0)},
        "status": {
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": time(second)}
                for kind, second in conditions.items()
            ],
            "initContainerStatuses": init,
            "containerStatuses": [
                {
                    "name": "triton",
                    "restartCount": restarts,
                    "state": {"running": {"startedAt": time(triton)}},
                },
                {"name": "somebody-elses", "restartCount": 9},
            ],
        },
    }


def test_each_phase_is_told() -> None:
    found = cold_start(pod(ready=42))
    assert found is not None
    assert found.phases == Phases(schedule=1, image=3 + 6, fetch=21, load=9, ready=2)
    assert found.phases.total == 42
    assert (found.cached, found.ready_at_s) == (False, BORN + 42)
    assert str(found.phases) == "schedule 1 s, image 9 s, fetch 21 s, load 9 s, ready 2 s"
    assert str(Phases(0, 4, 1, 9)) == "schedule 0 s, image 4 s, fetch 1 s, load 9 s"


def test_a_model_in_the_image_is_copied_and_that_is_fetching() -> None:
    found = cold_start(pod(copying=3, fetching=20))
    assert found is not None
    assert (found.phases.image, found.phases.fetch) == (2 + 6, 22)


def test_a_cached_model_is_told_apart() -> None:
    found = cold_start(pod(fetched=5, cached=True))
    assert found is not None
    assert (found.cached, found.phases.fetch) == (True, 1)


def without(document: dict[str, Any], kind: str) -> dict[str, Any]:
    conditions = document["status"]["conditions"]
    document["status"]["conditions"] = [c for c in conditions if c["type"] != kind]
    return document


@pytest.mark.parametrize("kind", ["PodScheduled", "ContainersReady", "Ready"])
def test_a_start_that_is_not_over_is_not_told(kind: str) -> None:
    assert cold_start(without(pod(), kind)) is None
    false = pod()
    for condition in false["status"]["conditions"]:
        condition["status"] = "False" if condition["type"] == kind else "True"
    assert cold_start(false) is None


@pytest.mark.parametrize(
    "strange",
    [
        {"metadata": {"uid": "p"}},
        {"metadata": {"uid": "p", "creationTimestamp": "soon"}, "status": {}},
        pod(restarts=1),
        without(pod(), "") | {"status": {"conditions": []}},
    ],
)
def test_what_is_no_usual_start_says_nothing(strange: dict[str, Any]) -> None:
    assert cold_start(strange) is None


def test_a_fetch_that_was_repeated_says_nothing() -> None:
    again = pod()
    again["status"]["initContainerStatuses"][0]["restartCount"] = 1
    assert cold_start(again) is None


@given(st.lists(st.floats(0, 600), min_size=6, max_size=6))
def test_phases_are_never_negative_and_add_up(moments: list[float]) -> None:
    """Whatever order the clocks of several machines make of them."""
    found = cold_start(pod(*moments))
    assert found is not None
    assert min(vars(found.phases).values()) >= 0
    assert found.phases.total == max(int(moment) for moment in moments)


def test_what_was_seen_from_its_beginning_holds() -> None:
    starts = Starts()
    assert starts.look([without(pod(uid="a"), "Ready")]) == {}
    b = without(pod(uid="b"), "Ready")
    assert starts.look([pod(uid="a"), b]) == {"a": 40.0}
    # It was not ready for a while, and says that it became ready an hour after.
    late = pod(uid="a", loaded=4000, ready=4000)
    assert starts.look([without(late, "Ready"), b]) == {"a": 40.0}
    assert starts.look([late, pod(uid="b", ready=300)]) == {"a": 40.0, "b": 300.0}
    assert starts.look([pod(uid="b", ready=300)]) == {"b": 300.0}
    assert starts.look([]) == {}


def test_of_what_had_started_before_nobody_knows() -> None:
    """Ready, or not ready just now though its startup probe had passed."""
    out = without(pod(uid="b"), "Ready")
    out["status"]["containerStatuses"][0]["started"] = True
    starts = Starts()
    assert starts.look([pod(uid="a"), out]) == {}
    assert starts.look([pod(uid="a"), pod(uid="b", loaded=4000, ready=4000)]) == {}


def test_a_start_with_a_restart_in_it_is_no_usual_one() -> None:
    starts = Starts()
    starts.look([without(pod(uid="a"), "Ready")])
    assert starts.look([pod(uid="a", restarts=1)]) == {}
    assert starts.look([pod(uid="a")]) == {}


def test_summary() -> None:
    assert summarise([]) is None
    starts = [
        ColdStart(Phases(schedule=s, image=2, fetch=f, load=9), False, 0.0)
        for s, f in ((0, 30), (1, 2), (300, 1))
    ]
    summary = summarise(starts)
    assert summary is not None
    assert (summary.pods, summary.median_s, summary.largest_s) == (3, 41, 312)
    assert summary.phases == Phases(1, 2, 2, 9)
