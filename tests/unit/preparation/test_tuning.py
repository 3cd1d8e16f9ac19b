"""What to measure and which to take, against a server that is the capacity model itself."""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.autoscaling.capacity import run
from tidegate.autoscaling.reading import Batch
from tidegate.preparation.tuning.driving import bursts, enough, poisson
from tidegate.preparation.tuning.grid import Grid, Setting, Workers
from tidegate.preparation.tuning.learning import Learned, Spent, learn, predict
from tidegate.preparation.tuning.other_targets import FACTORS, measured, modelled
from tidegate.preparation.tuning.search import (
    Measure,
    Objective,
    Stretch,
    Tuned,
    exhaustive,
    highest,
    ranked,
    tune,
)

ARRIVALS = 2_000
OBJECTIVE = Objective(0.99, 50.0)
TRUE = {
    Workers(1, 1): Learned(4.0, 1.0, 0.1, 1.0, 0.4, 4.0),
    Workers(2, 1): Learned(4.5, 1.2, 0.1, 1.0, 0.5, 4.5),
    Workers(1, 2): Learned(4.0, 0.7, 0.1, 1.0, 0.4, 6.0),
    Workers(2, 2): Learned(7.0, 1.5, 0.1, 1.0, 0.5, 9.0),
}
GRID = Grid((1, 4, 16), (1, 2), (0.0, 2.0), (1, 2))


class Server:
    """Serves as the capacity model says, with these constants; counts what it is asked."""

    def __init__(self, true: dict[Workers, Learned], client_per_s: float = 1e9) -> None:
        self.true = true
        self.runs = 0
        self._client_per_s = client_per_s

    def probe(self, workers: Workers, largest: int) -> Learned:
        return self.true[workers]

    def measure(
        self, setting: Setting, rate_per_s: float, objective: Objective = OBJECTIVE
    ) -> Stretch:
        self.runs += 1
        known = self.true[setting.workers]
        pod = known.pod(setting, objective.quantile, objective.target_ms)
        left_ms = objective.target_ms - known.overhead_ms
        seen = run(pod, rate_per_s / 1000, left_ms, arrivals=ARRIVALS)
        batches = seen.batches / ARRIVALS
        cpu_s = (known.request_cpu_ms + known.batch_cpu_ms * batches) * seen.counted / 1000
        late_ms = 0.0 if rate_per_s <= self._client_per_s else objective.target_ms
        return Stretch(rate_per_s, seen.counted, seen.late, 1.0, 2.0, cpu_s, late_ms)

    def measuring(self, objective: Objective) -> Measure:
        return partial(self.measure, objective=objective)


@pytest.fixture(scope="module")
def server() -> Server:
    return Server(TRUE)


@pytest.fixture(scope="module")
def tuned(server: Server) -> Tuned:
    return tune(GRID, OBJECTIVE, server.probe, server.measure)


def test_the_same_pick_as_an_exhaustive_search_with_a_fifth_of_the_runs(
    server: Server, tuned: Tuned
) -> None:
    assert tuned.runs == server.runs + len(TRUE)
    everything = exhaustive(GRID, OBJECTIVE, Server(TRUE).measure)
    assert tuned.best is not None
    assert everything.best is not None
    true = ranked(GRID.settings(), TRUE, OBJECTIVE)  # what the picks really cost
    assert true[tuned.best.setting].cost_s <= 1.03 * true[everything.best.setting].cost_s
    assert tuned.runs <= everything.runs / 5


