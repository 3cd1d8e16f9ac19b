"""Each decision and each request is told once, with who, what it rested on, and the digests."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from tests.unit.rollout.world import Quality, World
from tidegate.actions import Action, Apply, Event, Measure, Plan, Scale
from tidegate.api.names import DECISION_ANNOTATION
from tidegate.observed import Ref
from tidegate.record import Phase, Record
from tidegate.runtime.audit import Auditor
from tidegate.runtime.cache import Key
from tidegate.runtime.otlp import Traces
from tidegate.runtime.telemetry import Metrics
from tidegate.runtime.tracing import OFF, Tracer
from tidegate.turns import turns

KEY = Key("demo", "detector")
BAD_FOR_S = 1.5


@dataclass
class Audited(World):
    """The toy cluster, with the auditor where the reconciler has it."""

    metrics: Metrics = field(default_factory=Metrics)
    lines: list[dict[str, Any]] = field(default_factory=list)
    deaf: bool = False
    measuring: Measure | None = None
    tracer: Tracer = OFF

    def __post_init__(self) -> None:
        self.new_auditor()

    def new_auditor(self) -> None:
        self.auditor = Auditor(
            self.metrics,
            "op-1",
            lambda line: self.lines.append(dict(line)),
            now=lambda: self.now,
            tracer=self.tracer,
        )

    def audit(self) -> None:
        if not self.deaf:
            measured = self._measured(self.measuring)
            self.auditor.look(KEY, self.deployment, self.children, self.last, measured, BAD_FOR_S)

    def reconcile(self) -> int:
        # The measurer goes on with what the pass before wanted until the pass is over.
        self.measuring = self.last.measure
        return super().reconcile()

    def _carry_out(self, action: Action) -> bool:
        changed = super()._carry_out(action)
        if changed and isinstance(action, Apply):
            annotations = action.manifest["metadata"].get("annotations") or {}
            if DECISION_ANNOTATION in annotations:
                self.audit()
        return changed

    def told(self, first: int = 0) -> list[str]:
        return [line["decision"] for line in self.lines[first:]]

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def live() -> Audited:
    world = Audited()
    world.settle()
    return world


def on_trial(quality: Quality = Quality.GOOD) -> Audited:
    world = live()
    world.version(2)
    world.tick()
    world.quality[world.record.canary] = quality
    return world


def test_replicas_that_were_written_are_told_with_their_reason() -> None:
    world = live()
    before = len(world.lines)
    action = Scale(Ref("apps/v1", "Deployment", f"{KEY.name}-abc"), 3)
    why = Event("Normal", "Scaled", "2 -> 3 replicas: 2.4 pods are needed at 120 requests/s")
    for plan in (Plan((action, why)), Plan((action,))):
        world.auditor.scaled(KEY, world.deployment, action, "2 -> 3 replicas", plan)
    told, bare = world.lines[before:]
    assert (told["decision"], told["by"], told["revision"]) == ("Scaled", "operator", "abc")
    assert (told["replicas"], told["reason"], told["message"]) == (
        3,
        "2 -> 3 replicas",
        why.message,
    )
    assert "message" not in bare
    assert world.sample("tidegate_decisions_total", decision="Scaled", reason="") == 2


def test_the_first_revision_is_told_as_such() -> None:
    world = live()
    assert world.told() == ["RolloutStarted", "RolloutComplete"]
    assert world.sample("tidegate_rollout_seconds_count", outcome="first") == 1


def test_a_promotion_from_start_to_end() -> None:
    world = on_trial()
    stable, canary = world.record.stable, world.record.canary
    world.settle()
    assert world.told(2) == [
        "RolloutStarted",
        "Mirroring",
        *["StepTaken"] * 3,
        "Promoted",
        "RolloutComplete",
    ]
    steps = [line["weight"] for line in world.lines if line["decision"] == "StepTaken"]
    assert [w["after"] for w in steps] == [0.05, 0.25, 0.5]
    assert [w["before"] for w in steps] == [0.0, 0.05, 0.25]
    promoted = next(line for line in world.lines if line["decision"] == "Promoted")
    assert (promoted["by"], promoted["revision"], promoted["stable"]) == (
        "operator",
        canary,
        stable,
    )
    assert promoted["inputs"]["verdict"] == "Good"
    assert promoted["inputs"]["tests"][0]["canary"].startswith("0/")
    digests = {promoted["artefacts"][h]["digest"] for h in (stable, canary)}
    assert all(d.startswith("sha256:") for d in digests)
    assert promoted["artefacts"][canary]["source"] == "s3://models/detector/v2"
    assert world.sample("tidegate_rollout_seconds_count", outcome="promoted") == 1
    assert world.sample("tidegate_decisions_total", decision="StepTaken", reason="") == 3


def test_a_rollback_says_on_what_numbers() -> None:
    world = on_trial(Quality.BAD)
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    line = world.lines[-1]
    assert (line["decision"], line["reason"], line["by"]) == ("RolledBack", "ErrorRate", "operator")
    assert line["inputs"]["verdict"] == "Bad"
    assert line["inputs"]["tests"][0]["verdict"] == "Bad"
    assert line["weight"]["after"] == 0
    assert datetime.fromisoformat(line["at"]) <= world.now
    count = world.sample("tidegate_decisions_total", decision="RolledBack", reason="ErrorRate")
    assert count == 1
    assert world.sample("tidegate_rollout_seconds_count", outcome="rolled_back") == 1
    # Caught in the mirror: it never had traffic that could be taken away.
    assert world.sample("tidegate_rollback_seconds_count") == 0


def test_the_time_to_zero_weight_is_counted_where_there_was_weight() -> None:
    world = on_trial()
    world.until(lambda w: w.record.phase is Phase.CANARY)
    world.quality[world.record.canary] = Quality.BAD
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    assert world.lines[-1]["weight"]["before"] > 0
    assert world.sample("tidegate_rollback_seconds_sum") == BAD_FOR_S


def test_a_decision_names_the_trace_that_led_to_it() -> None:
    world = on_trial(Quality.BAD)
    world.tracer = Traces("http://127.0.0.1:9", world.metrics, identity="op-1", namespace="gate")
    world.new_auditor()
    with world.tracer.reconcile(KEY):
        trace = world.tracer.trace_id()
        world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    assert world.lines[-1]["trace_id"] == trace
    assert "trace_id" not in world.lines[0]


def test_who_asked_is_named() -> None:
    world = on_trial()
    world.until(lambda w: w.record.phase is Phase.CANARY)
    first = len(world.lines)
    world.ask("abort")
    world.tick()
    request, rolled_back = world.lines[first:]
    assert request["request"] == {
        "id": request["request"]["id"],
        "verb": "abort",
        "revision": "",
        "user": "jane",
        "result": "granted",
    }
    assert (rolled_back["decision"], rolled_back["by"]) == ("RolledBack", "jane")
    first = len(world.lines)
    world.ask("abort")
    world.tick()
    (refused,) = world.lines[first:]
    assert (refused["by"], refused["request"]["result"]) == ("jane", "refused")
    assert world.sample("tidegate_verbs_total", verb="abort", result="granted") == 1
    assert world.sample("tidegate_verbs_total", verb="abort", result="refused") == 1


def test_promoted_by_hand_names_the_hand_though_it_comes_later() -> None:
    world = on_trial()
    world.ask("promote")
    world.settle()
    promoted = next(line for line in world.lines if line["decision"] == "Promoted")
    assert promoted["by"] == "jane"


def test_a_pause_does_not_make_a_step_somebodys_doing() -> None:
    world = on_trial()
    world.until(lambda w: w.record.phase is Phase.CANARY)
    world.ask("pause")
    world.tick()
    world.ask("resume")
    world.settle()
    steps = [line for line in world.lines if line["decision"] in ("StepTaken", "Promoted")]
    assert {line["by"] for line in steps} == {"operator"}


def test_nothing_is_told_twice_and_ids_differ() -> None:
    world = on_trial()
    world.settle()
    count = len(world.lines)
    world.run(300)
    assert len(world.lines) == count
    assert len({line["id"] for line in world.lines}) == count


def test_a_restart_tells_nothing_again() -> None:
    world = on_trial()
    world.until(lambda w: w.record.phase is Phase.CANARY)
    count = len(world.lines)
    world.new_auditor()
    world.audit()
    assert len(world.lines) == count
    world.settle()
    count = len(world.lines)
    world.new_auditor()
    world.audit()
    assert len(world.lines) == count


def test_what_a_predecessor_did_not_live_to_tell_is_told() -> None:
    world = on_trial(Quality.BAD)
    world.tick()
    before = dict(world.status)
    world.deaf = True
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    told = len(world.lines)
    # It died between the route and the status.
    world.status, world.deaf = before, False
    world.new_auditor()
    world.audit()
    assert world.told(told) == ["RolledBack"]


def test_a_version_that_replaces_another_ends_it() -> None:
    world = on_trial()
    world.until(lambda w: w.record.phase is Phase.CANARY)
    old, first = world.record.canary, len(world.lines)
    world.version(3)
    world.tick(5)
    assert world.told(first)[:2] == ["Superseded", "RolloutStarted"]
    assert world.lines[first]["revision"] == old
    world.version(1)
    world.tick(5)
    assert world.lines[-1]["decision"] == "Reverted"
    assert world.sample("tidegate_rollout_seconds_count", outcome="superseded") == 2


RECORD = Record(
    stable="a",
    canary="b",
    phase=Phase.CANARY,
    weight=0.05,
    step=0,
    started="2026-01-01T00:00:00.000Z",
    since="2026-01-01T00:01:00.000Z",
)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (RECORD, RECORD, []),
        (Record(stable=""), RECORD, ["RolloutStarted", "StepTaken"]),
        (Record(stable=""), Record(stable=""), []),
        (Record(stable=""), Record(stable="a", canary="b"), []),
    ],
)
def test_turns(before: Record, after: Record, expected: list[str]) -> None:
    assert [turn.decision for turn in turns(before, after)] == expected
