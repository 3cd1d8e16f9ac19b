"""Writes a Triton repository with one sleeping model."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
MODEL: Final = "sleeper"


@dataclass(frozen=True)
class Times:
    """How long it takes: alpha + beta n milliseconds for a batch of n, on each instance."""

    alpha_ms: float = 40.0
    beta_ms: float = 5.0
    batch: int = 8
    instances: int = 1

    @property
    def full_ms(self) -> float:
        """Of a full batch."""
        return self.alpha_ms + self.beta_ms * self.batch

    @property
    def per_s(self) -> float:
        """The most items a second."""
        return 1000 * self.instances * self.batch / self.full_ms


def build(target: Path, times: Times, batching: str = "") -> Path:
    """Write the repository; returns its folder, which is `target`.

    Args:
        target: what is there is removed.
        times: of the model.
        batching: more fields of its ``dynamic_batching``.
    """
    shutil.rmtree(target, ignore_errors=True)
    version = target / MODEL / "1"
    version.mkdir(parents=True)
    shutil.copyfile(HERE / "model.py", version / "model.py")
    (target / MODEL / "config.pbtxt").write_text(
        f"""backend: "python"
max_batch_size: {times.batch}
dynamic_batching {{ {batching} }}
input {{ name: "content" data_type: TYPE_STRING dims: 1 }}
output {{ name: "label" data_type: TYPE_STRING dims: 1 }}
instance_group {{ kind: KIND_CPU count: {times.instances} }}
parameters {{ key: "alpha_ms" value {{ string_value: "{times.alpha_ms:g}" }} }}
parameters {{ key: "beta_ms" value {{ string_value: "{times.beta_ms:g}" }} }}
"""
    )
    return target
