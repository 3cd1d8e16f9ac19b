"""How long a bad version reaches clients, and how many of their requests it costs.

``python -m e2e.bench.rollback_time`` plays rows of `e2e.rollouts.scenarios` again and again on the
embedded cluster: 50 requests a second through the gateway, a canary that begins with 5 % of them.
Counted are the failing responses that clients get, and the seconds from the first to the last.
"""

import argparse
import sys
import time
from dataclasses import asdict
from typing import Final

from e2e.bench.report import Report, parser
from e2e.bench.stage import require_cluster
from e2e.cluster.installation import install
from e2e.cluster.kube import KubeClient, NotReached
from e2e.cluster.progress import Progress
from e2e.rollouts.scenarios import BY_NAME
from e2e.rollouts.stage import Result, Stage, play
from e2e.tests.space import SETTINGS, Space

NAMESPACE: Final = "bench-rollback"
AIMS: Final = {
    "fails-all": ("at most 1.5", "at most 4"),
    "fails-20": ("at most 12", "at most 6"),
    "fails-all-mirrored": ("", "0"),
    "fails-20-mirrored": ("", "0"),
}
"""Seconds and failed responses that each is to stay within."""


def _options() -> argparse.Namespace:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=10, help="of each")
    command.add_argument("--names", nargs="+", choices=AIMS, default=list(AIMS))
    return command.parse_args()


def add_to(report: Report, results: list[Result]) -> None:
    """Rows and facts of all rounds; those that ended otherwise are told, not counted."""
    for name, (seconds, failed) in AIMS.items():
        same = [r for r in results if r.scenario == name]
        good = [r for r in same if r.good]
        if not good:
            continue
        report.add(f"{name}: failed responses", "", [float(r.failed) for r in good], aim=failed)
        windows = [r.window_s or 0.0 for r in good]
        report.add(f"{name}: first to last failing", "s", windows, aim=seconds)
        if len(good) < len(same):
            wrong = "; ".join(r.problem for r in same if not r.good)
            report.notes.append(f"{name}: {len(same) - len(good)} of {len(same)} left out: {wrong}")
    report.facts["results"] = [asdict(r) for r in results]


def main() -> int:
    """The command line."""
    options = _options()
    progress = Progress()
    report = Report(
        "rollback_time",
        f"a bad version at a first step of 5 % of 50 requests a second, {options.rounds} rounds",
    )
    report.await_quiet(options.patience)
    results: list[Result] = []
    seed = int(time.time()) % 1_000_000_000
    require_cluster(SETTINGS)
    with KubeClient(SETTINGS.kubeconfig, user_agent="tidegate-bench") as kube:
        install(kube, progress)
        space = Space(kube, NAMESPACE)
        space.create()
        stage = Stage(space, BY_NAME[options.names[0]])
        try:
            for number in range(options.rounds):
                for name in options.names:
                    seed += 10
                    with progress.step(f"{name}, round {number + 1} of {options.rounds}"):
                        try:
                            result = play(stage, BY_NAME[name], seed)
                        except NotReached as error:
                            report.notes.append(f"{name} could not be played: {error}"[:300])
                            stage.close()
                            continue
                    results.append(result)
                    progress.say(f"  {result.outcome}: {result.failed} failed; {result.problem}")
        finally:
            stage.close()
            space.delete()
    add_to(report, results)
    report.finish(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
