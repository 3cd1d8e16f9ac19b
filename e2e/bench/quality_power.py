"""How many labels and samples it takes to see what is there: ``python -m e2e.bench.quality_power``.

Labels and samples are drawn; the code that answers gates (`tidegate.quality`) looks at them again
and again as they grow, each time by a twentieth. Told is when it first answers, and how often the
answer is wrong where the truth lies right at the limit.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from random import Random
from statistics import NormalDist
from typing import Final

from e2e.bench.report import Report, parser
from tidegate.quality import accuracy
from tidegate.quality.accuracy import Answer
from tidegate.quality.shift import CALIBRATION, bins_of, shift

ERROR: Final = 0.05
LEAST: Final = 0.9
MOST: Final = 0.1
LABELS: Final = 100_000
SAMPLES: Final = 20_000
TRUE_ACCURACIES: Final = (0.8, 0.85, 0.88, 0.92, 0.95, 0.98, 0.995)
TRUE_SHIFTS: Final = (0.0, 0.05, 0.15, 0.2, 0.3, 0.5)


def sizes(first: int, most: int) -> Iterator[int]:
    """When is looked: each time with a twentieth more."""
    size = first
    while size <= most:
        yield size
        size = max(size + 1, round(size * 1.05))


def labels_until(truth: float, random: Random) -> tuple[Answer, int]:
    """The first answer about an accuracy, and after how many labels."""
    right = seen = 0
    for size in sizes(10, LABELS):
        right += sum(random.random() < truth for _ in range(size - seen))
        seen = size
        found = accuracy.judge(
            accuracy.measured(right, seen, ERROR / 2.0), None, least=LEAST, most_drop=None
        )
        if found is not Answer.NOT_YET:
            return found, seen
    return Answer.NOT_YET, LABELS


def samples_until(distance: float, random: Random) -> tuple[str, int]:
    """The first answer about a shift of a normal number, and after how many samples a side.

    Args:
        distance: the true one of the two distributions: 2 Phi(d / 2) - 1.
        random: draws.
    """
    moved = 2.0 * NormalDist().inv_cdf((1.0 + distance) / 2.0)
    bins = bins_of([random.gauss(0.0, 1.0) for _ in range(CALIBRATION)])
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    seen = 0
    for size in sizes(20, SAMPLES):
        for _ in range(size - seen):
            before[bins.name(random.gauss(0.0, 1.0))] += 1
            after[bins.name(random.gauss(moved, 1.0))] += 1
        seen = size
        found = shift(bins, before, after, ERROR / 2.0)
        if found.low > MOST:
            return "shifted", seen
        if found.high <= MOST:
            return "steady", seen
    return "open", SAMPLES


def measure(arguments: argparse.Namespace) -> Report:
    """All rows."""
    report = Report(
        "quality_power",
        f"labels until `minAccuracy: 90%` is answered, samples of each side until `maxShift: 10%` "
        f"is (one field, error {ERROR:.0%}), looking again with each twentieth more",
    )
    for truth in TRUE_ACCURACIES:
        found = [labels_until(truth, Random(f"{truth}-{i}")) for i in range(arguments.runs)]
        report.add(f"accuracy {100 * truth:g} %", "labels", [n for _, n in found])
        report.facts[f"accuracy {truth}"] = Counter(str(a) for a, _ in found)
    for distance in TRUE_SHIFTS:
        drawn = [samples_until(distance, Random(f"{distance}-{i}")) for i in range(arguments.runs)]
        report.add(f"shift {100 * distance:g} %", "samples", [n for _, n in drawn])
        report.facts[f"shift {distance}"] = Counter(a for a, _ in drawn)
    wrong = sum(
        labels_until(LEAST - 1e-6, Random(f"limit-{i}"))[0] is Answer.GOOD
        for i in range(5 * arguments.runs)
    )
    report.notes.append(
        f"right below the limit, {wrong} of {5 * arguments.runs} were called good, at any of the "
        f"looks up to {LABELS:,} labels"
    )
    report.notes += [f"{name}: {dict(counts)}" for name, counts in report.facts.items()]
    return report


def main() -> None:
    """Measure, print, write."""
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=40, help="draws of each row [%(default)s]")
    arguments = made.parse_args()
    measure(arguments).finish(arguments.out)


if __name__ == "__main__":
    main()
