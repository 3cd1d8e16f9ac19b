"""How often is a good version rolled back, and how long does a bad one last? Simulated.

``python -m e2e.bench.verdicts`` plays thousands of rollouts in simulated time against the code that
judges canaries in the cluster (`tidegate.analysis`), and the same traffic against the rules of Argo
Rollouts and Flagger. No cluster; ``--full`` takes half an hour of one core, ``--quick`` two
minutes. It prints:

- false rollbacks of A/A rollouts, at a nominal 5 % in each cell of rates and base errors, with
  bursts, and with sticky clients apart; pooled at 0.1 %, the default. Each with the upper end of
  its Clopper-Pearson interval (95 %, two-sided), and beside it the power of that cell: how many
  canaries that fail 5 % are taken back;
- how long bad versions last, by their error rate and by their latency, and those that turn bad
  late, three minutes after their promotion;
- each single test's requests at a level of 0.1 %, beside what such a test is known to need;
- a picture: false alarms against delay, Tidegate and the peers' rules (``--picture``).
"""

import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import beta

from e2e.bench.peer_rules import Argo, Flagger, PeerEnded
from e2e.bench.report import Report, parser, quantile, table
from e2e.bench.verdict_simulation import (
    HOLD_S,
    SINGLE_ALPHA,
    SINGLE_BASE,
    STEPS,
    Burst,
    Ended,
    Traffic,
    World,
    objective,
    play,
    single,
)
from tidegate.analysis.judgement import Test

RATES: Final = (0.5, 2.0, 10.0, 50.0, 500.0)
BASES: Final = (0.0, 0.001, 0.005, 0.009)
ERRORS: Final = (0.02, 0.05, 0.2, 1.0)
FACTORS: Final = (1.1, 1.5, 2.0, 4.0)
NOMINAL: Final = 0.05
DEFAULT: Final = 0.001
CLUSTER: Final = 10
BEFORE_S: Final = 60
"""Sticky clients only: stable is watched for so long while the canary's first pod starts."""
SEED: Final = 20_261_121
GROUPS: Final = ("rules", "single", "A/A", "bursts", "sticky", "errors", "latency", "late")


@dataclass(frozen=True)
class Cell:
    """Many rollouts alike.

    Attributes:
        name: of the group that it belongs to.
        traffic: what happens in them.
        level: the budget of false alarms; 0: single tests.
        runs: how many.
        test: for single tests, which.
    """

    name: str
    traffic: Traffic
    level: float
    runs: int
    test: Test | None = None


class Interval(NamedTuple):
    """A share, and where its Clopper-Pearson interval ends."""

    share: float
    low: float
    high: float


def clopper_pearson(count: int, runs: int, confidence: float = 0.95) -> Interval:
    """The two-sided interval of a share of `count` in `runs`."""
    tail = (1.0 - confidence) / 2.0
    low = float(beta.ppf(tail, count, runs - count + 1)) if count else 0.0
    high = float(beta.ppf(1.0 - tail, count + 1, runs - count)) if count < runs else 1.0
    return Interval(count / runs, low, high)


def rollouts(cell: Cell) -> list[Ended]:
    """All rollouts of a cell; the same ones each time."""
    judged_by = objective(cell.level)
    before_s = BEFORE_S if cell.traffic.cluster > 1 else 0
    return [
        play(World(cell.traffic, _chance(number)), judged_by, before_s=before_s)
        for number in range(cell.runs)
    ]


def singles(cell: Cell) -> list[int]:
    """Requests that one test took, run by run."""
    assert cell.test is not None
    size = 10 if cell.traffic.factor == 1.1 else 1
    return [single(cell.test, cell.traffic, _chance(n), size=size) for n in range(cell.runs)]


def _chance(number: int) -> np.random.Generator:
    # Common random numbers: cells that differ in one thing differ by that thing.
    return np.random.default_rng([SEED, number])


