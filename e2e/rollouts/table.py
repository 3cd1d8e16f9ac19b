"""The results as a table for people."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Final

from e2e.bench.report import Machine
from e2e.rollouts.scenarios import BY_NAME, Scenario
from e2e.rollouts.stage import Result

HEAD: Final = (
    "scenario",
    "outcome",
    "failed client responses",
    "first to last failing, s",
    "decided after, s",
    "explanation shown",
)
TITLE: Final = """\
# Rollouts of good and bad versions

Each row is a rollout of a real model (Magika) on a real cluster: Kubernetes with Envoy Gateway and
Triton, all on one machine. A client sends 50 requests a second through the gateway, half over HTTP
and half over gRPC, and keeps every answer; a wrong label counts as a failure, too. A canary begins
with 5 % of the traffic, without a mirror, at an SLO of 1 % errors, unless the row says otherwise;
`blue-green` rows move all of it at once, `recreate` rows take the only old pod away first.
`python -m e2e.rollouts` writes this page; `e2e/rollouts/scenarios.py` is the table of scenarios,
`e2e/models/faulty/versions.py` says what is wrong with each version.

*First to last failing* is counted between failing responses; *no answer for* is the longest time
without a good one, where there is a gap by design; *decided after* runs from the change
of the spec until status tells the outcome, a new pod's start included. Where a scenario was played
more than once, the figures are medians with the least and the most. The client waits 5 s for an
answer, so a version that hangs is given up by its first clients only then.
"""


def table(results: Sequence[Result]) -> str:
    """A Markdown table; one row a scenario."""
    names = list(dict.fromkeys(result.scenario for result in results))
    rows = [HEAD, tuple("---" for _ in HEAD)]
    for name in names:
        rows.append(_row(BY_NAME[name], [r for r in results if r.scenario == name]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _row(scenario: Scenario, results: Sequence[Result]) -> tuple[str, ...]:
    outcomes = list(dict.fromkeys(str(r.outcome) for r in results))
    wrong = [r for r in results if not r.good]
    outcome = " / ".join(outcomes)
    if len(results) > 1:
        outcome += f", {len(results) - len(wrong)} of {len(results)} as expected"
    if wrong:
        outcome += f" (**{wrong[0].problem}**)"
    notes = [scenario.note] if scenario.note else []
    if "mirror" in scenario.rollout:
        notes.append("mirrored")
    if scenario.rate_hz != 50:
        notes.append(f"{scenario.rate_hz:g} requests a second")
    title = scenario.name + (f" ({'; '.join(notes)})" if notes else "")
    return (
        title,
        outcome,
        _spread([float(r.failed) for r in results]),
        _window(scenario, results),
        _spread([r.decided_s for r in results]),
        _cell(results[-1].explanation),
    )


def _window(scenario: Scenario, results: Sequence[Result]) -> str:
    """First to last failing; where clients are without a version, how long nobody answered, too."""
    window = _spread([r.window_s for r in results if r.window_s is not None])
    pauses = [r.unanswered_s for r in results if r.unanswered_s is not None]
    if scenario.gap and pauses:
        window += f"; no answer for {_spread(pauses)}"
    return window


def _spread(values: Sequence[float]) -> str:
    """Median, with least and most where there are several."""
    if not values:
        return ""
    median = _number(statistics.median(values))
    if len(values) == 1 or min(values) == max(values):
        return median
    return f"{median} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def page(results: Sequence[Result], notes: Iterable[str] = ()) -> str:
    """The whole page."""
    where = f"Measured on {Machine.here()}."
    return "\n".join([TITLE, where, "", table(results), *notes])
