"""From files to a Triton model repository: pure; sees names, sizes and heads, never the disk.

Two kinds of source:

* a **repository**: one model folder (``config.pbtxt`` or numeric version folders at its root), or
  several of them side by side (an ensemble with its composing models). Kept as it is.
* a **bare artefact**: the files of one model as a framework wrote them. They go to version folder
  ``1`` under the name that the backend looks for.

What fits nothing, or more than one thing, is refused with what was seen: a guess would show
itself only when Triton loads the wrong thing.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from tidegate.fetch.errors import ArtifactInvalid, FetchError, LayoutAmbiguous, UnknownBackend

CONFIG = "config.pbtxt"
CONFIGS = "configs"  # Triton's named configurations, --model-config-name
FIELD = "model files"
SHOWN_FILES = 10

# Triton backends known here; "ensemble" is a platform inside the server rather than a backend.
BACKENDS = frozenset(
    {"onnxruntime", "tensorrt", "pytorch", "tensorflow", "openvino", "python", "fil", "dali"}
    | {"vllm", "tensorrtllm", "identity", "repeat", "square", "ensemble", "torch_aoti"}
)
PLATFORMS: Mapping[str, str] = {
    # The older field `platform` and the backend that it means (Triton's model_config_utils.cc).
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
    "ensemble": "ensemble",
}
_IGNORED = re.compile(
    r"(?i)(^|/)(\.[^/]+|__pycache__|readme(\.\w+)?|licen[cs]e(\.\w+)?|notice(\.\w+)?|lost\+found"
    r"|model\.sig)"
    r"(/|$)"
)


@dataclass(frozen=True)
class Probe:
    """One file as the layout sees it.

    Attributes:
        path: below the tree's root.
        size: bytes.
        head: the first bytes (all of a small file).
        tail: the last bytes of a file that is longer than its head.
        members: names inside, if it is a zip file.
    """

    path: str
    size: int
    head: bytes = b""
    tail: bytes = b""
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Where each file goes.

    Attributes:
        kind: ``repository`` or ``bare``.
        backend: what the artefact is for; None: its own configuration must say so.
        moves: path in the tree to path below the target (``<model>/1/model.onnx``).
        folders: folders that must exist though they are empty.
        parameters: what a generated configuration must say besides the backend.
    """

    kind: str
    backend: str | None
    moves: Mapping[str, str]
    folders: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)

    def models(self) -> tuple[str, ...]:
        """The folders in the repository."""
        return tuple(sorted({to.partition("/")[0] for to in self.moves.values()}))


@dataclass(frozen=True)
class Artefact:
    """A candidate found in the tree: what it is, and the file or folder that shows it."""

    backend: str
    what: str
    path: str
    name: str
    is_folder: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)


def lay_out(probes: Iterable[Probe], model_name: str, backend: str | None = None) -> Layout:
    """Find out what the files are and where they go.

    Files that say nothing about the model (README, hidden ones) are no ground for a judgement;
    inside a repository's model folders they are kept all the same.

    Args:
        probes: all files of the tree.
        model_name: the model that is to be served.
        backend: what the user says it is; narrows the search.

    Raises:
        LayoutAmbiguous: they fit more than one thing, or no model.
        UnknownBackend: they fit nothing.
        ArtifactInvalid: they are a model folder, but one that Triton cannot load.
    """
    everything = {p.path: p for p in probes}
    visible = {path: p for path, p in everything.items() if not _IGNORED.search(path)}
    wrapper = _wrapper(visible, model_name)
    inner = _below(visible, wrapper)
    if _is_model_folder(inner):
        return _model_folder(_below(everything, wrapper), wrapper, model_name)
    folders = _model_folders(inner)
    if folders:
        loose = sorted(p for p in inner if p.partition("/")[0] not in folders)
        return _repository(_below(everything, wrapper), folders, loose, wrapper, model_name)
    return _bare(inner, wrapper, model_name, backend)


def _below(files: Mapping[str, Probe], start: str) -> dict[str, Probe]:
    return {
        path[len(start) :]: replace(p, path=path[len(start) :])
        for path, p in files.items()
        if path.startswith(start)
    }


# -- repositories ---------------------------------------------------------------------------------


def is_version(name: str) -> bool:
    """Whether Triton takes a folder for a version: a number that does not start with 0."""
    return name.isascii() and name.isdigit() and not name.startswith("0")


def _tops(paths: Iterable[str]) -> set[str]:
    return {p.partition("/")[0] for p in paths}


