"""The user's metric: one of the usual ones, or a Python function, and the gate's verdict by it."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tidegate.preparation import gate
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.errors import PreparationError, one_line
from tidegate.preparation.gate import Allowed, Better, Judgement
from tidegate.preparation.samples import Samples

if TYPE_CHECKING:
    from tidegate.preparation.session import Arrays

Function = Callable[[NDArray[Any] | None, "Arrays"], float]
"""From labels and outputs, both over the same samples, to a number."""
ERRORS: Final[dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], float]]] = {
    "rmse": gate.rmse,
    "mae": gate.mae,
}
"""Of numbers; both are better lower."""
USUAL: Final = ("accuracy", "f1", *ERRORS)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_OF_ERRORS: Final = re.compile(
    r"brier|cer|distance|err|errors?|(?:log)?loss|mae|mape|mse|perplexity|rmse|rmsle|smape|wer"
)
_TURNED: Final = re.compile(r"minus|neg|negated|negative")


def place(reference: str) -> tuple[Path, str]:
    """The file and the name of a function.

    Raises:
        PreparationError: it is no reference, or there is no such file.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if path.suffix != ".py" or not name:
        raise PreparationError(
            f"{reference}: a metric is one of {', '.join(USUAL)}, or FILE.py:FUNCTION"
        )
    if not path.is_file():
        raise PreparationError(f"{path} does not exist")
    return path, name


def function(reference: str) -> Function:
    """The user's metric, ``FILE.py:NAME``.

    Raises:
        PreparationError: there is no such file or function, or the file raises.
    """
    path, name = place(reference)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        raise PreparationError(
            f"{path} raised {type(problem).__name__}: {one_line(problem)}"
        ) from problem
    found = getattr(module, name, None)
    if not callable(found):
        raise PreparationError(f"{path} has no function {name}")
    made: Function = found
    return made


def direction(metric: str, said: str = "") -> Better:
    """Which way a metric improves.

    Args:
        metric: accuracy, f1, rmse, mae, or FILE.py:FUNCTION.
        said: higher or lower, by the user; '' leaves it to the metric: a function is better
            higher, unless its name is that of an error, which nobody should have to guess about.

    Raises:
        PreparationError: it is said to be what it cannot be, or is not said and not plain.
    """
    try:
        wanted = Better(said) if said else None
    except ValueError:
        raise PreparationError(
            f"{said} is no direction: a metric is better higher or lower"
        ) from None
    if metric in USUAL:
        known = Better.LOWER if metric in ERRORS else Better.HIGHER
        if wanted not in (None, known):
            raise PreparationError(f"{metric} is better {known}, not {wanted}: leave it out")
        return known
    if wanted is not None:
        return wanted
    name = metric.rpartition(":")[2]
    words = [word.lower() for word in _WORDS.findall(name)]
    if any(map(_OF_ERRORS.fullmatch, words)) and not any(map(_TURNED.fullmatch, words)):
        raise PreparationError(
            f"{name} sounds like an error: say --better lower, or --better higher if it is negated"
        )
    return Better.HIGHER


def judge(
    original: Candidate,
    candidate: Candidate,
    held_out: Samples,
    allowed: Allowed,
    *,
    metric: str = "accuracy",
    better: str = "",
    output: str | None = None,
) -> Judgement:
    """Run both on the held-out set and judge the difference.

    Args:
        original: what the candidate was made of, before it was optimised.
        candidate: what is judged.
        held_out: samples that were not used to calibrate.
        allowed: how much worse it may be.
        metric: accuracy, f1, rmse, mae, or FILE.py:FUNCTION.
        better: higher or lower; '' as `direction` says.
        output: the one that is compared with the labels; found by its kind where not named.

    Raises:
        PreparationError: labels are missing or fit no output, or the function raises.
    """
    from tidegate.preparation import running  # the one thing here that needs ONNX Runtime

    before, after = running.answers(original, held_out), running.answers(candidate, held_out)
    return judge_answers(
        before,
        after,
        held_out.labels,
        allowed,
        metric=metric,
        better=better,
        output=output,
    )


