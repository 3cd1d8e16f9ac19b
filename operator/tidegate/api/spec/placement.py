"""On which nodes pods may run, and how they spread over them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tidegate.api.block import MAX_INT32, Block, LabelValue
from tidegate.api.patterns import QUALIFIED_NAME_PATTERN


class TolerationOperator(StrEnum):
    """How a toleration's key and value are compared."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Block):
    """A toleration of the pods."""

    key: Annotated[str, Field(pattern=QUALIFIED_NAME_PATTERN, max_length=253)] | None = Field(
        None, description="Taint key [with Exists: every key]."
    )
    operator: TolerationOperator = Field(TolerationOperator.EQUAL, description="Comparison.")
    value: LabelValue | None = Field(None, description="Taint value, with Equal.")
    effect: TaintEffect | None = Field(None, description="Taint effect [every effect].")
    toleration_seconds: int | None = Field(
        None, ge=0, le=MAX_INT32, description="With NoExecute: how long [for ever]."
    )


class Unsatisfiable(StrEnum):
    """What happens to a pod that would break the spread."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class TopologySpread(Block):
    """Spreads a revision's pods over a topology."""

    topology_key: Annotated[str, Field(pattern=QUALIFIED_NAME_PATTERN)] = Field(
        min_length=1, max_length=253, description="Node label, such as kubernetes.io/hostname."
    )
    max_skew: int = Field(1, ge=1, le=100, description="Largest difference between two places.")
    when_unsatisfiable: Unsatisfiable = Field(
        Unsatisfiable.SCHEDULE_ANYWAY, description="What happens where it cannot be kept."
    )
