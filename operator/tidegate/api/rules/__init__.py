"""What a ModelDeployment may not say, and what its author reads then.

One readable table, a module for each block. `RULES` holds what a schema cannot say: fields that
contradict each other, values that cannot work. With the patterns of the types
(`tidegate.api.formats`) they become ``x-kubernetes-validations`` of the CRD (`tidegate.api.crd`),
evaluated by the API server, so nothing malformed is ever stored.

A message names the value and the mend; the API server puts the field before it. ``{...}`` in a
message is CEL. What CEL cannot see (files, other objects, the text of an override) becomes a
condition in status instead.
"""

from typing import Final

from tidegate.api.cel import Rule
from tidegate.api.rules import (
    across,
    golden,
    gpu,
    resource,
    rollout,
    runtime,
    scaling,
    slo,
    source,
    traffic,
    tuning,
)

RULES: Final[tuple[Rule, ...]] = (
    *resource.RULES,
    *source.RULES,
    *tuning.RULES,
    *runtime.RULES,
    *gpu.RULES,
    *slo.RULES,
    *scaling.RULES,
    *across.RULES,
    *rollout.RULES,
    *golden.RULES,
    *traffic.RULES,
)
