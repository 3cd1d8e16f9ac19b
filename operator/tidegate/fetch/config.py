"""``config.pbtxt``: the artefact's own or a generated one, then the tuning, then the override.

Messages are those of `tidegate.resources.model_config`, which knows which fields were set. What
Triton would only say once the pod runs, and can be known before, is refused here. Pure.
"""

from collections.abc import Mapping
from typing import Any

from tidegate.fetch.errors import ArtifactInvalid, ConfigInvalid, UnknownBackend
from tidegate.fetch.layout import BACKENDS, CONFIG, PLATFORMS, is_version
from tidegate.resources.model_config import ModelConfig, parse_pbtxt, to_pbtxt
from tidegate.resources.model_config import merge as merge_into
from tidegate.resources.triton_config import complete_warmup

OVERRIDE_FIELD = "spec.model.config.override"
# Backends that cannot find out a model's inputs and outputs; Triton's autocompletion needs help.
_NEED_INPUTS = frozenset({"pytorch", "fil"})


def parse(text: str, where: str) -> Any:
    """A ModelConfig from the text of a config.pbtxt.

    Raises:
        ConfigInvalid: with line and column.
    """
    try:
        return parse_pbtxt(text, where=where)
    except ValueError as exc:
        raise ConfigInvalid(where, "", str(exc), "Correct it") from exc


def merge(base: Any, *overlays: Any) -> Any:
    """A new message: the overlays over the base, the last one wins.

    A scalar replaces (also with its zero), a message merges field by field, a map key by key, a
    list replaces the whole list, and a member of a oneof displaces the others.
    """
    out = ModelConfig()
    out.CopyFrom(base)
    for overlay in overlays:
        if overlay.HasField("dynamic_batching") and out.HasField("ensemble_scheduling"):
            raise ConfigInvalid(
                "spec.model.config.dynamicBatching",
                "on",
                "an ensemble has no batcher of its own",
                "Leave it out; tune the composing models in their own config.pbtxt",
            )
        merge_into(out, overlay)
    return out


def generated(backend: str, parameters: Mapping[str, str]) -> Any:
    """The configuration of a bare artefact that brings none.

    Args:
        backend: Triton's name for it.
        parameters: what the layout found out; for FIL also the shape of the forest.
    """
    config = ModelConfig()
    if platform := parameters.get("platform"):
        config.platform = platform
    else:
        config.backend = backend
    if backend == "fil":
        _forest(config, parameters)
    return config


def _forest(config: Any, parameters: Mapping[str, str]) -> None:
    """Inputs and outputs of a forest (names are FIL's own); classes only as probabilities."""
    config.parameters["model_type"].string_value = parameters["model_type"]
    features = parameters.get("num_feature")
    if features is None or int(features) == 0:
        return
    classes = int(parameters.get("num_class", "1"))
    many = classes > 1
    config.parameters["output_class"].string_value = "false"
    if many:
        config.parameters["predict_proba"].string_value = "true"
    entry = config.input.add()
    entry.name, entry.data_type = (
        "input__0",
        entry.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name["TYPE_FP32"].number,
    )
    entry.dims.append(int(features))
    out = config.output.add()
    out.name, out.data_type = "output__0", entry.data_type
    out.dims.append(classes if many else 1)
    config.max_batch_size = 32768  # FIL's own examples: a batch of rows is one call


def backend_of(config: Any) -> str | None:
    """The backend that a configuration names, by either field; None if none."""
    if config.backend:
        return str(config.backend)
    if config.HasField("ensemble_scheduling"):
        return "ensemble"
    return PLATFORMS.get(config.platform, config.platform or None)


def backend_by_file(names: Mapping[str, object] | tuple[str, ...]) -> str | None:
    """The backend that Triton would take by the name of a file in a version folder."""
    known = {
        "model.onnx": "onnxruntime",
        "model.plan": "tensorrt",
        "model.pt": "pytorch",
        "model.savedmodel": "tensorflow",
        "model.graphdef": "tensorflow",
        "model.xml": "openvino",
        "model.py": "python",
        "xgboost.json": "fil",
        "xgboost.ubj": "fil",
        "xgboost.model": "fil",
        "checkpoint.tl": "fil",
    }
    found = {backend for name, backend in known.items() if name in names}
    return found.pop() if len(found) == 1 else None


def check(
    config: Any,
    model: str,
    paths: tuple[str, ...],
    models: tuple[str, ...],
    stated: str | None = None,
) -> str:
    """Everything about one model's configuration that can be known without Triton.

    Args:
        config: merged.
        model: its folder.
        paths: files in that folder, relative to it; folders that stay empty with a ``/``.
        models: all folders of the repository.
        stated: spec.model.backend.

    Returns:
        The backend.

    Raises:
        ConfigInvalid: a contradiction.
        UnknownBackend: no such backend.
        ArtifactInvalid: the backend finds no file to load.
    """
    where = f"{model}/{CONFIG}"
    if config.name and config.name != model:
        raise ConfigInvalid(
            f"{where} name",
            config.name,
            f"the model is served as {model!r}",
            f"Set spec.model.name to {config.name!r}, or take the name out of {CONFIG}",
        )
    versions = {p.partition("/")[0] for p in paths if "/" in p and is_version(p.partition("/")[0])}
    inside = tuple({p.split("/")[1] for p in paths if p.partition("/")[0] in versions} - {"."})
    backend = backend_of(config) or backend_by_file(inside)
    _check_backend(backend, where, stated, inside)
    assert backend is not None
    _check_versions(config, where, versions, paths, backend)
    _check_files(config, where, versions, paths, backend)
    _check_batching(config, where)
    _check_tensors(config, where, backend)
    _check_ensemble(config, where, models)
    return backend


