"""Container images without a registry: built by buildah from Dockerfiles, kept as archives.

An image's key is made of its Dockerfile, the files its build reads, and the keys of the images and
programs it stands on. The archive NAME-KEY.tar under paths.CACHE is what goes into the node. The
base image is made by mmdebstrap under the name that the Dockerfiles use.
"""

import configparser
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from e2e.cluster import gobuild, mounts, paths
from e2e.cluster.gobuild import BuildFailed
from e2e.cluster.processes import run_tool
from e2e.cluster.progress import Progress

BASE = "debian:bookworm-slim"
PIP = "tidegate-e2e/pip:1"
PAUSE = "tidegate-e2e/pause:1"
OPERATOR = "tidegate/operator:0.1.0"
FETCH = "tidegate/fetch:0.1.0"
PREPARE = "tidegate/prepare:0.1.0"
TRITON = "nvidia/tritonserver:24.10-py3"
ENVOY = "envoyproxy/envoy:v1.40.0"
ENVOY_GATEWAY = "tidegate-e2e/envoy-gateway:1.9.1"
SEAWEEDFS = "tidegate-e2e/seaweedfs:4.48"
PROMETHEUS = "tidegate-e2e/prometheus:0.315"


@dataclass(frozen=True)
class Image:
    """What one image is built from; `inputs` are files or folders under `context`."""

    name: str
    dockerfile: Path
    context: Path
    inputs: tuple[str, ...] = ()
    target: str = ""
    bases: tuple[str, ...] = (BASE,)
    programs: tuple[str, ...] = ()
    in_node: bool = True
    """Whether the node always holds it; a builder stage stays with buildah, and what one slow test
    needs is brought in by that test."""


def _stand_in(
    folder: str,
    name: str,
    *inputs: str,
    bases: tuple[str, ...] = (BASE,),
    programs: tuple[str, ...] = (),
    in_node: bool = True,
) -> Image:
    directory = paths.IMAGE_SOURCES / folder
    return Image(
        name,
        directory / "Dockerfile",
        directory,
        inputs,
        bases=bases,
        programs=programs,
        in_node=in_node,
    )


_OPERATOR_INPUTS = ("pyproject.toml", "README.md", "requirements", "operator/tidegate")
_OPERATOR_DOCKERFILE = paths.REPOSITORY / "operator" / "Dockerfile"

IMAGES = {
    image.name: image
    for image in (
        _stand_in("pause", PAUSE, bases=(), programs=("pause",)),
        _stand_in("pip", PIP, in_node=False),
        _stand_in("envoy", ENVOY, "requirements.txt", bases=(BASE, PIP)),
        _stand_in("tritonserver", TRITON, "server.txt", "python.txt", bases=(BASE, PIP)),
        Image(OPERATOR, _OPERATOR_DOCKERFILE, paths.REPOSITORY, _OPERATOR_INPUTS, "operator"),
        Image(FETCH, _OPERATOR_DOCKERFILE, paths.REPOSITORY, _OPERATOR_INPUTS, "fetch"),
        Image(
            PREPARE,
            _OPERATOR_DOCKERFILE.with_suffix(".prepare"),
            paths.REPOSITORY,
            _OPERATOR_INPUTS,
            bases=(BASE, TRITON),
            in_node=False,
        ),
        _stand_in("seaweedfs", SEAWEEDFS, "requirements.txt", bases=(BASE, PIP)),
        _stand_in("prometheus", PROMETHEUS, bases=(), programs=("prometheus",)),
        _stand_in("envoy-gateway", ENVOY_GATEWAY, bases=(), programs=("envoy-gateway",)),
    )
}
"""In the order of building: an image comes after its bases."""


def base_arguments() -> list[str]:
    """Return mmdebstrap's arguments from the recipe, without its comments."""
    lines = (paths.IMAGE_SOURCES / "base" / "recipe.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _files(context: Path, inputs: Sequence[str]) -> Iterable[Path]:
    for entry in inputs:
        path = context / entry
        found = path.rglob("*") if path.is_dir() else [path]
        yield from sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts)


