"""The commands around manifests: `init`, `migrate`, `plan`, `diff`, `eject`.

As in `tidegate.cli.main`, only what every command needs is imported at the top.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from tidegate.cli.common import (
    Context,
    Form,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Revision,
    connected,
    dump,
    finite,
    plain_name,
    show,
    show_text,
    text_of,
    utc_now,
)
from tidegate.cli.trouble import Exit, Misuse, Trouble

PREPARE: Final = "Prepare"

app = typer.Typer()


@app.command(rich_help_panel=PREPARE)
def init(
    path: Annotated[Path, typer.Argument(help="A model's file or folder.", show_default=False)],
    name: Annotated[str, typer.Option(help="Of the ModelDeployment; else the model's.")] = "",
    model: Annotated[str, typer.Option(help="Name that clients ask for; else the folder's.")] = "",
    backend: Annotated[str | None, typer.Option(help="Triton backend; else found out.")] = None,
    source: Annotated[str, typer.Option(help="Where the files will lie: s3://..., ...")] = "",
    cpu: Annotated[bool, typer.Option("--cpu", help="No GPU.")] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Only these bytes: write sha256.")] = False,
    filename: Annotated[
        str, typer.Option("-f", "--filename", help="Write it there; else to stdout.")
    ] = "",
    output: Form = None,
) -> None:
    """Look at a model's files, and write its first manifest."""
    from tidegate.cli import starting

    _one_form(filename, output)
    found = starting.look(path, model, backend)
    called = name or starting.deployment_name(found.model)
    if name and starting.deployment_name(name) != name:
        raise Misuse(
            f"--name {name!r} cannot be a ModelDeployment's", "small letters, digits, dashes"
        )
    text = starting.manifest(found, name=called, uri=source, gpu=False if cpu else None, pin=pin)
    if output is Output.NAME:
        typer.echo(called)
    elif output is not None:
        dump(starting.as_document(found), output)
    elif not filename:
        typer.echo(text, nl=False)
    else:
        _write(Path(filename), text)
        typer.echo(f"{filename}: {called}, backend {found.backend}")


def _one_form(filename: str, output: Output | None) -> None:
    if filename and output is not None:
        raise Misuse("-f and -o do not go together", "leave one out; -f writes YAML")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Trouble(f"{path} exists", "name another, or remove it") from None
    except OSError as error:
        mend = "name a file in a folder that is there"
        raise Misuse(f"-f {path} cannot be written: {error.strerror or error}", mend) from None


@app.command(rich_help_panel=PREPARE)
def migrate(
    file: Annotated[
        str, typer.Argument(help="Manifests, as YAML; - is stdin.", show_default=False)
    ],
    source: Annotated[str, typer.Option(help="Where the files will lie: s3://..., ...")] = "",
    latency: Annotated[
        str, typer.Option(help="Latency objective, such as 100ms; replicas follow it.")
    ] = "",
    name: Annotated[str, typer.Option(help="Of the ModelDeployment; else the old one's.")] = "",
    model: Annotated[str, typer.Option(help="Name that clients ask for; else the old one's.")] = "",
    container: Annotated[str, typer.Option(help="The one that runs Triton; else found out.")] = "",
    filename: Annotated[
        str, typer.Option("-f", "--filename", help="Write it there; else to stdout.")
    ] = "",
    output: Form = None,
) -> None:
    """Write the manifest for what serves now: Deployment, InferenceService or Rollout.

    Asks no cluster and changes nothing. What is not carried over goes to stderr, line by line, with
    what to do about it.
    """
    from tidegate.cli import migrating
    from tidegate.cli.common import yaml_text

    _one_form(filename, output)
    options = migrating.Options(source, name, model, container, latency)
    found = migrating.migrate(migrating.read(file), options)
    made = [one.manifest for one in found]
    for one in found:
        before = f"{one.manifest['metadata']['name']}: " if len(found) > 1 else ""
        for note in one.notes:
            typer.echo(f"{before}{note}", err=True)
    if output is not None:
        dump(made[0] if len(made) == 1 else made, output)
    elif filename:
        _write(Path(filename), yaml_text(made))
        typer.echo(f"{filename}: {', '.join(m['metadata']['name'] for m in made)}")
    else:
        typer.echo(yaml_text(made), nl=False)


