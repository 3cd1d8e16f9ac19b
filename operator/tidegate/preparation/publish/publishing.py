"""Puts a prepared model where it belongs: files, configuration, manifests, golden requests, report.

Order matters: the files go first, what names them goes last. Whoever reads a manifest finds
everything that it names, and whoever follows a tag or an alias finds a model that is there whole.
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
from tidegate.preparation.publish import folder as folders
from tidegate.preparation.publish import golden, signing
from tidegate.preparation.publish.folder import REPORT, whole
from tidegate.preparation.publish.manifest import Facts, manifest
from tidegate.preparation.publish.opening import opened
from tidegate.preparation.publish.report import FORMAT, html
from tidegate.preparation.publish.target import Sent, Target, below, files_in
from tidegate.preparation.tuning.picture import draw
from tidegate.preparation.tuning.repository import Backend, write
from tidegate.preparation.tuning.search import Held
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


def check(place: Place) -> None:
    """What can be known before hours of work.

    Raises:
        PreparationError: the folder is somebody else's, there is no such place to publish to, or
            the key cannot sign.
    """
    folders.check(place.folder)
    if place.store:
        opened(place.store, place.endpoint, lambda text: None)
    if place.sign:
        signing.check(Path(place.sign))


def publish(
    prepared: Prepared, place: Place, kept: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Write everything, whole or not at all.

    Args:
        prepared: what is published.
        place: where.
        kept: folder of the signatures that were made before.
        tell: is told how far it is.

    Returns:
        The report, as JSON.

    Raises:
        PreparationError: it cannot be written or sent. What was published before is as it was; a
            later call goes on.
    """
    _refuse_unproved(prepared)
    job, best = prepared.job, prepared.best
    target = opened(place.store, place.endpoint, tell) if place.store else None
    with whole(place.folder) as folder:
        write(folder / MODEL, job.candidate, prepared.name, best.setting, job.backend)
        if place.sign:
            tell("signing")
            signing.sign(folder / MODEL, Path(place.sign), kept)
        try:
            found = starting.look(folder / MODEL, prepared.name)
            requests = _golden(prepared, tell)
        except Trouble as error:
            raise PreparationError(str(error)) from error
        sent = _sent(target, folder / MODEL, found.sha256, prepared.name, place)
        document = _manifest(prepared, place, sent, found.sha256, found.size, requests)
        tell("writing manifests and report")
        published = {
            "uri": sent.uri,
            "sha256": found.sha256,
            "files": found.files,
            "bytes": found.size,
            "signed": bool(place.sign),
        }
        report = _report(prepared, published)
        _write(folder, report, document, requests, _picture(prepared))
        if target is not None:
            own = f"{MODEL}/"
            target.file({n: p for n, p in files_in(folder).items() if not n.startswith(own)})
    if target is not None and (moved := target.announce()):
        tell(f"{moved} is this model now")
    return report


def _refuse_unproved(prepared: Prepared) -> None:
    """Whatever the caller thought: only what the gate accepted is published."""
    taken = [one for one in prepared.candidates if one["taken"]]
    if (
        len(taken) != 1
        or not taken[0]["accepted"]
        or taken[0]["name"] != prepared.job.candidate.name
    ):
        raise PreparationError("nothing is published: no candidate was accepted and taken")


def _sent(target: Target | None, model: Path, sha256: str, name: str, place: Place) -> Sent:
    """Where the files lie, or will, if somebody else puts them there."""
    if target is not None:
        return target.send(files_in(model), sha256)
    return Sent(place.uri or below(f"s3://models/{name}", sha256), place.endpoint, 0)


def _golden(prepared: Prepared, tell: Callable[[str], None]) -> dict[str, Any]:
    """Recorded from a server with the setting that is published."""
    tell("recording golden requests")
    job, setting = prepared.job, prepared.best.setting
    with serve(job.candidate, prepared.name, setting, job.backend, job.triton) as server:
        return golden.record(server.address, prepared.name, job.candidate, prepared.samples)


def _manifest(
    prepared: Prepared,
    place: Place,
    sent: Sent,
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
                uri=sent.uri,
                sha256=sha256,
                size_bytes=size,
                quantile=objective.quantile,
                target_ms=objective.target_ms,
                cores=best.cost_s / 1e6 * best.rate_per_s,
                golden=requests["metadata"]["name"],
                endpoint=sent.endpoint,
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
            "others": [o.document() for _, o in sorted(prepared.result.others.items())],
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