def _wrapper(files: Mapping[str, Probe], model_name: str) -> str:
    """Folders around everything that are no part of the model (``release-3/``), with slash."""
    wrapper = ""
    while True:
        inner = [p[len(wrapper) :] for p in files if p.startswith(wrapper)]
        tops = _tops(inner)
        (only, *others) = tops or {""}
        if others or not all("/" in p for p in inner) or not inner:
            return wrapper
        # A version folder, a SavedModel's folder and the model's own folder carry meaning.
        below = {p.partition("/")[2] for p in inner}
        if only.isdigit() or only == CONFIGS or "saved_model.pb" in below:
            return wrapper
        if only == model_name and _is_model_folder(below):
            return wrapper
        wrapper += only + "/"


def _is_model_folder(paths: Iterable[str]) -> bool:
    """Version folders beside or without a configuration, or an ensemble's lone configuration."""
    paths = set(paths)
    tops = _tops(paths)
    versions = {t for t in tops if t.isdigit() and f"{t}" not in paths}
    if versions:
        return True
    rest = {p for p in paths if p != CONFIG and not p.startswith(CONFIGS + "/")}
    return CONFIG in paths and not rest


def _model_folders(files: Mapping[str, Probe]) -> list[str]:
    found = []
    for top in sorted(_tops(files)):
        below = {p.partition("/")[2] for p in files if p.startswith(top + "/")}
        if below and (_is_model_folder(below) or CONFIG in below):
            found.append(top)
    return found


def _versions_of(files: Iterable[str], folder: str) -> tuple[str, ...]:
    start = f"{folder}/" if folder else ""
    tops = {p[len(start) :].partition("/")[0] for p in files if p.startswith(start)}
    return tuple(sorted((t for t in tops if is_version(t)), key=int))


def _check_versions(files: Mapping[str, Probe], folder: str, shown: str) -> tuple[str, ...]:
    """Empty version folders to make (an ensemble has nothing to put there).

    Raises:
        ArtifactInvalid: only version folders that Triton ignores.
    """
    if _versions_of(files, folder):
        return ()
    start = f"{folder}/" if folder else ""
    zero = sorted(
        {
            t
            for p in files
            if p.startswith(start) and (t := p[len(start) :].partition("/")[0]).isdigit()
        }
    )
    if zero:
        raise ArtifactInvalid(
            "version folder",
            f"{shown}/{zero[0]}",
            "Triton ignores version folders that start with 0",
            "Name it 1, 2, ...",
        )
    return ("1",)


def _model_folder(files: Mapping[str, Probe], wrapper: str, model_name: str) -> Layout:
    extra = _check_versions(files, "", model_name)
    return Layout(
        "repository",
        None,
        {wrapper + path: f"{model_name}/{path}" for path in files},
        tuple(f"{model_name}/{v}" for v in extra),
    )


def _repository(
    files: Mapping[str, Probe],
    folders: list[str],
    loose: list[str],
    wrapper: str,
    model_name: str,
) -> Layout:
    if loose:
        raise LayoutAmbiguous(
            FIELD,
            _seen(files),
            f"model folders ({', '.join(folders)}) stand beside other files ({loose[0]})",
            "Keep only model folders, or only one model's files, at the source",
        )
    if model_name not in folders:
        raise LayoutAmbiguous(
            "spec.model.name",
            model_name,
            f"the repository at the source holds {', '.join(folders)}",
            "Set spec.model.name to one of them, or rename the folder",
        )
    extra: list[str] = []
    for folder in folders:
        extra += [f"{folder}/{v}" for v in _check_versions(files, folder, folder)]
    moves = {wrapper + p: p for p in files if p.partition("/")[0] in folders}
    return Layout("repository", None, moves, tuple(extra))


# -- bare artefacts -------------------------------------------------------------------------------


def _bare(files: Mapping[str, Probe], wrapper: str, model_name: str, backend: str | None) -> Layout:
    found = find_artefacts(files)
    chosen = [a for a in found if backend in (None, a.backend)]
    if len(chosen) > 1:
        listed = "; ".join(f"{a.path} is {a.what} ({a.backend})" for a in chosen[:SHOWN_FILES])
        raise LayoutAmbiguous(
            FIELD,
            _seen(files),
            f"more than one model fits: {listed}",
            "Keep one model at the source, make it a Triton repository, or set spec.model.backend",
        )
    if not chosen:
        raise _unknown(files, found, backend)
    artefact = chosen[0]
    root = f"{model_name}/1"
    moves: dict[str, str] = {}
    folder = artefact.path.rpartition("/")[0]
    near = f"{folder}/" if folder else ""
    for path in files:
        if path == CONFIG:
            moves[wrapper + path] = f"{model_name}/{CONFIG}"
        elif artefact.is_folder and (not artefact.path or path.startswith(artefact.path + "/")):
            start = f"{artefact.path}/" if artefact.path else ""
            moves[wrapper + path] = f"{root}/{artefact.name}/{path[len(start) :]}"
        elif path == artefact.path:
            moves[wrapper + path] = f"{root}/{artefact.name}"
        elif not artefact.is_folder and path.startswith(near):
            # Weights beside an ONNX graph, OpenVINO's .bin, modules beside model.py.
            moves[wrapper + path] = f"{root}/{_sibling(path[len(near) :], artefact)}"
        else:
            # Beside the version folder: where Triton looks for label files.
            moves[wrapper + path] = f"{model_name}/{path}"
    clash = _clash(moves.values())
    if clash:
        raise LayoutAmbiguous(
            FIELD, _seen(files), f"more than one file would become {clash}", "Rename one of them"
        )
    return Layout("bare", artefact.backend, moves, parameters=artefact.parameters)


