"""Command line of the embedded cluster: up, down, status, build, images, install, kwok."""

import argparse
import os
import sys
from collections.abc import Sequence

from e2e.cluster import addons, gobuild, images, installation, lifecycle, node_images, preflight
from e2e.cluster.gobuild import BuildFailed
from e2e.cluster.kube import KubeError, NotReached
from e2e.cluster.processes import ProcessFailed
from e2e.cluster.progress import Progress
from e2e.cluster.settings import Settings

CHART_IMAGES = (images.OPERATOR, images.FETCH)
"""What a reader's own cluster needs from here; Triton's and Envoy's come from their makers."""

FAILURES = (
    preflight.Unfit,
    BuildFailed,
    ProcessFailed,
    NotReached,
    KubeError,
    addons.HelmFailed,
    installation.PodCrashes,
    lifecycle.NotClean,
)
"""What a command here may fail with; the message says why."""


def _current(progress: Progress) -> None:
    """Build the project's own images for the reader's own cluster and say what to do with them."""
    preflight.for_images(progress)
    archives = {name: images.build_archive(name, progress) for name in CHART_IMAGES}
    print("CLUSTER=current: your kubeconfig's cluster is used, nothing is started here.")
    print("Bring these images to its nodes, or push them to a registry they can reach:\n")
    for name, path in archives.items():
        print(f"  {name}\n    {path}")
    print(
        "\nkind:      kind load image-archive FILE\n"
        "minikube:  minikube image load FILE\n"
        "k3s:       k3s ctr images import FILE\n"
        "registry:  skopeo copy docker-archive:FILE docker://REGISTRY/NAME, then install\n"
        "           with --set global.imageRegistry=REGISTRY\n\n"
        "then:      helm install tidegate helm/tidegate -n tidegate-system --create-namespace"
    )


def _status(settings: Settings) -> int:
    whole = lifecycle.is_whole(settings)
    print("up" if whole else "not up")
    if whole:
        print(f"KUBECONFIG={settings.kubeconfig}")
        print(f"S3 {settings.s3_endpoint} {settings.s3_access_key} {settings.s3_secret_key}")
        print(f"Prometheus {settings.prometheus_url}")
    for line in () if whole else lifecycle.leftovers(settings):
        print(f"  {line}")
    return 0 if whole else 1


def _images(settings: Settings, names: Sequence[str], progress: Progress) -> None:
    """Build what changed, and put it into the node if there is one."""
    if unknown := set(names) - set(images.for_node()):
        raise BuildFailed(f"no such image: {sorted(unknown)}; there are {images.for_node()}")
    if lifecycle.is_whole(settings):
        changed = node_images.bring_in(settings, names, progress)
        progress.say(f"changed: {', '.join(changed) or 'nothing'}")
        return
    preflight.for_build(progress)
    for name in names:
        print(images.build_archive(name, progress))
    progress.say("the cluster is not up: it takes these when it comes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring the cluster up; no-op if it is")
    down = commands.add_parser("down", help="stop it and remove all it made but caches")
    down.add_argument("--purge", action="store_true", help="the node's image store too")
    commands.add_parser("status", help="say whether it is up, and where")
    commands.add_parser("build", help="build all programs and images into the cache, start nothing")
    some = commands.add_parser("images", help="build what changed and put it into the node")
    some.add_argument("names", nargs="*", help="default: all")
    commands.add_parser("install", help="install the operator's chart with its defaults")
    commands.add_parser("kwok", help="build kwok and print where it lies")
    return parser


def _run(arguments: argparse.Namespace, progress: Progress) -> int:
    settings = Settings()
    current = os.environ.get("CLUSTER", "embedded") == "current"
    match arguments.command:
        case "up" | "images" if current:
            _current(progress)
        case "down" if current:
            print("CLUSTER=current: the cluster is yours, nothing to stop here.")
        case "up":
            lifecycle.up(settings, progress)
        case "down":
            lifecycle.down(settings, progress, purge=arguments.purge)
        case "status":
            return _status(settings)
        case "images":
            _images(settings, arguments.names or images.for_node(), progress)
        case "install":
            print(addons.install_chart(settings, progress))
        case "build":
            preflight.for_build(progress)
            lifecycle.build_everything(progress)
        case "kwok":
            print(gobuild.build("kwok", progress))
    return 0


def main() -> int:
    """Run one command. Returns the exit status: 1 with the reason on stderr."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments, Progress())
    except FAILURES as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
