"""What holds of the resource as a whole: its name, and the model's."""

from typing import Final

from tidegate.api import names
from tidegate.api.cel import Rule

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "",
        f"self.metadata.name.matches('^[a-z][a-z0-9-]{{0,{names.MAX_NAME_LENGTH - 1}}}$')",
        "{strings.quote(self.metadata.name)} cannot name the objects made from it; use at most "
        f"{names.MAX_NAME_LENGTH} lower-case letters, digits and '-', starting with a letter",
        ".metadata.name",
    ),
    Rule(
        "",
        "(has(self.spec.model.name) ? self.spec.model.name : self.metadata.name) =="
        " (has(oldSelf.spec.model.name) ? oldSelf.spec.model.name : self.metadata.name)",
        "clients ask for this model as "
        "{has(oldSelf.spec.model.name) ? oldSelf.spec.model.name : self.metadata.name} and the name"
        " cannot change; make another ModelDeployment for the new name",
        ".spec.model.name",
    ),
)
