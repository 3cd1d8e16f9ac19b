"""What Triton's response cache brings where inputs repeat, and what it costs where they do not.

``python -m e2e.bench.response_cache`` starts a real Triton with Magika on the CPU, with and without
its local response cache, and asks at an even rate for files of which some share was asked for
before. The client's latencies, the processor time of Triton's processes, and the hits that Triton
counts; and that hits run no batch, so the service time that autoscaling learns is the same.
"""

import random
import tempfile
from pathlib import Path
from typing import Final

from e2e.bench.report import Report, parser
from e2e.models.magika.build import build
from e2e.native.program import triton_program
from tidegate.cli.loading import Summary
from tidegate.golden import GoldenRequest, Tensor
from tidegate.preparation.tuning.driving import Body, drive
from tidegate.preparation.tuning.serving import Server, start
from tidegate.resources.model_config import parse_pbtxt, to_pbtxt

REPEATED: Final = (0.0, 0.5, 0.9, 0.99)
"""Shares of the requests that were asked before."""
POOL: Final = 20
"""Different files that are asked for again and again."""
WORDS: Final = ("tide", "gate", "import", "def", "return", "class", "0.5", "{", "}", "<p>", "</p>")


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__)
    arguments.add_argument("--rate", type=float, default=60.0, help="requests a second")
    arguments.add_argument("--seconds", type=float, default=10.0, help="of each stretch")
    said = arguments.parse_args()
    report = Report(
        "response_cache",
        f"Magika on the CPU at {said.rate:g} requests a second, by the share of repeated inputs, "
        "with Triton's response cache and without",
    )
    report.await_quiet(said.patience)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as made:
        repository = build(Path(made))["v3"]
        triton = str(triton_program(Path(made)))
        for cached in (False, True):
            _configure(repository / "magika" / "config.pbtxt", cached)
            log = Path(made) / "triton.log"
            with start(repository, "magika", triton, log, response_cache=cached) as server:
                _warm(server)
                for share in REPEATED:
                    _measure(report, server, share, cached, said.rate, said.seconds)
    report.finish(said.out)


def _configure(path: Path, cached: bool) -> None:
    config = parse_pbtxt(path.read_text(), where=str(path))
    config.response_cache.enable = cached
    path.write_text(to_pbtxt(config))


def _bodies(share: float, count: int, seed: int) -> list[Body]:
    """Requests of which this share comes from a pool, in random order."""
    draw = random.Random(seed)
    pool = [_text(draw) for _ in range(POOL)]
    texts = [draw.choice(pool) if draw.random() < share else _text(draw) for _ in range(count)]
    return [
        Body.of(GoldenRequest("x.json", "x", "", (Tensor("content", "BYTES", (1, 1), (text,)),)))
        for text in texts
    ]


def _text(draw: random.Random) -> bytes:
    return " ".join(draw.choices(WORDS, k=300)).encode()


def _warm(server: Server) -> None:
    drive(server.address, "magika", _bodies(0.0, 40, seed=0), [0.02 * n for n in range(40)])


def _measure(
    report: Report, server: Server, share: float, cached: bool, rate: float, seconds: float
) -> None:
    count = round(rate * seconds)
    # The pool has been seen before: what is measured is not how it is filled.
    bodies = _bodies(share, count, seed=round(1000 * share) + 1)
    if share:
        pool = _bodies(1.0, 100, seed=round(1000 * share) + 1)
        drive(server.address, "magika", pool, [0.03 * n for n in range(100)])
    before, cpu_s = server.stats(), server.cpu_s()
    found = Summary.of(drive(server.address, "magika", bodies, [n / rate for n in range(count)]))
    cpu_s, after = server.cpu_s() - cpu_s, server.stats()
    name = f"{share:.0%} repeated, {'cache' if cached else 'none'}"
    answered = after.succeeded - before.succeeded
    hits = after.cached - before.cached
    runs = sum(b.count for b in after.batches) - sum(b.count for b in before.batches)
    busy_ms = sum(b.busy_ms for b in after.batches) - sum(b.busy_ms for b in before.batches)
    _add(report, f"{name}: p50", "ms", found.p50_ms)
    _add(report, f"{name}: p99", "ms", found.p99_ms)
    _add(report, f"{name}: processor", "ms a request", 1000 * cpu_s / count)
    _add(report, f"{name}: hits", "of the answers", hits / answered if answered else None)
    _add(report, f"{name}: one execution", "ms", busy_ms / runs if runs else None)
    report.facts[name] = {**found.document(), "hits": hits, "executions": runs}


def _add(report: Report, name: str, unit: str, value: float | None) -> None:
    if value is not None:
        report.add(name, unit, [value])


if __name__ == "__main__":
    main()
