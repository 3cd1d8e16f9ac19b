"""Samples and labels as they are posted, and what is left of them once redacted. Pure.

Only numbers and short labels are taken in, by name: there is no field for a text, an image or a
tensor, so none can be kept by mistake.
"""

from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    Field,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

from tidegate.api.block import Block
from tidegate.quality.policy import FieldName, Policy

MOST_AT_ONCE: Final = 1000
"""Samples or labels in one request."""
MOST_FIELDS: Final = 50
"""Fields of one model."""
LABEL: Final = "label"
"""The field under which labels are counted; a number cannot have this name."""


class SampleError(ValueError):
    """What was posted cannot be used; the text names the place."""


def _text_of_class(value: Any) -> Any:
    """Classes are often numbered."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _printable(value: str) -> str:
    """Classes are shown in terminals and pages; those of others shall not steer them."""
    if not value.isprintable():
        raise ValueError("has letters that cannot be printed")
    return value


Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64)]
Class = Annotated[Text, BeforeValidator(_text_of_class), AfterValidator(_printable)]
Id = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]
Revision = Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z0-9]{1,40}$")]
Number = Annotated[StrictFloat, AllowInfNan(False)]


class Sample(Block):
    """One answered request.

    Attributes:
        revision: which answered; the answer's header x-tidegate-revision.
        id: by which a label will name it, such as the answer's x-request-id.
        label: the class that was answered.
        values: numbers by name: scores that were answered, inputs that were sent.
    """

    revision: Revision
    id: Id | None = None
    label: Class | None = None
    values: dict[FieldName, Number] = Field(default_factory=dict, max_length=MOST_FIELDS)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if LABEL in self.values:
            raise ValueError(f"values.{LABEL}: classes belong into {LABEL}, outside of values")
        return self

    def redacted(self, policy: Policy) -> Self:
        """What may be recorded of it."""
        out = set(policy.leave_out)
        return self.model_copy(
            update={
                "label": None if LABEL in out else self.label,
                "values": {n: v for n, v in self.values.items() if n not in out},
            }
        )


class LabelOf(Block):
    """What the right answer was, of a request, or of many counted elsewhere.

    Attributes:
        id: of a sample.
        label: the right class.
        revision: instead of both, which answered,
        labels: so many requests that were compared,
        right: so many of them rightly.
    """

    id: Id | None = None
    label: Class | None = None
    revision: Revision | None = None
    labels: StrictInt | None = Field(None, ge=0, le=1_000_000_000)
    right: StrictInt | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        counted = (self.revision, self.labels, self.right)
        one = self.id is not None and self.label is not None and counted == (None, None, None)
        many = self.id is None and self.label is None and None not in counted
        if not (one or many):
            raise ValueError("write id and label, or revision, labels and right")
        if self.labels is not None and self.right is not None and self.right > self.labels:
            raise ValueError(f"right is {self.right}, more than the {self.labels} labels")
        return self


class Samples(Block):
    """The body of a request with samples."""

    samples: tuple[Sample, ...] = Field(min_length=1, max_length=MOST_AT_ONCE)


class Labels(Block):
    """The body of a request with labels."""

    labels: tuple[LabelOf, ...] = Field(min_length=1, max_length=MOST_AT_ONCE)


def read_samples(body: bytes) -> tuple[Sample, ...]:
    """Samples from a request's body.

    Raises:
        SampleError: they cannot be used; none of them is taken.
    """
    try:
        return Samples.model_validate_json(body).samples
    except ValidationError as error:
        raise SampleError(_first(error)) from error


def read_labels(body: bytes) -> tuple[LabelOf, ...]:
    """Labels from a request's body.

    Raises:
        SampleError: they cannot be used; none of them is taken.
    """
    try:
        return Labels.model_validate_json(body).labels
    except ValidationError as error:
        raise SampleError(_first(error)) from error


def _first(error: ValidationError) -> str:
    """The first error, without the value: it may be what must not be kept anywhere."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(p) for p in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
