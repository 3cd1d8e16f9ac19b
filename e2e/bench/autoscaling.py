"""Which autoscaler keeps a latency objective with the fewest GPUs? Simulated.

``python -m e2e.bench.autoscaling`` plays jobs in the simulated cluster of `tidegate.simulation`
under Tidegate's law (the code that runs in the cluster) and under others': HPA by utilisation and
by latency, KEDA, an rps target that knows what a pod holds, Knative's KPA, llm-d's SLO law, and a
clairvoyant oracle. No cluster; meant for half an hour of 2 cores, ``--quick`` for half a minute.

Each law is swept over its setting, to a curve of attainment against GPU time. For a given
attainment a law gets the cheapest setting that reaches it on half of the jobs; what counts is what
that setting does on the other half. ``--traces DIR`` takes the jobs from recorded traces (CSV, as
`tidegate.simulation.trace` reads them) instead of making them up.
"""

import json
import math
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from e2e.bench.autoscaling_worlds import (
    LAWS,
    ORACLE,
    OURS,
    RPS,
    Job,
    Played,
    Setting,
    Task,
    jobs,
    play,
    scenarios,
)
from e2e.bench.report import Report, parser, table

ATTAINMENTS: Final = (0.95, 0.98, 0.99, 0.995, 0.999)
COLDS_S: Final = (60.0, 30.0, 120.0, 300.0)
"""The first one is swept in full, the others with every other setting and fewer seeds."""
SECONDS: Final = 1500.0
JOBS: Final = 6
SEEDS: Final = 5
FEWER_SEEDS: Final = 3
PARTS: Final = ("jobs", "scenarios", "starts")
RESAMPLES: Final = 400


def tasks(
    traces: Path | None, quick: bool, laws: tuple[str, ...], parts: Sequence[str], seeds: int
) -> list[Task]:
    """All that is to be played."""
    seconds, count = (900.0, 2) if quick else (SECONDS, JOBS)

    def cases(make: Callable[[int], list[Job]], number: int) -> list[tuple[tuple[Job, int], ...]]:
        by_seed = [(make(seed), seed) for seed in range(1, number + 1)]
        return [tuple((made[i], seed) for made, seed in by_seed) for i in range(len(by_seed[0][0]))]

    def of_seed(seed: int) -> list[Job]:
        return jobs(seed, seconds, traces, count)

    every = 3 if quick else 1
    made = []
    if "jobs" in parts:
        made += [Task("jobs", each, COLDS_S[:1], laws, every) for each in cases(of_seed, seeds)]
    if "scenarios" in parts:
        alike = scenarios(seconds)[:: 4 if quick else 1]
        made += [
            Task("scenarios", each, COLDS_S[:1], laws, every)
            for each in cases(lambda _: alike, seeds)
        ]
    if "starts" in parts and not quick:
        fewer = min(seeds, FEWER_SEEDS)
        made += [Task("jobs", each, COLDS_S[1:], laws, 2) for each in cases(of_seed, fewer)]
    return made


# Reading the results.

Runs = Sequence[Played]


def halves(runs: Runs) -> tuple[set[str], set[str]]:
    """Names of the jobs to tune on and of those to score on; made alike each time."""
    names = sorted({r.job for r in runs})
    random.Random(11).shuffle(names)
    return set(names[::2]), set(names[1::2])


def attained(runs: Runs) -> float:
    """Mean of the jobs' attainments: each job counts the same."""
    return statistics.fmean(r.attainment for r in runs)


def worst(runs: Runs) -> float:
    """Attainment of the worst job, its seeds taken together."""
    by_job: dict[str, list[Played]] = defaultdict(list)
    for r in runs:
        by_job[r.job].append(r)
    return min(
        sum(r.in_time for r in each) / max(1, sum(r.arrived for r in each))
        for each in by_job.values()
    )


def gpu_hours(runs: Iterable[Played]) -> float:
    """Of all of them."""
    return sum(r.gpu_s for r in runs) / 3600


def by_setting(runs: Runs) -> dict[Setting, list[Played]]:
    """Runs of each law and setting."""
    found: dict[Setting, list[Played]] = defaultdict(list)
    for r in runs:
        found[r.setting].append(r)
    return found


def front(runs: Runs, law: str) -> list[tuple[float, float]]:
    """Attainment and GPU hours of the settings that no other of this law beats, ascending."""
    points = sorted(
        (gpu_hours(each), attained(each))
        for setting, each in by_setting(runs).items()
        if setting.law == law
    )
    best: list[tuple[float, float]] = []
    for hours, share in points:
        if not best or share > best[-1][0]:
            best.append((share, hours))
    return best


