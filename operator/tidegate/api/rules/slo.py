"""What may be promised to clients."""

from typing import Final

from tidegate.api import units
from tidegate.api.cel import Rule, ms, percent_range, unless_malformed

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.slo.latency.target",
        unless_malformed("self", units.DURATION_PATTERN, f"{ms('self')} >= 1"),
        "{self} is below 1ms, which cannot be measured; write 1ms or more",
    ),
    Rule(
        "spec.slo.latency.target",
        unless_malformed("self", units.DURATION_PATTERN, f"{ms('self')} <= 3600000"),
        "{self} is above 1h; write 1h or less",
    ),
    Rule(
        "spec.slo.latency.target",
        unless_malformed(
            "self",
            units.DURATION_PATTERN,
            f"[1, 10, 100, 1000, 10000, 100000].exists(p, {ms('self')} % p == 0"
            f" && {ms('self')} / p < 100)",
        ),
        "{self} has more than two significant digits in milliseconds; round it, for example to "
        "100ms, 250ms or 1500ms",
    ),
    percent_range(
        "spec.slo.maxErrorRate",
        "0.0",
        "100.0",
        "can be neither kept nor broken; write a share above 0% and below 100%, such as 0.1%",
    ),
)
