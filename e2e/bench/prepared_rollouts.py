"""The prepared models on the embedded cluster: each goes through a canary, under load.

What serves first is the converted model, untuned; then the manifest that `tidegate prepare` wrote
is applied. A client sends the golden requests through the gateway meanwhile. Run by
``python -m e2e.bench.prepared_models --deploy``.
"""

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from e2e.bench.report import Machine
from e2e.bench.stage import require_cluster
from e2e.cluster.installation import install
from e2e.cluster.kube import KubeClient, NotReached
from e2e.cluster.progress import Progress
from e2e.prepared.asking import Asking, answers_wrong, asked, outcome
from e2e.prepared.versions import (
    SLO,
    Given,
    Version,
    by_the_preparations_python,
    instead,
    make,
)
from e2e.tests.space import API, KIND, SETTINGS, Space
from tidegate.preparation.tuning.grid import Setting

NAMESPACE: Final = "bench-prepared"
RATE_PER_S: Final = 10.0
"""The slowest of them takes a third of a core with it."""
AFTER_S: Final = 2.0
"""The load goes on for so long after the outcome: were the last failures really the last?"""
OPTIMISE: Final = ("fp16", "int8-dynamic", "int8-static")
HURT: Final = "made-to-hurt"
REFUSED: Final = "int8-dynamic"
"""Its candidate that the accuracy gate refuses: served by hand all the same, it must come back."""
SHOWN: Final = 5
"""Failures that are kept, word by word."""


def deploy(folder: Path, names: Sequence[str], progress: Progress) -> bool:
    """Prepare each, bring each through the cluster, and keep what was seen in a JSON file each.

    Args:
        folder: of results, and of what is prepared.
        names: of models.
        progress: is told how far it is.

    Returns:
        Whether each became what it must.
    """
    require_cluster(SETTINGS)
    versions = {}
    for name in names:
        with progress.step(f"preparing {name}"):
            versions[name] = prepare(folder / name, name)
    good = True
    with KubeClient(SETTINGS.kubeconfig, user_agent="tidegate-bench") as kube:
        install(kube, progress)
        space = Space(kube, NAMESPACE)
        space.create()
        try:
            for name, (first, second) in versions.items():
                try:
                    with progress.step(f"deploying {name}"):
                        found = played(space, folder / name, first, second)
                except NotReached as error:
                    progress.say(f"  {name} could not be played: {error}")
                    good = False
                    continue
                finally:
                    space.kube.delete(API, KIND, name, space.name)
                (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
                progress.say(f"  {told(found)}")
                good = good and as_it_must(found)
        finally:
            space.delete()
    return good


def prepare(folder: Path, name: str) -> tuple[Version, Version]:
    """Train a model, or take it from its package, and make both versions of it.

    Raises:
        subprocess.CalledProcessError: a step failed; the log in the folder says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    by_the_preparations_python("e2e.prepared.given", name, str(folder), frameworks=True, log=log)
    found = json.loads((folder / "given.json").read_text())
    given = Given(
        name=name,
        model=Path(found["model"]),
        data=folder / "held-out.npz",
        max_drop=found["max_drop"],
        optimise=OPTIMISE,
        calibration=folder / "seen.npz",
        frameworks=True,
    )
    return make(given, folder, log=log)


def played(space: Space, folder: Path, first: Version, second: Version) -> dict[str, Any]:
    """One model's way through the cluster, as JSON.

    Raises:
        NotReached: it did not go live, or came to no end.
    """
    name = second.name
    report = json.loads((second.files.parent / "report.json").read_text())
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    first.apply(space)
    space.ready(name)
    with asked(space, first, second, rate_per_s=RATE_PER_S) as asking:
        seen = _rollout(space, second, asking)
    taken = next(one for one in report["candidates"] if one["taken"])
    found = {
        "name": name,
        "began": began,
        "machine": asdict(Machine.here()),
        "slo": SLO,
        "rate_per_s": RATE_PER_S,
        "candidate": taken["name"],
        "setting": str(Setting(**report["tuning"]["taken"]["setting"])),
        "sha256": report["published"]["sha256"],
        "golden": len(second.requests),
        "golden_wrong": answers_wrong(space, second),
        **seen,
        "load_average": round(os.getloadavg()[0], 1),
    }
    if name == HURT:
        found["by_hand"] = {"candidate": REFUSED, **_by_hand(space, folder, second)}
    return found


def _rollout(space: Space, version: Version, asking: Asking) -> dict[str, Any]:
    """Apply a version, wait for what becomes of it, and count."""
    applied_s = time.monotonic()
    version.apply(space)
    phases: list[str] = []
    found = outcome(space, version.name, phases)
    took_s = time.monotonic() - applied_s
    time.sleep(AFTER_S)
    failed = found["status"]["revisions"].get("failed") or [{}]
    return {
        "outcome": phases[-1],
        "phases": phases,
        "reason": failed[0].get("reason", ""),
        "message": failed[0].get("message", ""),
        "took_s": round(took_s, 1),
        "requests": len(asking.replies),
        "failed": len(asking.failed),
        "wrong": len(asking.wrong),
        "shown": [*asking.failed[:SHOWN], *asking.wrong[:SHOWN]],
    }


def _by_hand(space: Space, folder: Path, second: Version) -> dict[str, Any]:
    """The candidate that the gate refused, under the manifest of the one that it accepted."""
    (model,) = (folder / "work").glob(f"{REFUSED}-*/model.onnx")
    files = folder / "by-hand"
    shutil.rmtree(files, ignore_errors=True)
    shutil.copytree(second.files, files)
    shutil.copyfile(model, files / second.name / "1" / "model.onnx")
    with asked(space, second, rate_per_s=RATE_PER_S) as asking:
        return _rollout(space, instead(second, files), asking)


def as_it_must(found: Mapping[str, Any]) -> bool:
    """Promoted with right answers, nothing failed; and what the gate refused was taken back."""
    good = found["outcome"] == "Promoted" and "Canary" in found["phases"]
    good = good and not found["golden_wrong"] and not found["failed"] + found["wrong"]
    if found["name"] != HURT:
        return good
    bad = found["by_hand"]
    refused = (bad["outcome"], bad["reason"]) == ("RolledBack", "GoldenRequestsFailed")
    return good and refused and "Canary" not in bad["phases"] and not bad["failed"] + bad["wrong"]


def told(found: Mapping[str, Any]) -> str:
    """What was seen, in a line."""
    parts = [f"{found['candidate']}: {_seen(found)}"]
    if "by_hand" in found:
        parts.append(f"{found['by_hand']['candidate']} by hand: {_seen(found['by_hand'])}")
    return "; ".join(parts)


def _seen(found: Mapping[str, Any]) -> str:
    words = f"{found['outcome']} {found['reason']}".strip()
    return (
        f"{words} in {found['took_s']} s, {found['requests']} requests, {found['failed']} failed, "
        f"{found['wrong']} wrong"
    )
