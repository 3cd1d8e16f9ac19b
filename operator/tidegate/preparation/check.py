"""Whether a converted model answers as the original did, tensor by tensor. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tidegate.preparation.errors import PreparationError

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Tolerance:
    """What one number may differ by: at most ``absolute + relative * |original|``.

    Attributes:
        absolute: in the output's own unit.
        relative: as a fraction of the original's magnitude.
    """

    absolute: float
    relative: float


FLOAT32: Final = Tolerance(absolute=1e-5, relative=1e-3)
"""What 32-bit arithmetic in another order makes of a network of some depth."""


@dataclass(frozen=True)
class Agreement:
    """One output of the original beside the converted model's.

    Attributes:
        output: its name.
        samples: how many were compared.
        largest_absolute: the largest difference; for labels 1 where any differs.
        largest_relative: the largest difference as a fraction of the original's magnitude, over
            the elements that are not 0 in the original.
        differing: samples with any element outside the tolerance.
        worst_sample: the one furthest outside (or nearest to it), by its place among the samples.
        worst_element: which element of it.
        original: what the original says there.
        found: what the converted model says there.
        tolerance: what was allowed; None for labels, which must be equal.
        ties: samples whose labels differ only because the original's two best scores are closer
            than the tolerance: either label is right. Not among `differing`.
    """

    output: str
    samples: int
    largest_absolute: float
    largest_relative: float
    differing: int
    worst_sample: int
    worst_element: tuple[int, ...]
    original: str
    found: str
    tolerance: Tolerance | None
    ties: int = 0

    @property
    def passed(self) -> bool:
        """No sample differs by more than is allowed."""
        return self.differing == 0

    def sentence(self) -> str:
        """The comparison in words."""
        if self.tolerance is None:
            allowed = f"must be equal, but for {self.ties} ties" if self.ties else "must be equal"
        else:
            allowed = (
                f"allowed {self.tolerance.absolute:g} + {self.tolerance.relative:g} x magnitude"
            )
        told = (
            f"largest difference {self.largest_absolute:.3g} absolute, "
            f"{self.largest_relative:.3g} relative over {self.samples} samples ({allowed})"
        )
        if self.passed:
            return told
        place = "".join(f"[{i}]" for i in self.worst_element)
        return (
            f"{told}; {self.differing} samples differ by more, most of all sample "
            f"{self.worst_sample}{f' at {place}' if place else ''}: {self.original} in the "
            f"original, {self.found} here"
        )


def compare(original: Arrays, found: Arrays, tolerance: Tolerance = FLOAT32) -> list[Agreement]:
    """Compare all of the original's outputs; the first axis of each is samples.

    Raises:
        PreparationError: an output is missing, or of another shape.
    """
    agreements = []
    for name, before in original.items():
        if name not in found:
            raise PreparationError(
                f"output {name} is missing: the converted model has {', '.join(found)}"
            )
        after = found[name]
        if before.shape != after.shape:
            raise PreparationError(
                f"output {name} has shape {list(after.shape)}, in the original {list(before.shape)}"
            )
        agreements.append(_agreement(name, before, after, tolerance, _ties(original, tolerance)))
    return agreements


def require(agreements: Sequence[Agreement]) -> None:
    """Stop where an output differs by more than is allowed.

    Raises:
        PreparationError: names the tensor and the sample that differ most.
    """
    failed = [a for a in agreements if not a.passed]
    if failed:
        worst = max(failed, key=lambda a: a.differing / max(1, a.samples))
        raise PreparationError(
            f"the converted model answers otherwise: output {worst.output}: {worst.sentence()}"
        )


def _agreement(
    name: str,
    before: NDArray[Any],
    after: NDArray[Any],
    tolerance: Tolerance,
    ties: NDArray[np.bool_] | None,
) -> Agreement:
    if before.size == 0:
        raise PreparationError(f"output {name} is empty: there is nothing to compare")
    if before.dtype.kind == "f" and after.dtype.kind == "f":
        return _numbers(name, before.astype(np.float64), after.astype(np.float64), tolerance)
    return _labels(name, before, after, ties)


def _ties(original: Arrays, tolerance: Tolerance) -> NDArray[np.bool_] | None:
    """Samples whose best label the tolerated differences of the scores can change."""
    scores = [
        a for a in original.values() if a.dtype.kind == "f" and a.ndim == 2 and a.shape[1] > 1
    ]
    if len(scores) != 1:
        return None
    second, best = np.partition(scores[0].astype(np.float64), -2, axis=1)[:, -2:].T
    slack = 2.0 * tolerance.absolute + tolerance.relative * (np.abs(best) + np.abs(second))
    return np.asarray(best - second <= slack)


def _numbers(
    name: str, before: NDArray[np.float64], after: NDArray[np.float64], tolerance: Tolerance
) -> Agreement:
    # Where both say infinity, or both that there is no number, they agree.
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.where(same, 0.0, np.abs(after - before))
        magnitude = np.where(np.isfinite(before), np.abs(before), 0.0)
        difference = np.where(np.isfinite(difference), difference, np.inf)
        excess = difference / (tolerance.absolute + tolerance.relative * magnitude)
        excess = np.where(same, 0.0, excess)
        relative = difference[magnitude > 0.0] / magnitude[magnitude > 0.0]
    return _made(name, before, after, difference, relative, excess, tolerance)


def _labels(
    name: str, before: NDArray[Any], after: NDArray[Any], ties: NDArray[np.bool_] | None
) -> Agreement:
    numeric = before.dtype.kind in "biuf" and after.dtype.kind in "biuf"
    differ = (before != after) if numeric else (before.astype(str) != after.astype(str))
    tied = 0
    if ties is not None and differ.size == len(ties) == len(before):
        excused = differ & ties.reshape(differ.shape)
        tied, differ = int(excused.sum()), differ & ~excused
    difference = differ.astype(np.float64)
    made = _made(name, before, after, difference, difference.ravel(), difference * 2.0, None)
    return replace(made, ties=tied)


def _made(
    name: str,
    before: NDArray[Any],
    after: NDArray[Any],
    difference: NDArray[np.float64],
    relative: NDArray[np.float64],
    excess: NDArray[np.float64],
    tolerance: Tolerance | None,
) -> Agreement:
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), excess.shape))
    outside = (excess > 1.0).reshape(len(excess), -1).any(axis=1)
    return Agreement(
        output=name,
        samples=len(before),
        largest_absolute=float(difference.max()),
        largest_relative=float(relative.max()) if relative.size else 0.0,
        differing=int(outside.sum()),
        worst_sample=worst[0],
        worst_element=worst[1:],
        original=_plain(before[worst]),
        found=_plain(after[worst]),
        tolerance=tolerance,
    )


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
