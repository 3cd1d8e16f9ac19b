"""The commands around a rollout: before it, beside it, after it.

`plan`, `diff`, `init`, `migrate`, `golden record`, `load`, `doctor`, `eject`, `completion`. As in
`tidegate.cli.main`, only what every command needs is imported at the top.
"""

import sys
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tidegate.cli.common import (
    Context,
    Document,
    Form,
    Kubeconfig,
    Name,
    Namespace,
    Output,
    Revision,
    connected,
    dump,
    plain_name,
    seconds,
    show,
    utc_now,
)
from tidegate.cli.trouble import Exit, Trouble

if TYPE_CHECKING:
    from tidegate.cli.client import Client
    from tidegate.cli.inference import Send

PREPARE: Final = "Prepare"
CHECK: Final = "Check"
OPERATOR_NAMESPACE: Final = "tidegate-system"

app = typer.Typer()
golden_app = typer.Typer(help="Golden requests: inputs with known answers.", no_args_is_help=True)
app.add_typer(golden_app, name="golden", rich_help_panel=PREPARE)

Url = Annotated[str, typer.Option(help="The model's address, such as http://localhost:8000.")]
HostName = Annotated[str, typer.Option("--host", help="The name to ask for at a gateway.")]
ModelName = Annotated[str, typer.Option("--model", help="Else the ModelDeployment's.")]


class Shell(StrEnum):
    """Shells, and kubectl."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    KUBECTL = "kubectl"


def _text(lines: list[str]) -> None:
    from rich.console import Group
    from rich.text import Text

    show(Group(*(Text(line) for line in lines)))


# Prepare.


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

    found = starting.look(path, model, backend)
    called = name or starting.deployment_name(found.model)
    if name and starting.deployment_name(name) != name:
        raise Trouble(f"{name} cannot be a ModelDeployment's name", "small letters, digits, dashes")
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


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Trouble(f"{path} exists", "name another, or remove it") from None
    except OSError as error:
        raise Trouble(f"{path} cannot be written: {error}") from None


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
        float | None, typer.Option(help="Requests a second, for the time; else as measured.")
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

    manifests = planning.manifests(filename)
    settings = None
    if platform is not None:
        try:
            settings = planning.platform_of(platform.read_text(encoding="utf-8"))
        except OSError as error:
            raise Trouble(f"{platform} cannot be read: {error}") from None
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
            _text(planning.lines(one))
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
    raise Trouble(
        f"{start} may be {' or '.join(found)}" if found else f"{name} keeps no revision {start}",
        "write more of it" if found else f"it keeps {', '.join(hashes) or 'none'}",
        code=Exit.ERROR if found else Exit.NOT_FOUND,
    )


def _coloured(lines: list[str]) -> None:
    from rich.console import Group
    from rich.text import Text

    tones = {"+": "green", "-": "red", "@": "cyan"}
    show(Group(*(Text(line, tones.get(line[:1], "")) for line in lines)))


@golden_app.command("record")
def golden_record(
    name: Name,
    inputs: Annotated[
        Path | None,
        typer.Argument(help="Requests: a .json file, or a folder of them.", show_default=False),
    ] = None,
    url: Url = "",
    host: HostName = "",
    model: ModelName = "",
    config_map: Annotated[str, typer.Option(help="Its name; else NAME-golden.")] = "",
    again: Annotated[
        bool, typer.Option("--again", help="The inputs of that ConfigMap, recorded anew.")
    ] = False,
    times: Annotated[int, typer.Option(min=1, max=20, help="How often each is sent.")] = 3,
    redact: Annotated[
        list[str] | None, typer.Option(help="Strike this pattern out, too; may be repeated.")
    ] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Strike nothing out of the inputs.")
    ] = False,
    drop: Annotated[list[str] | None, typer.Option(help="Keep nothing of this output.")] = None,
    shape_only: Annotated[
        list[str] | None, typer.Option(help="Keep only the shape of this output.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="OUTPUT=0.01, OUTPUT=1% of the value, or OUTPUT=0.01+1%."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write it to the cluster, instead of to stdout.")
    ] = False,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Write golden requests from what the model answers now.

    Nothing is recorded but what you hand in. What looks like a secret or like personal data is
    struck out before it is sent. Without --url the model is asked through the API server.
    """
    from tidegate.cli import inference, recording

    if inputs is None and not again:
        raise Trouble("no inputs", "name a folder of requests, or --again")
    struck = {} if keep_all else dict(recording.PATTERNS)
    struck |= {f"--redact {text}": text for text in redact or ()}
    allowed = recording.tolerances(tolerance or ())
    redactor = recording.Redactor(struck, cards=not keep_all)
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        called = config_map or f"{name}-golden"
        wanted = _kept_inputs(client, space, called) if again else _inputs(inputs or Path())
        send = _send(client, space, name, url, host)
        served = model or _served(document)
        found, unknown = {}, set(allowed)
        for key, one in sorted(wanted.items()):
            asked = str(one.get("model") or served)
            said = inference.metadata(send, asked)
            clean = redactor.request(one)
            outputs = [o["name"] for o in said.get("outputs") or ()]
            unknown -= set(outputs)
            request = recording.prepared(key, clean, outputs)
            found[key] = recording.record(
                key,
                clean,
                partial(inference.ask, send, asked, request),
                times=times,
                drop=drop or (),
                shape_only=shape_only or (),
                allowed=allowed,
            )
        if unknown:
            raise Trouble(f"--tolerance: there is no output {min(unknown)}", "look at its name")
        made = recording.config_map(called, space, found)
        for what, count in redactor.struck.items():
            typer.echo(f"struck out: {count} x {what}", err=True)
        for note in (n for one in found.values() for n in one.notes):
            typer.echo(note, err=True)
        if apply:
            _apply_config_map(client, space, called, made)
    if apply and output is None:
        typer.echo(f"configmap/{called}: {len(found)} golden requests, each sent {times} times")
        asks = (document["spec"].get("goldenRequests") or {}).get("configMapName")
        if asks != called:
            typer.echo(f"name it: spec.goldenRequests: {{configMapName: {called}}}", err=True)
    elif output is Output.NAME:
        typer.echo(f"configmap/{called}")
    else:
        dump(made, output or Output.YAML)