def judge_answers(
    before: "Arrays",
    after: "Arrays",
    labels: NDArray[Any] | None,
    allowed: Allowed,
    *,
    metric: str = "accuracy",
    better: str = "",
    output: str | None = None,
) -> Judgement:
    """As `judge`, of answers that are there already."""
    way = direction(metric, better)
    if metric not in USUAL:
        wanted = function(metric)
        name = metric.rpartition(":")[2]

        def measured(places: NDArray[np.intp]) -> tuple[float, float]:
            truth = None if labels is None else labels[places]
            return (
                float(wanted(truth, {n: a[places] for n, a in before.items()})),
                float(wanted(truth, {n: a[places] for n, a in after.items()})),
            )

        # Whether it lies within 0 and 1 is not known: an error rate does as well.
        count = len(next(iter(before.values())))
        return gate.judge_by_bootstrap(name, measured, count, allowed, better=way)
    if labels is None:
        raise PreparationError(f"the held-out set has no labels, which {metric} needs")
    if metric in ERRORS:
        error = ERRORS[metric]
        was, now = numbers(before, labels, output), numbers(after, labels, output)
        truth = labels.astype(np.float64).reshape(len(labels), -1)
        return gate.judge_by_bootstrap(
            metric.upper(),
            lambda p: (error(was[p], truth[p]), error(now[p], truth[p])),
            len(labels),
            allowed,
            better=way,
            bounded=False,
        )
    was, now = classes(before, labels, output), classes(after, labels, output)
    if metric == "accuracy":
        return gate.judge_accuracy(was, now, labels, allowed)
    old, new, right = gate.numbered(was, now, labels)
    return gate.judge_by_bootstrap(
        "F1",
        lambda p: (gate.f1(old[p], right[p]), gate.f1(new[p], right[p])),
        len(labels),
        allowed,
    )


def classes(found: "Arrays", labels: NDArray[Any], output: str | None = None) -> NDArray[Any]:
    """One class a sample: a label's output as it is, scores by the largest, one score by a half.

    Raises:
        PreparationError: no output, or more than one, can be compared with the labels.
    """
    if output is not None and output not in found:
        raise PreparationError(f"there is no output {output}: there are {', '.join(found)}")
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
        labels = labels.astype(np.int64)  # classes, as a table writes them
    chosen = [output] if output is not None else list(found)
    alike = [n for n in chosen if found[n].size == len(labels) and _comparable(found[n], labels)]
    if len(alike) == 1:
        array = found[alike[0]].reshape(len(labels))
        return array.astype(str) if labels.dtype.kind in "US" else array
    scores = [n for n in chosen if found[n].dtype.kind == "f" and found[n].ndim == 2]
    if len(scores) == 1 and labels.dtype.kind in "biu":
        given: NDArray[Any] = found[scores[0]]
        single = given.size == len(labels)
        picked = given.reshape(-1) > 0.5 if single else given.argmax(axis=1)
        return np.asarray(picked).astype(labels.dtype)
    told = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in found.items())
    raise PreparationError(
        f"which output the labels ({labels.dtype}) are to be compared with is not plain: there are "
        f"{told}; give labels like one of them, or a metric FILE.py:FUNCTION that compares them"
    )


def numbers(
    found: "Arrays", labels: NDArray[Any], output: str | None = None
) -> NDArray[np.float64]:
    """One row of numbers a sample, as many as the labels have.

    Raises:
        PreparationError: no output, or more than one, has the labels' shape.
    """
    chosen = [output] if output is not None else list(found)
    fits = [n for n in chosen if n in found and found[n].size == labels.size]
    if len(fits) != 1 or labels.dtype.kind not in "biuf":
        told = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in found.items())
        raise PreparationError(
            f"which output the labels ({labels.dtype}{list(labels.shape)}) are to be compared "
            f"with is not plain: there are {told}"
        )
    return found[fits[0]].astype(np.float64).reshape(len(labels), -1)


def _comparable(found: NDArray[Any], labels: NDArray[Any]) -> bool:
    if labels.dtype.kind in "US":
        return found.dtype.kind in "USO"
    return found.dtype.kind in "biu" and labels.dtype.kind in "biu"
