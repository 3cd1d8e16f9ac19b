"""What may go wrong in a simulated rollout, and how it is written: ``errors=5%@12m-20m``."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tidegate.api.units import duration_s, fraction


class Defect(StrEnum):
    """What may go wrong, and with whom."""

    ERRORS = "errors"
    """The new version fails a share of its requests."""
    SLOWER = "slower"
    """The new version's batches take so many times as long."""
    CRASH = "crash"
    """The new version's container ends, while it loads or later."""
    HANG = "hang"
    """The new version takes requests and gives no answer."""
    NEVER_READY = "never-ready"
    """The new version never comes to an end of loading."""
    WRONG_ANSWERS = "wrong-answers"
    """The new version's golden answers are wrong. Clients' errors are not: nothing counts that."""
    OLD_ERRORS = "old-errors"
    """The version that serves before the change fails a share of its requests."""
    OLD_SLOWER = "old-slower"
    """The same version's batches take so many times as long."""
    LOST_POD = "lost-pod"
    """A pod of the revision with most of the traffic dies, with all that is in it."""
    GPUS = "gpus"
    """The cluster has GPUs for so many pods."""
    NO_METRICS = "no-metrics"
    """A share of the looks at pods finds nothing."""
    LAG = "lag"
    """Counters are so old when they are read."""


class _Size(StrEnum):
    SHARE = "a share such as 5%"
    FACTOR = "a factor such as 1.5"
    NUMBER = "a whole number such as 4"
    TIME = "a length of time such as 15s"


_SIZES: Final = {
    Defect.ERRORS: _Size.SHARE,
    Defect.OLD_ERRORS: _Size.SHARE,
    Defect.NO_METRICS: _Size.SHARE,
    Defect.SLOWER: _Size.FACTOR,
    Defect.OLD_SLOWER: _Size.FACTOR,
    Defect.GPUS: _Size.NUMBER,
    Defect.LAG: _Size.TIME,
}
_DEFAULTS: Final = {Defect.NO_METRICS: 1.0}
_FORM: Final = re.compile(
    r"(?P<name>[a-z-]+)(=(?P<size>[^@]+))?(@(?P<begin>[0-9a-z]+)(-(?P<end>[0-9a-z]+))?)?"
)


class FaultError(ValueError):
    """A fault that cannot be read; the text says why and what to write."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        defect: what.
        size: how much: a share, a factor, a number, seconds; see `Defect`.
        begin_s: when, from the start of the load.
        end_s: until when.
    """

    defect: Defect
    size: float = 1.0
    begin_s: float = 0.0
    end_s: float = math.inf

    def holds(self, at_s: float) -> bool:
        """Whether it is in force."""
        return self.begin_s <= at_s < self.end_s

    def __str__(self) -> str:
        """As people write it."""
        text = str(self.defect)
        size = _SIZES.get(self.defect)
        if size is _Size.SHARE:
            text += f" {100 * self.size:g} %"
        elif size is not None:
            text += f" {self.size:g}" + (" s" if size is _Size.TIME else "")
        if self.begin_s > 0.0 or self.end_s < math.inf:
            text += f" from {_minutes(self.begin_s)}"
        return text + (f" to {_minutes(self.end_s)}" if self.end_s < math.inf else "")


def parse(text: str) -> Fault:
    """A fault as it is written: a name, how much, from when and until when.

    Raises:
        FaultError: it is none.
    """
    found = _FORM.fullmatch(text.replace(" ", ""))
    try:
        defect = Defect(found["name"] if found is not None else "")
    except ValueError:
        known = ", ".join(sorted(Defect))
        raise FaultError(f"{text!r} is no fault; there are {known}") from None
    assert found is not None
    size, said = _SIZES.get(defect), found["size"]
    if size is None and said is not None:
        raise FaultError(f"{text!r}: {defect} has no size")
    if size is not None and said is None and defect not in _DEFAULTS:
        raise FaultError(f"{text!r}: how much? write {defect}= and {size}")
    try:
        amount = _DEFAULTS.get(defect, 1.0) if said is None or size is None else _read(said, size)
    except ValueError:
        raise FaultError(f"{text!r}: {said!r} is not {size}") from None
    try:
        begin_s = duration_s(found["begin"]) if found["begin"] else 0.0
        end_s = duration_s(found["end"]) if found["end"] else math.inf
    except ValueError:
        raise FaultError(f"{text!r}: write the times as @12m or @12m-20m") from None
    if end_s <= begin_s:
        raise FaultError(f"{text!r} ends before it begins")
    return Fault(defect, amount, begin_s, end_s)


def _read(text: str, size: _Size) -> float:
    if size is _Size.SHARE:
        return fraction(text)
    if size is _Size.TIME:
        return duration_s(text)
    value = float(text)
    if not 0.0 <= value < math.inf or (size is _Size.FACTOR and value == 0.0):
        raise ValueError(text)
    if size is _Size.NUMBER and value != int(value):
        raise ValueError(text)
    return value


def _minutes(at_s: float) -> str:
    return f"{int(at_s // 60)}:{at_s % 60:02.0f}"


def size_of(faults: Iterable[Fault], defect: Defect, at_s: float) -> float | None:
    """The largest size of a defect that is in force; None: it is not."""
    return max((f.size for f in faults if f.defect is defect and f.holds(at_s)), default=None)


def edges_of(faults: Iterable[Fault]) -> list[float]:
    """Times at which something changes, ascending."""
    times = {t for f in faults for t in (f.begin_s, f.end_s)}
    return sorted(t for t in times if 0.0 < t < math.inf)