def _apply_config_map(client: "Client", space: str, name: str, made: Document) -> None:
    from tidegate.cli.client import APPLY, ApiError
    from tidegate.cli.planning import path_of

    try:
        client.request(
            "PATCH",
            path_of("v1", "configmaps", space, name),
            body=made,
            params={"fieldManager": "tidegate-cli", "force": "true"},
            content_type=APPLY,
        )
    except ApiError as error:
        mend = f"ask for the role edit in {space}, or leave --apply out" * (error.status == 403)
        raise Trouble(f"configmap {name}: {error.message}", mend) from None


def _inputs(path: Path) -> dict[str, Document]:
    import json

    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise Trouble(f"{path} holds no .json files", "one request each; see golden-requests.md")
    found = {}
    for file in files:
        try:
            one = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Trouble(f"{file} cannot be read: {error}") from None
        if not isinstance(one, dict) or not one.get("inputs"):
            raise Trouble(f"{file} is no request", "{inputs: [{name, datatype, shape, data}]}")
        found[file.name] = one
    return found


def _kept_inputs(client: "Client", space: str, name: str) -> dict[str, Document]:
    """The golden requests of a ConfigMap, as documents."""
    import json

    from tidegate.cli.client import ApiError
    from tidegate.cli.planning import path_of

    try:
        found = client.request("GET", path_of("v1", "configmaps", space, name))
    except ApiError as error:
        raise Trouble(f"ConfigMap {name}: {error.message}", error.mend, code=error.code) from None
    try:
        return {
            key: json.loads(text)
            for key, text in (found.get("data") or {}).items()
            if key.endswith(".json")
        }
    except ValueError as error:
        raise Trouble(f"ConfigMap {name}: {error}", "correct it") from None


