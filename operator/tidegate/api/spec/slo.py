"""What clients are promised."""

from typing import Annotated

from pydantic import Field

from tidegate.api.block import Block, Duration, Percent
from tidegate.api.units import QUANTILE_PATTERN


class Latency(Block):
    """A latency objective: the quantile is at most the target."""

    quantile: Annotated[str, Field(pattern=QUANTILE_PATTERN, max_length=6)] = Field(
        "0.99", description="Share of requests that must be as fast, at least 0.5."
    )
    target: Duration = Field(
        description="At least 1ms and at most two significant digits: it becomes a bucket edge."
    )


class Slo(Block):
    """What clients are promised."""

    latency: Latency | None = Field(None, description="Latency objective [none].")
    max_error_rate: Percent = Field("1%", description="Share of requests that may fail.")