def key(name: str) -> str:
    """Return the first 16 hex digits of the hash of all that shapes the image."""
    digest = hashlib.sha256()

    def add(part: str | bytes) -> None:
        digest.update((part.encode() if isinstance(part, str) else part) + b"\0")

    if name == BASE:
        for argument in base_arguments():
            add(argument)
        return digest.hexdigest()[:16]
    image = IMAGES[name]
    add(image.name)
    add(image.target)
    add(image.dockerfile.read_bytes())
    for path in _files(image.context, image.inputs):
        add(str(path.relative_to(image.context)))
        add(path.read_bytes())
    for base in image.bases:
        add(key(base))
    for program in image.programs:
        add(gobuild.key(gobuild.PROGRAMS[program], paths.GO_SOURCES, gobuild.go_release()))
    return digest.hexdigest()[:16]


def archive(name: str) -> Path:
    """Return where the image's archive of today's content lies, built or not."""
    return paths.CACHE / "images" / f"{_slug(name)}-{key(name)}.tar"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name)


def normalised(name: str) -> str:
    """Return the name as containerd keeps it: with the default registry and namespace.

    The registry is read off what containerd says, never written down here; see `same`.
    """
    return name if "/" in name else f"library/{name}"


def same(listed: str, name: str) -> bool:
    """Say whether containerd's full image name means `name`."""
    return listed == name or listed.endswith("/" + normalised(name))


@cache
def _buildah_environment() -> dict[str, str]:
    """Settings of buildah's own storage, so that nothing of the machine's is touched or needed."""
    folder = paths.CACHE / "buildah"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    )
    (folder / "registries.conf").write_text("unqualified-search-registries = []\n")
    (folder / "policy.json").write_text(
        json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
    )
    return {
        **os.environ,
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "BUILDAH_ISOLATION": "chroot",
        "TMPDIR": str(folder),
    }


@cache
def _pip_settings() -> dict[Path, str]:
    """Files to show to pip inside a build: {path here: path there}.

    Whoever works behind a private mirror or authority has told this machine's pip already (by
    /etc/pip.conf or PIP_*); the Dockerfiles need not know. /etc/ssl/certs itself is not shown,
    or installing ca-certificates in an image would fail.
    """
    folder = paths.CACHE / "buildah"
    settings = configparser.ConfigParser(interpolation=None)
    settings.read("/etc/pip.conf")
    if not settings.has_section("global"):
        settings.add_section("global")
    for option in ("index-url", "extra-index-url", "trusted-host", "timeout"):
        if value := os.environ.get("PIP_" + option.upper().replace("-", "_")):
            settings.set("global", option, value)
    shown: dict[Path, str] = {}
    for candidate in (os.environ.get("PIP_CERT"), "/etc/ssl/certs/ca-certificates.crt"):
        if candidate and Path(candidate).is_file():
            settings.set("global", "cert", "/run/build-ca.crt")
            shown[Path(candidate)] = "/run/build-ca.crt"
            break
    with (folder / "pip.conf").open("w") as sink:
        settings.write(sink)
    return {**shown, folder / "pip.conf": "/etc/pip.conf"}