def cost_at(curve: Sequence[tuple[float, float]], attainment: float) -> float | None:
    """GPU hours of a curve at an attainment, between its points; None: it does not get there.

    Between two points on the logarithm of what is missed; below the first one, the first one.
    """
    if not curve or curve[-1][0] < attainment:
        return None
    below = [point for point in curve if point[0] < attainment]
    above = next(point for point in curve if point[0] >= attainment)
    if not below:
        return above[1]
    (a0, h0), (a1, h1) = below[-1], above
    x0, x1, x = (math.log(max(1e-6, 1.0 - a)) for a in (a0, a1, attainment))
    return h0 + (h1 - h0) * (x - x0) / (x1 - x0) if x1 != x0 else h1


def resampled(runs: Runs, count: int) -> list[list[Played]]:
    """The runs with seeds drawn anew, for intervals: a bootstrap over seeds."""
    seeds = sorted({r.seed for r in runs})
    by_seed: dict[int, list[Played]] = defaultdict(list)
    for r in runs:
        by_seed[r.seed].append(r)
    chance = random.Random(5)
    return [
        [r for s in chance.choices(seeds, k=len(seeds)) for r in by_seed[s]] for _ in range(count)
    ]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % in the middle."""
    ordered = sorted(values)
    return ordered[int(0.025 * len(ordered))], ordered[int(0.975 * (len(ordered) - 1))]


def ratios(runs: Runs, law: str, attainment: float, resamples: int) -> tuple[float, str] | None:
    """GPU time of a law over Tidegate's at an attainment on these runs, with its interval."""
    theirs, ours = cost_at(front(runs, law), attainment), cost_at(front(runs, OURS), attainment)
    if theirs is None or ours is None:
        return None
    found = []
    for each in resampled([r for r in runs if r.setting.law in (law, OURS)], resamples):
        a, b = cost_at(front(each, law), attainment), cost_at(front(each, OURS), attainment)
        if a is not None and b is not None:
            found.append(a / b)
    low, high = interval(found) if found else (math.nan, math.nan)
    return theirs / ours, f"{low:.2f} to {high:.2f}"


def curve_table(runs: Runs, resamples: int) -> str:
    """At each attainment on held-out jobs: GPU time of each law over Tidegate's."""
    rows = [["GPU time over Tidegate's at", *(f"{100 * a:g} %" for a in ATTAINMENTS)]]
    reached = {a: cost_at(front(runs, OURS), a) for a in ATTAINMENTS}
    rows.append(
        [f"{OURS}, GPU hours", *("-" if h is None else f"{h:.1f}" for h in reached.values())]
    )
    for law in LAWS:
        if law == OURS:
            continue
        cells = []
        for a in ATTAINMENTS:
            found = ratios(runs, law, a, resamples)
            if found is not None:
                cells.append(f"{found[0]:.2f} ({found[1]})")
            else:
                theirs = cost_at(front(runs, law), a)
                cells.append("not reached" if theirs is None else "only it gets there")
        rows.append([law, *cells])
    return table(rows)


def tuned(
    tuning: Runs, law: str, attainment: float, of: Callable[[Runs], float] = attained
) -> Setting | None:
    """The cheapest setting that reaches an attainment on these jobs: their mean, or the worst."""
    able = [
        (gpu_hours(each), setting.value, setting)
        for setting, each in by_setting(tuning).items()
        if setting.law == law and of(each) >= attainment
    ]
    return min(able)[2] if able else None


def held_out_table(
    runs: Runs, attainment: float, of: Callable[[Runs], float] = attained
) -> tuple[str, list[dict[str, Any]]]:
    """Each law tuned for an attainment on half of the jobs, and what it does on the rest."""
    tune, score = halves(runs)
    tuning = [r for r in runs if r.job in tune]
    scoring = [r for r in runs if r.job in score]
    oracle = cost_at(front(scoring, ORACLE), 0.99)
    head = ["law", "setting", "in time %", "worst job %", "GPU hours", "over oracle", "turns/h"]
    rows, facts = [head], []
    for law in LAWS:
        setting = tuned(tuning, law, attainment, of)
        if setting is None:
            rows.append([law, "none gets there", "", "", "", "", ""])
            continue
        mine = [r for r in scoring if r.setting == setting]
        hours = gpu_hours(mine)
        spread = [attained(each) for each in resampled(mine, RESAMPLES)]
        low, high = interval(spread)
        over = hours / oracle if oracle else math.nan
        turns = sum(r.turns for r in mine) / len(mine)
        rows.append(
            [
                law,
                f"{setting.value:g}",
                f"{100 * attained(mine):.2f} ({100 * low:.2f} to {100 * high:.2f})",
                f"{100 * worst(mine):.2f}",
                f"{hours:.1f}",
                f"{over:.2f}",
                f"{turns:.1f}",
            ]
        )
        facts.append(
            {
                "law": law,
                "tuned for": attainment,
                "of": "every job" if of is worst else "their mean",
                "setting": setting.value,
                "in time": round(attained(mine), 5),
                "worst job": round(worst(mine), 5),
                "gpu hours": round(hours, 3),
                "over oracle": round(over, 4),
            }
        )
    return table(rows), facts


