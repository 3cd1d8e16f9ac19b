"""Plays scenarios on the running embedded cluster and writes what became of them.

``python -m e2e.rollouts [NAMES] [--rounds N] [--out FILE]``: all scenarios, or those named. The
table goes to FILE, by default the page in docs when all are played and the terminal otherwise;
every single result goes, as JSON, beside the reports of the benchmarks. All take more than an
hour: ``--resume`` goes on with those of which an earlier run of the same commands has no result.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from e2e.bench.report import OUT, Machine
from e2e.bench.stage import require_cluster
from e2e.cluster import paths
from e2e.cluster.installation import install
from e2e.cluster.kube import KubeClient, NotReached
from e2e.cluster.progress import Progress
from e2e.rollouts.scenarios import BY_NAME, SCENARIOS, Outcome
from e2e.rollouts.stage import Result, Seen, Stage, play
from e2e.rollouts.table import page, table
from e2e.tests.space import SETTINGS, Space

PAGE = paths.REPOSITORY / "docs" / "rollout-scenarios.md"
NAMESPACE = "e2e-rollouts-table"


def _options() -> argparse.Namespace:
    command = argparse.ArgumentParser(prog="python -m e2e.rollouts", description=__doc__)
    command.add_argument("names", nargs="*", choices=[*BY_NAME, []], metavar="NAMES")
    command.add_argument("--rounds", type=int, default=1, help="of each scenario")
    command.add_argument("--out", type=Path, help="file for the table")
    command.add_argument("--json", type=Path, default=OUT, help="folder for the results")
    command.add_argument(
        "--resume", nargs="+", type=Path, default=[], metavar="JSON", help="results of earlier runs"
    )
    command.add_argument("--fast", action="store_true", help="only those of `make test`")
    return command.parse_args()


def _write(results: list[Result], folder: Path, began: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rollouts-{began}.json"
    document = {"machine": asdict(Machine.here()), "results": [asdict(r) for r in results]}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def read(paths: Sequence[Path]) -> list[Result]:
    """The results that earlier runs wrote, in their order."""
    found = []
    for path in paths:
        for item in json.loads(path.read_text())["results"]:
            item["outcome"] = Outcome(item["outcome"])
            item["seen"] = tuple(Seen(**seen) for seen in item["seen"])
            found.append(Result(**item))
    return found


def main() -> int:
    """Play them. Returns the exit status: 1 if one did not end as expected."""
    options = _options()
    progress = Progress()
    wanted = options.names or [s.name for s in SCENARIOS if not (options.fast and s.slow)]
    results = [r for r in read(options.resume) if r.scenario in wanted]
    rounds = Counter(r.scenario for r in results)
    left = [
        (number, name)
        for number in range(options.rounds)
        for name in wanted
        if number >= rounds[name]
    ]
    if left:
        _play(left, results, options, progress)
    if not results:
        return 1
    results.sort(key=lambda result: wanted.index(result.scenario))
    out = options.out or (PAGE if not options.names and not options.fast else None)
    if out is None:
        print(table(results))
    else:
        out.write_text(page(results))
        progress.say(f"table: {out}")
    played = len(results) >= len(wanted) * options.rounds
    return 0 if played and all(result.good for result in results) else 1


def _play(
    left: Sequence[tuple[int, str]],
    results: list[Result],
    options: argparse.Namespace,
    progress: Progress,
) -> None:
    """Play what is left; each result is kept at once."""
    began = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    seed = int(time.time()) % 1_000_000_000
    require_cluster(SETTINGS)
    with KubeClient(SETTINGS.kubeconfig) as kube:
        install(kube, progress)
        space = Space(kube, NAMESPACE)
        space.create()
        stage = Stage(space, BY_NAME[left[0][1]])
        try:
            for number, name in left:
                with progress.step(f"{name}, round {number + 1} of {options.rounds}"):
                    seed += 10
                    try:
                        result = play(stage, BY_NAME[name], seed)
                    except NotReached as error:
                        progress.say(f"  {name} could not be played: {error}")
                        stage.close()
                        continue
                results.append(result)
                path = _write(results, options.json, began)
                progress.say(
                    f"  {'as expected' if result.good else 'NOT AS EXPECTED'}: "
                    f"{result.outcome} after {result.decided_s:.1f} s, {result.failed} of "
                    f"{result.sent} failed; {result.explanation}"
                )
                if not result.good:
                    progress.say(f"  {result.problem}\n{result.told}")
                progress.say(f"  JSON: {path}")
        finally:
            stage.close()
            space.delete()


if __name__ == "__main__":
    sys.exit(main())
