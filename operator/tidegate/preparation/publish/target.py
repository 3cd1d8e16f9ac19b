"""What files are published to: a store, or a registry. The same three steps for each.

1. `Target.send`: the model's files, then what names them (a manifest by its digest, a version).
   A run that was cut off goes on: what is there is not sent again.
2. `Target.file`: the report and the manifests, beside them.
3. `Target.announce`: what somebody may follow, a tag or an alias, moves on to them.

So whoever follows finds a whole model, or the one before.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tidegate.preparation.errors import PreparationError

SHOWN: Final = 16
"""Digits of the tree's digest in prefixes and tags."""
REPORT_SUFFIX: Final = "-report"
"""Of the prefix or tag beside the model's, for the report and the manifests."""

Tell = Callable[[str], None]
Files = Mapping[str, Path]
"""By path below the folder, with ``/``."""

_FORMS: Final = {
    "s3": (re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/[^?#]*)?"), "s3://bucket/prefix"),
    "oci": (
        re.compile(
            r"oci://(?P<host>[A-Za-z0-9.-]+(:[0-9]+)?)/(?P<name>[a-z0-9]+([._/-]+[a-z0-9]+)*)"
            r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
        ),
        "oci://registry/repository or oci://registry/repository:tag",
    ),
    "mlflow": (
        re.compile(r"mlflow://(?P<name>[^/?#'\"]+)(/@(?P<alias>[A-Za-z0-9_.-]+))?"),
        "mlflow://model or mlflow://model/@alias",
    ),
}


class StoreError(PreparationError):
    """The store refuses, or is not reached; the text says why. What was sent stays there."""


@dataclass(frozen=True)
class Sent:
    """Where a model's files lie now.

    Attributes:
        uri: under which they stay, as a manifest names it.
        endpoint: of the store, where it is not the public one.
        sent: how many files were sent; those that were there already were not.
    """

    uri: str
    endpoint: str
    sent: int


class Target(Protocol):
    """A store or a registry. Errors are `StoreError`."""

    def send(self, files: Files, sha256: str) -> Sent:
        """Send the files of a tree with this digest."""
        ...

    def file(self, papers: Files) -> None:
        """Send what goes with them: report, manifests, golden requests."""
        ...

    def announce(self) -> str:
        """Move on what may be followed; says what moved, '' if there is no such thing."""
        ...


def parsed(uri: str) -> re.Match[str]:
    """What a ``--publish`` says.

    Raises:
        StoreError: it is none of the forms.
    """
    pattern, form = _FORMS.get(uri.partition("://")[0], (None, ""))
    if pattern is None:
        raise StoreError(
            f"{uri} cannot be published to: write {'; '.join(form for _, form in _FORMS.values())}"
        )
    match = pattern.fullmatch(uri)
    if match is None:
        raise StoreError(f"{uri} cannot be published to: write {form}")
    return match


def files_in(folder: Path) -> dict[str, Path]:
    """All files of a folder."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


def below(prefix: str, sha256: str) -> str:
    """Where a tree lies below a prefix."""
    return f"{prefix.rstrip('/')}/{sha256[:SHOWN]}"
