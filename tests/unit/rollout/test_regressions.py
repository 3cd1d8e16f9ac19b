"""What went wrong elsewhere: one test for each issue that other tools' users have reported.

The docstrings say what happened there. The tests drive the whole plan through `World`, which
checks the safety invariants at every write besides.
"""

import copy

import pytest

from tests.unit.rollout.invariants import check_rest
from tests.unit.rollout.world import ENTRY, ROUTE, Health, Quality, World
from tidegate.actions import Annotate, Apply, Delete, Scale
from tidegate.api.names import FAILED_ANNOTATION, REVISION_LABEL
from tidegate.record import Phase
from tidegate.resources.services import revision_of


def live(replicas: int = 3) -> World:
    """A version that serves, alone."""
    world = World()
    world.edit(replicas=replicas)
    world.settle(quiet=3)
    return world


def at_step(weight: float, replicas: int = 3) -> World:
    """Another version on trial, with that weight."""
    world = live(replicas)
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.CANARY and w.record.weight >= weight)
    return world


def rolled_back(replicas: int = 3) -> World:
    """Another version that failed."""
    world = at_step(0.05, replicas)
    world.quality[world.record.canary] = Quality.BAD
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    return world


def least_asked(world: World, revision: str, seconds: int, step: int = 5) -> int:
    """The fewest replicas that a revision's Deployment asks for in a while."""
    found = [world.asked(revision)]
    for _ in range(0, seconds, step):
        world.tick(step)
        found.append(world.asked(revision))
    return min(found)


# Stable is harmed.


def test_argo_rollouts_1292_abort_without_a_rollout_touches_nothing() -> None:
    """Abort with no rollout under way scaled the stable ReplicaSet to zero."""
    world = live()
    before = copy.deepcopy(world.children)
    world.ask("abort")
    world.run(120)
    assert world.asked(world.serving()) == 3
    assert {r: o.get("spec") for r, o in world.children.items()} == {
        r: o.get("spec") for r, o in before.items()
    }
    assert "RequestRefused" in [e.reason for e in world.events]


def test_argo_rollouts_2050_stable_stays_while_the_canary_misses_pods() -> None:
    """Stable was scaled from 110 to 0 while the canary, with all the traffic, missed pods."""
    world = at_step(0.5)
    stable, canary = world.record.stable, world.record.canary
    world.until(lambda w: w.record.phase is Phase.BAKING)
    world.start_s = 300
    world.lose_pod(canary)
    for _ in range(58):
        world.tick(5)
        assert world.ready(canary) == 2
        assert world.asked(stable) == 3
    assert world.record.phase is Phase.BAKING, "the bake lasts until it is whole"
    world.settle()
    assert world.serving() == canary
    check_rest(world)


def test_argo_rollouts_3275_a_new_strategy_takes_no_stable_pod() -> None:
    """Changed from canary to blue-green with a new version, stable went before it was up."""
    world = live()
    stable = world.serving()
    world.edit(rollout={"strategy": "BlueGreen"})
    world.version(2)
    world.tick()
    world.health[world.record.canary] = Health.NEVER_READY
    assert least_asked(world, stable, 300) == 3
    assert world.serving() == stable
    world.health.clear()
    world.settle()
    assert world.serving() != stable
    check_rest(world)


def test_argo_rollouts_1415_a_scale_event_in_a_rollout_takes_no_stable_pod() -> None:
    """The autoscaler scaled during a canary, and the controller scaled stable to zero."""
    world = at_step(0.25)
    stable = world.record.stable
    world.edit(replicas=5)
    assert least_asked(world, stable, 30) >= 3
    assert world.asked(stable) == 5
    world.edit(replicas=2)
    assert least_asked(world, stable, 30) == 2


def test_argo_rollouts_3565_replicas_reset_by_gitops_never_empty_stable() -> None:
    """A sync put replicas back to the manifest's in a rollout; stable dropped to zero briefly."""
    world = at_step(0.25)
    stable = world.record.stable
    for number in (2, 3, 2, 3):
        world.edit(replicas=number)
        assert least_asked(world, stable, 10) >= 2


# Superseded in the middle.


