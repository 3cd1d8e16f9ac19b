"""What was seen of a ModelDeployment while somebody looked: the charts' past. Pure.

Kept in memory, bounded; the operator keeps the present only.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Final

from tidegate.view import facts

POINTS: Final = 1200
"""Of one ModelDeployment; two seconds apart that is 40 minutes."""
APART_S: Final = 1.5
"""Points nearer than that are one: several readers may look at the same time."""
DEPLOYMENTS: Final = 200
FIRED_S: Final = 10.0
"""So long after a rollback the charts show the test that fired at its bound: no status of the trial
itself says so."""

Point = dict[str, Any]


def point(document: Mapping[str, Any], now_s: float) -> Point:
    """What the charts keep of a document.

    Args:
        document: of `tidegate.view`.
        now_s: seconds since the epoch.
    """
    rollout, scaling = document["rollout"], document["scaling"]
    forward = rollout.get("forward") or {}
    shown = [r for r in document["revisions"] if r["weight"] is not None or r["measured"]]
    return {
        "t": round(now_s, 1),
        "rolling": document["rolling"],
        "forward": forward.get("fraction"),
        "tests": _tests(document, now_s),
        "revisions": {
            r["hash"]: {
                "role": r["role"],
                "weight": r["weight"],
                "requestsPerS": r["measured"].get("requestsPerS"),
                "errorShare": r["measured"].get("errorShare"),
                "quantileMs": r["measured"].get("quantileMs"),
                "inFlight": r["measured"].get("inFlight"),
            }
            for r in shown
        },
        "ready": document["pods"]["ready"],
        "there": document["pods"]["there"],
        "desired": scaling.get("desired"),
        "required": scaling.get("requiredReplicas"),
    }


def _tests(document: Mapping[str, Any], now_s: float) -> dict[str, float]:
    """How far each test's evidence is on its way to its bound."""
    rollout = document["rollout"]
    ended = facts.moment(rollout.get("since"))
    found = rollout.get("tests") or ()
    if not document["rolling"]:
        fresh = ended is not None and now_s - ended.timestamp() < FIRED_S
        found = rollout.get("fired", ()) if fresh else ()
    return {t["test"]: round(t["fraction"], 4) for t in found}


class Trails:
    """The points of those ModelDeployments that were looked at last, by UID."""

    def __init__(self) -> None:
        self._points: OrderedDict[str, deque[Point]] = OrderedDict()

    def add(self, uid: str, new: Point) -> bool:
        """Keep a point. Returns whether it was: not if one is there of just now."""
        kept = self._points.setdefault(uid, deque(maxlen=POINTS))
        self._points.move_to_end(uid)
        while len(self._points) > DEPLOYMENTS:
            self._points.popitem(last=False)
        if kept and new["t"] - kept[-1]["t"] < APART_S:
            return False
        kept.append(new)
        return True

    def past(self, uid: str) -> list[Point]:
        """All points, oldest first."""
        return list(self._points.get(uid) or ())
