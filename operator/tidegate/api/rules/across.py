"""What one block asks of another: a sidecar, a GPU, a longer timeout."""

from typing import Final

from tidegate.api import units
from tidegate.api.cel import Rule, ms, unless_malformed

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec",
        "self.runtime.sidecar != 'Off' || self.rollout.mirror.mode != 'Required'",
        "Required copies of requests are counted by the sidecar, which is Off; turn it on, or set "
        "mirror.mode to Off",
        ".rollout.mirror.mode",
    ),
    Rule(
        "spec",
        "self.runtime.sidecar != 'Off' || self.rollout.onInconclusive.action != 'Promote'",
        "Promote without a sidecar promotes unseen; turn the sidecar on, or use Hold and promote "
        "by hand",
        ".rollout.onInconclusive.action",
    ),
    Rule(
        "spec",
        "self.runtime.sidecar != 'Off' || !has(self.traffic) || !has(self.traffic.overload)",
        "the sidecar refuses overload and is Off; turn it on, or leave out traffic.overload",
        ".traffic.overload",
    ),
    Rule(
        "spec",
        "self.runtime.gpu.count > 0 || !has(self.model.config)"
        " || !has(self.model.config.instances) || self.model.config.instances.kind != 'GPU'",
        "kind GPU needs a GPU and runtime.gpu.count is 0; raise it, or use Auto or CPU",
        ".model.config.instances.kind",
    ),
    Rule(
        "spec",
        "self.runtime.gpu.count > 0 || !has(self.model.config)"
        " || !has(self.model.config.optimization)"
        " || !has(self.model.config.optimization.accelerators)"
        " || self.model.config.optimization.accelerators.all(a, a == 'OpenVINO')",
        "TensorRT and CUDAGraphs need a GPU and runtime.gpu.count is 0; raise it, or leave them "
        "out",
        ".model.config.optimization.accelerators",
    ),
    Rule(
        "spec",
        "!has(self.traffic) || !has(self.traffic.timeout) || !has(self.slo.latency) || "
        + unless_malformed(
            "self.traffic.timeout",
            units.DURATION_PATTERN,
            unless_malformed(
                "self.slo.latency.target",
                units.DURATION_PATTERN,
                f"{ms('self.traffic.timeout')} >= {ms('self.slo.latency.target')}",
            ),
        ),
        "timeout {self.traffic.timeout} cuts requests off before slo.latency.target "
        "{self.slo.latency.target}; raise it",
        ".traffic.timeout",
    ),
)
