"""A source that is followed: what changed behind the address becomes a revision, and is judged."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plan.world import World, copied, failing_fetch
from tidegate.api.names import (
    MAX_NAME_LENGTH,
    REQUEST_ANNOTATION,
    REVISION_LABEL,
    SOURCE_ANNOTATION,
    SOURCE_LABEL,
)
from tidegate.api.spec import parse
from tidegate.observed import Ref
from tidegate.platform import Platform, Profile
from tidegate.resources.look import look_job, look_name, source_key

ONE, TWO, THREE = (f"v1-{n * 40}" for n in "123")
SOURCE = {"uri": "mlflow://magika/@champion", "endpoint": "https://mlflow.example.com"}


@dataclass
class Followed(World):
    """A world with a source that moves."""

    request: str = ""

    def __post_init__(self) -> None:
        self.spec["model"] = {"source": {**SOURCE, "onChange": "NewRevision"}}
        self.present_kinds |= {"CronJob"}
        self.moved(ONE)

    @property
    def deployment(self) -> dict[str, Any]:
        found = super().deployment
        if self.request:
            found["metadata"]["annotations"] = {REQUEST_ANNOTATION: self.request}
        return found

    def moved(self, version: str) -> None:
        """The alias leads to something else; nobody looked yet."""
        self.version_now = version
        self.address_now = f"mlflow://magika/{version[-1]}"
        self.bytes_now = "sha256:" + version[-1] * 64

    def _new_pod(self, owner: dict[str, Any], hash_: str) -> dict[str, Any]:
        """A pod; where the revision's bytes are pinned to an address, it fetches from there."""
        pod = super()._new_pod(owner, hash_)
        pin = self.children.get(Ref("v1", "ConfigMap", f"magika-{hash_}-pin"))
        if pin is not None and "address" in pin["data"]:
            number = pin["data"]["address"][-1]
            pod |= {"digest": "sha256:" + number * 64, "version": f"v1-{number * 40}"}
        return pod

    def look(self, **said: Any) -> None:
        """A look ends: with the version that the source has, or with what is said."""
        exit_code = 1 if "reason" in said else 0
        told = said or {"sourceVersion": self.version_now, "sourceAddress": self.address_now}
        self.looks.append(
            {
                "metadata": {
                    "name": f"magika-source-{len(self.looks)}",
                    "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "labels": {SOURCE_LABEL: "magika"},
                    "annotations": {SOURCE_ANNOTATION: source_key(parse(copied(self.spec)))},
                },
                "status": {
                    "containerStatuses": [
                        {
                            "name": "fetch",
                            "state": {
                                "terminated": {
                                    "exitCode": exit_code,
                                    "message": json.dumps(told),
                                }
                            },
                        }
                    ]
                },
            }
        )
        self.looks = self.looks[-2:]

    def serving_digests(self) -> set[str]:
        """Of the bytes in the pods behind the entry."""
        stable = self.stable()
        return {p["digest"] for p in self.pods if p["metadata"]["labels"][REVISION_LABEL] == stable}

    def followed(self) -> tuple[str, str]:
        """The condition."""
        found = self.condition("SourceFollowed")
        return found["status"], found["reason"]


@pytest.fixture
def world() -> Followed:
    world = Followed()
    world.settle()
    return world


def test_the_first_revision_waits_for_no_look(world: Followed) -> None:
    assert world.condition("Ready")["status"] == "True"
    assert world.followed() == ("Unknown", "NotLookedYet")
    assert Ref("batch/v1", "CronJob", "magika-source") in world.children
    before = world.stable()
    world.look()
    world.settle()
    assert (world.stable(), world.followed()) == (before, ("True", "Followed"))
    assert not world.step()


def test_what_changed_becomes_a_revision_and_is_rolled_out(world: Followed) -> None:
    before = world.stable()
    world.moved(TWO)
    world.look()
    world.settle()
    assert world.stable() != before
    assert world.serving_digests() == {"sha256:" + "2" * 64}
    assert world.followed() == ("True", "Followed")
    assert any(e.reason == "RolloutStarted" for e in world.events)
    # Without any look: what is known stays known, after a restart of the operator too.
    world.looks.clear()
    after = world.stable()
    world.settle()
    assert world.stable() == after


def test_a_champion_that_moves_back_is_the_former_revision_again(world: Followed) -> None:
    before = world.stable()
    for version in (TWO, ONE):
        world.moved(version)
        world.look()
        world.settle()
    assert world.stable() == before


