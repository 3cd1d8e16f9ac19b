"""Real models prepared: size, accuracy, latency and throughput, before and after each optimisation.

``python -m e2e.bench.prepared_models`` trains small models of scikit-learn, XGBoost, LightGBM and
PyTorch, takes two generations of Magika from their packages, converts each, makes 16-bit and 8-bit
candidates of it, judges their accuracy on samples that nothing was trained or calibrated on, and
finds on a real Triton the highest rate at which each holds the objective. Latencies are taken at
one rate for all candidates of a model: half of what the converted model holds.

It runs itself by the preparation's interpreter with the large frameworks, which it makes the first
time (6 GB). Every result is kept as soon as it is known, so the same command goes on where it was
cut off; ``--page`` writes what there is to docs/prepared-models.md.

``--deploy`` measures nothing of that: on the embedded cluster each model goes live as it was
converted, and then, through a canary under load, as `tidegate prepare` made it.
"""

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from e2e.bench import prepared_page
from e2e.bench.report import OUT, Machine, await_quiet, parser
from e2e.cluster import paths
from e2e.preparation_venv import python

if TYPE_CHECKING:
    from e2e.bench.trained import Trained
    from tidegate.preparation.candidate import Candidate
    from tidegate.preparation.gate import Allowed
    from tidegate.preparation.session import Arrays
    from tidegate.preparation.state import State
    from tidegate.preparation.tuning.grid import Setting
    from tidegate.preparation.tuning.search import Stretch
    from tidegate.preparation.tuning.tuner import Job

OPTIMISATIONS: Final = ("fp16", "int8-dynamic", "int8-static")
BATCH: Final = 16
"""Samples a call, where more than one is compared with the original's."""
SLOW_MS: Final = 5.0
"""Of a call for one sample: then only that is compared."""
SHARE: Final = 0.5
"""Of the highest rate that the converted model holds: where latencies are taken."""
LEAST_FOR_P99_PER_S: Final = 50.0
"""A thousand requests at a lower rate are not waited for."""
NAMES: Final = (
    *("sklearn", "lightgbm", "xgboost", "torch", "magika-v1", "magika-v3"),
    "made-to-hurt",
)

Tell = Callable[[str], None]


def main() -> None:
    """Measure what is not known yet; print; write the page if told to."""
    arguments = parser(__doc__)
    arguments.set_defaults(out=OUT / "prepared-models")
    arguments.add_argument("--quick", action="store_true", help="short stretches: a first look")
    arguments.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="MODEL")
    arguments.add_argument("--slo", default="p95=50ms")
    arguments.add_argument(
        "--page", action="store_true", help="write docs/prepared-models.md and its JSON, too"
    )
    arguments.add_argument(
        "--known", action="store_true", help="measure nothing: what is known already"
    )
    arguments.add_argument(
        "--deploy", action="store_true", help="instead: through a canary on the embedded cluster"
    )
    said = arguments.parse_args()
    folder, deployed = said.out / ("quick" if said.quick else "whole"), said.out / "deployed"
    good = True
    if said.deploy:
        from e2e.bench.prepared_rollouts import deploy
        from e2e.cluster.progress import Progress

        good = deploy(deployed, said.only, Progress())
    elif not said.known:
        if importlib.util.find_spec("torch") is None:
            _by_the_preparations_interpreter()
        # By `timeout`, too, and in the background: Triton is stopped, and what is known is kept.
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.default_int_handler)
        try:
            _measure_all(folder, said.only, slo=said.slo, quick=said.quick, patience=said.patience)
        except KeyboardInterrupt:
            sys.exit(f"\ncut off: what is known is in {folder}; the same command goes on")
    document = prepared_page.collected(folder, NAMES, deployed)
    print(prepared_page.tables(document))
    if said.page:
        page = prepared_page.write(document)
        print(f"written: {page}")
    if not good:
        sys.exit("not each became what it must")


