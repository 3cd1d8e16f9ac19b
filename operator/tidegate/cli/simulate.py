"""The command `simulate`; what it does is in `tidegate.cli.simulating` and `simulated`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.cli.common import finite, seconds
from tidegate.cli.trouble import Misuse

if TYPE_CHECKING:
    from tidegate.cli.simulating import Wanted

app = typer.Typer()


class Structured(StrEnum):
    """Forms of output."""

    JSON = "json"


@app.command(rich_help_panel="Prepare")
def simulate(
    spec: Annotated[Path, typer.Option("--spec", "-f", help="ModelDeployment, as YAML.")],
    trace: Annotated[
        Path, typer.Option(help="CSV: a time for each request, or counts for each interval.")
    ],
    service_time: Annotated[
        str,
        typer.Option(
            help="How long a batch of n takes, in ms, such as 8+6n; else as measured, from the "
            "status in --spec (kubectl get mdep NAME -o yaml)."
        ),
    ] = "",
    variation: Annotated[
        float, typer.Option(help="Of that time: standard deviation over mean.", min=0.0, max=2.0)
    ] = 0.1,
    cold_start: Annotated[str, typer.Option(help="Until a new pod serves.")] = "60s",
    column: Annotated[str, typer.Option(help="Of the trace: name, or number from 1.")] = "",
    interval: Annotated[str, typer.Option(help="Of each row of counts without a time.")] = "60s",
    times: Annotated[float, typer.Option(help="So many times the requests.", min=0.001)] = 1.0,
    gpu_price: Annotated[
        float | None, typer.Option(help="Of one GPU for an hour: shows the cost.", min=0.0)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Also with a field of the spec otherwise than in --spec, such as "
            "scaling.maxReplicas=8; can be repeated, all count together.",
        ),
    ] = None,
    hpa_utilization: Annotated[
        float | None, typer.Option(help="Also an HPA that keeps GPUs so busy, in %.")
    ] = None,
    hpa_latency: Annotated[
        float | None, typer.Option(help="Also an HPA that keeps the SLO's quantile at so many ms.")
    ] = None,
    keda_rps: Annotated[
        float | None, typer.Option(help="Also KEDA, with so many requests a second for a pod.")
    ] = None,
    change: Annotated[
        str,
        typer.Option(
            help="Also a rollout: another version of the manifest and when it is applied, such as "
            "v2.yaml@10m."
        ),
    ] = "",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="With --change: what goes wrong, such as errors=5% (of the new version), "
            "slower=1.5, crash, no-metrics@12m-14m; can be repeated."
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(help="With --change: play it so often, with other seeds.", min=1, max=200)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of all that is random.", min=0)] = 1,
    picture: Annotated[
        Path | None, typer.Option(help="Draw it into this PNG (needs matplotlib).")
    ] = None,
    output: Annotated[
        Structured | None, typer.Option("-o", "--output", help="Instead of text.")
    ] = None,
) -> None:
    """Play a load curve against a spec: requests in time, GPU hours, cost, replicas.

    With --change, a rollout: is it promoted or rolled back, when, after how many failed answers.
    The code that decides in the cluster decides here, too. No cluster is needed.
    """
    from tidegate.cli import picture as drawing
    from tidegate.cli import setting, simulated, simulating

    compared_with = (hpa_utilization, hpa_latency, keda_rps)
    if change and any(value is not None for value in compared_with):
        raise Misuse(
            "--change plays a rollout by the spec alone", "leave --hpa-... and --keda-... out"
        )
    if change and settings:
        raise Misuse(
            f"--set {settings[0]} and --change do not go together", "set it in both manifests"
        )
    if not change and (fault or runs > 1):
        raise Misuse("--fault and --runs are for a rollout", "add --change v2.yaml@10m")
    for option, value in (
        ("--variation", variation),
        ("--times", times),
        ("--gpu-price", gpu_price),
    ):
        finite(value, option)
    drawing.check(picture)
    document = simulating.read_manifest(spec)
    asked = simulating.read_spec(document, spec)
    changed = setting.changed(document, asked, settings) if settings else None
    wanted = simulating.wanted_of(
        document,
        asked,
        simulating.read_service_time(service_time, document),
        simulating.read_load(trace, column, seconds(interval, "--interval"), times, seed),
        cold_start_s=seconds(cold_start, "--cold-start"),
        seed=seed,
        cv=variation,
        gpu_price=gpu_price,
    )
    if change:
        _rollout(wanted, document, change, fault or (), runs, picture, output)
        return
    compared = simulating.laws(
        wanted,
        simulating.server_of(wanted),
        hpa_utilization=hpa_utilization,
        hpa_latency_ms=hpa_latency,
        keda_rps=keda_rps,
    )
    results = simulating.play(wanted, compared)
    if changed is not None:
        results.insert(1, simulating.with_settings(wanted, changed))
    if picture is not None:
        simulated.draw(wanted, results, picture)
    if output is not None:
        import json

        typer.echo(json.dumps(simulated.document_of(wanted, results), indent=2))
    else:
        typer.echo(simulated.text_of(wanted, results))


def _rollout(
    wanted: "Wanted",
    document: dict[str, Any],
    change: str,
    faults: Sequence[str],
    runs: int,
    picture: Path | None,
    output: Structured | None,
) -> None:
    """Play a change of the spec, and tell what becomes of it."""
    from tidegate.cli import simulated_rollout, simulating_rollout

    staging = simulating_rollout.staging_of(
        wanted,
        document,
        simulating_rollout.read_change(change, wanted.name),
        simulating_rollout.read_faults(faults),
    )
    played = simulating_rollout.play(staging, wanted.seed, runs)
    if picture is not None:
        simulated_rollout.draw(staging, played[0].outcome, picture)
    if output is not None:
        import json

        typer.echo(json.dumps(simulated_rollout.document_of(staging, played), indent=2))
    else:
        typer.echo(simulated_rollout.text_of(wanted, staging, played))
