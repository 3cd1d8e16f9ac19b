"""What the number of replicas may follow."""

from typing import Final

from tidegate.api.cel import Rule

_SLO_MODE: Final = "(has(self.scaling.mode) ? self.scaling.mode == 'SLO' : has(self.slo.latency))"

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.scaling.minReplicas",
        "self >= 1",
        "{self}: scaling to zero is not there yet; write 1 or more",
    ),
    Rule(
        "spec.scaling",
        "self.minReplicas <= self.maxReplicas",
        "minReplicas {self.minReplicas} is above maxReplicas {self.maxReplicas}; lower it, or "
        "raise maxReplicas",
        ".minReplicas",
    ),
    Rule(
        "spec",
        "!has(self.scaling.mode) || self.scaling.mode != 'SLO' || has(self.slo.latency)",
        "SLO scales by a latency objective and there is none; set slo.latency, or mode Fixed",
        ".scaling.mode",
    ),
    Rule(
        "spec",
        f"self.runtime.sidecar != 'Off' || !{_SLO_MODE}",
        "Off leaves nothing to measure by, and scaling by the SLO needs it; turn the sidecar on, "
        "or set scaling.mode to Fixed or External",
        ".runtime.sidecar",
    ),
    Rule(
        # Reading /scale fails where replicas is absent, so an autoscaler would never begin.
        "spec",
        "!has(self.scaling.mode) || self.scaling.mode != 'External' || has(self.replicas)",
        "External lets another controller write replicas through /scale, which needs a value to "
        "begin with; set replicas",
        ".replicas",
    ),
)
