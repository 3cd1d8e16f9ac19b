"""A ModelDeployment in the making, with what could not be carried over. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tidegate.cli.trouble import Trouble

Document = dict[str, Any]

OWN: Final = "Tidegate sets its own; nothing to do"
NO_FIELD: Final = "there is no field for it"
ASK_SOURCE: Final = "say where its files will lie: --source s3://bucket/path"


@dataclass
class Draft:
    """A ModelDeployment in the making.

    Attributes:
        kind: of the object that it comes from.
        old: name of that object.
        name: of the ModelDeployment.
        namespace: '' where the object names none.
        spec: of the ModelDeployment.
        notes: what is not carried over, one line each with a mend.
    """

    kind: str
    old: str
    name: str
    namespace: str = ""
    spec: Document = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, where: str, what: str, mend: str) -> None:
        """One line: what is left out, and what to do about it."""
        line = " ".join(f"{where}: {what}; {mend}".split())
        if line not in self.notes:
            self.notes.append(line)

    def put(self, path: str, value: object) -> None:
        """Set a field by its dotted path."""
        node = self.spec
        *above, last = path.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value

    def whole(self, where: str, value: object) -> int:
        """A whole number from the object; None and nothing count as 0.

        Raises:
            Trouble: it is none.
        """
        if re.fullmatch(r"[0-9]{1,9}", str(value)):
            return int(str(value))
        if value in (None, ""):
            return 0
        raise self.trouble(f"{where} {value} is no whole number", "mend it in the file")

    def trouble(self, message: str, mend: str) -> Trouble:
        """An error about the object."""
        return Trouble(f"{self.kind} {self.old}: {message}", mend)


def items(node: Mapping[str, Any], key: str) -> list[Document]:
    """The objects of a list field, those that are none left out."""
    found = node.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def texts(node: Mapping[str, Any], key: str) -> list[str]:
    """The items of a list field, as texts."""
    found = node.get(key)
    return [str(one) for one in found] if isinstance(found, list) else []


def block(node: Mapping[str, Any], key: str) -> Document:
    """An object field; {} where it is none."""
    found = node.get(key)
    return found if isinstance(found, dict) else {}
