"""Is a setting of Triton found by probes and the capacity model as good as by measuring them all?

``python -m e2e.bench.tuning``, with the interpreter that ``python -m e2e.preparation_venv`` prints,
trains a neural network on scikit-learn's digits, converts it, and tunes it on a real Triton twice:
as `tidegate prepare` does, and by measuring every setting of the same grid. What the pick of the
first costs is then taken from the second's measurements.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from e2e.bench.report import Report, parser
from e2e.native.program import triton_program
from tidegate.preparation.convert import Framework, convert
from tidegate.preparation.order import objective
from tidegate.preparation.publish import golden
from tidegate.preparation.samples import Samples
from tidegate.preparation.session import fitted
from tidegate.preparation.tuning.grid import Grid
from tidegate.preparation.tuning.measuring import Bench
from tidegate.preparation.tuning.repository import Backend
from tidegate.preparation.tuning.search import Held, Tuned, exhaustive, tune

UNITS: Final = (1000, 1000)
"""Of the network's layers: some milliseconds a batch, so that the client is not the limit."""
GRID: Final = Grid((1, 4, 16), (1, 2), (0.0, 2.0), (1, 2))
SMALL: Final = Grid((1, 8), (1, 2), (0.0,), (1, 2))


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__)
    arguments.add_argument("--slo", default="p99=50ms")
    arguments.add_argument("--seconds", type=float, default=3.0, help="of a stretch")
    arguments.add_argument("--small", action="store_true", help="8 settings instead of 20")
    said = arguments.parse_args()
    report = Report(
        "tuning",
        f"tuning a network of {UNITS} units for {said.slo}, against measuring the whole grid",
    )
    report.await_quiet(said.patience)
    grid = SMALL if said.small else GRID
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as made:
        bench = _bench(Path(made), said.slo, said.seconds)
        with bench:
            found = tune(grid, bench.objective, bench.probe, bench.measure, tell=print)
            everything = exhaustive(grid, bench.objective, bench.measure, tell=print)
    _told(report, grid, found, everything)
    report.finish(said.out)


def _bench(folder: Path, slo: str, seconds: float) -> Bench:
    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    model = MLPClassifier(UNITS, max_iter=8, random_state=0).fit(rows, labels)
    joblib.dump(model, folder / "digits.joblib")
    samples = Samples({"input": rows}, labels)
    candidate = convert(
        folder / "digits.joblib", samples, folder / "model.onnx", framework=Framework.SKLEARN
    )
    documents = golden.documents(fitted(candidate.inputs, samples), candidate.inputs, 64)
    return Bench(
        candidate,
        "digits",
        Backend.PYTHON,
        str(triton_program(folder)),
        objective(slo),
        golden.requests(documents, [o.name for o in candidate.outputs]),
        seconds,
    )


def _told(report: Report, grid: Grid, found: Tuned, everything: Tuned) -> None:
    report.add("settings", "", [len(grid.settings())])
    report.add("probes and stretches, tuned", "", [found.runs])
    report.add("stretches, all measured", "", [everything.runs])
    share = found.runs / everything.runs
    report.add("share of the measurements", "", [share], aim="at most 0.2")
    report.facts["tuned"] = _document(found)
    report.facts["all"] = _document(everything)
    if found.best is None or everything.best is None:
        report.notes.append("at least one of them found no setting that holds the objective")
        return
    known = {h.setting: h for h in everything.held}
    same = known[found.best.setting]
    report.notes += [
        f"tuned picks {found.best.setting}; all measured: {everything.best.setting}",
        f"it holds {_rate(found.best)}; when all were measured {_rate(same)}, "
        f"the other {_rate(everything.best)}",
    ]
    if same.rate_per_s:
        over = same.cost_s / everything.best.cost_s
        report.add("cost of tuned's pick over the cheapest", "", [over], aim="at most 1.03")
    else:
        report.notes.append(
            "when all were measured, tuned's pick did not hold: noise, or a bad pick"
        )


def _rate(held: Held) -> str:
    return f"{held.rate_per_s:.0f}/s at {held.cost_s:.0f} CPU s a million"


def _document(found: Tuned) -> dict[str, Any]:
    return {
        "objective": str(found.objective),
        "best": found.best.document() if found.best else None,
        "held": [h.document() for h in found.held],
        "learned": [{**asdict(w), **x.document()} for w, x in found.learned.items()],
        "predicted": [{**s.document(), **asdict(p)} for s, p in found.predicted.items()],
    }


if __name__ == "__main__":
    main()