@settings(max_examples=8)
@given(
    alpha_ms=st.floats(0.5, 20.0),
    beta_ms=st.floats(0.05, 3.0),
    guess=st.floats(1.0, 3000.0),
)
def test_a_rate_that_is_said_to_hold_was_seen_to_hold(
    alpha_ms: float, beta_ms: float, guess: float
) -> None:
    server = Server({Workers(1, 1): Learned(alpha_ms, beta_ms, 0.0, 0.5, 0.1, 0.1)})
    found = highest(server.measure, Setting(8, 1, 0.0, 1), OBJECTIVE, guess)
    if found.rate_per_s:
        (seen,) = (s for s in found.stretches if s.rate_per_s == found.rate_per_s)
        assert seen.late <= 0.01 * seen.requests
        assert all(
            s.late > 0.01 * s.requests for s in found.stretches if s.rate_per_s > found.rate_per_s
        )
    assert len(found.stretches) <= 5


def test_a_good_guess_ends_near_the_highest_rate() -> None:
    server = Server(TRUE)
    setting = Setting(8, 1, 0.0, 1)
    expected = predict(TRUE[setting.workers], setting, 0.99, 50.0).rate_per_s
    found = highest(server.measure, setting, OBJECTIVE, 0.8 * expected)
    assert found.rate_per_s == pytest.approx(expected, rel=0.08)


def test_a_client_that_is_too_slow_is_no_limit_of_the_server() -> None:
    server = Server(TRUE, client_per_s=100.0)
    found = highest(server.measure, Setting(8, 1, 0.0, 1), OBJECTIVE, 150.0)
    assert found.at_least
    assert found.rate_per_s == 150.0


def test_nothing_holds_a_target_below_the_service_time() -> None:
    server = Server({Workers(1, 1): Learned(80.0, 1.0, 0.0, 1.0, 1.0, 1.0)})
    tuned = tune(Grid((1, 4), (1,), (0.0,), (1,)), OBJECTIVE, server.probe, server.measure)
    assert tuned.best is None
    assert [h.rate_per_s for h in tuned.held] == [0.0]  # tried once, on a real server
    tight, loose = modelled(tuned, 0.5), modelled(tuned, 2.0)
    assert (tight.setting, tight.measured) == (None, False)
    assert loose.setting is not None
    assert tight.document()["cpuSecondsPerMillion"] is None
    seen = measured(tuned, 0.5, server.measuring)
    assert (seen.setting, seen.rate_per_s, seen.tried) == (None, 0.0, ())


def test_a_looser_target_costs_no_more(tuned: Tuned) -> None:
    tight, loose = modelled(tuned, 0.5), modelled(tuned, 2.0)
    assert tight.setting is not None
    assert loose.setting is not None
    assert loose.cost_s <= tight.cost_s


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_what_another_target_costs_is_measured(tuned: Tuned, factor: float) -> None:
    server = Server(TRUE)
    found = measured(tuned, factor, server.measuring)
    assert found.measured
    assert found.setting is not None
    (seen,) = found.tried
    assert server.runs == len(seen.stretches) <= 4
    assert {s.rate_per_s for s in seen.stretches} >= {found.rate_per_s}
    # As cheap as the cheapest of all, by the constants that the server really has.
    objective = OBJECTIVE.times(factor)
    true = ranked(GRID.settings(), TRUE, objective)
    assert true[found.setting].cost_s <= 1.03 * min(p.cost_s for p in true.values() if p.cost_s)
    held = predict(TRUE[found.setting.workers], found.setting, 0.99, objective.target_ms)
    assert found.rate_per_s <= 1.1 * held.rate_per_s


def test_what_holds_a_target_holds_a_looser_one() -> None:
    """Though its own search for the looser one saw nothing hold."""
    tuned = tune(GRID, OBJECTIVE, Server(TRUE).probe, Server(TRUE).measure)
    broken = Server({w: replace(known, alpha_ms=1e4) for w, known in TRUE.items()})
    found = measured(tuned, 2.0, broken.measuring)
    assert tuned.best is not None
    assert (found.setting, found.cost_s) == (tuned.best.setting, tuned.best.cost_s)
    assert [h.rate_per_s for h in found.tried] == [0.0, 0.0]


