"""Golden requests after the rollout: a pod that answers wrongly is taken out, and told of."""

from dataclasses import replace

import pytest

from tests.unit.plan.world import World
from tidegate.actions import Event, TakeOut
from tidegate.api.names import SERVING_LABEL
from tidegate.observed import GoldenResult, Measurements
from tidegate.view import document

WRONG = "1 of 3 golden requests failed; page.json: output label: expected html, got twig"


def serving(replicas: int = 3) -> World:
    world = World()
    world.edit(
        replicas=replicas,
        scaling={"mode": "Fixed"},
        goldenRequests={"configMapName": "golden", "every": "10m"},
    )
    for _ in range(8):
        told(world)
        world.step()
    told(world)
    world.settle()
    return world


def told(world: World, wrong: int = 0, problem: str = "") -> None:
    """The first pods answer wrongly, the others rightly."""
    world.measurements = Measurements(
        golden={
            p["metadata"]["uid"]: GoldenResult(i >= wrong, WRONG if i < wrong else "", world.now)
            for i, p in enumerate(world.pods)
        },
        golden_problems={"golden": problem} if problem else {},
    )


def served(world: World) -> int:
    return sum(p["metadata"]["labels"].get(SERVING_LABEL) == "true" for p in world.pods)


def test_all_is_well() -> None:
    world = serving()
    found = world.condition("AnswersRight")
    assert (found["status"], found["message"]) == ("True", "3 of 3 pods asked")
    assert document(world.deployment, now=world.now)["quality"]["golden"]["met"] == "True"


def test_one_pod_that_answers_wrongly_later_gets_no_more_traffic() -> None:
    world = serving()
    told(world, wrong=1)
    actions = world.plan().actions
    assert [a.reason for a in actions if isinstance(a, TakeOut)] == [f"WrongAnswers: {WRONG}"]
    assert [a.reason for a in actions if isinstance(a, Event)] == ["WrongAnswers"]
    world.settle()
    assert (served(world), len(world.pods)) == (2, 3), "it is kept to look at"
    found = world.condition("AnswersRight")
    assert (found["status"], found["reason"]) == ("False", "WrongAnswers")
    assert WRONG in found["message"]
    assert "no more traffic" in found["message"]
    assert world.condition("Ready")["status"] == "True"
    view = document(world.deployment, now=world.now)
    assert view["quality"]["golden"]["met"] == "False"
    assert [c["type"] for c in view["concerns"]] == ["AnswersRight"]
    # Somebody looked at it and deleted it.
    world.pods = [p for p in world.pods if p["metadata"]["labels"].get(SERVING_LABEL) == "true"]
    world.settle()
    told(world)
    world.settle()
    assert served(world) == 3
    assert world.condition("AnswersRight")["status"] == "True"


@pytest.mark.parametrize("replicas", [1, 3])
def test_where_all_answer_wrongly_they_go_on_and_it_is_said(replicas: int) -> None:
    world = serving(replicas)
    told(world, wrong=replicas)
    world.settle()
    assert served(world) == replicas
    found = world.condition("AnswersRight")
    assert (found["status"], found["reason"]) == ("False", "WrongAnswers")
    assert "go on serving" in found["message"]


def test_what_cannot_be_asked_is_unknown() -> None:
    world = serving()
    told(world, problem="ConfigMap demo/golden does not exist.")
    world.settle()
    found = world.condition("AnswersRight")
    assert (found["status"], found["reason"]) == ("Unknown", "GoldenRequests")


def test_what_cannot_be_asked_of_the_next_version_says_nothing_of_this_one() -> None:
    world = serving()
    world.edit(
        goldenRequests={"configMapName": "next", "every": "10m"},
        model={"source": {"uri": "s3://models/magika/v4"}},
    )
    told(world)
    problem = "ConfigMap demo/next does not exist."
    world.measurements = replace(world.measurements, golden_problems={"next": problem})
    world.settle()
    assert world.condition("AnswersRight")["status"] == "True"
    assert world.status["rollout"]["message"] == problem


def test_without_golden_requests_there_is_no_such_condition() -> None:
    world = World()
    world.settle()
    types = {c["type"] for c in world.status["conditions"]}
    assert "AnswersRight" not in types


@pytest.mark.parametrize("wrong", [0, 1])
def test_what_was_found_holds_while_an_operator_that_restarted_asks_again(wrong: int) -> None:
    world = serving()
    told(world, wrong)
    world.settle()
    found = world.condition("AnswersRight")
    known = dict(world.measurements.golden)
    for asked in range(3):
        golden = dict(list(known.items())[wrong : wrong + asked])
        world.measurements = Measurements(golden=golden)
        world.settle()
        assert world.condition("AnswersRight") == found
