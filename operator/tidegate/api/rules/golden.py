"""When golden requests may be sent."""

from typing import Final

from tidegate.api import units
from tidegate.api.cel import Rule, ms, unless_malformed

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.goldenRequests.every",
        unless_malformed("self", units.DURATION_PATTERN, f"{ms('self')} >= 10000"),
        "{self} is too often; write 10s or more, or leave it out",
    ),
    Rule(
        "spec.goldenRequests.loadTest.duration",
        unless_malformed(
            "self", units.DURATION_PATTERN, f"{ms('self')} >= 1000 && {ms('self')} <= 120000"
        ),
        "{self} is no short load; write 1s to 2m",
    ),
)