def test_argo_rollouts_4390_the_old_canary_goes_only_when_it_gets_no_traffic() -> None:
    """With stable not whole, the route stayed on the superseded canary while its pods went: 503."""
    world = at_step(0.25)
    stable, old = world.record.stable, world.record.canary
    world.lose_pod(stable)
    first = len(world.log)
    world.version(3)
    world.tick(5)
    assert old not in world.shares()
    writes = world.log[first:]
    route = next(i for i, a in enumerate(writes) if isinstance(a, Apply) and a.ref == ROUTE)
    gone = [i for i, a in enumerate(writes) if isinstance(a, Delete | Scale)]
    assert all(route < i for i in gone)


def test_argo_rollouts_4534_a_heavy_canary_that_is_superseded_gives_its_traffic_back_first() -> (
    None
):
    """A canary with 80 % was scaled down at once as "intermediate": no healthy upstream."""
    world = live()
    world.edit(rollout={"steps": [{"weight": "5%"}, {"weight": "80%"}]})
    world.version(2)
    world.until(lambda w: w.record.weight >= 0.8)
    stable, old = world.record.stable, world.record.canary
    assert world.asked(stable) == 3, "stable could take all of it back at any time"
    world.version(3)
    world.tick(5)
    assert world.shares() == {stable: 1.0}
    assert not world.asked(old)
    leaving = [p for p in world.pods if p.revision == old]
    assert leaving, "and its pods go as pods go: they drain first"


def test_argo_rollouts_4639_each_newer_version_starts_at_the_first_step() -> None:
    """From their list of rollouts that were superseded midway: the newer one went on elsewhere."""
    world = at_step(0.5)
    for number in (3, 4):
        world.version(number)
        first = len(world.decisions)
        world.tick(5)
        world.until(lambda w: w.record.phase is Phase.CANARY and w.record.weight >= 0.25)
        seen = [d.weight for d in world.decisions[first:] if d.phase is Phase.CANARY]
        assert seen == [0.05, 0.25]


# Flapping after an abort.


def test_argo_rollouts_3078_kept_pods_of_a_failed_version_leave_the_traffic_alone() -> None:
    """While an aborted canary's pods were kept, its Service flipped between the two hashes."""
    world = at_step(0.05)
    stable, canary = world.record.stable, world.record.canary
    world.edit(rollout={"keepFailed": "10m"})
    world.quality[canary] = Quality.BAD
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    first = len(world.log)
    world.run(300)
    assert world.asked(canary) > 0
    assert world.shares() == {stable: 1.0}
    assert revision_of(world.children[ENTRY]) == stable
    moved = [a for a in world.log[first:] if isinstance(a, Apply) and a.ref in (ROUTE, ENTRY)]
    assert moved == []
    world.run(600)
    assert world.asked(canary) == 0


def test_argo_rollouts_4973_scaling_up_after_an_abort_leaves_the_failed_version_down() -> None:
    """After an abort, scaling up brought the aborted ReplicaSet back until stable was available."""
    world = rolled_back()
    canary = world.record.canary
    world.start_s = 120
    world.edit(replicas=6)
    for _ in range(40):
        world.tick(5)
        assert world.asked(canary) == 0
        assert canary not in world.shares()


def test_argo_rollouts_4841_the_weight_goes_to_zero_at_once_however_few_stable_pods() -> None:
    """An aborted canary kept a weight above zero for good, since weight followed stable's pods."""
    world = at_step(0.5)
    stable, canary = world.record.stable, world.record.canary
    for pod in world.pods:
        pod.broken = pod.revision == stable
    world.quality[canary] = Quality.BAD
    world.tick(5)
    assert world.shares() == {stable: 1.0}


# What is not known is no success.


@pytest.mark.parametrize("quality", [Quality.GOOD, Quality.BAD])
def test_argo_rollouts_4479_943_metrics_that_fail_are_no_success(quality: Quality) -> None:
    """4479: an analysis of nothing but errors ended "Successful".

    943: an experiment was Successful while an analysis was still running that then failed.
    """
    world = at_step(0.05)
    world.metrics_down = True
    world.run(3600, step=30)
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.05)
    assert world.status["rollout"]["hold"] == "MetricsUnavailable"
    assert world.condition("MetricsAvailable")["status"] == "False"
    assert world.condition("Ready")["status"] == "False"
    world.quality[world.record.canary] = quality
    world.metrics_down = False
    world.settle()
    good = quality is Quality.GOOD
    assert world.record.phase is (Phase.PROMOTED if good else Phase.ROLLED_BACK)


