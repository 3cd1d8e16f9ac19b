"""The command `prepare`; what it does is in `tidegate.preparation`."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from tidegate.cli.trouble import Misuse, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tidegate.preparation.order import Order
    from tidegate.preparation.tuning.search import Objective

app = typer.Typer()

EXTRA: Final = "in a copy of Tidegate's repository: pip install '.[cli,preparation]'"
BIG: Final = {"torch", "tensorflow", "tf2onnx", "onnxscript", "openvino"}
"""Frameworks that come with an extra of their own."""


@app.command(rich_help_panel="Prepare")
def prepare(
    ctx: typer.Context,
    model: Annotated[
        Path | None, typer.Option(help="The trained model, as its framework saved it.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Held-out samples with labels: .npz, .parquet or .csv."),
    ] = None,
    slo: Annotated[str, typer.Option(help="Latency objective, such as p99=50ms.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Folder for files, manifests and report.")
    ] = None,
    framework: Annotated[
        str, typer.Option(help="sklearn, xgboost, lightgbm, torch, tensorflow, onnx; else by name.")
    ] = "",
    metric: Annotated[
        str, typer.Option(help="accuracy, f1, rmse, mae, or FILE.py:FUNCTION.")
    ] = "accuracy",
    better: Annotated[
        str, typer.Option(help="Which way a FUNCTION improves: higher (else), or lower.")
    ] = "",
    max_drop: Annotated[
        str, typer.Option(help="How much worse the metric may become: 0.5% or 0.005.")
    ] = "0.5%",
    confidence: Annotated[
        float, typer.Option(help="Of the bound on the drop.", min=0.5, max=0.9999)
    ] = 0.95,
    optimise: Annotated[
        str,
        typer.Option(
            help="What is tried, with commas: graph, int8-dynamic, int8-static, fp16, pruned, "
            "narrowed; '' for nothing."
        ),
    ] = "int8-dynamic",
    calibration: Annotated[
        Path | None, typer.Option(help="Samples for int8-static; else a fifth of --data.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the ModelDeployment; else the file's.")] = "",
    publish: Annotated[
        str,
        typer.Option(
            help="Send it there, too: s3://bucket/prefix, oci://registry/repository:tag, "
            "mlflow://model/@alias; without tag or alias, none moves."
        ),
    ] = "",
    sign: Annotated[
        Path | None, typer.Option(help="Sign the files with this private key (PEM, EC).")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Where you will put the files yourself: s3://..., pvc://...")
    ] = "",
    endpoint: Annotated[str, typer.Option(help="Of the store, if it is not AWS; of MLflow.")] = "",
    secret: Annotated[str, typer.Option(help="Secret with which pods read the store.")] = "",
    triton: Annotated[
        str, typer.Option(help="Program that starts Triton; else $TIDEGATE_TRITON, tritonserver.")
    ] = "",
    work: Annotated[
        Path | None, typer.Option(help="Working folder, to go on from; else OUT.work.")
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the model, for the report.")] = "",
    code: Annotated[
        Path | None, typer.Option(help="Training code, whose digest the report is to hold.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few and short measurements: a first look.")
    ] = False,
    from_report: Annotated[
        Path | None, typer.Option(help="Do again what this report.json tells of; --out may differ.")
    ] = None,
    apply: Annotated[
        bool,
        typer.Option("--apply", help="Apply the manifests; without --model, those that --out has."),
    ] = False,
) -> None:
    """Convert, shrink, prove, tune and publish a trained model: a finished manifest.

    What was done is kept: the same command goes on where it was cut off.
    """
    given = _given(ctx)
    if apply and out is not None and given <= {"apply", "out"}:
        _apply(out)
        return
    if from_report is not None and (others := sorted(given - {"from_report", "out", "apply"})):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise Misuse(f"--from-report {from_report} says all, {names} too", "leave that out")
    with _told():
        from tidegate.preparation import order as orders

        if from_report is not None:
            _there({"--from-report": from_report})
            order = _again(from_report, out)
        else:
            if model is None or data is None or not slo or out is None:
                raise Misuse("--model, --data, --slo and --out are needed", "or --from-report")
            if publish and source:
                raise Misuse(f"--source {source} and --publish {publish}", "leave one out")
            optimisations = tuple(x.strip() for x in optimise.split(",") if x.strip())
            objective, drop = _checked(
                slo, max_drop, metric, better, framework, optimisations, publish, triton
            )

            files = {"--model": model, "--data": data, "--calibration": calibration}
            _there({**files, "--sign": sign, "--code": code})
            if apply and not publish:
                mend = "or put the files to --source, then --apply --out"
                raise Misuse("--apply needs --publish", mend)
            order = orders.Order(
                name=_name(name, model),
                model=model,
                data=data,
                objective=objective,
                place=orders.Place(
                    out, publish, source, endpoint, secret, str(sign) if sign else ""
                ),
                work=work or out.with_name(f"{out.name}.work"),
                framework=framework,
                metric=metric,
                better=better,
                max_drop=drop,
                confidence=confidence,
                optimisations=optimisations,
                calibration=calibration,
                triton=triton,
                quick=quick,
                licence=licence,
                source=code,
            )
        _run(order, apply=apply)


def _given(ctx: typer.Context) -> set[str]:
    """The options that were typed."""
    return {
        name
        for name in ctx.params
        if (found := ctx.get_parameter_source(name)) and found.name != "DEFAULT"
    }


def _there(files: "Mapping[str, Path | None]") -> None:
    """Refuse the first that is named and not there."""
    for option, path in files.items():
        if path is not None and not path.exists():
            raise Misuse(f"{option} {path} does not exist", "name a file that is there")


def _checked(
    slo: str,
    max_drop: str,
    metric: str,
    better: str,
    framework: str,
    optimisations: "Sequence[str]",
    publish: str,
    triton: str,
) -> "tuple[Objective, float]":
    """What the options alone say, before anything that takes seconds to import."""
    import shutil

    from tidegate.preparation import metrics
    from tidegate.preparation import order as orders
    from tidegate.preparation.publish import target

    with _option("--slo"):
        objective = orders.objective(slo)
    with _option("--max-drop"):
        drop = orders.drop(max_drop)
    with _option("--metric"):
        if metric not in metrics.USUAL:
            metrics.place(metric)
    with _option("--better" if better else "--metric"):
        metrics.direction(metric, better)
    if publish:
        with _option("--publish"):
            target.parsed(publish)
    for option, named, known in (
        ("--framework", (framework,) if framework else (), orders.FRAMEWORKS),
        ("--optimise", optimisations, orders.OPTIMISATIONS),
    ):
        if unknown := [name for name in named if name not in known]:
            raise Misuse(f"{option}: there is no {unknown[0]}", f"there are {', '.join(known)}")
    if triton and shutil.which(triton) is None:
        raise Misuse(f"--triton {triton} is no program here", "name one, or leave it out")
    return objective, drop


@contextmanager
def _option(name: str) -> "Iterator[None]":
    from tidegate.preparation.errors import PreparationError

    try:
        yield
    except PreparationError as error:
        raise Misuse(f"{name}: {error}") from None


def _apply(folder: Path) -> None:
    from tidegate.cli.applying import apply_prepared
    from tidegate.cli.common import connected

    with connected(None, None, None) as (client, space):
        for one in apply_prepared(client, space, folder):
            typer.echo(f"{one} applied in {space}")


def _run(order: "Order", *, apply: bool) -> None:
    if apply and not order.place.store:  # as a report may say
        raise Misuse("--apply needs --publish", "or put the files to --source, then --apply --out")
    from tidegate.preparation import pipeline

    with _progress(len(pipeline.STAGES)) as teller:
        report = pipeline.prepare(order, teller)
    for one in report["candidates"]:
        typer.echo(
            f"{one['name']}: {one['verdict']}" + (f"; {one['speed']}" if one["speed"] else "")
        )
    typer.echo(report["summary"])
    folder = order.place.folder
    typer.echo(f"report: {folder / 'report.html'}")
    if apply:
        _apply(folder)
        return
    if order.place.store:
        typer.echo(f"published: {report['published']['uri']}")
    else:
        typer.echo(f"put {folder / 'model'} to {report['published']['uri']}, then")
    typer.echo(f"kubectl apply -f {folder / 'manifests'}")


def _name(name: str, model: Path) -> str:
    from tidegate.cli.starting import deployment_name

    found = deployment_name(name or model.stem)
    if name and found != name:
        raise Misuse(
            f"--name {name!r} cannot be a ModelDeployment's", "small letters, digits, dashes"
        )
    return found


def _again(report: Path, out: Path | None) -> "Order":
    from dataclasses import replace

    from tidegate.preparation.again import differences, order_of

    order = order_of(report)
    for line in differences(report):
        typer.echo(f"since that report: {line}", err=True)
    if out is not None:
        place = replace(order.place, folder=out)
        order = replace(order, place=place, work=out.with_name(f"{out.name}.work"))
    return order


@contextmanager
def _told() -> "Iterator[None]":
    """What is wrong, in one line; what is not installed, with how to."""
    try:
        from tidegate.preparation.errors import PreparationError
    except ModuleNotFoundError as error:
        raise Trouble(f"{error.name} is not installed", EXTRA) from None
    try:
        yield
    except PreparationError as error:
        raise Trouble(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        mend = "what was done is kept: the same command goes on"
        raise Trouble(f"{where}{error.strerror or error}", mend) from None
    except ModuleNotFoundError as error:
        top = (error.name or "").split(".")[0]
        extra = EXTRA.replace("]", ",preparation-frameworks]") if top in BIG else EXTRA
        raise Trouble(f"{error.name} is not installed", extra) from None


class _Lines:
    """Progress for a file or a pipe: a line each."""

    def stage(self, name: str) -> None:
        typer.echo(f"== {name}", err=True)

    def detail(self, text: str) -> None:
        typer.echo(f"   {text}", err=True)

    def share(self, done: float) -> None:
        """Lines say it by what they say."""


@contextmanager
def _progress(stages: int) -> "Iterator[_Lines]":
    """Bars on a terminal, lines elsewhere; on stderr."""
    import sys

    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[stage]:9}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=stages, stage="", detail="", start=True)

        class Bars(_Lines):
            def __init__(self) -> None:
                self._begun = 0

            def stage(self, name: str) -> None:
                bars.update(task, completed=self._begun, stage=name, detail="")
                self._begun += 1

            def detail(self, text: str) -> None:
                bars.update(task, detail=text)

            def share(self, done: float) -> None:
                bars.update(task, completed=self._begun - 1 + done)

        yield Bars()
        bars.update(task, completed=stages, stage="done", detail="")