@app.command(rich_help_panel=PREPARE)
def plan(
    filename: Annotated[
        str, typer.Option("-f", "--filename", help="Manifest; - is stdin.", show_default=False)
    ],
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a second, for the time; else as measured.", min=0.001),
    ] = None,
    platform: Annotated[
        Path | None, typer.Option(help="The operator's settings; else its ConfigMap's.")
    ] = None,
    objects: Annotated[
        bool, typer.Option("--objects", help="Only the rendered objects, as YAML.")
    ] = False,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say what applying a manifest would do; nothing is written.

    Changes, objects, route, admission, room on the nodes, time of the rollout. Ends with 1 where
    it would be refused.
    """
    from tidegate.cli import planning

    if objects and output is not None:
        raise Misuse("--objects and -o do not go together", "leave one out; --objects is YAML")
    finite(rate, "--rate")
    manifests = planning.manifests(filename)
    settings = None
    if platform is not None:
        settings = planning.platform_of(text_of(platform, "--platform"))
    with connected(namespace, context, kubeconfig) as (client, space):
        found = [
            planning.report(client, space, one, platform=settings, rate_per_s=rate)
            for one in manifests
        ]
    if objects:
        typer.echo(planning.ordered(o for one in found for o in one.objects), nl=False)
    elif output is Output.NAME:
        for one in found:
            for key in one.made:
                typer.echo(key)
    elif output is not None:
        documents = [one.document() for one in found]
        dump(documents[0] if len(documents) == 1 else documents, output)
    else:
        for one in found:
            show_text(planning.lines(one))
    if any(one.errors for one in found):
        raise Trouble(
            f"{sum(bool(one.errors) for one in found)} of {len(found)} would be refused",
            "mend what stands under refused",
        )


@app.command(rich_help_panel=PREPARE)
def diff(
    name: Name,
    older: Revision = "",
    newer: Revision = "",
    whole: Annotated[
        bool, typer.Option("--whole", help="Also what the revisions became: their manifests.")
    ] = False,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what differs between two revisions.

    By default canary against stable, or the newest against the one before it.
    """
    from tidegate import view
    from tidegate.api import names
    from tidegate.cli import differing
    from tidegate.cli.planning import path_of

    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        kept = differing.newest(
            client.list(
                path_of("apps/v1", "controllerrevisions", space),
                labels={names.DEPLOYMENT_LABEL: name},
            )
        )
    known = {k.hash: k for k in kept}
    rows = view.summary(document, utc_now())
    before = _known(name, list(known), older) if older else ""
    after = _known(name, list(known), newer) if newer else ""
    if not after:
        after = rows["canary"] if rows["canary"] in known else (kept[0].hash if kept else "")
    if not before:
        others = [k.hash for k in kept if k.hash != after]
        before = rows["stable"] if rows["stable"] in others else (others[0] if others else "")
    if not before or not after:
        raise Trouble(f"{name} has one revision, or none", "there is nothing to compare")
    texts = [known[h].about(whole=whole) for h in (before, after)]
    if output is Output.NAME:
        typer.echo(f"{before}\n{after}")
    elif output is not None:
        found = differing.changes(texts[0], texts[1])
        dump(
            {
                "before": before,
                "after": after,
                "changes": [{"path": c.path, "from": c.before, "to": c.after} for c in found],
            },
            output,
        )
    else:
        lines = differing.unified(texts[0], texts[1], (before, after))
        _coloured(lines or [f"{before} and {after} have the same spec and the same bytes"])


def _known(name: str, hashes: list[str], start: str) -> str:
    from tidegate.view import facts

    found = facts.matching(hashes, start)
    if len(found) == 1:
        return found[0]
    if found:
        raise Misuse(f"{start} may be {' or '.join(found)}", "write more of it")
    mend = f"it keeps {', '.join(hashes) or 'none'}"
    raise Trouble(f"{name} keeps no revision {start}", mend, code=Exit.NOT_FOUND)


def _coloured(lines: list[str]) -> None:
    from rich.console import Group
    from rich.text import Text

    tones = {"+": "green", "-": "red", "@": "cyan"}
    show(Group(*(Text(line, tones.get(line[:1], "")) for line in lines)))


@app.command(rich_help_panel=PREPARE)
def eject(
    name: Name,
    filename: Annotated[
        str, typer.Option("-f", "--filename", help="Write it there; else to stdout.")
    ] = "",
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print plain manifests of what serves now, to go on without Tidegate. Changes nothing."""
    from tidegate.cli import ejecting

    _one_form(filename, output)
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        there, unread = ejecting.children(client, space, document)
        found = ejecting.plain(document, there)
    for kind in unread:
        typer.echo(f"left out: {kind}, which you may not read in {space}", err=True)
    if output is Output.NAME:
        for one in found:
            typer.echo(f"{one['kind'].lower()}/{one['metadata']['name']}")
    elif output is not None:
        dump(found, output)
    elif filename:
        _write(Path(filename), ejecting.text(document, space, found))
        typer.echo(f"{filename}: {len(found)} objects; how to go on stands on top")
    else:
        typer.echo(ejecting.text(document, space, found), nl=False)
