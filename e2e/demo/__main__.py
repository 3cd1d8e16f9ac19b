"""``make demo``: a cluster, the chart, a model that serves, and a story of two minutes about it.

v1 serves; v2 goes live by evidence; a bad v3 is caught in the mirror; a bad v4 is rolled back; load
rises and replicas follow. Each number that is shown was counted by the client or read from status.
It ends with status 1 and says what differed if the story does not go as told.

On the embedded cluster by default. With ``CLUSTER=current`` it uses the reader's own kubeconfig:
nothing is installed there but a namespace with two models; the chart and the images must be there
already (``make cluster`` says how). ``TIDEGATE_DEMO_S3`` names an S3 server that this machine and
the pods reach, ``TIDEGATE_DEMO_GATEWAY`` (``namespace/name``) a Gateway that this machine reaches;
without the latter only act 1 is played. ``TIDEGATE_DEMO_GPUS``: of each pod, 1 by default.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from e2e.cluster import images, installation, lifecycle, node_images
from e2e.cluster.__main__ import FAILURES
from e2e.cluster.kube import KubeClient
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings
from e2e.demo.acts import Played, Player
from e2e.demo.place import NAME, NAMESPACE, SLEEPER, DemoFailed, Place
from e2e.demo.screen import WIDTH, Screen, record
from e2e.demo.story import ACTS, Act, chosen
from tidegate import view
from tidegate.cli import render

NO_GATEWAY = (
    "Acts 2 to 5 are left out: they need a Gateway that this machine reaches, for weights, the "
    "mirror and the client that counts. TIDEGATE_DEMO_GATEWAY=NAMESPACE/NAME names one."
)


@contextmanager
def _embedded(progress: Progress) -> Iterator[Place]:
    settings = Settings()
    lifecycle.up(settings, progress)
    changed = node_images.bring_in(settings, [images.OPERATOR, images.FETCH], progress)
    values = {
        # The demo's S3 server has an address of this cluster; by default only public ones may be
        # fetched from.
        "fetch.allowPrivateAddresses": f"{{{settings.s3_address}/32}}",
        "dashboard.enabled": "true",
    }
    with KubeClient(settings.kubeconfig) as client:
        renewed = images.OPERATOR in changed
        installation.bring_up(client, settings, progress, values=values, renewed=renewed)
        yield Place(
            client,
            settings.s3_endpoint,
            settings.s3_access_key,
            settings.s3_secret_key,
            f"{settings.infra_namespace}/public",
            settings.kubeconfig,
        )


@contextmanager
def _current() -> Iterator[Place]:
    settings = Settings()
    kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    with KubeClient(kubeconfig) as client:
        found = client.get(
            "apiextensions.k8s.io/v1", "CustomResourceDefinition", "modeldeployments.tidegate.dev"
        )
        if found is None:
            raise DemoFailed(
                "Tidegate is not installed in the cluster of your kubeconfig. "
                "CLUSTER=current make cluster builds its images and says how to install the chart."
            )
        endpoint = os.environ.get("TIDEGATE_DEMO_S3")
        if not endpoint:
            raise DemoFailed(
                "TIDEGATE_DEMO_S3 is not set: an S3 endpoint that this machine and the pods reach, "
                "allowed by the chart's fetch.allowPrivateAddresses; credentials in "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        yield Place(
            client,
            endpoint,
            os.environ.get("AWS_ACCESS_KEY_ID", settings.s3_access_key),
            os.environ.get("AWS_SECRET_ACCESS_KEY", settings.s3_secret_key),
            os.environ.get("TIDEGATE_DEMO_GATEWAY", ""),
            None,
        )


def tell(place: Place, screen: Screen, acts: Sequence[Act]) -> list[Played]:
    """Play the acts, then say what came of it and where to look.

    Raises:
        DemoFailed: there is no gateway, and act 1 is not among them.
    """
    if not place.gateway:
        acts = [act for act in acts if act.number == 1]
        screen.note(NO_GATEWAY)
        if not acts:
            raise DemoFailed(NO_GATEWAY)
    began = time.monotonic()
    place.put_versions()
    place.prepare()
    screen.note(
        "v1 and v2 are two generations of Magika, which tells the type of a file from its bytes, "
        "wrapped so that each answer names the version that gave it; they lie in "
        f"s3://models/demo ({time.monotonic() - began:.1f} s)"
    )
    gpus = int(os.environ.get("TIDEGATE_DEMO_GPUS", "1"))
    played = Player(place, screen, gpus=gpus).play(acts)
    took_s = time.monotonic() - began
    times = ", ".join(f"act {one.act.number} {one.seconds:.0f} s" for one in played)
    screen.say(Text(""), Rule(Text("The end", "bold"), align="left", style="dim"))
    screen.say(Text(f"{took_s:.0f} s in all: {times}"))
    _explain(place, screen, played)
    _where_to_look(place, screen)
    return played


def _explain(place: Place, screen: Screen, played: Sequence[Played]) -> None:
    """What ``kubectl tidegate explain`` says now, if a rollout was played."""
    if not any(one.act.outcome for one in played):
        return
    found, now = place.live(NAME), datetime.now(UTC)
    explained = view.explanation(found, view.subject(found), now)
    command = Text(f"$ kubectl tidegate explain {NAME} -n {NAMESPACE}", "bold")
    screen.say(Text(""), command, render.explanation(explained), pictured=False)


def _where_to_look(place: Place, screen: Screen) -> None:
    lines = []
    if place.kubeconfig is not None:
        lines += [("", f"export KUBECONFIG={place.kubeconfig}")]
    lines += [
        ("the command line", "pip install '.[cli]'"),
        ("live", f"kubectl tidegate get {NAME} -n {NAMESPACE} -w"),
        ("what became of each version", f"kubectl tidegate history {NAME} -n {NAMESPACE}"),
        ("the dashboard", "kubectl tidegate dashboard"),
        ("tidy up", f"kubectl delete namespace {NAMESPACE}"),
    ]
    if place.kubeconfig is not None:
        lines.append(("and the cluster", "make cluster-down"))
    told = [f"  {command:<48}" + (f"  # {what}" if what else "") for what, command in lines]
    head = Text("Where to look, and how to tidy up:", "bold")
    screen.say(Text(""), head, *(Text(line.rstrip()) for line in told), pictured=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"without the last act: {SLEEPER} must be measured for a minute before it",
    )
    parser.add_argument(
        "--act",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help=f"only this one, 1 to {len(ACTS)}; may be given several times",
    )
    parser.add_argument("--plain", action="store_true", help="lines only, nothing that moves")
    parser.add_argument(
        "--record", type=Path, metavar="FILE.svg", help="write a picture of what was told"
    )
    return parser


def main() -> int:
    """Run the demo. Returns the exit status: 1 with the reason on stderr."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        acts = chosen(arguments.act, quick=arguments.quick)
    except ValueError as error:
        parser.error(str(error))
    piped = not sys.stdout.isatty()
    console = Console(highlight=False, width=WIDTH if piped else None, soft_wrap=piped)
    screen = Screen(console, live=console.is_terminal and not arguments.plain)
    progress = Progress()
    current = os.environ.get("CLUSTER", "embedded") == "current"
    try:
        with _current() if current else _embedded(progress) as place:
            played = tell(place, screen, acts)
    except (*FAILURES, DemoFailed, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    wrong = [(one.act, line) for one in played for line in one.wrong]
    for act, line in wrong:
        print(f"error: act {act.number} ({act.title}): {line}", file=sys.stderr)
    if wrong:
        return 1
    if arguments.record:
        record(screen.told, "make demo", arguments.record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