def _run(command: Sequence[str | Path], what: str) -> str:
    done = run_tool(["nice", *command], environment=_buildah_environment())
    if done.returncode != 0:
        raise BuildFailed(f"{what} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout.strip()


def _policy() -> str:
    return f"--signature-policy={paths.CACHE / 'buildah' / 'policy.json'}"


def _in_storage(name: str, content_key: str) -> bool:
    """Say whether buildah's storage holds the image of exactly this content."""
    done = run_tool(
        ["buildah", "images", "--format", "{{.Name}}:{{.Tag}}", "--filter", _label(content_key)],
        environment=_buildah_environment(),
    )
    return done.returncode == 0 and any(same(listed, name) for listed in done.stdout.split())


_KEY_LABEL = "dev.tidegate.e2e.key"


def _label(content_key: str) -> str:
    return f"label={_KEY_LABEL}={content_key}"


def _build_base(progress: Progress) -> None:
    content_key = key(BASE)
    if _in_storage(BASE, content_key):
        return
    with (
        progress.step(f"mmdebstrap {BASE}"),
        tempfile.TemporaryDirectory(dir=paths.CACHE) as folder,
    ):
        tar = Path(folder) / "base.tar"
        *options, suite = base_arguments()
        _run(["mmdebstrap", "--quiet", *options, suite, tar], "mmdebstrap")
        container = _run(["buildah", "from", "scratch"], "buildah from scratch")
        try:
            _run(["buildah", "add", container, tar, "/"], "buildah add")
            label = f"{_KEY_LABEL}={content_key}"
            _run(
                ["buildah", "config", "--cmd", "bash", "--label", label, container],
                "buildah config",
            )
            _run(["buildah", "commit", _policy(), "--quiet", container, BASE], "buildah commit")
        finally:
            _run(["buildah", "rm", container], "buildah rm")


def _build(image: Image, progress: Progress) -> None:
    """Build the image into buildah's storage unless it is there."""
    content_key = key(image.name)
    if _in_storage(image.name, content_key):
        return
    for base in image.bases:
        if base == BASE:
            _build_base(progress)
        else:
            _build(IMAGES[base], progress)
    binaries = [gobuild.build(program, progress) for program in image.programs]
    with (
        progress.step(f"image {image.name}"),
        tempfile.TemporaryDirectory(dir=paths.CACHE) as programs,
    ):
        for binary in binaries:
            shutil.copy2(binary, programs)
        command: list[str | Path] = [
            "buildah",
            "bud",
            _policy(),
            "--pull-never",
            "--layers",
            "--force-rm",
        ]
        command += ["--network", "host", "--tag", image.name, "--file", image.dockerfile]
        command += ["--label", f"{_KEY_LABEL}={content_key}"]
        command += ["--build-context", f"programs={programs}"]
        if image.target:
            command += ["--target", image.target]
        for source, destination in _pip_settings().items():
            command += ["--volume", f"{source}:{destination}:ro"]
        _run([*command, image.context], f"building {image.name}")


def build_archive(name: str, progress: Progress) -> Path:
    """Return the archive of an image, building what is missing.

    Raises:
        BuildFailed: with the end of the tool's output.
    """
    target = archive(name)
    if target.exists():
        return target
    with storage():
        if target.exists():
            return target
        _build(IMAGES[name], progress)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with progress.step(f"archive {name}"):
            source = f"containers-storage:localhost/{name}"
            destination = f"docker-archive:{partial}:{name}"
            _run(
                ["buildah", "push", _policy(), "--quiet", source, destination], f"archiving {name}"
            )
        partial.replace(target)
        _prune(progress)
    _forget_older(name, target)
    return target


MAX_STORED = 600
"""Every change of the source leaves about ten small layers; at this many they are dropped."""


def _prune(progress: Progress) -> None:
    """Drop the cache of layers once it has grown large; the next build then takes a minute."""
    stored = _run(["buildah", "images", "--all", "--quiet"], "listing images").splitlines()
    if len(stored) > MAX_STORED:
        with progress.step("dropping old layers of images"):
            _run(["buildah", "rmi", "--prune", "--force"], "dropping old layers")


@contextmanager
def storage() -> Iterator[None]:
    """Hold buildah's storage for oneself; at the end nothing of it is mounted any more.

    buildah leaves its storage bind-mounted onto itself, and what a killed build had mounted.
    """
    folder = paths.CACHE / "buildah"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            mounts.unmount(folder)


def _forget_older(name: str, newest: Path, keep: int = 2) -> None:
    """Remove archives of former contents; one is kept for going back and forth."""
    pattern = f"{_slug(name)}-" + "[0-9a-f]" * 16 + ".tar"
    others = [p for p in newest.parent.glob(pattern) if p != newest]
    for path in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[keep - 1 :]:
        path.unlink()


def for_node() -> list[str]:
    """Return the images that the cluster's node holds."""
    return [image.name for image in IMAGES.values() if image.in_node]
