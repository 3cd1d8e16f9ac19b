"""What all commands share: their options, how they reach an API server, how they print.

Only what every command needs is imported at the top, so that ``--help`` and completion are quick.
"""

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.cli.trouble import Misuse

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidegate.cli.client import Client

Document = dict[str, Any]


class Output(StrEnum):
    """Forms of output."""

    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Whole(StrEnum):
    """Forms of output of a ModelDeployment."""

    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    VIEW = "view"
    """The document that all views stand on (`tidegate.view`), as JSON."""


class Color(StrEnum):
    """When to use colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


@dataclass
class Where:
    """Options that stand before the command; its own win."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    color: Color = Color.AUTO


before = Where()

Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Else the context's.")]
Context = Annotated[str | None, typer.Option(help="Of the kubeconfig; else its current one.")]
Kubeconfig = Annotated[str | None, typer.Option(help="File; else $KUBECONFIG, ~/.kube/config.")]
Name = Annotated[str, typer.Argument(help="ModelDeployment.", show_default=False)]
Revision = Annotated[
    str, typer.Argument(help="Hash of a revision, or how it begins.", show_default=False)
]
Form = Annotated[Output | None, typer.Option("-o", "--output", help="Instead of text.")]
Timeout = Annotated[str, typer.Option(help="How long to wait, such as 90s, 30m, 1h30m.")]


@contextmanager
def connected(
    namespace: str | None, context: str | None, kubeconfig: str | None
) -> "Iterator[tuple[Client, str]]":
    """A client, and the namespace that is meant."""
    from tidegate.cli.client import Client
    from tidegate.cli.kubeconfig import access

    found = access(kubeconfig=kubeconfig or before.kubeconfig, context=context or before.context)
    client = Client(found)
    try:
        yield client, namespace or before.namespace or found.namespace
    finally:
        client.close()


def stand_before(found: Where) -> None:
    """Keep the options that stood before the command."""
    before.namespace, before.context = found.namespace, found.context
    before.kubeconfig, before.color = found.kubeconfig, found.color


def plain_name(name: str) -> str:
    """A name without the kind before it, as ``-o name`` prints it."""
    found = name.rpartition("/")[2]
    if not found:
        raise Misuse(f"{name!r} names no ModelDeployment", "see tidegate list")
    return found


# Output.


def colored() -> bool:
    """Whether to use colours."""
    if before.color is not Color.AUTO:
        return before.color is Color.ALWAYS
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def console() -> Any:
    """Where rich text goes."""
    from rich.console import Console

    wanted = colored()
    return Console(
        no_color=not wanted,
        force_terminal=True if before.color is Color.ALWAYS else None,
        color_system="auto" if wanted else None,
        highlight=False,
        soft_wrap=False,
    )


def show(renderable: "RenderableType", *, whole: bool = False) -> None:
    """To a terminal with its width and colours; else plain, in whole lines.

    With `whole` the lines are not broken or cut on a narrow terminal either; it wraps them.
    """
    from tidegate.cli.render import natural_width, plain

    if sys.stdout.isatty() or before.color is Color.ALWAYS:
        out = console()
        if whole:
            out.width = max(out.width, natural_width(renderable, out))
        out.print(renderable)
        return

    typer.echo(plain(renderable), nl=False)


def show_text(lines: Iterable[str]) -> None:
    """Lines as they are, without markup."""
    from rich.console import Group
    from rich.text import Text

    show(Group(*(Text(line) for line in lines)))


def dump(found: Document | Sequence[Document], form: Output) -> None:
    """One document, or several as a list; for `Output.NAME` they are ModelDeployments.

    Objects of the API server's come in a List, as kubectl's do.
    """
    items = [found] if isinstance(found, dict) else list(found)
    if form is Output.NAME:
        from tidegate.api import names

        for item in items:
            typer.echo(f"{names.SINGULAR}.{names.GROUP}/{item['metadata']['name']}")
        return
    for item in items:
        item.get("metadata", {}).pop("managedFields", None)
    body: Any = (
        found
        if isinstance(found, dict)
        else {"apiVersion": "v1", "kind": "List"} | {"items": items}
    )
    if form is Output.JSON:
        import json

        typer.echo(json.dumps(body, indent=2, ensure_ascii=False))
    else:
        typer.echo(yaml_text([body]), nl=False)


def yaml_text(documents: Iterable[Any]) -> str:
    """Documents as YAML; a text of several lines stands as such, so that people can read it."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value and " \n" not in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


# Options.


def seconds(text: str, option: str = "--timeout") -> float:
    """A length of time from an option."""
    from tidegate.cli import waiting

    try:
        return waiting.seconds(text)
    except ValueError:
        mend = "write 90s, 30m, 1h30m"
        raise Misuse(f"{option} {text!r} is no length of time", mend) from None


def finite(value: float | None, option: str) -> None:
    """Refuse what typer takes for a number in any range: ``nan``; and ``inf``."""
    if value is not None and not math.isfinite(value):
        raise Misuse(f"{option} {value:g} is no number", "write one, such as 3")


def text_of(path: Path | str, option: str, mend: str = "name a file that can be read") -> str:
    """A file that an option names, ``-`` for standard input.

    Raises:
        Misuse: it is not there, or cannot be read, or is no text.
    """
    try:
        if str(path) == "-":
            return sys.stdin.read()
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Misuse(f"{option} {path}: is no text", mend) from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        why = getattr(error, "strerror", None) or error
        raise Misuse(f"{option} {path}: {why}", mend) from None
