"""Writes the Triton repository: moves the files where the layout says and puts in the config."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.fetch import config as configs
from tidegate.fetch.errors import ConfigInvalid, UnknownBackend, disk_full
from tidegate.fetch.layout import CONFIG, CONFIGS, Layout
from tidegate.fetch.progress import log
from tidegate.fetch.request import FetchRequest
from tidegate.fetch.warmup import warm_up_with
from tidegate.golden import GoldenRequest
from tidegate.resources.model_config import ModelConfig

WORK = ".tidegate-fetch"
"""Working folder inside the target, on the same volume so that moving is renaming."""
MAX_CONFIG_BYTES = 1 << 20
CODE_MEND = (
    "Publish it in a form without code, such as ONNX, or ask the platform team to set "
    "fetch.allowPythonBackend in the chart's values"
)


@dataclass(frozen=True)
class Written:
    """What stands in the target now."""

    backend: str
    layout: str


def write_repository(
    tree: Path,
    layout: Layout,
    request: FetchRequest,
    tuning: str,
    override: str,
    golden: tuple[GoldenRequest, ...] = (),
) -> Written:
    """Make ``target`` the repository that the layout describes.

    Args:
        tree: the source's files; they are moved away.
        layout: for these files.
        request: whose target, model name, backend and policy count.
        tuning: partial ModelConfig, text.
        override: partial ModelConfig, text, merged last.
        golden: what to warm up with, where a warm-up is asked for.

    Raises:
        ConfigInvalid, UnknownBackend: see `tidegate.fetch.config.check`.
    """
    target, model = request.target, request.model_name
    overlays = (
        configs.parse(tuning, "spec.model.config"),
        configs.parse(override, configs.OVERRIDE_FIELD),
    )
    texts: dict[str, str] = {}
    backends: dict[str, str] = {}
    samples: dict[str, bytes] = {}
    models = layout.models()
    for name in models:
        base = base_config(tree, layout, name)
        mine = name == model
        stated = request.backend if mine else None
        if mine and stated and configs.backend_of(base) is None:
            base.backend = stated
        merged = configs.merge(base, *overlays) if mine else base
        paths = paths_of(layout, name)
        backends[name] = configs.check(merged, name, paths, models, stated)
        if mine:
            samples, unfit = warm_up_with(merged, golden, model)
            for key, why in unfit.items():
                log("info", "a golden request does not warm up the model", key=key, why=why)
        texts[name] = configs.finish(merged, name)
    if not request.policy.allow_python_backend:
        _check_no_code(tree, layout, backends)
    _clear(target)
    try:
        for source, to in layout.moves.items():
            place = target / to
            place.parent.mkdir(parents=True, exist_ok=True)
            (tree / source).rename(place)
        for folder in layout.folders:
            (target / folder).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (target / name / CONFIG).write_text(text, encoding="utf-8")
        for path, data in samples.items():
            (target / model / path).parent.mkdir(exist_ok=True)
            (target / model / path).write_bytes(data)
    except OSError as exc:
        raise disk_full(exc, target) or exc from exc
    return Written(backends[model], layout.kind)


def base_config(tree: Path, layout: Layout, name: str) -> Any:
    """The configuration that a model brings, or the one that its kind of artefact needs.

    Raises:
        ConfigInvalid: it cannot be read.
    """
    source = next((s for s, to in layout.moves.items() if to == f"{name}/{CONFIG}"), None)
    if source is None:
        if layout.backend is None:
            return ModelConfig()
        return configs.generated(layout.backend, layout.parameters)
    where = f"{name}/{CONFIG}"
    size = (tree / source).stat().st_size
    if size == 0 or size > MAX_CONFIG_BYTES:
        raise ConfigInvalid(
            where,
            f"{size} bytes",
            "it is empty" if size == 0 else "it is no configuration",
            "Write it, or take it away: a bare artefact needs none",
        )
    try:
        text = (tree / source).read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise ConfigInvalid(where, source, "it is not UTF-8 text", "Write it anew") from exc
    base = configs.parse(text, where)
    if layout.backend is not None and configs.backend_of(base) is None:
        base.MergeFrom(configs.generated(layout.backend, layout.parameters))
    return base


def paths_of(layout: Layout, name: str) -> tuple[str, ...]:
    """The files in a model's folder, relative to it; folders that stay empty end in ``/.``."""
    start = f"{name}/"
    files = [to[len(start) :] for to in layout.moves.values() if to.startswith(start)]
    empty = [f[len(start) :] + "/" for f in layout.folders if f.startswith(start)]
    return tuple(
        p + "." if p.endswith("/") else p
        for p in (*files, *empty)
        if p != CONFIG and not p.startswith(CONFIGS + "/")
    )


def _check_no_code(tree: Path, layout: Layout, backends: Mapping[str, str]) -> None:
    """Refuse models that bring code of their own, where the platform does not let them.

    Code is a Python backend's script, and any shared object: Triton looks for a backend's library
    in the model's own folder first.
    """
    for name, backend in backends.items():
        if backend == "python":
            raise UnknownBackend(
                "backend", f"{backend} (model {name})", "it runs code from the source", CODE_MEND
            )
    for source in layout.moves:
        with (tree / source).open("rb") as f:
            if f.read(4) == b"\x7fELF":
                raise UnknownBackend(
                    "model files", source, "it is a shared library, thus code", CODE_MEND
                )


def _clear(target: Path) -> None:
    """Remove what an earlier run of this container left, but not the working folder."""
    for entry in list(target.iterdir()) if target.is_dir() else []:
        if entry.name in (WORK, "lost+found"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
