"""The commands about the tools themselves: `doctor` and `completion`.

As in `tidegate.cli.main`, only what every command needs is imported at the top.
"""

import sys
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Final

import typer

from tidegate.cli.common import (
    Context,
    Form,
    Kubeconfig,
    Namespace,
    Output,
    connected,
    dump,
    show,
    utc_now,
)
from tidegate.cli.trouble import Trouble

PREPARE: Final = "Prepare"
CHECK: Final = "Check"
OPERATOR_NAMESPACE: Final = "tidegate-system"

app = typer.Typer()


class Shell(StrEnum):
    """Shells, and kubectl."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    KUBECTL = "kubectl"


@app.command(rich_help_panel=CHECK)
def doctor(
    operator_namespace: Annotated[str, typer.Option(help="Of the operator.")] = OPERATOR_NAMESPACE,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Look whether the cluster is fit for Tidegate, and Tidegate well in it.

    Ends with 1 where something must be mended. What you may not read is unknown, not well.
    """
    from rich.text import Text

    from tidegate.cli import doctor as looking
    from tidegate.cli.render import table

    with connected(namespace, context, kubeconfig) as (client, space):
        found = looking.examine(client, space, operator_namespace, utc_now())
    if output is Output.NAME:
        for one in found:
            if one.result != looking.GOOD:
                typer.echo(one.check)
    elif output is not None:
        dump([one.document() for one in found], output)
    else:
        tones = {looking.GOOD: "green", looking.WARNING: "yellow", looking.FAILED: "red"}
        rows = [
            (Text(result, tones.get(result, "dim")), check, words)
            for result, check, words in looking.lines(found)
        ]
        show(table(["RESULT", "CHECK", "WHY"], rows))
    if looking.failed(found):
        count = sum(f.result == looking.FAILED for f in found)
        raise Trouble(f"{count} of {len(found)} checks failed", "mend what they say")


@app.command(rich_help_panel=PREPARE)
def completion(
    shell: Annotated[Shell, typer.Argument(help="For which shell.", show_default=False)],
) -> None:
    """Print a completion script: tidegate completion bash > /etc/bash_completion.d/tidegate."""
    from tidegate.cli.completion import SCRIPTS

    typer.echo(SCRIPTS[shell.value], nl=False)


@app.command(
    "__complete",
    hidden=True,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def complete(ctx: typer.Context) -> None:
    """Answer kubectl or a shell."""
    from tidegate.cli.completion import answer

    with suppress(Exception):  # completion that fails says nothing
        sys.stdout.write(answer(ctx.args))