def _sibling(path: str, artefact: Artefact) -> str:
    stem = artefact.path.rpartition("/")[2].removesuffix(".xml")
    if artefact.backend == "openvino" and path == f"{stem}.bin":
        return "model.bin"
    return path


def _clash(targets: Iterable[str]) -> str | None:
    """A place that two files would have, or one file and a folder."""
    places = list(targets)
    files = set(places)
    if len(files) < len(places):
        return next(p for p in places if places.count(p) > 1)
    for place in places:
        parent = place.rpartition("/")[0]
        while parent:
            if parent in files:
                return parent
            parent = parent.rpartition("/")[0]
    return None


def find_artefacts(files: Mapping[str, Probe]) -> list[Artefact]:
    """All candidates, one for each model that the files could be."""
    scripts = [p for p in files.values() if _is_triton_python(p)]
    if scripts:
        # Whatever else lies there (an ONNX file, pickles) is what the script loads.
        return [
            Artefact("python", "a Python backend's script", p.path, "model.py") for p in scripts
        ]
    found: list[Artefact] = []
    inside: tuple[str, ...] = ()
    for path in (p for p in files if p == "saved_model.pb" or p.endswith("/saved_model.pb")):
        folder = path.rpartition("/")[0]
        inside += (f"{folder}/" if folder else "",)
        found.append(
            Artefact(
                "tensorflow", "a TensorFlow SavedModel", folder, "model.savedmodel", is_folder=True
            )
        )
    for path, probe in files.items():
        if any(path.startswith(i) for i in inside):
            continue
        for recognise in _RECOGNISERS:
            if artefact := recognise(probe, files):
                found.append(artefact)
                break
    return found


def _is_triton_python(p: Probe) -> bool:
    return p.path.endswith(".py") and b"TritonPythonModel" in p.head + p.tail


def _onnx(p: Probe, _: Mapping[str, Probe]) -> Artefact | None:
    # ModelProto's first field is ir_version, a varint (onnx.proto); some writers put others first.
    if not p.path.endswith(".onnx"):
        return None
    if p.size < 16 or p.head[:1] not in (b"\x08", b"\x12", b"\x1a", b"\x3a", b"\x42"):
        raise _broken(p, "an ONNX model")
    return Artefact("onnxruntime", "an ONNX model", p.path, "model.onnx")


def _tensorrt(p: Probe, _: Mapping[str, Probe]) -> Artefact | None:
    if not p.path.endswith((".plan", ".engine", ".trt")):
        return None
    if p.head[:4] not in (b"ftrt", b"ptrt"):
        raise _broken(p, "a TensorRT plan")
    return Artefact("tensorrt", "a TensorRT plan", p.path, "model.plan")


def _torchscript(p: Probe, _: Mapping[str, Probe]) -> Artefact | None:
    if not p.path.endswith((".pt", ".pth", ".ts", ".torchscript")):
        return None
    if not p.head.startswith(b"PK\x03\x04"):
        return None  # a bare pickle: told apart below
    if not p.members:
        raise _broken(p, "a TorchScript archive")
    if not any(m.endswith("/constants.pkl") or "/code/" in m for m in p.members):
        return None
    return Artefact("pytorch", "a TorchScript model", p.path, "model.pt")


def _graphdef(p: Probe, _: Mapping[str, Probe]) -> Artefact | None:
    if not p.path.endswith(".graphdef"):
        return None
    return Artefact(
        "tensorflow",
        "a TensorFlow GraphDef",
        p.path,
        "model.graphdef",
        parameters={"platform": "tensorflow_graphdef"},
    )


def _openvino(p: Probe, files: Mapping[str, Probe]) -> Artefact | None:
    if not p.path.endswith(".xml") or b"<net" not in p.head[:4096]:
        return None
    if p.path.removesuffix(".xml") + ".bin" not in files:
        raise ArtifactInvalid(
            FIELD, p.path, "an OpenVINO model without its .bin beside it", "Upload both files"
        )
    return Artefact("openvino", "an OpenVINO model", p.path, "model.xml")