def all_cells(runs: int) -> list[Cell]:
    """What is played, `runs` rollouts in each cell of the grid at 5 %."""
    cells = []
    for rate in RATES:
        for base in BASES:
            same = Traffic(rate, base, base, base)
            cells.append(Cell("A/A", same, NOMINAL, runs))
            cells.append(Cell("A/A pooled", same, DEFAULT, runs // 2))
            cells.append(Cell("A/A power", replace(same, canary_errors=0.05), NOMINAL, runs // 20))
        for base in (0.001, 0.005):
            same = Traffic(rate, base, base, 0.001)
            cells.append(Cell("bursts", replace(same, burst=Burst()), NOMINAL, runs // 2))
            cells.append(Cell("sticky", replace(same, cluster=CLUSTER), NOMINAL, runs // 4))
        for share in ERRORS:
            bad = Traffic(rate, 0.001, share, 0.001)
            cells.append(Cell("errors", bad, DEFAULT, runs // 10))
            late = Traffic(rate, 0.001, 0.001, 0.001, late_errors=share)
            cells.append(Cell("late", late, DEFAULT, runs // 20))
        for factor in FACTORS:
            slow = Traffic(rate, 0.001, 0.001, 0.005, factor)
            cells.append(Cell("latency", slow, DEFAULT, runs // 10))
    return cells


# Requests that a test of this kind needs, median and 95th percentile: simulated apart from this
# code, at a level of 0.1 %, against an SLO of 1 %, or a baseline of 0.1 % at a weight of 10 %.
NEEDED: Final[dict[tuple[Test, float], tuple[int, int]]] = {
    (Test.ERRORS, 0.02): (2575, 5511),
    (Test.ERRORS, 0.05): (201, 469),
    (Test.ERRORS, 0.1): (52, 143),
    (Test.ERRORS, 1.0): (2, 2),
    (Test.ERRORS_AGAINST_STABLE, 0.01): (709, 1814),
    (Test.ERRORS_AGAINST_STABLE, 0.05): (110, 231),
    (Test.ERRORS_AGAINST_STABLE, 0.5): (9, 17),
    (Test.ERRORS_AGAINST_STABLE, 1.0): (5, 7),
    (Test.LATENCY_AGAINST_STABLE, 1.1): (2480, 4577),
    (Test.LATENCY_AGAINST_STABLE, 1.5): (123, 214),
    (Test.LATENCY_AGAINST_STABLE, 2.0): (54, 89),
    (Test.LATENCY_AGAINST_STABLE, 4.0): (15, 28),
}


def single_cells(runs: int) -> list[Cell]:
    """One for each row of `NEEDED`."""
    cells = []
    for test, effect in NEEDED:
        traffic = Traffic(1.0, SINGLE_BASE, SINGLE_BASE, 0.005)
        if test is Test.LATENCY_AGAINST_STABLE:
            traffic = replace(traffic, factor=effect)
        else:
            traffic = replace(traffic, canary_errors=effect)
        cells.append(Cell("single", traffic, 0.0, runs, test))
    return cells


# The peers, on the same traffic.

PEERS: Final[dict[str, Argo | Flagger]] = {
    "Argo: documentation's example (5 m, limit 3)": Argo(
        tuple((w, 600) for w in (0.2, 0.4, 0.6, 0.8)), 300, 300, 3
    ),
    "Argo: 1 m, limit 3, 5 m steps": Argo(tuple((w, 300) for w in STEPS), 60, 60, 3),
    "Argo: 1 m, limit 0, 5 m steps": Argo(tuple((w, 300) for w in STEPS), 60, 60, 0),
    "Argo: 5 s, limit 0, 30 s steps": Argo(tuple((w, HOLD_S) for w in STEPS), 5, 10, 0),
    "Flagger: documentation's example (1 m, threshold 10)": Flagger(60, 60, 10, 0.05, 0.5),
    "Flagger: tutorial (1 m, threshold 5)": Flagger(60, 60, 5, 0.1, 0.5),
    "Flagger: 10 s, threshold 1": Flagger(10, 60, 1, 0.05, 0.5),
}
PICTURED: Final = (2.0, 50.0, 500.0)
PICTURE_BASE: Final = 0.005
PICTURE_BAD: Final = 0.05
NEVER_S: Final = 7200.0
"""Where the picture shows what does not happen."""


@dataclass(frozen=True)
class Point:
    """One rule at one rate.

    Attributes:
        rule: its name.
        rate: requests a second.
        false: rollbacks of a canary like stable (0.5 % errors in both; the SLO is 1 %).
        caught: share of canaries that fail 5 % that are taken back.
        delay_s: median seconds from the first weight until then; None: fewer than half are.
        failed: median failed responses of the canary until it was taken back, or promoted, or the
            hour was over.
    """

    rule: str
    rate: float
    false: Interval
    caught: float
    delay_s: float | None
    failed: float


def point(rule: str, rate: float, runs: int) -> Point:
    """A rule, by name, on rollouts of good and of bad canaries."""
    good = Traffic(rate, PICTURE_BASE, PICTURE_BASE, 0.001)
    bad = replace(good, canary_errors=PICTURE_BAD)
    played: dict[bool, list[PeerEnded]] = {}
    for wrong, traffic in ((False, good), (True, bad)):
        worlds = [World(traffic, np.random.default_rng([SEED, n])) for n in range(runs)]
        if rule in PEERS:
            played[wrong] = [PEERS[rule].play(world.failures) for world in worlds]
        else:
            judged_by = objective(OURS[rule])
            found = [play(world, judged_by) for world in worlds]
            played[wrong] = [PeerEnded(e.rolled_back, e.at_s, e.failed) for e in found]
    taken = [e.at_s if e.rolled_back else np.inf for e in played[True]]
    middle = float(np.median(taken))
    return Point(
        rule,
        rate,
        clopper_pearson(sum(e.rolled_back for e in played[False]), runs),
        sum(e.rolled_back for e in played[True]) / runs,
        None if np.isinf(middle) else middle,
        float(np.median([e.failed for e in played[True]])),
    )


OURS: Final = {"Tidegate: 0.1 % (default)": DEFAULT, "Tidegate: 5 %": NOMINAL}


def draw(points: Sequence[Point], path: Path) -> None:
    """The picture: one column a rate, false alarms to the right, delay and failures upwards."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    letters = dict(zip((*OURS, *PEERS), "abcdefghi", strict=True))
    figure, rows = pyplot.subplots(2, len(PICTURED), figsize=(12, 9), sharex=True, sharey="row")
    for row, panels in enumerate(rows):
        for panel, rate in zip(panels, PICTURED, strict=True):
            for p in (x for x in points if x.rate == rate):
                family = p.rule.partition(":")[0]
                ours = family == "Tidegate"
                x = 100 * p.false.share
                y = max(p.failed, 0.5) if row else (NEVER_S if p.delay_s is None else p.delay_s)
                panel.errorbar(
                    x,
                    y,
                    xerr=[[x - 100 * p.false.low], [100 * p.false.high - x]],
                    marker={"Tidegate": "*", "Argo": "o", "Flagger": "s"}[family],
                    markersize=15 if ours else 8,
                    color={"Tidegate": "#0b6e4f", "Argo": "#d1495b", "Flagger": "#30638e"}[family],
                    alpha=1.0 if ours else 0.6,
                    label=f"{letters[p.rule]}  {p.rule}",
                )
                near = {"textcoords": "offset points", "xytext": (7, 6), "fontsize": 9}
                panel.annotate(letters[p.rule], (x, y), **near)
            panel.set_xscale("symlog", linthresh=1)
            panel.set_xlim(-0.1, 130)
            panel.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
            panel.set_yscale("log")
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            if row:
                panel.set_xlabel("good versions rolled back, %")
            else:
                panel.set_title(f"{rate:g} requests a second")
    seconds = [3, 10, 30, 60, 300, 900, 3600]
    rows[0][0].set_ylim(3, 1.5 * NEVER_S)
    rows[0][0].set_yticks([*seconds, NEVER_S], [*(str(s) for s in seconds), "never"])
    rows[0][0].set_ylabel("seconds until a version that fails 5 % is rolled back")
    counts = [1, 3, 10, 30, 100, 300, 1000, 10000]
    rows[1][0].set_yticks(counts, [str(n) for n in counts])
    rows[1][0].set_ylabel("its failed responses until then")
    handles, labels = rows[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8.5)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


# Printing.


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share else "0"


def false_table(name: str, played: dict[Cell, list[Ended]]) -> str:
    """False rollbacks of one group, cell by cell."""
    power = {cell: ended for cell, ended in played.items() if cell.name == "A/A power"}
    head = ["requests/s", "base errors %", "rolled back %", "upper end %", "in the bake %"]
    head += ["held %", "promoted in 1 h %", "power at 5 % errors"]
    rows = [head]
    for cell, ended in played.items():
        if cell.name != name:
            continue
        wrong = [e for e in ended if e.rolled_back]
        found = clopper_pearson(len(wrong), len(ended))
        traffic = cell.traffic
        beside = [
            sum(e.rolled_back for e in others) / len(others)
            for other, others in power.items()
            if (other.traffic.rate, other.traffic.stable_errors)
            == (traffic.rate, traffic.stable_errors)
        ]
        rows.append(
            [
                f"{traffic.rate:g}",
                _percent(traffic.stable_errors),
                _percent(found.share),
                _percent(found.high),
                _percent(sum(e.promoted for e in wrong) / len(ended)),
                _percent(sum(e.held for e in ended) / len(ended)),
                _percent(sum(e.promoted for e in ended) / len(ended)),
                _percent(beside[0]) if beside else "",
            ]
        )
    return table(rows, left=())


def delay_table(name: str, played: dict[Cell, list[Ended]]) -> str:
    """How long bad canaries last, cell by cell."""
    head = ["requests/s", "errors %", "factor", "rolled back %", "held %", "promoted %"]
    head += ["seconds", "95th", "failed", "95th"]
    rows = [head]
    for cell, ended in played.items():
        if cell.name != name:
            continue
        if cell.traffic.late_errors is not None:
            ended = [_since_the_turn(e) for e in ended if e.turned_s is not None]
        caught = [e for e in ended if e.rolled_back]
        if not ended:
            continue
        errors = cell.traffic.late_errors or cell.traffic.canary_errors
        rows.append(
            [
                f"{cell.traffic.rate:g}",
                _percent(errors),
                f"{cell.traffic.factor:g}",
                _percent(len(caught) / len(ended)),
                _percent(sum(e.held for e in ended) / len(ended)),
                _percent(sum(e.promoted and not e.rolled_back for e in ended) / len(ended)),
                *(
                    f"{quantile(values, q):g}" if values else "-"
                    for values in ([e.at_s for e in caught], [e.failed for e in caught])
                    for q in (0.5, 0.95)
                ),
            ]
        )
    return table(rows, left=())


def _since_the_turn(ended: Ended) -> Ended:
    """A rollout whose canary turned bad late, as if it had begun then."""
    assert ended.turned_s is not None
    seconds, failed = ended.at_s - ended.turned_s, ended.failed - ended.failed_before
    return replace(ended, at_s=seconds, failed=failed)


def single_table(played: dict[Cell, list[int]]) -> str:
    """Each single test beside what is known."""
    rows = [["test", "effect", "requests", "95th", "known", "95th", "ratio", "95th"]]
    for cell, found in played.items():
        effect = cell.traffic.factor
        if cell.test is not Test.LATENCY_AGAINST_STABLE:
            effect = cell.traffic.canary_errors
        assert cell.test is not None
        known = NEEDED[cell.test, effect]
        ours = [quantile(found, q) for q in (0.5, 0.95)]
        ratios = [f"{a / b:.2f}" for a, b in zip(ours, known, strict=True)]
        row = [str(cell.test.value), f"{effect:g}", f"{ours[0]:g}", f"{ours[1]:g}"]
        rows.append([*row, f"{known[0]}", f"{known[1]}", *ratios])
    return table(rows)


def peer_table(points: Iterable[Point]) -> str:
    """The picture's numbers."""
    head = ["rule", "requests/s", "false %", "upper end %", "caught %", "seconds", "failed"]
    rows = [head]
    for p in points:
        delay = "never" if p.delay_s is None else f"{p.delay_s:g}"
        row = [p.rule, f"{p.rate:g}", _percent(p.false.share), _percent(p.false.high)]
        rows.append([*row, _percent(p.caught), delay, f"{p.failed:g}"])
    return table(rows)


def main() -> int:
    """The command line."""
    options = parser(__doc__)
    size = options.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a twentieth of the rollouts")
    size.add_argument("--full", action="store_true", help="all of them (default)")
    options.add_argument("--jobs", type=int, default=1, help="processes")
    options.add_argument("--runs", type=int, help="rollouts in each cell of the grid")
    options.add_argument("--only", nargs="+", choices=GROUPS, help="parts of it")
    options.add_argument("--picture", type=Path, help="write the picture there (.svg, .png)")
    given = options.parse_args()
    runs = given.runs or (100 if given.quick else 2000)
    few = max(runs // 5, 50)
    wanted = set(given.only or GROUPS)
    report = Report("verdicts", "simulated rollouts judged by the code that runs in the cluster")
    began = time.monotonic()

    with ProcessPoolExecutor(given.jobs) as pool:
        if "rules" in wanted:
            rules = [(rule, rate) for rule in (*OURS, *PEERS) for rate in PICTURED]
            points = list(pool.map(point, *zip(*rules, strict=True), [few] * len(rules)))
            print(f"\nThe same traffic, other rules\n{peer_table(points)}", flush=True)
            report.facts["rules"] = [p.__dict__ | {"false": p.false._asdict()} for p in points]
            if given.picture:
                draw(points, given.picture)
        if "single" in wanted:
            cells = single_cells(few)
            lone = dict(zip(cells, pool.map(singles, cells), strict=True))
            title = f"Single tests at {SINGLE_ALPHA:.1%}: the canary's requests"
            print(f"\n{title}\n{single_table(lone)}", flush=True)
            report.facts["single tests"] = [
                {"test": str(c.test), "traffic": vars(c.traffic), "requests": values}
                for c, values in lone.items()
            ]
        cells = [
            c for c in all_cells(runs) if c.name in wanted or c.name.partition(" ")[0] in wanted
        ]
        played: dict[Cell, list[Ended]] = {}
        for cell, ended in zip(cells, pool.map(rollouts, cells), strict=True):
            played[cell] = ended
            wrong = sum(e.rolled_back for e in ended)
            print(f"{len(played)}/{len(cells)} {cell}: {wrong} of {len(ended)}", file=sys.stderr)
    for name in ("A/A", "bursts", "sticky"):
        if name in wanted:
            title = f"False rollbacks, {name}, at a nominal {NOMINAL:.0%}"
            print(f"\n{title}\n{false_table(name, played)}", flush=True)
    for name in ("errors", "latency", "late"):
        if name in wanted:
            title = f"Bad versions ({name}), at the default of {DEFAULT:.1%}"
            print(f"\n{title}\n{delay_table(name, played)}", flush=True)
    _rows(report, played)
    report.facts |= {"seconds": round(time.monotonic() - began, 1), "runs a cell": runs}
    if report.rows:
        report.finish(given.out)
    return 0


def _rows(report: Report, played: dict[Cell, list[Ended]]) -> None:
    for name in ("A/A", "bursts", "sticky"):
        ends = [
            100 * clopper_pearson(sum(e.rolled_back for e in ended), len(ended)).high
            for cell, ended in played.items()
            if cell.name == name
        ]
        what = f"{name}: upper end of false rollbacks, a value a cell"
        if ends:
            report.add(what, "%", ends, aim="5 at most")
    pooled = [e for cell, ended in played.items() if cell.name == "A/A pooled" for e in ended]
    if pooled:
        found = clopper_pearson(sum(e.rolled_back for e in pooled), len(pooled))
        report.add(
            f"A/A: false rollbacks at 0.1 %, of {len(pooled)}: share",
            "%",
            [100 * found.share],
            aim="0.1 at most",
        )
        report.add("... and its upper end", "%", [100 * found.high])
    report.facts["cells"] = [
        {
            "group": cell.name,
            "traffic": vars(cell.traffic) | {"burst": cell.traffic.burst is not None},
            "level": cell.level,
            "rollouts": len(ended),
            "rolled back": sum(e.rolled_back for e in ended),
            "in the bake": sum(e.rolled_back and e.promoted for e in ended),
            "promoted": sum(e.promoted for e in ended),
            "held": sum(e.held for e in ended),
            "by": {str(t): sum(e.test is t for e in ended) for t in {e.test for e in ended} if t},
        }
        for cell, ended in played.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