def test_flagger_1035_1353_argo_rollouts_1945_without_traffic_nothing_is_decided() -> None:
    """Flagger 1035, 1353: without traffic a canary failed. Argo 1945: none to judge it by."""
    world = live()
    world.rps = 0.0
    world.version(2)
    world.run(7200, step=60)
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.05)
    assert world.status["rollout"]["hold"] == "NeedsMoreRequests"
    assert world.status["rollout"]["evidence"]["requestsNeeded"] > 0
    world.rps = 20.0
    world.settle()
    assert world.record.phase is Phase.PROMOTED


def test_flagger_1011_traffic_that_ends_midway_stops_the_rollout() -> None:
    """With traffic at first and none later, the canary advanced all the same."""
    world = live()
    world.rps = 2.0
    world.version(2)
    world.until(lambda w: w.record.weight >= 0.25)
    world.rps = 0.0
    world.run(3600, step=30)
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.25)
    assert world.status["rollout"]["hold"] == "NeedsMoreRequests"


def test_flagger_1689_a_first_look_without_values_is_no_failure() -> None:
    """Right after the first step "no values found" counted as a failed check."""
    world = live()
    world.metrics_down = True
    world.version(2)
    world.run(120)
    world.metrics_down = False
    world.settle()
    assert world.record.phase is Phase.PROMOTED
    assert "RolledBack" not in [e.reason for e in world.events]


def test_argo_rollouts_1466_an_empty_answer_aborts_nothing() -> None:
    """An empty result ("slice index out of range"), five times in a row, aborted the rollout."""
    world = at_step(0.05)
    world.metrics_down = True
    world.run(600, step=5)
    assert (world.record.phase, world.record.weight) == (Phase.CANARY, 0.05)


# Stale views.


@pytest.mark.parametrize("lost", [False, True], ids=["stale", "lost"])
def test_argo_rollouts_4784_4786_a_status_that_lags_behind_moves_no_traffic(lost: bool) -> None:
    """The controller wrote a stale rollout into its own cache, and acted on it from then on."""
    world = at_step(0.05)
    stale = copy.deepcopy(world.status)
    canary = world.record.canary
    world.quality[canary] = Quality.BAD
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    world.status = {} if lost else stale
    world.restart()
    world.run(300)
    assert world.record.phase is Phase.ROLLED_BACK
    assert canary not in world.shares()
    assert [f["hash"] for f in world.status["revisions"]["failed"]] == [canary]


# Moving weight.


def test_argo_rollouts_4710_4433_promotion_gives_no_service_another_selector() -> None:
    """At promotion stable's Service got other pods and the weights went back, at once: 503s.

    For 8 to 36 s the traffic went to a backend without endpoints, on Google's (4710) and AWS's
    (4433) gateways, which learn of the two at different speed.
    """
    world = at_step(0.5)
    canary = world.record.canary
    before = {
        o["metadata"]["name"]: o["spec"]["selector"]
        for o in world.of_kind("Service")
        if REVISION_LABEL in o["metadata"]["labels"]
    }
    assert len(before) == 2
    world.until(lambda w: w.record.phase is Phase.PROMOTED)
    for service in world.of_kind("Service"):
        name = service["metadata"]["name"]
        assert service["spec"]["selector"] == before.get(name, service["spec"]["selector"])
    assert world.shares() == {canary: 1.0}


def test_argo_rollouts_4752_4828_service_and_ready_pods_come_before_any_weight() -> None:
    """The weight moved when the subset had just been given its pods: "no healthy upstream".

    4752 asks for a delay between the two; 4828 is reported for the same symptom.
    """
    world = live()
    world.start_s = 40
    world.version(2)
    world.until(lambda w: w.record.phase is Phase.PREPARING)
    canary = world.record.canary
    assert any(o["metadata"]["name"].endswith(canary) for o in world.of_kind("Service"))
    while not world.shares().get(canary):
        assert world.serving() == world.record.stable
        ready = world.ready(canary)
        world.tick(2)
    assert ready > 0