@pytest.mark.parametrize("reason", ["SourceUnreachable", "SourceNotFound", "AccessDenied"])
def test_a_look_that_fails_is_no_change(world: Followed, reason: str) -> None:
    world.look()
    world.settle()
    before = world.stable()
    world.moved(TWO)
    world.now = world.now.replace(minute=world.now.minute + 5)
    world.look(reason=reason, message="about it")
    world.settle()
    assert (world.stable(), world.followed()) == (before, ("Unknown", reason))
    assert world.condition("Ready")["status"] == "True"


def test_a_source_without_versions_is_told_of(world: Followed) -> None:
    world.look(sourceVersion=None, sourceAddress=None)
    world.settle()
    assert world.followed() == ("Unknown", "SourceTellsNoVersion")


def test_a_changed_source_that_fails_is_rolled_back_and_not_tried_again(world: Followed) -> None:
    before = world.stable()
    world.look()
    world.settle()
    world.moved(TWO)
    world.look()
    world.step()
    (born,) = {o["metadata"]["labels"][REVISION_LABEL] for o in world.of_kind("Deployment")} - {
        before
    }
    world.outcomes[born] = failing_fetch("ArtifactInvalid", "no model in there")
    world.now = world.now.replace(hour=2)
    world.settle()
    assert world.stable() == before
    assert world.status["revisions"]["failed"][0]["hash"] == born
    for _ in range(3):
        world.looks.clear()
        world.look()
        world.settle()
    assert world.stable() == before
    assert world.condition("Stalled")["reason"] == "RolledBack"
    # Mended behind the same address: that is a change again.
    world.moved(THREE)
    world.look()
    world.settle()
    assert world.serving_digests() == {"sha256:" + "3" * 64}


def test_a_first_revision_that_never_fetched_is_replaced_when_the_source_is_mended() -> None:
    world = Followed()
    world.step()
    (born,) = {o["metadata"]["labels"][REVISION_LABEL] for o in world.of_kind("Deployment")}
    world.outcomes[born] = failing_fetch("SourceUnreachable", "no answer")
    world.settle()
    world.look()
    world.settle()  # it fetches what is there as soon as it can: nothing new is made
    assert len(world.of_kind("ControllerRevision")) == 1


def test_undo_holds_until_the_source_changes_again(world: Followed) -> None:
    first = world.stable()
    world.moved(TWO)
    world.look()
    world.settle()
    second = world.stable()
    world.request = "r1/undo//ada"
    world.settle()
    assert (world.stable(), world.followed()) == (first, ("False", "HeldByVerb"))
    world.look()
    world.settle()
    assert world.stable() == first
    world.moved(THREE)
    world.look()
    world.settle()
    assert world.stable() not in (first, second)
    assert world.followed() == ("True", "Followed")


def test_restart_goes_on_following(world: Followed) -> None:
    world.look()
    world.settle()
    first = world.stable()
    world.request = "r1/restart//ada"
    world.settle()
    restarted = world.stable()
    assert restarted != first
    world.moved(TWO)
    world.look()
    world.settle()
    assert world.stable() not in (first, restarted)


def test_moved_between_the_look_and_the_fetch_and_back() -> None:
    world = Followed()
    world.settle()
    world.look()
    world.settle()
    world.moved(TWO)
    world.look()
    world.moved(THREE)  # what it fetches is judged, and known to be what it is
    world.settle()
    third = world.stable()
    assert world.serving_digests() == {"sha256:" + "3" * 64}
    world.moved(TWO)
    world.look()
    world.settle()
    assert world.stable() != third
    assert world.serving_digests() == {"sha256:" + "2" * 64}


def test_later_pods_are_sent_to_where_the_bytes_stay(world: Followed) -> None:
    name = f"magika-{world.stable()}-pin"
    pin = world.children[Ref("v1", "ConfigMap", name)]
    assert pin["data"] == {"digest": "sha256:" + "1" * 64, "address": "mlflow://magika/1"}
    del world.children[Ref("v1", "ConfigMap", name)]
    for pod in world.pods:
        pod["address"] = ""
    world.settle()
    assert world.children[Ref("v1", "ConfigMap", name)]["data"] == pin["data"]


