"""The optimisations that can be asked for by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.preparation.candidate import Candidate
from tidegate.preparation.optimise.fp16 import to_fp16
from tidegate.preparation.optimise.graph import optimise_graph
from tidegate.preparation.optimise.prune import prune_structured, prune_unstructured
from tidegate.preparation.optimise.quantise import quantise_dynamic, quantise_static
from tidegate.preparation.samples import Samples

PRUNED: Final = 0.5
"""Of the weights, or of each layer's units."""


@dataclass(frozen=True)
class Choice:
    """An optimisation.

    Attributes:
        make: from a candidate, a file to write and samples to calibrate on, another candidate.
        calibrated: whether it looks at the samples.
    """

    make: Callable[[Candidate, Path, Samples], Candidate]
    calibrated: bool = False


CHOICES: Final[Mapping[str, Choice]] = {
    "graph": Choice(lambda before, out, _: optimise_graph(before, out)),
    "int8-dynamic": Choice(lambda before, out, _: quantise_dynamic(before, out)),
    "int8-static": Choice(lambda before, out, s: quantise_static(before, out, s), calibrated=True),
    "fp16": Choice(lambda before, out, _: to_fp16(before, out)),
    "pruned": Choice(lambda before, out, _: prune_unstructured(before, out, PRUNED)),
    "narrowed": Choice(lambda before, out, _: prune_structured(before, out, PRUNED)),
}