# Undo, double steps, blindness.


def test_flagger_724_going_back_to_the_old_spec_is_seen() -> None:
    """An undo of the Deployment during the analysis was not seen; the canary went on."""
    world = at_step(0.25)
    stable, canary = world.record.stable, world.record.canary
    world.version(1)
    world.tick(5)
    assert world.record.phase is Phase.SUPERSEDED
    assert world.shares() == {stable: 1.0}
    world.settle()
    assert world.asked(canary) == 0
    assert world.condition("Ready")["status"] == "True"
    check_rest(world)


def test_flagger_1613_two_operators_take_one_step() -> None:
    """With two replicas of the controller a canary moved two steps at a time."""
    world = at_step(0.05)
    world.run(25, step=5)
    world.until(lambda w: w.record.weight > 0.05)
    assert world.record.weight == 0.25
    other = copy.deepcopy(world)
    other.restart()
    other.reconcile()
    assert other.record == world.record
    world.reconcile()
    assert world.record == other.record
    weights = [d.weight for d in world.decisions if d.phase is Phase.CANARY]
    assert weights == [0.05, 0.25]


def test_flagger_1268_a_canary_that_is_not_ready_is_judged_all_the_same() -> None:
    """The check for a rollback came after the one for readiness, so it never came."""
    world = at_step(0.25)
    stable, canary = world.record.stable, world.record.canary
    world.health[canary] = Health.NEVER_READY
    world.quality[canary] = Quality.BAD
    world.tick(10)
    assert world.record.phase is Phase.ROLLED_BACK
    assert world.shares() == {stable: 1.0}


def test_flagger_523_1578_pods_that_crash_are_not_waited_for() -> None:
    """Crashing pods were waited for, hours beyond the deadline (523: 9 h), their weight stayed."""
    world = at_step(0.25)
    stable, canary = world.record.stable, world.record.canary
    world.health[canary] = Health.CRASHING
    world.tick(10)
    assert world.record.phase is Phase.ROLLED_BACK
    assert world.shares() == {stable: 1.0}
    assert "Segmentation fault" in world.status["revisions"]["failed"][0]["message"]


def test_flagger_1931_promotion_starts_no_pod() -> None:
    """After a good analysis the primary was rolled anew; where that failed, it got the traffic."""
    world = at_step(0.5)
    world.until(lambda w: w.record.phase is Phase.BAKING)
    made = {p.uid for p in world.pods}
    world.start_s = 100_000  # no pod would ever come up again
    world.settle()
    assert world.record.phase is Phase.PROMOTED
    assert {p.uid for p in world.pods} <= made
    check_rest(world)


# Autoscalers.


def test_kserve_3768_an_update_keeps_the_number_of_pods() -> None:
    """On an update the Deployment's replicas were reset to 1, and 3 of 4 pods went at once."""
    world = live(replicas=4)
    stable = world.serving()
    world.version(2)
    least = 4
    while world.record.phase is not Phase.BAKING:
        world.tick(5)
        least = min(least, world.asked(stable), world.ready(stable))
    assert least == 4
    assert world.ready(world.record.canary) == 4
    world.settle()
    assert world.ready(world.serving()) == 4


def test_flagger_634_a_canary_with_weight_takes_no_stable_pod() -> None:
    """As traffic moved, the primary was scaled down; a rollback met too few pods."""
    world = live(replicas=4)
    stable = world.serving()
    world.version(2)
    while world.record.phase is not Phase.BAKING:
        world.tick(5)
        assert world.asked(stable) == 4
    world.quality[world.record.canary] = Quality.BAD
    world.tick(10)
    assert world.shares() == {stable: 1.0}
    assert world.ready(stable) == 4


def test_flagger_1209_the_new_version_has_pods_for_its_share_before_it_gets_it() -> None:
    """A new version began with the autoscaler's least number whatever the traffic: 500s."""
    world = live(replicas=4)
    world.version(2)
    while world.record.phase is not Phase.PROMOTED:
        world.tick(5)
        canary = world.record.canary
        share = world.shares().get(canary, 0.0) if canary else 0.0
        assert world.ready(canary) >= share * 4


