"""The autoscaling benchmark's arithmetic, and one tiny run of it."""

import math
from pathlib import Path

import pytest

from e2e.bench import autoscaling
from e2e.bench.autoscaling_worlds import (
    LAWS,
    ORACLE,
    OURS,
    PODS,
    RPS,
    SHAPES,
    Job,
    Played,
    Setting,
    Task,
    holds,
    jobs,
    play,
    scenarios,
)
from tidegate.simulation.load import steady


def played(
    law: str, value: float, missed: int, gpu_s: float, job: str = "a", seed: int = 1
) -> Played:
    return Played("jobs", job, seed, 60.0, Setting(law, value), 1000, 1000 - missed, gpu_s, 0)


def test_a_front_leaves_out_what_costs_more_for_less() -> None:
    runs = [
        played("x", 1, 100, 3600),
        played("x", 2, 10, 7200),
        played("x", 3, 20, 9000),
        played("x", 4, 1, 10_800),
        played("y", 1, 0, 1),
    ]
    assert autoscaling.front(runs, "x") == [(0.9, 1.0), (0.99, 2.0), (0.999, 3.0)]


def test_cost_between_two_settings_goes_by_what_is_missed() -> None:
    curve = [(0.9, 1.0), (0.99, 2.0), (0.999, 3.0)]
    assert autoscaling.cost_at(curve, 0.8) == 1.0
    assert autoscaling.cost_at(curve, 0.99) == 2.0
    between = autoscaling.cost_at(curve, 1 - 0.1 / math.sqrt(10))
    assert between == pytest.approx(1.5)
    assert autoscaling.cost_at(curve, 0.9999) is None
    assert autoscaling.cost_at([], 0.9) is None


def test_the_cheapest_setting_that_gets_there_is_taken() -> None:
    runs = [played("x", 1, 30, 100), played("x", 2, 5, 300), played("x", 3, 4, 200)]
    assert autoscaling.tuned(runs, "x", 0.99) == Setting("x", 3)
    assert autoscaling.tuned(runs, "x", 0.9999) is None


def test_jobs_are_tuned_on_or_scored_on_never_both() -> None:
    runs = [played("x", 1, 0, 1, job=name) for name in "abcdef"]
    tune, score = autoscaling.halves(runs)
    assert tune | score == set("abcdef")
    assert not tune & score
    assert len(tune) == len(score)
    assert autoscaling.halves(runs[::-1]) == (tune, score)


def test_the_worst_job_is_the_one_with_the_most_missed() -> None:
    runs = [played("x", 1, 0, 1, "a", s) for s in (1, 2)]
    runs += [played("x", 1, n, 1, "b", s) for s, n in ((1, 0), (2, 100))]
    assert autoscaling.worst(runs) == pytest.approx(0.95)


def test_intervals_come_from_the_seeds() -> None:
    runs = [
        played(law, v, missed, hours * 3600 * (1 + 0.1 * seed), seed=seed)
        for seed in (1, 2, 3, 4, 5)
        for law, scale in ((OURS, 1.0), (RPS, 1.5))
        for v, missed, hours in ((1, 20, scale), (2, 2, 2 * scale))
    ]
    found = autoscaling.ratios(runs, RPS, 0.99, 50)
    assert found is not None
    assert found[0] == pytest.approx(1.5)
    assert found[1] == "1.50 to 1.50"


def test_every_job_needs_as_many_pods_on_average() -> None:
    for job in jobs(1, 600.0, None, 4):
        mean = sum(job.load.rates) / len(job.load.rates)
        assert mean / holds(job.server) == pytest.approx(PODS)
    assert jobs(1, 600.0, None, 2) == jobs(1, 600.0, None, 2)
    assert jobs(1, 600.0, None, 2) != jobs(2, 600.0, None, 2)


def test_recorded_jobs_come_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "counts.csv").write_text("60,120\n90,100\n" * 20)
    (tmp_path / "times.csv").write_text(
        "TIMESTAMP,Tokens\n"
        + "".join(f"2026-01-01 00:{i // 60:02}:{i % 60:02}.5,3\n" for i in range(1200))
    )
    found = jobs(1, 600.0, tmp_path, 4)
    assert {job.name for job in found} >= {"counts 1", "counts 2", "times"}
    assert all(job.load.duration_s <= 660 for job in found)


def test_the_scenarios_are_the_ones_that_were_asked_for() -> None:
    names = {job.name for job in scenarios(600.0)}
    assert names == {"steady", "ramp", "flash crowd", "bursts", "drift", "service-time change"}


def test_a_tiny_run_of_all_laws_but_ours() -> None:
    job = Job("tiny", SHAPES[1], steady(40.0, 90))
    laws = tuple(law for law in LAWS if law != OURS)
    task = Task("jobs", ((job, 1),), (30.0,), laws, every=5)
    found = play(task)
    assert found == play(task)
    assert {r.setting.law for r in found} == set(laws)
    assert all(0.0 <= r.attainment <= 1.0 and r.gpu_s > 0 for r in found)
    best = {r.setting: r for r in found}[Setting(ORACLE, 0.7)]
    assert best.attainment > 0.99
