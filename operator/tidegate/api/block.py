"""What the blocks of a manifest are built from: their base, and the kinds of text in them.

Field names are snake_case here and camelCase in a manifest.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from tidegate.api.patterns import DNS_PATTERN, LABEL_VALUE_PATTERN, SET_LABEL_VALUE_PATTERN
from tidegate.api.units import DURATION_PATTERN, PERCENT_PATTERN, QUANTITY_PATTERN


class Block(BaseModel):
    """Base of every block: camelCase in manifests, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


LIST_SET: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}
"""Marks a list whose items are unique and have no order of their own."""


def list_map(*keys: str) -> dict[str, Any]:
    """Marks a list whose items are told apart by these fields of theirs."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def text_of_int(value: object) -> object:
    """A manifest may say ``cpu: 2``; inside, such a value is text like its siblings."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


INT_OR_STRING: Final[dict[str, Any]] = {"x-kubernetes-int-or-string": True}

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=32)]
"""For example ``100ms``, ``30s``, ``5m``, ``1h30m``."""
Percent = Annotated[str, Field(pattern=PERCENT_PATTERN, max_length=8)]
"""For example ``1%`` or ``0.1%``."""
Quantity = Annotated[
    Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)],
    BeforeValidator(text_of_int),
    Field(json_schema_extra=INT_OR_STRING),
]
"""For example ``500m``, ``2`` or ``4Gi``."""
ObjectName = Annotated[str, Field(pattern=DNS_PATTERN, min_length=1, max_length=253)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=63)]
SetLabelValue = Annotated[str, Field(pattern=SET_LABEL_VALUE_PATTERN, min_length=1, max_length=63)]
"""A label value that is not empty."""
MAX_INT32: Final = 2**31 - 1
