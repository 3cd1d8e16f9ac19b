"""How requests may reach the model."""

from typing import Final

from tidegate.api.cel import Rule, positive_duration, qualified_keys

_REF_SAME_GATEWAY: Final = (
    "a.name == b.name && has(a.__namespace__) == has(b.__namespace__)"
    " && (!has(a.__namespace__) || a.__namespace__ == b.__namespace__)"
)
_REF_SAME_LISTENER: Final = (
    "(!has(a.sectionName) || !has(b.sectionName) || a.sectionName == b.sectionName)"
)

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.traffic.overload",
        "!has(self.reserved) || has(self.maxPending)",
        "reserved adds to maxPending, which is not set; set it, or leave out reserved",
        ".reserved",
    ),
    positive_duration("spec.traffic", "timeout", "write for example 30s, or leave it out"),
    Rule(
        "spec.traffic.gateway",
        "!has(self.hostnames) || !has(self.grpcHostnames)"
        " || !self.hostnames.exists(h, h in self.grpcHostnames)",
        "{self.hostnames.filter(h, h in self.grpcHostnames)} stands in hostnames too, "
        "which serve gRPC already; leave it out here",
        ".grpcHostnames",
    ),
    Rule(
        "spec.traffic.gateway.parentRefs",
        f"self.all(a, self.exists_one(b, {_REF_SAME_GATEWAY} && {_REF_SAME_LISTENER}))",
        "{self.map(r, r.name)} names a gateway twice; name it once, or each time with "
        "another sectionName",
    ),
    *(
        Rule(
            f"spec.traffic.gateway.{field}[]",
            "!self.matches('^[0-9.]+$')",
            "{self} is an IP address; write a hostname such as models.example.com",
        )
        for field in ("hostnames", "grpcHostnames")
    ),
    Rule(
        "spec.traffic.allowFrom[]",
        "(has(self.namespaceLabels) && size(self.namespaceLabels) > 0)"
        " || (has(self.podLabels) && size(self.podLabels) > 0)",
        "an empty peer says nothing; name namespaceLabels, podLabels or both",
    ),
    qualified_keys("spec.traffic.allowFrom[].namespaceLabels", "label"),
    qualified_keys("spec.traffic.allowFrom[].podLabels", "label"),
)
