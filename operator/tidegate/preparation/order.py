"""What is to be prepared, how, and where it goes; the options of `tidegate prepare`."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.tuning.search import Objective

FRAMEWORKS: Final = ("sklearn", "xgboost", "lightgbm", "torch", "tensorflow", "onnx")
"""As `tidegate.preparation.convert.Framework` knows them; there they need their packages."""
OPTIMISATIONS: Final = ("graph", "int8-dynamic", "int8-static", "fp16", "pruned", "narrowed")
"""As `tidegate.preparation.choices.CHOICES` has them."""

_OBJECTIVE: Final = re.compile(r"p(\d{2}(?:\.\d+)?)=(\d+(?:\.\d+)?)(us|ms|s)")
_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def objective(text: str) -> Objective:
    """From ``p99=50ms``.

    Raises:
        PreparationError: it is no objective.
    """
    found = _OBJECTIVE.fullmatch(text.strip())
    if found is None or float(found[2]) <= 0.0 or not 50.0 <= float(found[1]) <= 99.9:
        raise PreparationError(f"{text} is no objective: write p99=50ms, p95=1s")
    return Objective(round(float(found[1]) / 100, 6), float(found[2]) * _MS[found[3]])


def drop(text: str) -> float:
    """From ``0.5%`` or ``0.005``.

    Raises:
        PreparationError: it is no number that is 0 or more.
    """
    number, percent = (text.strip().removesuffix("%"), text.strip().endswith("%"))
    try:
        found = float(number) / (100 if percent else 1)
    except ValueError:
        found = -1.0
    if not 0.0 <= found < float("inf"):
        raise PreparationError(f"{text} is no drop: write 0.5% or 0.005")
    return found


@dataclass(frozen=True)
class Place:
    """Where a prepared model goes.

    Attributes:
        folder: everything, as files.
        store: ``s3://bucket/prefix``, ``oci://registry/repository[:tag]`` or
            ``mlflow://model[/@alias]`` that it is sent to; '' means it is not.
        uri: where they will lie, if somebody else puts them there.
        endpoint: of the store, where it is not the public one.
        secret: name of the Secret with which pods read the store; '' for none.
        sign: file of the private key that the files are signed with; '' for no signature.
    """

    folder: Path
    store: str = ""
    uri: str = ""
    endpoint: str = ""
    secret: str = ""
    sign: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Order:
    """What is to be prepared, and how.

    Attributes:
        name: of the ModelDeployment, and the model.
        model: the framework's file.
        data: held-out samples with labels.
        objective: what a request is promised.
        place: where it goes.
        work: the working folder.
        framework: '' means by the file's name.
        metric: what is judged: a name, or ``file.py:function``.
        better: which way a function improves, higher or lower; '' as `metrics.direction` says.
        max_drop: how much worse it may become, in the metric's unit; of an error, how much higher.
        confidence: of the bound on it.
        optimisations: that are tried, by name.
        calibration: samples for those that need them; None: some of `data`, which then are not
            judged on.
        triton: what starts Triton; '' means what is on the path.
        quick: fewer and shorter measurements.
        licence: of the model, as the report is to say it.
        source: training code, whose digest the report is to hold; None: none.
    """

    name: str
    model: Path
    data: Path
    objective: Objective
    place: Place
    work: Path
    framework: str = ""
    metric: str = "accuracy"
    better: str = ""
    max_drop: float = 0.005
    confidence: float = 0.95
    optimisations: tuple[str, ...] = ("int8-dynamic",)
    calibration: Path | None = None
    triton: str = ""
    quick: bool = False
    licence: str = ""
    source: Path | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        for name in ("model", "data", "work", "calibration", "source"):
            found[name] = None if found[name] is None else str(found[name])
        found["place"] = self.place.document()
        found["optimisations"] = list(self.optimisations)
        return found

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Order":
        """From JSON; the opposite of `document`.

        Raises:
            PreparationError: it is none.
        """
        paths = ("model", "data", "work", "calibration", "source")
        try:
            made = {**found, **{n: None if found[n] is None else Path(found[n]) for n in paths}}
            made["objective"] = Objective(**found["objective"])
            made["place"] = Place(**{**found["place"], "folder": Path(found["place"]["folder"])})
            made["optimisations"] = tuple(found["optimisations"])
            return cls(**made)
        except (KeyError, TypeError, ValueError) as error:
            raise PreparationError(f"this is no report of tidegate prepare: {error!r}") from error
