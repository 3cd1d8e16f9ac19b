"""What is asked of the answers' quality: the annotation ``tidegate.dev/quality``, JSON. Pure.

An annotation, not a part of the spec: the judge is a party outside of the operator, which answers
gates, and its settings shape no pod (docs/adr/0026).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from tidegate.api import units
from tidegate.api.block import Block, Duration, Percent

ANNOTATION: Final = "tidegate.dev/quality"
NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
MAX_ANNOTATION: Final = 4096

FieldName = Annotated[str, Field(pattern=NAME_PATTERN)]


class PolicyError(ValueError):
    """The annotation cannot be used; the text names the field and the mend."""


class Policy(Block):
    """What is asked.

    Attributes:
        min_accuracy: share of right answers, by labels.
        max_accuracy_drop: how much lower than stable's a canary's accuracy may be.
        max_shift: how far any field may move: from stable's to a canary's, or from a revision's
            first days to its latest.
        error: chance of a wrong verdict: over a rollout, and over a year of days at rest.
        keep: how long a sample's id and label are kept to be joined with a label.
        leave_out: fields that are never recorded.
    """

    min_accuracy: Percent | None = None
    max_accuracy_drop: Percent | None = None
    max_shift: Percent | None = None
    error: Percent = "5%"
    keep: Duration = "168h"
    leave_out: tuple[FieldName, ...] = Field((), max_length=100)

    @property
    def asks_accuracy(self) -> bool:
        """Whether the condition Accurate is asked for."""
        return self.min_accuracy is not None or self.max_accuracy_drop is not None


def policy_of(deployment: Mapping[str, Any]) -> Policy | None:
    """The policy of a ModelDeployment; None: nothing is asked, and nothing is recorded.

    Raises:
        PolicyError: it cannot be used.
    """
    text = (deployment["metadata"].get("annotations") or {}).get(ANNOTATION)
    if text is None:
        return None
    if len(text) > MAX_ANNOTATION:
        raise PolicyError(f"{ANNOTATION} is longer than {MAX_ANNOTATION} characters")
    try:
        found = Policy.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(p) for p in first["loc"])
        raise PolicyError(
            f"{ANNOTATION}{': ' + place if place else ''}: {first['msg']}; write for example "
            '{"minAccuracy": "95%", "maxShift": "10%"}'
        ) from error
    if not 0.0 < units.fraction(found.error) < 1.0:
        raise PolicyError(f"{ANNOTATION}: error: write more than 0% and less than 100%")
    return found
