"""What happened to a ModelDeployment, decision by decision. Pure."""

from collections.abc import Mapping
from typing import Any

from tidegate.view import facts
from tidegate.view.reasons import OUTCOMES


def timeline(view: Mapping[str, Any]) -> list[dict[str, str]]:
    """Outcomes of rollouts, and the events that are left, newest first.

    Args:
        view: from `tidegate.view.document`, with events.

    Returns:
        For each its time (RFC 3339), the tone, what happened, and why with the numbers.
    """
    found = [
        {
            "time": one["time"],
            "tone": one["tone"],
            "what": f"{one['revision']} {OUTCOMES.get(one['outcome'], (one['outcome'],))[0]}",
            "why": one["reason"],
        }
        for one in view["history"]
    ] + [
        {
            "time": one["time"],
            "tone": "bad" if one["type"] == "Warning" else "faint",
            "what": one["reason"],
            "why": one["message"],
        }
        for one in view["events"]
    ]
    return sorted(found, key=_when, reverse=True)


def _when(one: Mapping[str, str]) -> float:
    at = facts.moment(one["time"])
    return 0.0 if at is None else at.timestamp()