# Status.


def test_kserve_1859_crashing_pods_are_not_ready() -> None:
    """Ready stayed True while all pods crashed after a restart."""
    world = live()
    world.health[world.serving()] = Health.CRASHING
    world.run(60)
    assert world.condition("Ready")["status"] == "False"
    assert world.condition("Available")["status"] == "False"
    assert world.condition("Ready")["reason"] == "Crashing"


def test_kserve_2037_traffic_says_what_the_route_does() -> None:
    """From their list of statuses that were untrue: shares by revision, at every moment."""
    world = live()
    world.version(2)
    while world.record.phase is not Phase.PROMOTED:
        world.tick(5)
        said = {t["revision"]: t["weight"] for t in world.status["traffic"]}
        assert {h: round(s * 100) for h, s in world.shares().items()} == {
            h: w for h, w in said.items() if w
        }


def test_kserve_4626_a_rollout_under_way_is_not_ready() -> None:
    """Ready stayed True while the new version was still being rolled out."""
    world = live()
    generation = world.generation
    world.version(2)
    while world.record.phase not in (Phase.BAKING, Phase.PROMOTED):
        world.tick(5)
        if world.record.phase in (Phase.BAKING, Phase.PROMOTED):
            break
        ready = world.condition("Ready")
        assert (ready["status"], ready["observedGeneration"]) == ("False", generation + 1)
        assert world.condition("Reconciling")["status"] == "True"
        assert world.condition("Available")["status"] == "True"


def test_dynamo_13620_a_revert_keeps_what_serves() -> None:
    """Reverting in an update was taken for its end, and the workers that served were deleted."""
    world = at_step(0.5)
    stable, canary = world.record.stable, world.record.canary
    first = len(world.log)
    world.version(1)
    world.settle()
    removed = [a.ref.name for a in world.log[first:] if isinstance(a, Delete)]
    assert removed, "the canary goes"
    assert all(canary in name for name in removed)
    assert world.ready(stable) == 3
    check_rest(world)


# Defects that these tests found here.


def test_a_deleted_pin_takes_no_pod_that_serves() -> None:
    """Without its pin a revision may have one pod only; that scaled three that served to one."""
    world = live()
    stable = world.serving()
    del world.children[next(r for r in world.children if r.name.endswith("-pin"))]
    assert least_asked(world, stable, 60) == 3
    check_rest(world)


def test_undo_in_the_middle_of_a_rollout_lasts() -> None:
    """It ended the rollout, and the spec began it again at once."""
    world = at_step(0.25)
    stable = world.record.stable
    world.ask("undo")
    world.settle()
    assert world.serving() == stable
    assert world.record.phase is Phase.SUPERSEDED
    world.version(3)  # until somebody asks for something else
    world.settle()
    assert world.serving() not in (stable, "")
    check_rest(world)


def test_restart_after_an_undo_is_one_rollout() -> None:
    """What the undo had asked for still held, and superseded the restart for a moment."""
    world = live()
    world.version(2)
    world.settle()
    world.ask("undo")
    world.settle()
    before = world.serving()
    first = len(world.decisions)
    world.ask("restart")
    world.settle()
    assert world.serving() != before
    assert Phase.SUPERSEDED not in [d.phase for d in world.decisions[first:]]


def test_a_failure_is_remembered_though_the_operator_died_and_the_spec_went_on() -> None:
    """It stood in the record alone when the next version's record took its place."""
    world = at_step(0.05)
    canary = world.record.canary
    world.quality[canary] = Quality.BAD
    world.die_at = world.writes + 1
    world.tick(5)
    assert world.record.phase is Phase.ROLLED_BACK
    assert not any(
        isinstance(a, Annotate) and FAILED_ANNOTATION in a.annotations for a in world.log
    )
    world.version(3)
    world.settle()
    world.quality.clear()
    world.version(2)
    world.settle()
    assert canary not in world.shares()
    assert world.status["rollout"]["hold"] == "RolledBack"
