"""The phases of a pod's start, the first and the second time, with and without a shared cache.

``python -m e2e.bench.cold_start`` serves Magika on the embedded cluster, made larger by a file of
random bytes, once without and once with a claim for ``runtime.cache``: one pod, then a second one.
Images are on the node, the model lies in the cluster's S3 server on this very machine. What each
pod took is read as the operator reads it (`tidegate.cold_start`), so in whole seconds; the fetch
tells its own time more finely.
"""

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from e2e.bench.first_inference import fetch_report
from e2e.bench.report import Report, parser
from e2e.bench.stage import API, BUCKET, KIND, Stage, stage
from e2e.cluster import paths
from e2e.cluster.kube import Object, wait_for
from e2e.cluster.progress import Progress
from e2e.demo.upload import upload
from e2e.models.magika import build as magika
from e2e.tests.volumes import claim, volume
from tidegate.cold_start import ColdStart, cold_start

NAMESPACE: Final = "bench-cold"
PREFIX: Final = "cold"
CLAIM: Final = "models"
READY_SECONDS: Final = 300.0
MIB: Final = 1 << 20


def put_model(scene: Stage, mebibytes: int) -> str:
    """Upload Magika with so many random bytes beside it; the model's address."""
    good = magika.build(paths.CACHE / "magika" / "repositories")["v3"]
    with tempfile.TemporaryDirectory(prefix="tidegate-cold-") as folder:
        repository = Path(folder) / "models"
        shutil.copytree(good, repository)
        with (repository / magika.MODEL / "1" / "weights.bin").open("wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(MIB))
        upload(
            repository,
            f"{BUCKET}/{PREFIX}",
            endpoint=scene.settings.s3_endpoint,
            access_key=scene.settings.s3_access_key,
            secret_key=scene.settings.s3_secret_key,
        )
    return f"s3://{BUCKET}/{PREFIX}"


def starts(scene: Stage, item: Object) -> list[tuple[ColdStart, dict[str, Any]]]:
    """Serve with one pod, then with two: each one's start, and what its fetch reported."""
    name = item["metadata"]["name"]
    found: dict[str, tuple[ColdStart, dict[str, Any]]] = {}
    for replicas in (1, 2):
        item["spec"]["replicas"] = replicas
        scene.client.apply(item)

        def all_started(wanted: int = replicas) -> bool:
            for pod in scene.pods(name):
                start = cold_start(pod)
                if start is not None:
                    found.setdefault(pod["metadata"]["uid"], (start, fetch_report(pod)))
            return len(found) == wanted

        wait_for(all_started, f"{replicas} pods of {name} Ready", timeout_seconds=READY_SECONDS)
    scene.client.delete(API, KIND, name, scene.namespace)
    wait_for(lambda: not scene.pods(name), f"pods of {name} gone", timeout_seconds=READY_SECONDS)
    return list(found.values())


def main() -> int:
    """The command line."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--megabytes", type=int, default=256, help="of the model")
    given = options.parse_args()
    progress = Progress()
    report = Report("cold_start", f"the start of a pod with a model of {given.megabytes} MiB")
    report.await_quiet(given.patience)
    found: dict[str, list[tuple[ColdStart, dict[str, Any]]]] = {}
    with stage(NAMESPACE, progress) as scene:
        uri = put_model(scene, given.megabytes)
        for number in range(given.runs):
            for way in ("no cache", "cache"):
                with ExitStack() as stack, progress.step(f"run {number + 1}, {way}"):
                    item = scene.model_deployment(f"cold-{number}-{way.split()[0]}", gpus=0)
                    item["spec"]["model"]["source"]["uri"] = uri
                    if way == "cache":
                        # Another one each time: the first start finds it empty.
                        named = f"{NAMESPACE}-{number}"
                        stack.enter_context(volume(scene.client, named))
                        shared = claim(f"{CLAIM}-{number}", named)
                        shared["metadata"]["namespace"] = scene.namespace
                        scene.client.apply(shared)
                        item["spec"]["runtime"]["cache"] = {"claimName": f"{CLAIM}-{number}"}
                    for which, start in zip(("first", "second"), starts(scene, item), strict=True):
                        found.setdefault(f"{way}, {which} start", []).append(start)
    for title, each in found.items():
        for phase in ("schedule", "image", "fetch", "load", "ready", "total"):
            seconds = [float(getattr(start.phases, phase)) for start, _ in each]
            report.add(f"{title}: {phase}", "s", seconds)
        own = [float(told["seconds"]) for _, told in each]
        report.add(f"{title}: the fetch by itself", "s", own)
        report.facts[title] = [{"cached": start.cached} for start, _ in each]
    report.finish(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