def test_a_pin_of_an_older_operator_is_left_as_it_is(world: Followed) -> None:
    pin = world.children[Ref("v1", "ConfigMap", f"magika-{world.stable()}-pin")]
    del pin["data"]["address"]
    assert world.step() == 0


def test_what_an_older_fetch_image_fetched_is_not_said_to_have_changed() -> None:
    world = Followed()
    world.version_now = ""
    world.settle()
    before = world.stable()
    world.moved(TWO)
    world.look()
    world.settle()
    assert (world.stable(), world.followed()) == (before, ("Unknown", "NotComparable"))
    world.request = "r1/restart//ada"
    world.settle()
    assert world.followed() == ("True", "Followed")


def test_another_way_of_making_versions_is_no_change(world: Followed) -> None:
    before = world.stable()
    world.version_now = "v2-" + "1" * 40
    world.look()
    world.settle()
    assert (world.stable(), world.followed()) == (before, ("Unknown", "NotComparable"))


def test_refuse_again_keeps_what_serves_and_looks_no_more(world: Followed) -> None:
    first = world.stable()
    for version in (TWO, ONE):
        world.moved(version)
        world.look()
        world.settle()
    world.spec["model"]["source"]["onChange"] = "Refuse"
    world.generation += 1
    world.settle()
    assert world.stable() == first
    assert not [r for r in world.children if r.kind == "CronJob"]
    assert not [c for c in world.status["conditions"] if c["type"] == "SourceFollowed"]


def test_looks_at_another_address_say_nothing(world: Followed) -> None:
    world.look()
    world.settle()
    world.edit(model={"source": {**SOURCE, "uri": "mlflow://other/1", "onChange": "NewRevision"}})
    world.settle()
    assert len(world.of_kind("ControllerRevision")) == 2
    assert world.followed() == ("Unknown", "NotLookedYet")


def test_without_the_right_to_cronjobs_it_is_said(world: Followed) -> None:
    world.present_kinds -= {"CronJob"}
    world.settle()
    assert world.followed() == ("False", "LooksNotAllowed")


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.sampled_from([ONE, TWO, THREE]), st.booleans(), st.integers(0, 5)),
        min_size=1,
        max_size=6,
    )
)
def test_any_moves_and_crashes_end_with_what_the_source_holds(
    moves: list[tuple[str, bool, int]],
) -> None:
    world = Followed()
    world.step()
    for version, looked, writes in moves:
        world.moved(version)
        if looked:
            world.look()
        world.step(writes=writes)
    world.settle()
    world.looks.clear()
    world.look()
    world.settle()
    assert world.serving_digests() == {world.bytes_now}
    assert world.followed() == ("True", "Followed")
    # Each revision's pods hold one content, whatever happened meanwhile.
    for ref in [r for r in world.children if r.kind == "Deployment"]:
        hash_ = world.children[ref]["metadata"]["labels"][REVISION_LABEL]
        mine = [p for p in world.pods if p["metadata"]["labels"][REVISION_LABEL] == hash_]
        assert len({p["digest"] for p in mine}) <= 1


def test_the_pods_that_look_are_no_model_pods() -> None:
    source = {**SOURCE, "onChange": "NewRevision", "secretName": "registry"}
    spec = parse(
        {
            "model": {"source": source},
            "runtime": {"gpu": {"count": 1}, "serviceAccountName": "reader"},
        }
    )
    owner = {"metadata": {"name": "m", "namespace": "demo", "uid": "u"}}
    job = look_job(owner, spec, Platform(), Profile())
    template = job["spec"]["jobTemplate"]["spec"]["template"]
    assert not {"tidegate.dev/deployment", REVISION_LABEL} & set(template["metadata"]["labels"])
    pod = template["spec"]
    (container,) = pod["containers"]
    assert {m["name"] for m in container["volumeMounts"]} == {"tmp", "credentials"}
    assert {v["name"] for v in pod["volumes"]} == {"tmp", "credentials"}
    assert "nvidia" not in json.dumps(container["resources"])
    assert pod["serviceAccountName"] == "reader"
    assert not pod["automountServiceAccountToken"]
    asked = json.loads(container["args"][1])
    assert (asked["uri"], asked["cache"], asked["sha256"]) == (SOURCE["uri"], None, None)
    # A CronJob's name has at most 52 characters.
    assert len(look_name({"metadata": {"name": "m" * MAX_NAME_LENGTH}})) <= 52