def _by_the_preparations_interpreter() -> None:
    """Become the same command, run by it."""
    interpreter = str(python(frameworks=True))
    roots = [str(paths.REPOSITORY / "operator"), str(paths.REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    command = [interpreter, "-m", "e2e.bench.prepared_models", *sys.argv[1:]]
    sys.stdout.flush()
    os.execve(interpreter, command, environment)


def _measure_all(
    folder: Path, names: tuple[str, ...], *, slo: str, quick: bool, patience: float
) -> None:
    from tidegate.preparation import lineage

    begun = time.monotonic()
    code = {"preparation": lineage.code(), "models": lineage.digest(_here("trained.py"))}
    known_by = {"slo": slo, "quick": quick, "code": code, "machine": lineage.machine()}
    busy = None
    for number, name in enumerate(names, 1):

        def tell(text: str, number: int = number, name: str = name) -> None:
            passed = time.monotonic() - begun
            print(f"[{passed:6.1f}s] {number}/{len(names)} {name}: {text}", flush=True)

        path = folder / f"{name}.json"
        if path.exists() and json.loads(path.read_text())["known_by"] == known_by:
            tell("known")
            continue
        if busy is None:
            busy = await_quiet(patience)
        began, load = time.time(), os.getloadavg()[0]
        found = _measured(name, folder / name, slo=slo, quick=quick, tell=tell)
        document = {
            "name": name,
            "known_by": known_by,
            "machine": asdict(Machine.here()),
            "began": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began)),
            "took_s": round(time.time() - began, 1),
            "busy_before": round(busy, 3),
            "load_average": [round(load, 1), round(os.getloadavg()[0], 1)],
            **found,
        }
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(document, indent=1) + "\n")
        unfinished.replace(path)
        tell(f"done in {document['took_s']} s")


def _here(name: str) -> Path:
    return Path(__file__).with_name(name)


def _measured(name: str, folder: Path, *, slo: str, quick: bool, tell: Tell) -> dict[str, Any]:
    """Everything of one model, as JSON."""
    from e2e.bench.trained import MODELS
    from e2e.native.program import triton_program
    from tidegate.preparation.choices import CHOICES
    from tidegate.preparation.convert import convert
    from tidegate.preparation.errors import PreparationError
    from tidegate.preparation.gate import Allowed
    from tidegate.preparation.state import State

    folder.mkdir(parents=True, exist_ok=True)
    tell("training, or taking it from its package")
    trained = MODELS[name](folder)
    state, triton = State(folder), str(triton_program(folder))
    tell("converting")
    samples = trained.all()
    original = convert(trained.path, samples, folder / "fp32" / "model.onnx")
    allowed = Allowed(trained.max_drop, candidates=len(OPTIMISATIONS))
    answered: dict[str, Arrays] = {}
    rows = [_judged(trained, original, original, answered, allowed, quick=quick)]
    made: dict[str, Candidate] = {original.name: original}
    for choice in OPTIMISATIONS:
        tell(choice)
        try:
            out = folder / choice / "model.onnx"
            candidate = CHOICES[choice].make(original, out, trained.seen)
        except PreparationError as error:
            rows.append({"name": choice, "not_made": str(error)})
            continue
        rows.append(_judged(trained, original, candidate, answered, allowed, quick=quick))
        tell(f"{choice}: {rows[-1]['verdict']}")
        if rows[-1]["verdict"] == "accepted":
            made[choice] = candidate
    document: dict[str, Any] = {
        "title": trained.title,
        "what": trained.what,
        "slo": slo,
        "quick": quick,
        "held_out": len(trained.held_out),
        "max_drop": trained.max_drop,
        "candidates": rows,
    }
    if trained.served:
        loads = _under_load(made, samples, state, triton, slo=slo, quick=quick, tell=tell)
        for row in rows:
            row |= {"load": loads[row["name"]]} if row["name"] in loads else {}
    return document


def _judged(
    trained: "Trained",
    original: "Candidate",
    candidate: "Candidate",
    answered: "dict[str, Arrays]",
    allowed: "Allowed",
    *,
    quick: bool,
) -> dict[str, Any]:
    """Size, accuracy with its interval, the gate's word, and how long a call takes.

    `answered` holds the answers to the held-out samples by candidate; these are put there.
    """
    from tidegate.preparation import metrics, running, timing
    from tidegate.preparation.gate import share_bounds
    from tidegate.preparation.tuning.repository import batches

    labels = trained.held_out.require_labels()
    answers = answered[candidate.name] = running.answers(candidate, trained.held_out)
    hits = int((metrics.classes(answers, labels) == labels).sum())
    low, high = share_bounds(hits, len(labels), 0.025)
    row: dict[str, Any] = {
        "name": candidate.name,
        "bytes": candidate.size_bytes,
        "accuracy": hits / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
    }
    if candidate is original:
        return row
    judged = metrics.judge_answers(answered[original.name], answers, labels, allowed)
    speeds = [timing.compare(original, candidate, trained.held_out)]
    if not quick and batches(original) and speeds[0].before_ms < SLOW_MS:
        speeds.append(timing.compare(original, candidate, trained.held_out, BATCH))
    return {
        **row,
        "verdict": judged.verdict.value,
        "sentence": judged.sentence(),
        "calls": [asdict(speed) for speed in speeds],
    }


