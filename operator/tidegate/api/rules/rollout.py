"""How a new revision may earn traffic."""

from typing import Final

from tidegate.api import patterns, units
from tidegate.api.cel import (
    Rule,
    cel_string,
    percent,
    percent_range,
    positive_duration,
    unless_malformed,
)

OWN_CONDITIONS: Final = (
    "Available",
    "Ready",
    "Reconciling",
    "Stalled",
    "SLOMet",
    "SLOInfeasible",
    "WaitingForGPU",
    "MetricsAvailable",
    "RuntimeOutdated",
    "SourceFollowed",
    "AnswersRight",
    "Drifted",
)
_STEP_WEIGHTS: Final = f"self.map(s, {percent('s.weight')})"
_STEPS_WELL_FORMED: Final = f"self.all(s, s.weight.matches({cel_string(units.PERCENT_PATTERN)}))"
_CONNECTION_HEADERS: Final = (
    "['host', 'content-length', 'transfer-encoding', 'connection', 'te', 'upgrade']"
)
_HEADER: Final = cel_string(patterns.HEADER_NAME_PATTERN)

RULES: Final[tuple[Rule, ...]] = (
    percent_range(
        "spec.rollout.steps[].weight",
        "0.0",
        "100.0",
        "is no step; write a share above 0% and below 100%, promotion follows the last by itself",
    ),
    Rule(
        "spec.rollout.steps",
        f"!{_STEPS_WELL_FORMED} || ({_STEP_WEIGHTS}.isSorted()"
        f" && {_STEP_WEIGHTS}.all(a, {_STEP_WEIGHTS}.exists_one(b, a == b)))",
        "{self.map(s, s.weight)} is not ascending; sort the weights and name each once",
    ),
    percent_range(
        "spec.rollout.falseRollbackRate",
        "0.0",
        "20.0",
        "is no chance to plan with; write more than 0% and less than 20%, such as 0.1%",
    ),
    percent_range(
        "spec.rollout.confidence",
        "50.0",
        "100.0",
        "is no certainty to be had; write more than 50% and less than 100%, such as 95%",
    ),
    Rule(
        "spec.rollout.mirror",
        "self.mode == 'Off' || "
        + unless_malformed(
            "self.percent", units.PERCENT_PATTERN, f"{percent('self.percent')} > 0.0"
        ),
        "{self.percent} copies nothing; write more than 0%, or set mode to Off",
        ".percent",
    ),
    Rule(
        "spec.rollout",
        "self.strategy != 'Recreate' || self.mirror.mode != 'Required'",
        "Required copies come from the old revision, which Recreate stops first; use Canary or "
        "BlueGreen, or set mirror.mode to Off",
        ".mirror.mode",
    ),
    Rule(
        "spec.rollout",
        "self.strategy != 'BlueGreen' || self.surge != 'Never'",
        "Never leaves no room for the second set of pods that BlueGreen needs; use Canary or "
        "Recreate, or surge Auto",
        ".surge",
    ),
    Rule(
        "spec.rollout",
        "self.strategy != 'Recreate' || self.surge != 'Always'",
        "Always asks for extra pods and Recreate for none; use Canary or BlueGreen, or leave out "
        "surge",
        ".surge",
    ),
    positive_duration(
        "spec.rollout", "progressDeadline", "give a new revision time to load, for example 30m"
    ),
    positive_duration("spec.rollout.mirror", "deadline", "write for example 10m"),
    positive_duration("spec.rollout.onInconclusive", "deadline", "write for example 24h"),
    Rule(
        "spec.rollout.gates[]",
        f"!(self in [{', '.join(repr(c) for c in OWN_CONDITIONS)}])",
        "{self} is set by Tidegate itself; name a condition that another party sets",
    ),
    Rule(
        "spec.rollout.pin.headers",
        f"self.all(k, k.matches({cel_string(patterns.HEADER_NAME_PATTERN)}) && size(k) <= 256)",
        "{strings.quote(self.filter(k, !k.matches("
        + _HEADER
        + "))[0])} is no header name; write for example "
        "x-canary",
    ),
    Rule(
        "spec.rollout.pin.headers",
        "self.all(a, self.exists_one(b, a.lowerAscii() == b.lowerAscii()))",
        "{self.filter(a, !self.exists_one(b, a.lowerAscii() == b.lowerAscii()))[0].lowerAscii()} "
        "is named twice, since case does not count; name it once",
    ),
    Rule(
        "spec.rollout.pin.headers",
        f"!self.exists(k, k.lowerAscii() in {_CONNECTION_HEADERS})",
        f"{{self.filter(k, k.lowerAscii() in {_CONNECTION_HEADERS})[0]}} belongs to the "
        "connection; use a header of your own, such as x-canary",
    ),
)