def scenario_table(runs: Runs, settings: dict[str, Setting]) -> str:
    """Each law as it was tuned on the jobs, in each scenario."""
    names = list(dict.fromkeys(r.job for r in runs))
    rows = [["in time % @ GPU hours a run", *names]]
    for law in LAWS:
        setting = settings.get(law)
        cells = []
        for name in names:
            mine = [r for r in runs if r.job == name and r.setting == setting]
            cells.append(
                f"{100 * attained(mine):.2f} @ {gpu_hours(mine) / len(mine):.2f}" if mine else "-"
            )
        rows.append([f"{law} {setting.value:g}" if setting else law, *cells])
    return table(rows)


def per_scenario(runs: Runs, attainment: float, resamples: int) -> str:
    """Each law at its best in each scenario alone: GPU time over Tidegate's at an attainment."""
    names = list(dict.fromkeys(r.job for r in runs))
    rows = [[f"GPU time over Tidegate's at {100 * attainment:g} %", *names]]
    for law in LAWS:
        if law == OURS:
            continue
        cells = []
        for name in names:
            mine = [r for r in runs if r.job == name]
            found = ratios(mine, law, attainment, resamples)
            if found is None:
                ours, theirs = (cost_at(front(mine, each), attainment) for each in (OURS, law))
                cells.append(
                    "neither"
                    if ours is theirs is None
                    else "not reached"
                    if theirs is None
                    else "Tidegate does not"
                )
            else:
                cells.append(f"{found[0]:.2f} ({found[1]})")
        rows.append([law, *cells])
    return table(rows)


# Pictures.

COLORS: Final = (
    "#222222",
    "#0b6e4f",
    "#e09f3e",
    "#c8a27a",
    "#d1495b",
    "#9c3848",
    "#30638e",
    "#7768ae",
)