def _under_load(
    made: "Mapping[str, Candidate]",
    samples: Any,
    state: "State",
    triton: str,
    *,
    slo: str,
    quick: bool,
    tell: Tell,
) -> dict[str, dict[str, Any]]:
    """What each candidate holds on a real Triton, and its latencies at one rate for all."""
    from tidegate.preparation import lineage
    from tidegate.preparation.order import objective
    from tidegate.preparation.publish import golden
    from tidegate.preparation.session import fitted
    from tidegate.preparation.tuning.repository import Backend
    from tidegate.preparation.tuning.serving import backend_of
    from tidegate.preparation.tuning.tuner import Effort, Job, tuned

    seconds, runs = (0.5, 3) if quick else (2.0, 4)
    effort = Effort(seconds=seconds, most_measured=1, most_runs=runs, quick=True)
    original = next(iter(made.values()))
    machine = {"triton": triton, **lineage.machine()}
    backend = state.recall("backend", machine, lambda: backend_of(original, "model", triton).value)
    documents = golden.documents(fitted(original.inputs, samples), original.inputs, 64)
    requests = golden.requests(documents, [o.name for o in original.outputs])
    found: dict[str, dict[str, Any]] = {}
    common_per_s: float | None = None
    for name, candidate in made.items():
        job = Job(
            candidate=candidate,
            digest=lineage.of_candidate(candidate),
            model="model",
            backend=Backend(backend),
            triton=triton,
            objective=objective(slo),
            requests=requests,
            cores=lineage.cores(),
            effort=effort,
            facts={"machine": lineage.machine(), "code": lineage.code()},
        )
        result = tuned(job, state, partial(_tell_of, tell, name)).tuned
        best = result.best or result.held[0]
        if common_per_s is None:
            # Nothing held: where the last stretch was.
            common_per_s = SHARE * (best.rate_per_s or best.stretches[-1].rate_per_s)
            common_per_s = float(f"{common_per_s:.3g}")
        tell(f"{name}: {best.rate_per_s:.0f} requests a second held; latencies at {common_per_s:g}")
        stretch = _stretch(job, best.setting, common_per_s, state)
        found[name] = {
            "backend": backend,
            "setting": str(best.setting),
            "rate_per_s": best.rate_per_s or None,
            "at_least": best.at_least,
            "cpu_s_per_million": best.cost_s,
            "common_per_s": common_per_s,
            "requests": stretch.requests,
            "p50_ms": stretch.p50_ms,
            "p99_ms": stretch.p99_ms,
            "client_late_p99_ms": stretch.client_late_p99_ms,
        }
    return found


def _tell_of(tell: Tell, name: str, text: str) -> None:
    tell(f"{name}: {text}")


def _stretch(job: "Job", setting: "Setting", rate_per_s: float, state: "State") -> "Stretch":
    """A stretch at a rate, long enough for the 99th percentile where that takes no minute."""
    from tidegate.preparation.tuning.measuring import Bench
    from tidegate.preparation.tuning.search import Objective, Stretch

    whole = job.effort.seconds > 1.0 and rate_per_s >= LEAST_FOR_P99_PER_S
    objective = Objective(0.99, job.objective.target_ms) if whole else job.objective

    def measure() -> dict[str, Any]:
        with Bench(
            job.candidate,
            job.model,
            job.backend,
            job.triton,
            objective,
            job.requests,
            job.effort.seconds,
        ) as bench:
            return asdict(bench.measure(setting, rate_per_s))

    parts = {
        **job.known_by(),
        "objective": asdict(objective),
        "setting": asdict(setting),
        "rate": rate_per_s,
    }
    return Stretch(**state.recall("stretch", parts, measure))


if __name__ == "__main__":
    main()
