"""Clusters among stable's outcomes: what divides the evidence is told wherever evidence is."""

import pytest

from tests.unit.rollout.test_regressions import at_step
from tests.unit.rollout.world import Quality
from tidegate.record import Phase
from tidegate.rollout import REFRESH_S


@pytest.mark.parametrize(
    ("clusters", "told"),
    [
        ((1.0, 1.0), None),
        ((1.04, 1.0), None),
        ((4.0, 1.0), "4/1"),
        ((4.0, 2.468), "4/2.5"),
        ((20.0, 20.0), "20/20"),
    ],
)
def test_status_says_what_divides_the_evidence_where_anything_does(
    clusters: tuple[float, float], told: str | None
) -> None:
    world = at_step(0.05)
    world.clusters = clusters
    world.run(2 * int(REFRESH_S))
    errors, latency = world.status["rollout"]["evidence"]["tests"]
    assert errors.get("clusters") == told
    assert "clusters" not in latency


@pytest.mark.parametrize(
    ("clusters", "ending"), [((1.0, 1.0), "needed 2e+03"), ((4.0, 2.5), "; clusters 4/2.5")]
)
def test_a_failed_revision_keeps_it_beside_the_other_numbers(
    clusters: tuple[float, float], ending: str
) -> None:
    world = at_step(0.05)
    world.clusters = clusters
    world.quality[world.record.canary] = Quality.BAD
    world.until(lambda w: w.record.phase is Phase.ROLLED_BACK)
    world.run(30)
    (failed,) = world.status["revisions"]["failed"]
    assert failed["evidence"].endswith(ending)


def test_status_is_not_written_more_often_for_a_factor_that_grows() -> None:
    written = []
    for growth in (0.0, 0.3):
        world = at_step(0.05)
        world.rps = 0.5
        before = world.status_writes
        for _ in range(60):
            world.clusters = (world.clusters[0] + growth, 1.0)
            world.tick(1)
        written.append(world.status_writes - before)
    assert written[1] <= written[0] <= 60 / REFRESH_S + 1
