"""The ModelDeployment of a prepared model. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidegate.api import names
from tidegate.api.spec import parse

CPU_ROOM: Final = 1.2
"""A pod asks for so many times the processor time that it was seen to take at its highest rate."""
MEMORY_FACTOR: Final = 4
"""A pod asks for so many times the model's size, besides what Triton itself takes."""
MEMORY_GIB: Final = 2


@dataclass(frozen=True)
class Facts:
    """What a manifest is made of.

    Attributes:
        name: of the ModelDeployment.
        model: Triton's name for the model.
        uri: where its files lie.
        sha256: digest of the files.
        size_bytes: of the files.
        quantile: of the objective.
        target_ms: of the objective.
        cores: processors that it kept busy at the highest rate that held the objective.
        golden: name of the ConfigMap; '' for none.
        endpoint: of the store, where it is not the public one.
        secret: name of the Secret with the store's credentials; '' for none.
    """

    name: str
    model: str
    uri: str
    sha256: str
    size_bytes: int
    quantile: float
    target_ms: float
    cores: float
    golden: str = ""
    endpoint: str = ""
    secret: str = ""


def manifest(facts: Facts, notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The document.

    Args:
        facts: what it says.
        notes: annotations.

    Raises:
        ValueError: no API server would take it.
    """
    source = {"uri": facts.uri, "sha256": facts.sha256}
    if facts.endpoint:
        source["endpoint"] = facts.endpoint
    if facts.secret:
        source["secretName"] = facts.secret
    model: dict[str, Any] = {} if facts.model == facts.name else {"name": facts.model}
    cpu_m = max(100, 100 * math.ceil(10 * CPU_ROOM * facts.cores))
    memory_gib = MEMORY_GIB + math.ceil(MEMORY_FACTOR * facts.size_bytes / (1 << 30)) - 1
    spec: dict[str, Any] = {
        "model": {**model, "source": source},
        "runtime": {
            "gpu": {"count": 0},
            "resources": {"cpu": f"{cpu_m}m", "memory": f"{max(MEMORY_GIB, memory_gib)}Gi"},
        },
        "slo": {
            "latency": {"quantile": f"{facts.quantile:g}", "target": duration(facts.target_ms)},
            "maxErrorRate": "1%",
        },
    }
    if facts.golden:
        spec["goldenRequests"] = {"configMapName": facts.golden, "every": "10m"}
    parse(spec)
    metadata: dict[str, Any] = {"name": facts.name}
    if notes:
        metadata["annotations"] = dict(notes)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": metadata,
        "spec": spec,
    }


def duration(target_ms: float) -> str:
    """As a manifest writes it: whole milliseconds."""
    return f"{max(1, math.floor(target_ms))}ms"