def _fil(p: Probe, _: Mapping[str, Probe]) -> Artefact | None:
    name = p.path.lower()
    start = p.head.lstrip()[:4096]
    kind = None
    if name.endswith(".json") and b'"learner"' in start:
        kind = ("xgboost_json", "xgboost.json", "an XGBoost model (JSON)")
        if not (p.tail or p.head).rstrip().endswith(b"}"):
            raise _broken(p, kind[2])
    elif name.endswith((".ubj", ".xgb", ".model", ".bst")) and b"learner" in p.head[:64]:
        kind = ("xgboost_ubj", "xgboost.ubj", "an XGBoost model (UBJSON)")
    elif name.endswith((".model", ".bst", ".xgb")) and p.head.startswith(b"binf"):
        kind = ("xgboost", "xgboost.model", "an XGBoost model (binary)")
    elif name.endswith((".txt", ".lgb", ".model")) and start.startswith(b"tree\n"):
        kind = ("lightgbm", "model.txt", "a LightGBM model")
        if b"end of trees" not in p.head + p.tail:
            raise _broken(p, kind[2])
    elif name.endswith((".tl", ".treelite")):
        kind = ("treelite_checkpoint", "checkpoint.tl", "a treelite checkpoint")
    if kind is None:
        return None
    parameters = {"model_type": kind[0], **_forest_shape(p, kind[0])}
    return Artefact("fil", kind[2], p.path, kind[1], parameters=parameters)


_RECOGNISERS: tuple[Callable[[Probe, Mapping[str, Probe]], Artefact | None], ...] = (
    _onnx,
    _tensorrt,
    _torchscript,
    _graphdef,
    _openvino,
    _fil,
)


def _forest_shape(p: Probe, kind: str) -> dict[str, str]:
    """Number of features and classes, where head or tail tell; FIL cannot find them out itself."""
    text = p.head + p.tail
    if kind == "lightgbm":
        features = re.search(rb"\nmax_feature_idx=(\d+)", text)
        classes = re.search(rb"\nnum_class=(\d+)", text)
        shape = {"num_feature": str(int(features[1]) + 1)} if features else {}
    else:
        # JSON: "num_feature":"13"; UBJSON: num_feature, a marker S, a length, the digits.
        features = re.search(rb'num_feature"?[^0-9a-zA-Z]{0,3}S?[^0-9]{0,10}?(\d+)', text)
        classes = re.search(rb'num_class"?[^0-9a-zA-Z]{0,3}S?[^0-9]{0,10}?(\d+)', text)
        shape = {"num_feature": str(int(features[1]))} if features else {}
    if classes:
        shape["num_class"] = str(int(classes[1]))
    return shape


# -- refusals -------------------------------------------------------------------------------------


def _seen(files: Mapping[str, Probe]) -> str:
    names = sorted(files)
    more = f", and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
    return ", ".join(names[:SHOWN_FILES]) + more


def _broken(p: Probe, what: str) -> ArtifactInvalid:
    why = "it is empty" if p.size == 0 else f"its first bytes are {p.head[:8]!r}"
    return ArtifactInvalid(
        FIELD, p.path, f"not {what}, or a cut off one ({why})", "Export and upload it anew"
    )


# Things people upload that Triton has no loader for, with what to do instead.
_HINTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (".pkl", ".joblib", ".pickle"),
        "Convert a scikit-learn forest with treelite to checkpoint.tl, or export it to ONNX",
    ),
    (
        (".pt", ".pth", ".bin"),
        "This holds weights or a pickle rather than TorchScript: export with torch.jit.save, or "
        "to ONNX",
    ),
    ((".safetensors", ".gguf"), "Give a Triton repository whose config.pbtxt names the backend"),
    ((".h5", ".keras"), "Export a SavedModel (model.export) or ONNX"),
    ((".pt2",), "Give a Triton repository whose config.pbtxt names the backend"),
    ((".py",), "The script needs a class TritonPythonModel"),
)


def _unknown(files: Mapping[str, Probe], found: list[Artefact], backend: str | None) -> FetchError:
    if found and backend is not None:
        what = ", ".join(f"{a.path} is {a.what} ({a.backend})" for a in found[:SHOWN_FILES])
        return UnknownBackend(
            "spec.model.backend", backend, f"the files fit another one: {what}", "Correct it"
        )
    if CONFIG in files:
        return ArtifactInvalid(
            FIELD,
            _seen(files),
            "config.pbtxt stands there, but neither a version folder nor a known model file",
            "Put the model's files into a folder named 1",
        )
    for suffixes, mend in _HINTS:
        if any(p.endswith(suffixes) for p in files):
            return UnknownBackend(FIELD, _seen(files), "no backend loads these files", mend)
    return UnknownBackend(
        FIELD,
        _seen(files),
        "none of them is a model that is known here",
        "Give a Triton repository, or one of: ONNX, TensorRT plan, TorchScript, SavedModel, "
        "OpenVINO, Python backend, XGBoost, LightGBM, treelite",
    )
