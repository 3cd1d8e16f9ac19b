"""From a model's files to its first manifest: what they are is found out as the pod will do it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tidegate.api import names
from tidegate.cli.trouble import Misuse, Trouble
from tidegate.fetch import config as configs
from tidegate.fetch.digest import file_sha256, tree_digest
from tidegate.fetch.errors import FetchError
from tidegate.fetch.layout import CONFIG, lay_out
from tidegate.fetch.probe import probe_tree
from tidegate.fetch.repository import base_config, paths_of
from tidegate.resources.model_config import to_pbtxt

DEFAULT_MEMORY_GIB: Final = 2
MEMORY_FACTOR: Final = 2.0
"""Memory of the pod for a byte of the files: weights, and their copy while they are loaded."""
ARCHIVES: Final = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.zst")
_CPU_ONLY: Final = frozenset({"openvino"})
_GPU_ONLY: Final = frozenset({"tensorrt", "tensorrtllm", "dali"})
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Artefact:
    """What the files of a model are.

    Attributes:
        model: its name.
        backend: Triton's name for what runs it.
        layout: ``repository`` or ``bare``.
        models: folders of the repository.
        files: number of them.
        size: bytes.
        sha256: digest of the tree.
        versions: version folders.
        config: the model's configuration, as text.
        batches: whether the model takes batches.
    """

    model: str
    backend: str
    layout: str
    models: tuple[str, ...]
    files: int
    size: int
    sha256: str
    versions: tuple[str, ...]
    config: str
    batches: bool


def look(path: Path, model: str = "", backend: str | None = None) -> Artefact:
    """Find out what lies there.

    Args:
        path: a file, or a folder.
        model: the name to serve it by; '' means the folder's or file's own.
        backend: Triton's name for what runs it; None: found out.

    Raises:
        Trouble: nothing, or nothing that Triton can run, or more than one thing.
    """
    if not path.exists():
        raise Misuse(f"there is nothing at {path}", "name a model's file or folder")
    if path.is_file() and path.name.endswith(ARCHIVES):
        raise Misuse(f"{path} is an archive", "unpack it, and name the folder")
    root = path if path.is_dir() else path.parent
    sizes = _sizes(path)
    if not sizes:
        raise Misuse(f"{path} holds no files", "name a model's file or folder")
    try:
        probes = probe_tree(root, sizes)
        model = model or _served_as(path, sizes)
        layout = lay_out(probes, model, backend)
        config = base_config(root, layout, model)
        if backend and configs.backend_of(config) is None:
            config.backend = backend
        paths = paths_of(layout, model)
        found = configs.check(config, model, paths, layout.models(), backend)
        digests = {name: file_sha256(root / name) for name in sizes}
    except FetchError as error:
        raise Trouble(error.message.rstrip(".")) from None
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error}") from None
    versions = {p.partition("/")[0] for p in paths if "/" in p}
    return Artefact(
        model=model,
        backend=found,
        layout=layout.kind,
        models=layout.models(),
        files=len(sizes),
        size=sum(sizes.values()),
        sha256=tree_digest(digests),
        versions=tuple(sorted((v for v in versions if v.isdigit()), key=int)),
        config=to_pbtxt(config).strip(),
        batches=config.max_batch_size > 0,
    )


def _sizes(path: Path) -> dict[str, int]:
    if path.is_file():
        return {path.name: path.stat().st_size}
    found = {}
    for folder, below, files in os.walk(path):
        below[:] = sorted(d for d in below if not d.startswith("."))
        for name in files:
            file = Path(folder) / name
            if not name.startswith(".") and file.is_file() and not file.is_symlink():
                found[file.relative_to(path).as_posix()] = file.stat().st_size
    return found


def _served_as(path: Path, sizes: dict[str, int]) -> str:
    """The model's name: the one folder with a configuration, else the folder's or file's own."""
    tops = {
        name.split("/")[0] for name in sizes if name.count("/") == 1 and name.endswith("/" + CONFIG)
    }
    if len(tops) == 1 and CONFIG not in sizes:
        return tops.pop()
    own = path.resolve()
    name = own.name if own.is_dir() else own.stem
    if name in ("model", "1", "") or name.isdigit():
        name = own.parent.name or "model"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip(".-") or "model"


def deployment_name(text: str) -> str:
    """A name that a ModelDeployment may have, as close as possible.

    Raises:
        Trouble: nothing is left of it.
    """
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    found = found.lstrip("0123456789-")[: names.MAX_NAME_LENGTH].rstrip("-")
    if not _NAME.fullmatch(found):
        raise Misuse(f"{text!r} cannot be a ModelDeployment's name", "give one: --name")
    return found


def manifest(found: Artefact, *, name: str, uri: str, gpu: bool | None, pin: bool) -> str:
    """The manifest, with what is behind it as comments.

    Args:
        found: what the files are.
        name: of the ModelDeployment.
        uri: where the files will lie; '' for a place to fill in.
        gpu: whether it needs one; None: by its backend.
        pin: write the digest: other bytes are refused.
    """
    on_gpu = gpu if gpu is not None else found.backend not in _CPU_ONLY
    memory_gib = max(DEFAULT_MEMORY_GIB, -(-int(found.size * MEMORY_FACTOR) // (1 << 30)) + 1)
    runtime: list[str] = []
    if not on_gpu:
        runtime.append("    gpu: {count: 0}")
    if memory_gib > DEFAULT_MEMORY_GIB + 1:
        runtime.append(f"    resources: {{memory: {memory_gib}Gi}}")
    stated = [] if found.layout == "repository" else [f"    backend: {found.backend}"]
    served = [] if found.model == name else [f"    name: {found.model}"]
    kind = "a Triton repository" if found.layout == "repository" else "one model's files"
    versions = f", version{'s' if len(found.versions) > 1 else ''} {', '.join(found.versions)}"
    lines = [
        f"# {kind}: {found.files} {'file' if found.files == 1 else 'files'}, "
        f"{_size(found.size)}, backend {found.backend}"
        + (versions if found.layout == "repository" and found.versions else ""),
    ]
    if len(found.models) > 1:
        lines.append(f"# with the models {', '.join(found.models)}")
    if not uri:
        lines.append("# Put the files there first, or say where they are; s3, https, oci, pvc, ...")
    if on_gpu and gpu is None and found.backend not in _GPU_ONLY:
        lines.append("# One GPU a pod. Where it is to run without: runtime: {gpu: {count: 0}}")
    lines += [
        f"apiVersion: {names.API_VERSION}",
        f"kind: {names.KIND}",
        f"metadata: {{name: {name}}}",
        "spec:",
        "  model:",
        *served,
        *stated,
        "    source:",
        f"      uri: {uri or f's3://models/{name}/1'}",
        *([f"      sha256: {found.sha256}"] if pin else []),
        *(["  runtime:", *runtime] if runtime else []),
        "  slo:",
        "    # What clients are promised; without a latency only errors decide.",
        '    latency: {quantile: "0.99", target: 100ms}',
        '    maxErrorRate: "1%"',
        "",
    ]
    return "\n".join(lines)


def as_document(found: Artefact) -> dict[str, Any]:
    """The same facts as JSON."""
    return {
        "model": found.model,
        "backend": found.backend,
        "layout": found.layout,
        "models": list(found.models),
        "files": found.files,
        "bytes": found.size,
        "sha256": found.sha256,
        "versions": list(found.versions),
        "config": found.config,
        "batches": found.batches,
    }


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