def _served(document: Document) -> str:
    model = (document.get("spec") or {}).get("model") or {}
    return str(model.get("name") or document["metadata"]["name"])


def _send(client: "Client", space: str, name: str, url: str, host: str) -> "Send":
    from tidegate.cli import inference

    if url:
        return inference.Address(url, host)
    return inference.through_api_server(client, space, name)


# Check.


@app.command(rich_help_panel=CHECK)
def load(
    name: Name,
    inputs: Annotated[
        Path | None,
        typer.Argument(help="Requests; else the golden ones.", show_default=False),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="Requests a second.")] = 10.0,
    duration: Annotated[str, typer.Option(help="How long, at most 10m.")] = "30s",
    url: Url = "",
    host: HostName = "",
    model: ModelName = "",
    in_flight: Annotated[int, typer.Option(min=1, max=512, help="Unanswered at a time.")] = 128,
    output: Form = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Send a short, bounded load, and print p50, p99 and errors.

    In an open loop: a request leaves when it is due, and its latency counts from then. Answers are
    compared with the golden ones. Real traffic: it counts as a client's in rollouts and scaling.
    """
    from tidegate import golden
    from tidegate.cli import inference, loading, recording

    length_s = seconds(duration, "--duration")
    if not 0 < length_s <= loading.MAX_SECONDS:
        raise Trouble(f"--duration {duration}", "at most 10m: this is a short test")
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        asked = (document["spec"].get("goldenRequests") or {}).get("configMapName")
        if inputs is None and not asked:
            raise Trouble(
                f"{name} has no golden requests to send", "name a folder of requests instead"
            )
        wanted = _inputs(inputs) if inputs else _kept_inputs(client, space, str(asked))
    served = model or _served(document)
    address = url or str((document.get("status") or {}).get("url") or "")
    if not address:
        raise Trouble(f"{name} has no address yet", "give one: --url")
    opened = [inference.Address(address, host)]
    try:
        said = inference.metadata(opened[0], served)
    except Trouble as error:
        opened[0].close()
        raise Trouble(
            error.message,
            f"from here: kubectl -n {space} port-forward service/{name} 8000, and "
            "--url http://localhost:8000",
        ) from None
    outputs = [o["name"] for o in said.get("outputs") or ()]
    requests = []
    for key, one in sorted(wanted.items()):
        if one.get("expected"):
            parsed = golden.parse({"metadata": {"name": "inputs"}, "data": {key: _json(one)}})[0]
        else:
            parsed = recording.prepared(key, one, outputs)
        requests.append(parsed)

    def asker() -> "loading.Asker":
        to = inference.Address(address, host)
        opened.append(to)

        def send(number: int) -> tuple[str, bool]:
            request = requests[number % len(requests)]
            try:
                answer = inference.ask(to, served, request)
            except (OSError, ValueError) as error:
                return (str(error) or type(error).__name__)[:120], False
            if request.error is None and answer.status != 200:
                return f"HTTP {answer.status}: {answer.error[:100]}", False
            return "", bool(golden.compare(request, answer))

        return send

    warm = asker()
    try:
        for number in range(len(requests)):  # outside of the measurement
            if (why := warm(number)[0]) != "":
                raise Trouble(f"{requests[number].key}: {why}", "mend that before measuring")
        found = loading.Summary.of(
            loading.run(asker, rate_per_s=rate, seconds=length_s, in_flight=in_flight)
        )
    finally:
        for connection in opened:
            connection.close()
    if output is Output.NAME:
        typer.echo(name)
    elif output is not None:
        dump({"ratePerSecond": rate, "seconds": length_s, **found.document()}, output)
    else:
        _text(found.lines(rate, length_s))
    if found.failed == found.requests:
        raise Trouble("not one request was answered", f"see tidegate get {name}")


def _json(document: Document) -> str:
    import json

    return json.dumps(document)


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
