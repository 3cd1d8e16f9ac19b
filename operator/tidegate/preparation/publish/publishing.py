"""Puts a prepared model where it belongs: files, configuration, manifests, golden requests, report.

Order matters: the files go first, what names them goes last. Whoever reads a manifest finds
everything that it names.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tidegate.cli import starting
from tidegate.cli.common import yaml_text
from tidegate.cli.trouble import Trouble
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.order import Place
from tidegate.preparation.publish import golden, s3
from tidegate.preparation.publish.folder import REPORT, whole
from tidegate.preparation.publish.manifest import Facts, manifest
from tidegate.preparation.publish.report import FORMAT, html
from tidegate.preparation.tuning.picture import draw
from tidegate.preparation.tuning.repository import Backend, write
from tidegate.preparation.tuning.search import Held, Tuned
from tidegate.preparation.tuning.serving import serve
from tidegate.preparation.tuning.tuner import Job, Result

MODEL: Final = "model"
"""Folder of the model files: a Triton repository."""
MANIFESTS: Final = "manifests"


@dataclass(frozen=True)
class Prepared:
    """All that is published.

    Attributes:
        name: of the ModelDeployment and the model.
        job: the candidate that was taken, and what served it.
        result: its tuning.
        samples: arrays by input, to record golden requests with.
        candidates: all of them, as the report shows them.
        others: all settings of all candidates that were measured.
        order: what was asked for.
        lineage: where it comes from.
    """

    name: str
    job: Job
    result: Result
    samples: golden.Columns
    candidates: Sequence[Mapping[str, Any]]
    others: Sequence[Held]
    order: Mapping[str, Any]
    lineage: Mapping[str, Any]

    @property
    def best(self) -> Held:
        """The setting that was taken."""
        found = self.result.tuned.best
        assert found is not None
        return found


def publish(prepared: Prepared, place: Place, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write everything, whole or not at all.

    Returns:
        The report, as JSON.

    Raises:
        PreparationError: it cannot be written or sent. What was published before is as it was.
    """
    job, best = prepared.job, prepared.best
    with whole(place.folder) as folder:
        write(folder / MODEL, job.candidate, prepared.name, best.setting, job.backend)
        try:
            found = starting.look(folder / MODEL, prepared.name)
            requests = _golden(prepared, tell)
        except Trouble as error:
            raise PreparationError(str(error)) from error
        uri = _uri(prepared.name, place, found.sha256)
        if place.store:
            s3.upload(folder / MODEL, uri, endpoint=place.endpoint, tell=tell)
        document = _manifest(prepared, place, uri, found.sha256, found.size, requests)
        tell("writing manifests and report")
        published = {"uri": uri, "sha256": found.sha256, "files": found.files, "bytes": found.size}
        report = _report(prepared, published)
        _write(folder, report, document, requests, _picture(prepared))
    return report


def _golden(prepared: Prepared, tell: Callable[[str], None]) -> dict[str, Any]:
    """Recorded from a server with the setting that is published."""
    tell("recording golden requests")
    job, setting = prepared.job, prepared.best.setting
    with serve(job.candidate, prepared.name, setting, job.backend, job.triton) as server:
        return golden.record(
            server.address,
            prepared.name,
            job.candidate,
            prepared.samples,
            name=f"{prepared.name}-golden",
        )


def _uri(name: str, place: Place, sha256: str) -> str:
    if place.store:
        return s3.place(place.store, sha256)
    return place.uri or s3.place(f"s3://models/{name}", sha256)


def _manifest(
    prepared: Prepared,
    place: Place,
    uri: str,
    sha256: str,
    size: int,
    requests: Mapping[str, Any],
) -> dict[str, Any]:
    best, objective = prepared.best, prepared.result.tuned.objective
    try:
        return manifest(
            Facts(
                name=prepared.name,
                model=prepared.name,
                uri=uri,
                sha256=sha256,
                size_bytes=size,
                quantile=objective.quantile,
                target_ms=objective.target_ms,
                cores=best.cost_s / 1e6 * best.rate_per_s,
                golden=requests["metadata"]["name"],
                endpoint=place.endpoint,
                secret=place.secret,
            )
        )
    except ValueError as error:
        raise PreparationError(f"no manifest can say this: {error}") from error


def _report(prepared: Prepared, published: Mapping[str, Any]) -> dict[str, Any]:
    tuned = prepared.result.tuned
    return {
        "format": FORMAT,
        "name": prepared.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "summary": summary(prepared),
        "order": dict(prepared.order),
        "command": shlex.join(["tidegate", "prepare", "--from-report", REPORT]),
        "lineage": dict(prepared.lineage),
        "candidates": [dict(one) for one in prepared.candidates],
        "tuning": {
            "sentence": _served_by(prepared),
            "objective": str(tuned.objective),
            "backend": prepared.job.backend.value,
            "runs": tuned.runs,
            "taken": prepared.best.document(),
            "curve": [s.document() for s in prepared.result.curve],
            "modelled": [list(point) for point in prepared.result.modelled],
            "measured": [h.document() for h in tuned.held],
            "learned": [
                {"workers": asdict(w), **learned.document()} for w, learned in tuned.learned.items()
            ],
            "predicted": [
                {"setting": s.document(), **asdict(p)} for s, p in tuned.predicted.items()
            ],
            "others": _others(tuned),
        },
        "published": dict(published),
    }


def summary(prepared: Prepared) -> str:
    """What came out, in one sentence."""
    best = prepared.best
    least = "at least " if best.at_least else ""
    return (
        f"{prepared.job.candidate.name} with {best.setting} holds "
        f"{prepared.result.tuned.objective} up to {least}{best.rate_per_s:,.0f} requests a second "
        f"on one pod, at {best.cost_s:,.0f} processor seconds for a million."
    )


def _served_by(prepared: Prepared) -> str:
    tuned = prepared.result.tuned
    by = "Triton's onnxruntime backend"
    if prepared.job.backend is Backend.PYTHON:
        by = (
            "a model of Triton's Python backend that runs ONNX Runtime (this Triton has no "
            "onnxruntime backend), which is what is published, too"
        )
    grid = len(tuned.predicted)
    return (
        f"Served by {by}. Of {grid} settings {len(tuned.held)} were measured, in {tuned.runs} "
        "probes and stretches of load in all; the capacity model ranked the rest."
    )


def _others(tuned: Tuned) -> list[dict[str, Any]]:
    found = []
    for factor, other in sorted(tuned.others.items()):
        found.append(
            {
                "objective": str(tuned.objective.times(factor)),
                "setting": str(other[0]) if other else None,
                "cpuSecondsPerMillion": other[1].cost_s if other else None,
            }
        )
    return found


def _picture(prepared: Prepared) -> bytes | None:
    try:
        return draw(
            prepared.result.tuned.objective,
            prepared.best,
            prepared.result.curve,
            prepared.others,
            prepared.result.modelled,
        )
    except PreparationError:
        return None  # without matplotlib; the figures are all there


def _write(
    folder: Path,
    report: Mapping[str, Any],
    document: Mapping[str, Any],
    requests: Mapping[str, Any],
    picture: bytes | None,
) -> None:
    (folder / MANIFESTS).mkdir()
    (folder / MANIFESTS / "golden.yaml").write_text(yaml_text([requests]))
    head = f"# {report['summary']}\n# How that is known: report.html\n"
    (folder / MANIFESTS / "modeldeployment.yaml").write_text(head + yaml_text([document]))
    if picture is not None:
        (folder / "curve.png").write_bytes(picture)
    (folder / "report.html").write_text(html(report, picture))
    (folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