def test_with_both_other_targets_it_takes_a_fifth_of_the_runs() -> None:
    """On a grid of half the size of that for two processors."""
    grid, server = Grid((1, 4, 8, 32), (1, 2), (0.0, 2.0), (1, 2)), Server(TRUE)
    tuned = tune(grid, OBJECTIVE, server.probe, server.measure)
    for factor in FACTORS:
        measured(tuned, factor, server.measuring)
    everything = exhaustive(grid, OBJECTIVE, Server(TRUE).measure)
    assert len(TRUE) + server.runs <= everything.runs / 5


def test_a_target_that_the_model_gives_up_is_tried_on_the_real_server(tuned: Tuned) -> None:
    server = Server(TRUE)
    found = measured(tuned, 0.01, server.measuring)
    assert tuned.best is not None
    assert [h.setting for h in found.tried] == [tuned.best.setting]
    assert (found.setting, found.measured) == (None, True)
    assert server.runs == 4


def test_those_that_hold_nothing_are_ranked_last() -> None:
    slow = {**TRUE, Workers(1, 1): replace(TRUE[Workers(1, 1)], alpha_ms=60.0)}
    rates = [p.rate_per_s for p in ranked(GRID.settings(), slow, OBJECTIVE).values()]
    assert 0.0 in rates
    assert all(rate == 0.0 for rate in rates[rates.index(0.0) :])


def test_a_probe_teaches_the_line_and_the_cost() -> None:
    looks = [[Batch(n, 10, 10 * (3.0 + 0.5 * n))] for n in (1, 2, 4, 8)] * 3
    found = learn(looks, 8, 4.0, Spent(100, 100, 0.5), Spent(400, 100, 0.8))
    assert found.alpha_ms == pytest.approx(3.0)
    assert found.beta_ms == pytest.approx(0.5)
    assert found.overhead_ms == pytest.approx(0.5)
    assert found.request_cpu_ms == pytest.approx(1.0)
    assert found.batch_cpu_ms == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("singles", "together"),
    [
        (Spent(100, 100, 0.1), Spent(400, 100, 0.9)),  # batches would cost less than nothing
        (Spent(100, 100, 0.9), Spent(400, 100, 0.1)),  # requests would
        (Spent(100, 100, 0.2), Spent(200, 200, 0.4)),  # no batch was ever formed
    ],
)
def test_no_cost_is_negative(singles: Spent, together: Spent) -> None:
    found = learn([[Batch(1, 100, 300.0)]], 1, 4.0, singles, together)
    assert found.request_cpu_ms >= 0.0
    assert found.batch_cpu_ms >= 0.0
    assert found.request_cpu_ms + found.batch_cpu_ms > 0.0


def test_too_few_executions_teach_nothing() -> None:
    with pytest.raises(ValueError, match="too few"):
        learn([[Batch(1, 2, 3.0)]], 1, 4.0, Spent(1, 1, 0.1), Spent(1, 1, 0.1))


def test_grids() -> None:
    grid = Grid.of(cores=4, target_ms=10.0, batches=True)
    assert max(grid.delays_ms) <= 10.0 / 4
    assert grid.instances == (1, 2, 4)
    found = grid.settings()
    assert len(set(found)) == len(found)
    assert all(s.delay_ms == 0.0 for s in found if s.batch == 1)
    assert {s.batch for s in Grid.of(cores=4, target_ms=10.0, batches=False).settings()} == {1}
    assert len(Grid.of(cores=2, target_ms=50.0, batches=True, quick=True).settings()) <= 4


def test_due_times() -> None:
    due = poisson(100.0, 500)
    assert due == sorted(due)
    assert due[-1] == pytest.approx(5.0)
    assert poisson(200.0, 500) == pytest.approx([at / 2 for at in due])
    assert bursts([1, 3], 0.1) == pytest.approx([0.0, 0.2, 0.2, 0.2])
    assert enough(0.99, 10.0, 1.0) == 1000
    assert enough(0.99, 900.0, 5.0) == 4500