def _check_backend(
    backend: str | None, where: str, stated: str | None, files: tuple[str, ...]
) -> None:
    if backend is None:
        raise UnknownBackend(
            where,
            ", ".join(sorted(files)) or "no files",
            "it names no backend, and the files in the version folder tell none",
            f"Set backend in {CONFIG}, or spec.model.backend",
        )
    if stated is not None and stated != backend:
        raise ConfigInvalid(
            "spec.model.backend",
            stated,
            f"{where} says {backend!r}",
            "Leave spec.model.backend out, or correct one of them",
        )
    if backend not in BACKENDS and stated is None:
        raise UnknownBackend(
            f"{where} backend",
            backend,
            "it is not one of Triton's",
            f"Use one of {', '.join(sorted(BACKENDS))}; for a backend that your runtime image "
            "brings, set spec.model.backend to its name too",
        )


def _check_versions(
    config: Any, where: str, versions: set[str], paths: tuple[str, ...], backend: str
) -> None:
    wanted = {str(v) for v in config.version_policy.specific.versions}
    if missing := sorted(wanted - versions, key=int):
        raise ConfigInvalid(
            f"{where} version_policy",
            ", ".join(missing),
            f"no such version folder; there are {', '.join(sorted(versions, key=int))}",
            "Correct spec.model.tritonVersion or the version policy",
        )
    name = config.default_model_filename
    if name and backend != "ensemble":
        for version in sorted(versions, key=int):
            start = f"{version}/{name}"
            if not any(p == start or p.startswith(start + "/") for p in paths):
                raise ConfigInvalid(
                    f"{where} default_model_filename",
                    name,
                    f"version folder {version} has no such file",
                    "Correct the name, or add the file",
                )


# What each backend loads from a version folder unless default_model_filename says otherwise.
_FILES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("model.onnx",),
    "tensorrt": ("model.plan",),
    "pytorch": ("model.pt",),
    "tensorflow": ("model.savedmodel", "model.graphdef"),
    "openvino": ("model.xml",),
    "python": ("model.py",),
    "fil": ("xgboost.json", "xgboost.ubj", "xgboost.model", "model.txt", "checkpoint.tl"),
}


def _check_files(
    config: Any, where: str, versions: set[str], paths: tuple[str, ...], backend: str
) -> None:
    """The newest version folder holds a file that the backend loads.

    Raises:
        ArtifactInvalid: it does not.
    """
    wanted = _FILES.get(backend)
    if wanted is None or config.default_model_filename or config.cc_model_filenames:
        return
    newest = max(versions, key=int, default="1")
    inside = {p.split("/")[1] for p in paths if p.startswith(f"{newest}/")} - {"."}
    if not inside & set(wanted):
        raise ArtifactInvalid(
            f"{where.partition('/')[0]}/{newest}",
            ", ".join(sorted(inside)) or "no files",
            f"backend {backend!r} looks for {' or '.join(wanted)}",
            "Rename the file, or set default_model_filename in the configuration",
        )


def _check_batching(config: Any, where: str) -> None:
    if config.max_batch_size < 0:
        raise ConfigInvalid(
            f"{where} max_batch_size", config.max_batch_size, "it is negative", "Write 0 or more"
        )
    largest = max(config.dynamic_batching.preferred_batch_size, default=0)
    if config.max_batch_size and largest > config.max_batch_size:
        raise ConfigInvalid(
            f"{where} preferred_batch_size",
            largest,
            f"it is above max_batch_size, {config.max_batch_size}",
            "Lower it, or raise spec.model.config.maxBatchSize",
        )


def _check_tensors(config: Any, where: str, backend: str) -> None:
    for kind, entries in (("input", config.input), ("output", config.output)):
        names = [e.name for e in entries]
        for entry in entries:
            problem = None
            if not entry.name:
                problem = "it has no name"
            elif names.count(entry.name) > 1:
                problem = "the name comes twice"
            elif not entry.data_type:
                problem = "it has no data_type"
            elif not entry.dims:
                problem = "it has no dims"
            elif any(d == 0 or d < -1 for d in entry.dims):
                problem = f"dims {list(entry.dims)} hold a number that is neither -1 nor positive"
            if problem:
                raise ConfigInvalid(f"{where} {kind}", entry.name, problem, "Correct it")
    if backend in _NEED_INPUTS and not (config.input and config.output):
        raise ConfigInvalid(
            f"{where} input and output",
            "missing",
            f"Triton cannot find them out for backend {backend!r}",
            f"Put a {CONFIG} beside the model, or give input and output in {OVERRIDE_FIELD}",
        )


def _check_ensemble(config: Any, where: str, models: tuple[str, ...]) -> None:
    if config.platform == "ensemble" and not config.ensemble_scheduling.step:
        raise ConfigInvalid(
            f"{where} ensemble_scheduling", "missing", "an ensemble needs steps", "Add them"
        )
    for step in config.ensemble_scheduling.step:
        if step.model_name not in models:
            raise ConfigInvalid(
                f"{where} ensemble step",
                step.model_name,
                f"the repository holds {', '.join(models)}",
                "Add the composing model beside the ensemble",
            )


def finish(config: Any, model: str) -> str:
    """The text that Triton reads, with the folder's name and a complete warm-up.

    Raises:
        ConfigInvalid: the warm-up does not fit the model.
    """
    config.name = model
    try:
        complete_warmup(config)
    except ValueError as exc:
        raise ConfigInvalid("spec.model.config.warmup", "on", str(exc), "Correct it") from exc
    return to_pbtxt(config)
