"""`tidegate`, and `kubectl tidegate`: the commands that look; those that do more are put in.

Only what every command needs is imported at the top, so that ``--help`` and completion are quick.
"""

import gc
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tidegate.cli.common import (
    Color,
    Context,
    Document,
    Form,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Revision,
    Where,
    Whole,
    connected,
    console,
    dump,
    plain_name,
    show,
    stand_before,
    utc_now,
)
from tidegate.cli.deciding import app as deciding
from tidegate.cli.helping import app as helping
from tidegate.cli.prepare import app as preparation
from tidegate.cli.preparing import app as preparing
from tidegate.cli.sending import app as sending
from tidegate.cli.simulate import app as simulation
from tidegate.cli.trouble import Misuse, Trouble, misused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidegate.cli.client import Client

LOOK: Final = "Look"
GARBAGE_EVERY: Final = 100_000
"""New objects between two searches for garbage."""

app = typer.Typer(
    name="tidegate",
    help="Ships model versions to NVIDIA Triton a little at a time: what goes on, why, and "
    "verbs to decide by hand.",
    epilog="Exit codes: 0 done or reached, 1 error, 2 wrong usage, 3 rolled back or stalled, "
    "4 not in time, 5 not found.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from tidegate import __version__

        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


app.add_typer(deciding)
app.add_typer(preparing)
app.add_typer(sending)
app.add_typer(helping)
app.add_typer(preparation)
app.add_typer(simulation)


@app.callback()
def options(
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    color: Annotated[Color, typer.Option(help="Colours.")] = Color.AUTO,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Options of all commands; they may stand after the command, too."""
    stand_before(Where(namespace, context, kubeconfig, color))


# Look.


@app.command(rich_help_panel=LOOK)
def get(
    name: Name,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Live, until Ctrl-C.")] = False,
    output: Annotated[
        Whole | None,
        typer.Option("-o", "--output", help="The object; view: what text and dashboard show."),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show a ModelDeployment: its revisions, the rollout, its evidence."""
    from tidegate import view
    from tidegate.cli import render

    if watch and output is not None:
        raise Misuse("-w and -o do not go together", "leave one out")
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        if output is not None:
            document = client.get(space, name)
            if output is Whole.VIEW:
                pods = _pods(client, space, name)
                dump(view.document(document, now=utc_now(), pods=pods), Output.JSON)
            else:
                dump(document, Output(output.value))
            return
        if watch:
            _watch(client, space, name)
            return
        document, now = client.get(space, name), utc_now()
        show(
            render.deployment(
                view.document(document, now=now, pods=_pods(client, space, name)), now
            )
        )


def _pods(client: "Client", namespace: str, name: str) -> list[Document]:
    """Its pods; none where they may not be read, since the status says the most important."""
    from tidegate.cli.client import ApiError, pods_path
    from tidegate.cli.logs import labels

    try:
        return client.list(pods_path(namespace), labels=labels(name, ""))
    except ApiError as error:
        if error.status == 403:
            return []
        raise


def _watch(client: "Client", namespace: str, name: str) -> None:
    """Read once a second: that needs no resource version, so nothing can expire or get lost."""
    import time

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from tidegate import view
    from tidegate.cli import render
    from tidegate.cli.client import retry_in_s
    from tidegate.cli.waiting import POLL_S

    document, pods, trouble = client.get(namespace, name), _pods(client, namespace, name), ""

    def picture() -> "RenderableType":
        now = utc_now()
        tree = render.deployment(view.document(document, now=now, pods=pods), now)
        return Group(tree, Text(f"as it was; {trouble}", "red")) if trouble else tree

    def look() -> float:
        nonlocal document, pods, trouble
        try:
            document, pods = client.get(namespace, name), _pods(client, namespace, name)
            trouble = ""
        except Trouble as error:
            again_s = retry_in_s(error)
            if again_s is None:
                raise
            trouble = str(error)
            return again_s
        return POLL_S

    if not sys.stdout.isatty():
        # For a file or a pipe: the tree again whenever something but the clock has changed.
        from tidegate.cli.waiting import stamped

        last: tuple[Any, ...] = ()
        while True:
            told = (document["metadata"].get("resourceVersion"), trouble)
            if told != last:
                typer.echo(stamped(""))
                show(picture())
                last = told
            time.sleep(look())
    with Live(
        picture(), console=console(), auto_refresh=False, vertical_overflow="ellipsis"
    ) as live:
        wait_s = POLL_S
        while True:
            time.sleep(wait_s)
            wait_s = look()
            live.update(picture(), refresh=True)


@app.command("list", rich_help_panel=LOOK)
def list_(
    all_namespaces: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="Of all namespaces.")
    ] = False,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List ModelDeployments and where their rollouts stand."""
    from tidegate import view
    from tidegate.cli import render
    from tidegate.cli.client import deployment_path

    with connected(namespace, context, kubeconfig) as (client, space):
        found = client.list(deployment_path(None if all_namespaces else space))
        if output is not None:
            dump(found, output)
        elif found:
            now = utc_now()
            rows = [view.summary(one, now) for one in found]
            show(render.listing(rows, now, namespaces=all_namespaces), whole=True)
        else:
            where = "in this cluster" if all_namespaces else f"in namespace {space}"
            typer.echo(f"no ModelDeployments {where}", err=True)


@app.command(rich_help_panel=LOOK)
def explain(
    name: Name,
    revision: Revision = "",
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say why a revision was promoted, is held, or was rolled back."""
    from tidegate import view
    from tidegate.cli import asking, render

    with connected(namespace, context, kubeconfig) as (client, space):
        document = client.get(space, plain_name(name))
        which = asking.known(document, revision) if revision else view.subject(document)
        found = view.explanation(document, which, utc_now())
        if output is Output.NAME:
            typer.echo(found.revision)
        elif output is not None:
            dump(found.dump(), output)
        else:
            show(render.explanation(found))


@app.command(rich_help_panel=LOOK)
def history(
    name: Name,
    events: Annotated[
        bool,
        typer.Option("--events", help="Steps, scalings, requests, too: while events are kept."),
    ] = False,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List past revisions and what became of them."""
    from tidegate import view
    from tidegate.cli import render
    from tidegate.cli.client import events_path
    from tidegate.view import facts

    with connected(namespace, context, kubeconfig) as (client, space):
        document = client.get(space, plain_name(name))
        now, meta = utc_now(), document["metadata"]
        past = list(facts.status(document).get("history") or ())
        if output is Output.NAME:
            for entry in past:
                typer.echo(entry["revision"])
        elif events:
            about = {"involvedObject.uid": meta["uid"]}
            said = client.list(events_path(space), fields=about)
            told = view.timeline(view.document(document, now=now, events=said))
            if output is None:
                show(render.timeline(told, now))
            else:
                dump(told, output)
        elif output is not None:
            dump(past, output)
        elif past:
            show(render.history(view.document(document, now=now)["history"], now))
        else:
            typer.echo(f"{meta['name']} has no history yet", err=True)


@app.command(rich_help_panel=LOOK)
def logs(
    name: Name,
    failed: Annotated[
        bool, typer.Option("--failed", help="Requests that failed, instead of Triton's log.")
    ] = False,
    revision: Annotated[
        str, typer.Option(help="Hash, or how it begins; else the one that explain tells of.")
    ] = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on, until Ctrl-C.")] = False,
    tail: Annotated[
        int | None, typer.Option(help="Lines of each pod's past; else all.", min=0)
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show a revision's log, or the requests that failed on it.

    With --failed, in columns: time, request id, code, duration, kind, path, reason.
    """
    from tidegate import view
    from tidegate.cli import asking
    from tidegate.cli import logs as reading

    told = 0

    def show(pod: str, line: str) -> None:
        nonlocal told
        text = f"{pod}\t{line}"
        if failed:
            found = reading.failure(line)
            text = "" if found is None else reading.told(found)
        if text:
            typer.echo(text)
            told += 1

    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        which = asking.known(document, revision) if revision else view.subject(document)
        container = reading.SIDECAR if failed else reading.SERVER
        read = reading.Tail(client, space, reading.labels(name, which), container, tail)
        if follow:
            reading.follow(read, show)
        there = read.pods()
        if not there:
            raise reading.nothing_left(name, which)
        for pod, line in read.news():
            show(pod, line)
        if not told and read.unread.keys() >= set(there):
            raise reading.unreadable(name, read.unread)
        for pod, why in read.unread.items():
            typer.echo(f"{pod}: {why}", err=True)
        if failed and not told:
            typer.echo("no failed requests in these logs", err=True)


@app.command(rich_help_panel=LOOK)
def dashboard(
    port: Annotated[int, typer.Option(help="Of this machine.", min=1, max=65535)] = 8090,
    only_print: Annotated[bool, typer.Option("--print", help="Only say how.")] = False,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", help="The chart's; else tidegate-system.")
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Open the web dashboard on this machine, by a port-forward of kubectl's, until Ctrl-C."""
    from tidegate.cli import forwarding
    from tidegate.cli.common import before

    space = namespace or before.namespace or forwarding.NAMESPACE
    with connected(space, context, kubeconfig) as (client, _):
        found = forwarding.find(client, space)
    command = found.command(
        port, context=context or before.context, kubeconfig=kubeconfig or before.kubeconfig
    )
    if only_print:
        typer.echo(" ".join(command))
        return
    typer.echo(f"{found.address(port)}  sign in with a token, such as that of", err=True)
    typer.echo("kubectl create token NAME --namespace NAMESPACE  (Ctrl-C ends this)", err=True)
    raise typer.Exit(forwarding.forward(command))


def main(arguments: Iterable[str] | None = None) -> None:
    """Run a command, and end the process with its exit code."""
    # A short command mostly imports, and nothing of that is garbage: 4 to 11 % of its time.
    gc.set_threshold(GARBAGE_EVERY)
    name = "kubectl tidegate" if "kubectl-tidegate" in sys.argv[0] else "tidegate"
    run: Callable[..., Any] = app
    given = None if arguments is None else list(arguments)
    try:
        # Not standalone: it returns the exit code, and wrong usage is ours to print.
        sys.exit(run(args=given, prog_name=name, standalone_mode=False) or 0)
    except Trouble as error:
        trouble = error
    except Exception as error:
        found = misused(error, sys.argv[1:] if given is None else given)
        if found is None:
            raise
        trouble = found
    if trouble.message:
        typer.echo(f"error: {trouble}", err=True)
    sys.exit(int(trouble.code))
