"""How the number of replicas follows the load."""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from tidegate.api.block import INT_OR_STRING, Block, text_of_int
from tidegate.api.patterns import HEADROOM_PATTERN


class ScalingMode(StrEnum):
    """Who decides the number of replicas."""

    SLO = "SLO"
    FIXED = "Fixed"
    EXTERNAL = "External"


class Scaling(Block):
    """How the number of replicas follows the load."""

    mode: ScalingMode | None = Field(
        None, description="SLO where slo.latency is given, otherwise Fixed."
    )
    min_replicas: int = Field(
        1, ge=0, le=1000, description="Least replicas in SLO mode; 0 is refused for now."
    )
    max_replicas: int = Field(10, ge=1, le=1000, description="Most replicas in SLO mode.")
    headroom: Annotated[
        Annotated[str, Field(pattern=HEADROOM_PATTERN, max_length=4)], BeforeValidator(text_of_int)
    ] = Field(
        "Auto",
        description="Spare replicas: Auto, or a number.",
        json_schema_extra=INT_OR_STRING,
    )
