"""The commands that decide: verbs to ask of a rollout, and `wait`.

As in `tidegate.cli.main`, only what every command needs is imported at the top.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tidegate.cli.common import (
    Context,
    Form,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Revision,
    Timeout,
    connected,
    dump,
    plain_name,
    seconds,
)
from tidegate.cli.trouble import Exit, Trouble

if TYPE_CHECKING:
    from tidegate.verbs import Verb

DECIDE: Final = "Decide"
HANDLE_TIMEOUT: Final = "30s"

app = typer.Typer()


class Goal(StrEnum):
    """What `wait` waits for."""

    PROMOTED = "promoted"
    READY = "ready"
    AVAILABLE = "available"


def _decide(
    verb: "Verb",
    name: str,
    revision: str,
    timeout: str,
    output: Output | None,
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
) -> None:
    """Ask a verb, wait until it is handled, and say what became of it."""
    from tidegate.cli import asking, waiting

    limit_s = seconds(timeout)
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        asking.refuse_vain(document, verb)
        request, asked = asking.ask(
            client, space, name, verb, asking.meant(document, verb, revision)
        )
        code, text = waiting.wait(
            lambda: client.get(space, name),
            asking.judge(request),
            timeout_s=limit_s,
            tell=lambda _: None,
        )
        if code is Exit.TIMEOUT:
            raise Trouble(asking.too_late(request, limit_s), code=Exit.TIMEOUT)
        if code is not Exit.REACHED:
            raise Trouble(text, code=code)
        if why := asking.refused(client, client.get(space, name), request, asked):
            raise Trouble(f"{verb.value} {name}: not done: {why}", f"see tidegate get {name}")
        if output is None:
            typer.echo(text)
        else:
            dump(client.get(space, name), output)


@app.command(rich_help_panel=DECIDE)
def promote(
    name: Name,
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make the canary stable now, past the gates."""
    from tidegate.verbs import Verb

    _decide(Verb.PROMOTE, name, "", timeout, output, namespace, context, kubeconfig)


@app.command(rich_help_panel=DECIDE)
def abort(
    name: Name,
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Give all traffic back to stable; the canary counts as failed."""
    from tidegate.verbs import Verb

    _decide(Verb.ABORT, name, "", timeout, output, namespace, context, kubeconfig)


@app.command(rich_help_panel=DECIDE)
def retry(
    name: Name,
    revision: Revision = "",
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Try a failed revision again, through the gates; by default the latest."""
    from tidegate.verbs import Verb

    _decide(Verb.RETRY, name, revision, timeout, output, namespace, context, kubeconfig)


@app.command(rich_help_panel=DECIDE)
def undo(
    name: Name,
    revision: Revision = "",
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go back to an earlier revision, through the gates; by default the one before."""
    from tidegate.verbs import Verb

    _decide(Verb.UNDO, name, revision, timeout, output, namespace, context, kubeconfig)


@app.command(rich_help_panel=DECIDE)
def restart(
    name: Name,
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Make a new revision with today's defaults and Secrets, through the gates."""
    from tidegate.verbs import Verb

    _decide(Verb.RESTART, name, "", timeout, output, namespace, context, kubeconfig)


@app.command(rich_help_panel=DECIDE)
def pause(
    name: Name,
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Hold the rollout where it stands; a bad canary is still rolled back."""
    from tidegate.verbs import Verb

    _decide(Verb.PAUSE, name, "", timeout, output, namespace, context, kubeconfig)


@app.command(rich_help_panel=DECIDE)
def resume(
    name: Name,
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go on after pause."""
    from tidegate.verbs import Verb

    _decide(Verb.RESUME, name, "", timeout, output, namespace, context, kubeconfig)


@app.command("skip-step", rich_help_panel=DECIDE)
def skip_step(
    name: Name,
    timeout: Timeout = HANDLE_TIMEOUT,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go to the next step now, without the evidence that this one asks for."""
    from tidegate.verbs import Verb

    _decide(Verb.SKIP_STEP, name, "", timeout, output, namespace, context, kubeconfig)


@app.command(rich_help_panel=DECIDE)
def wait(
    name: Name,
    goal: Annotated[
        Goal, typer.Option("--for", help="The spec's revision promoted or ready; or any serves.")
    ] = Goal.PROMOTED,
    timeout: Timeout = "30m",
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait, for pipelines: 0 reached, 3 rolled back or stalled, 4 not in time, 5 not found.

    What changes meanwhile goes to stderr.
    """
    from tidegate.cli import waiting
    from tidegate.view.reasons import NOBODY_LOOKS

    limit_s = seconds(timeout)
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        code, text = waiting.wait(
            lambda: client.get(space, name),
            lambda document: waiting.outcome(document, waiting.Goal(goal.value)),
            timeout_s=limit_s,
            tell=lambda said: typer.echo(waiting.stamped(said), err=True),
        )
        if output is not None:
            dump(client.get(space, name), output)
    if code is Exit.REACHED:
        if output is None:
            typer.echo(text)
        return
    mend = f"see tidegate explain {name}" if code is Exit.FAILED else f"see tidegate get {name}"
    raise Trouble(text, NOBODY_LOOKS if waiting.NOT_LOOKED in text else mend, code=code)
