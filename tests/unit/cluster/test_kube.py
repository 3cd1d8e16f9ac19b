from typing import Any

import pytest

from e2e.cluster.kube import NotReached, documents, has_condition, rolled_out, wait_for


def deployment(generation: int = 1, **status: int) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"generation": generation},
        "spec": {"replicas": 2},
        "status": status,
    }


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (deployment(observedGeneration=1, updatedReplicas=2, availableReplicas=2), True),
        (deployment(2, observedGeneration=1, updatedReplicas=2, availableReplicas=2), False),
        (deployment(observedGeneration=1, updatedReplicas=1, availableReplicas=2), False),
        (deployment(observedGeneration=1, updatedReplicas=2, availableReplicas=1), False),
        (deployment(), False),
    ],
)
def test_rolled_out(item: dict[str, Any], expected: bool) -> None:
    assert rolled_out(item) is expected


def test_a_daemon_set_without_nodes_is_not_rolled_out() -> None:
    item = {"kind": "DaemonSet", "metadata": {"generation": 1}, "spec": {}, "status": {}}
    assert not rolled_out({**item, "status": {"observedGeneration": 1}})
    full = {"observedGeneration": 1, "desiredNumberScheduled": 1, "numberAvailable": 1}
    assert rolled_out({**item, "status": full})


def test_documents_open_lists_and_skip_blanks() -> None:
    text = "---\n---\nkind: A\n---\nkind: List\nitems: [{kind: B}, {kind: C}]\n"
    assert [item["kind"] for item in documents(text)] == ["A", "B", "C"]


def test_condition_needs_type_and_status() -> None:
    item = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    assert not has_condition(item, "Ready")
    assert has_condition(item, "Ready", "False")
    assert not has_condition({}, "Ready")


def test_wait_gives_the_first_answer() -> None:
    answers = iter([None, False, "x"])
    assert wait_for(lambda: next(answers), "x", timeout_seconds=60, interval_seconds=0) == "x"


def test_wait_that_runs_out_says_what_was_last_seen() -> None:
    with pytest.raises(NotReached, match=r"the thing: not within 0 s: it sleeps"):
        wait_for(lambda: None, "the thing", timeout_seconds=0, state=lambda: "it sleeps")