def draw(jobs_: Runs, scenario_runs: Runs, path: Path) -> None:
    """Curves of each law: the jobs by cold start, then the scenarios."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (f"jobs, cold start {cold_s:g} s", [r for r in jobs_ if r.cold_s == cold_s])
        for cold_s in sorted({r.cold_s for r in jobs_})
    ]
    panels += [
        (name, [r for r in scenario_runs if r.job == name])
        for name in dict.fromkeys(r.job for r in scenario_runs)
    ]
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(3.4 * columns, 3.6 * lines), squeeze=False
    )
    for axis, (title, runs) in zip(axes.flat, panels, strict=False):
        hours = cost_at(front(runs, ORACLE), 0.99) or min(h for _, h in front(runs, ORACLE))
        for law, color in zip(LAWS, COLORS, strict=True):
            points = sorted(
                (gpu_hours(each) / hours, 100 * (1 - attained(each)))
                for setting, each in by_setting(runs).items()
                if setting.law == law
            )
            axis.plot(
                [x for x, _ in points],
                [max(y, 0.005) for _, y in points],
                marker="*" if law == OURS else "o",
                markersize=9 if law == OURS else 3.5,
                linewidth=2.2 if law == OURS else 1.0,
                linestyle="--" if law == ORACLE else "-",
                color=color,
                label=law,
                zorder=3 if law == OURS else 2,
            )
        axis.set_yscale("log")
        axis.set_ylim(40, 0.005)
        axis.set_yticks([30, 10, 5, 1, 0.1, 0.01], ["70", "90", "95", "99", "99.9", "99.99"])
        axis.minorticks_off()
        axis.set_xlim(0.6, 2.6)
        axis.axhline(1.0, color="#999999", linewidth=0.8)
        axis.grid(alpha=0.3)
        axis.set_title(title, fontsize=10)
    for axis in axes[:, 0]:
        axis.set_ylabel("requests in time, %")
    for axis in axes[-1]:
        axis.set_xlabel("GPU time over the oracle's")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.5 / (3.6 * lines), 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> int:
    """Play, print and write."""
    line = parser(__doc__)
    line.add_argument("--quick", action="store_true", help="few jobs, one seed; for a check")
    line.add_argument("--traces", type=Path, help="folder of recorded traces (CSV)")
    line.add_argument("--picture", type=Path, help="PNG of the curves")
    line.add_argument("--processes", type=int, default=2)
    line.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        help="the jobs with a cold start of 60 s, the scenarios, the jobs with other cold starts",
    )
    line.add_argument("--seeds", type=int, default=SEEDS)
    line.add_argument(
        "--laws", nargs="+", choices=list(LAWS), default=list(LAWS), help="play only these"
    )
    line.add_argument(
        "--earlier",
        nargs="*",
        type=Path,
        default=[],
        help="reports of other laws or parts, to be told of together with what is played now",
    )
    given = line.parse_args()
    if given.traces and not list(given.traces.glob("*.csv")):
        line.error(f"{given.traces} holds no CSV files; give a folder of traces, or none")
    report = Report("autoscaling", "Attainment and GPU time of autoscaling laws, simulated.")
    began = time.monotonic()
    played: list[Played] = []
    seeds = 1 if given.quick else given.seeds
    todo = tasks(given.traces, given.quick, tuple(given.laws), given.parts, seeds)
    with ProcessPoolExecutor(given.processes) as pool:
        for done, found in enumerate(pool.map(play, todo), 1):
            played += found
            took = f"at {time.monotonic() - began:.0f} s"
            print(f"{done}/{len(todo)} {todo[done - 1]}, {took}", file=sys.stderr, flush=True)
    # What was played now takes the place of the same run of an earlier report.
    kept = {(r.group, r.job, r.seed, r.cold_s, r.setting) for r in played}
    before = {
        (r.group, r.job, r.seed, r.cold_s, r.setting): r
        for path in given.earlier
        for r in earlier(path)
    }
    played += [r for key, r in before.items() if key not in kept]
    if {r.setting.law for r in played} == set(LAWS):
        tell(played, report, 20 if given.quick else RESAMPLES)
    if given.picture:
        in_jobs = [r for r in played if r.group == "jobs"]
        draw(in_jobs, [r for r in played if r.group == "scenarios"], given.picture)
    report.facts["runs"] = [vars(r) | {"setting": vars(r.setting)} for r in played]
    report.facts["seconds"] = round(time.monotonic() - began, 1)
    report.facts["traces"] = "made up" if given.traces is None else "recorded"
    report.finish(given.out)
    return 0


def tell(played: Runs, report: Report, resamples: int) -> None:
    """Print the tables and fill the report."""
    in_jobs = [r for r in played if r.group == "jobs"]
    in_scenarios = [r for r in played if r.group == "scenarios"]
    _, score = halves(in_jobs)
    settings: dict[str, Setting] = {}
    facts: list[dict[str, Any]] = []
    for cold_s in sorted({r.cold_s for r in in_jobs}):
        these = [r for r in in_jobs if r.cold_s == cold_s]
        scored = [r for r in these if r.job in score]
        print(f"\nHeld-out jobs, cold start {cold_s:g} s\n{curve_table(scored, resamples)}")
        for of, whom in ((attained, "as their mean"), (worst, "each")):
            text, found = held_out_table(these, 0.99, of)
            print(f"\nTuned for 99 % on the other jobs, {whom}\n{text}", flush=True)
            facts += [{"cold start": cold_s, **fact} for fact in found]
        if cold_s == COLDS_S[0]:
            settings = {
                law: setting
                for law in LAWS
                if (setting := tuned([r for r in these if r.job not in score], law, 0.99))
            }
        for law in LAWS:
            found_ratio = None if law == OURS else ratios(scored, law, 0.99, resamples)
            if found_ratio:
                aim = "at least 0.98" if law == RPS else "at least 1" if law != ORACLE else ""
                report.add(
                    f"{law}: GPU time over Tidegate's at 99 %, {cold_s:g} s",
                    "",
                    [found_ratio[0]],
                    aim=aim,
                )
    if in_scenarios:
        print(f"\nScenarios, as tuned on the jobs\n{scenario_table(in_scenarios, settings)}")
    for attainment in (0.95, 0.99) if in_scenarios else ():
        text = per_scenario(in_scenarios, attainment, resamples)
        print(f"\nScenarios, each law at its best in each\n{text}", flush=True)
    report.facts["held out"] = facts


def earlier(path: Path) -> list[Played]:
    """The runs of a report's JSON."""
    runs = json.loads(path.read_text(encoding="utf-8"))["facts"]["runs"]
    return [Played(**{**r, "setting": Setting(**r["setting"])}) for r in runs]


if __name__ == "__main__":
    sys.exit(main())
