"""The commands that send a model requests: `golden record` and `load`.

As in `tidegate.cli.main`, only what every command needs is imported at the top.
"""

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
    connected,
    dump,
    finite,
    plain_name,
    seconds,
    show_text,
    text_of,
)
from tidegate.cli.trouble import Misuse, Trouble

if TYPE_CHECKING:
    from tidegate.cli.client import Client

PREPARE: Final = "Prepare"
CHECK: Final = "Check"

app = typer.Typer()
golden_app = typer.Typer(help="Golden requests: inputs with known answers.", no_args_is_help=True)
app.add_typer(golden_app, name="golden", rich_help_panel=PREPARE)

Url = Annotated[str, typer.Option(help="The model's address, such as http://localhost:8000.")]
HostName = Annotated[str, typer.Option("--host", help="The name to ask for at a gateway.")]
ModelName = Annotated[str, typer.Option("--model", help="Else the ModelDeployment's.")]


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
        raise Misuse("no INPUTS", "name a folder of requests, or --again")
    if inputs is not None and again:
        raise Misuse(f"--again and INPUTS {inputs} do not go together", "leave one out")
    if host and not url:
        raise Misuse(f"--host {host} is for a gateway", "give its --url, too")
    struck = {} if keep_all else dict(recording.PATTERNS)
    struck |= {f"--redact {text}": text for text in redact or ()}
    allowed = recording.tolerances(tolerance or ())
    for option, listed in (("--drop", drop), ("--shape-only", shape_only)):
        if both := sorted(set(listed or ()) & set(allowed)):
            raise Misuse(f"{option} and --tolerance both name output {both[0]}", "choose one")
    redactor = recording.Redactor(struck, cards=not keep_all)
    given = _inputs(inputs) if inputs is not None else {}
    address = inference.Address(url, host) if url else None
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        called = config_map or f"{name}-golden"
        wanted = _kept_inputs(client, space, called) if again else given
        send = address or inference.through_api_server(client, space, name)
        served = model or _served(document)
        named = {n: "--tolerance" for n in allowed}
        named |= {n: "--drop" for n in drop or ()} | {n: "--shape-only" for n in shape_only or ()}
        found, unknown = {}, set(named)
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
            name_ = min(unknown)
            raise Misuse(f"{named[name_]} {name_}: there is no such output", "look at its name")
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
        raise Misuse(f"{path} holds no .json files", "one request each; see golden-requests.md")
    found = {}
    for file in files:
        try:
            one = json.loads(text_of(file, "INPUTS", "one request each; see golden-requests.md"))
        except ValueError as error:
            raise Trouble(f"{file} is no JSON: {error}", "correct it") from None
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
        raise Misuse(f"--duration {duration} is no short test", "write 1s to 10m")
    finite(rate, "--rate")
    given = _inputs(inputs) if inputs is not None else {}
    if url:
        inference.Address(url, host)
    with connected(namespace, context, kubeconfig) as (client, space):
        name = plain_name(name)
        document = client.get(space, name)
        asked = (document["spec"].get("goldenRequests") or {}).get("configMapName")
        if inputs is None and not asked:
            raise Trouble(
                f"{name} has no golden requests to send", "name a folder of requests instead"
            )
        wanted = given or _kept_inputs(client, space, str(asked))
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
        show_text(found.lines(rate, length_s))
    if found.failed == found.requests:
        raise Trouble("not one request was answered", f"see tidegate get {name}")


def _json(document: Document) -> str:
    import json

    return json.dumps(document)
