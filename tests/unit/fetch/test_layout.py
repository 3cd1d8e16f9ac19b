"""From names and heads to a repository: what is recognised, what is refused, in which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.fetch.errors import ArtifactInvalid, FetchError, LayoutAmbiguous, UnknownBackend
from tidegate.fetch.layout import Layout, Probe, is_version, lay_out

ONNX = b"\x08\x08\x12\x07pytorch" + bytes(100)
PLAN = b"ftrt\x00\x00" + bytes(100)
SCRIPT = b"class TritonPythonModel:\n  pass\n"
XML = b'<?xml version="1.0"?><net name="n" version="11">'
XGB_JSON = (
    b'{"learner":{"attributes":{},"gradient_booster":{},"learner_model_param":'
    b'{"base_score":"5E-1","num_class":"3","num_feature":"13"}},"version":[2,0,3]}'
)
XGB_UBJ = (
    b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L\x00\x00\x00\x00\x00\x00\x00\x0bnum_feature"
    b"SL\x00\x00\x00\x00\x00\x00\x00\x0213}}"
)
LGB = b"tree\nversion=v4\nnum_class=1\nmax_feature_idx=27\n\nTree=0\nend of trees\n"
TORCH = ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/version")
WEIGHTS = ("archive/data.pkl", "archive/data/0", "archive/version")
ZIP = b"PK\x03\x04" + bytes(60)


def probe(path: str, head: bytes = b"x", members: tuple[str, ...] = ()) -> Probe:
    return Probe(path, len(head), head, members=members)


def laid(files: dict[str, bytes], backend: str | None = None, **members: tuple[str, ...]) -> Layout:
    probes = [
        probe(p, h, TORCH if p.endswith("ts.pt") else WEIGHTS if h is ZIP else ())
        for p, h in files.items()
    ]
    return lay_out(probes, "m", backend)


@pytest.mark.parametrize(
    ("files", "backend", "moves"),
    [
        ({"net.onnx": ONNX}, "onnxruntime", {"net.onnx": "m/1/model.onnx"}),
        (
            {"net.onnx": ONNX, "net.onnx.data": b"w", "README.md": b"r", ".gitattributes": b"g"},
            "onnxruntime",
            {"net.onnx": "m/1/model.onnx", "net.onnx.data": "m/1/net.onnx.data"},
        ),
        (
            {"r/onnx/model.onnx": ONNX, "r/onnx/w/0": b"w", "r/labels.txt": b"l"},
            "onnxruntime",
            {
                "r/onnx/model.onnx": "m/1/model.onnx",
                "r/onnx/w/0": "m/1/w/0",
                "r/labels.txt": "m/labels.txt",
            },
        ),
        (
            {"config.pbtxt": b"c", "net.onnx": ONNX},
            "onnxruntime",
            {"config.pbtxt": "m/config.pbtxt", "net.onnx": "m/1/model.onnx"},
        ),
        ({"a.engine": PLAN}, "tensorrt", {"a.engine": "m/1/model.plan"}),
        ({"ts.pt": ZIP}, "pytorch", {"ts.pt": "m/1/model.pt"}),
        ({"f.graphdef": b"g"}, "tensorflow", {"f.graphdef": "m/1/model.graphdef"}),
        (
            {"saved_model.pb": b"s", "variables/v.index": b"i", "assets/x": b"a"},
            "tensorflow",
            {
                "saved_model.pb": "m/1/model.savedmodel/saved_model.pb",
                "variables/v.index": "m/1/model.savedmodel/variables/v.index",
                "assets/x": "m/1/model.savedmodel/assets/x",
            },
        ),
        (
            {"export/saved_model.pb": b"s", "export/variables/v": b"i"},
            "tensorflow",
            {
                "export/saved_model.pb": "m/1/model.savedmodel/saved_model.pb",
                "export/variables/v": "m/1/model.savedmodel/variables/v",
            },
        ),
        (
            {"ov.xml": XML, "ov.bin": b"w"},
            "openvino",
            {"ov.xml": "m/1/model.xml", "ov.bin": "m/1/model.bin"},
        ),
        (
            {"serve.py": SCRIPT, "net.onnx": ONNX, "util.py": b"u"},
            "python",
            {"serve.py": "m/1/model.py", "net.onnx": "m/1/net.onnx", "util.py": "m/1/util.py"},
        ),
        ({"x.json": XGB_JSON}, "fil", {"x.json": "m/1/xgboost.json"}),
        ({"x.ubj": XGB_UBJ}, "fil", {"x.ubj": "m/1/xgboost.ubj"}),
        ({"x.model": b"binf" + bytes(9)}, "fil", {"x.model": "m/1/xgboost.model"}),
        (
            {"x.txt": LGB, "notes.txt": b"n"},
            "fil",
            {"x.txt": "m/1/model.txt", "notes.txt": "m/1/notes.txt"},
        ),
        ({"x.tl": b"t"}, "fil", {"x.tl": "m/1/checkpoint.tl"}),
        # What an MLflow model folder looks like.
        (
            {"MLmodel": b"m", "conda.yaml": b"c", "requirements.txt": b"r", "model.onnx": ONNX},
            "onnxruntime",
            {
                "MLmodel": "m/1/MLmodel",
                "conda.yaml": "m/1/conda.yaml",
                "requirements.txt": "m/1/requirements.txt",
                "model.onnx": "m/1/model.onnx",
            },
        ),
    ],
)
def test_bare_artefacts(files: dict[str, bytes], backend: str, moves: dict[str, str]) -> None:
    layout = laid(files)
    assert (layout.kind, layout.backend) == ("bare", backend)
    assert layout.moves == moves


@pytest.mark.parametrize(
    ("files", "moves", "folders"),
    [
        (
            ["config.pbtxt", "1/model.py", "1/.hidden", "2/README.md"],
            ["m/config.pbtxt", "m/1/model.py", "m/1/.hidden", "m/2/README.md"],
            [],
        ),
        (["1/model.onnx"], ["m/1/model.onnx"], []),
        (["m/config.pbtxt", "m/1/x"], ["m/config.pbtxt", "m/1/x"], []),
        (["rel-3/config.pbtxt", "rel-3/1/x"], ["m/config.pbtxt", "m/1/x"], []),
        (["a/b/1/x"], ["m/1/x"], []),
        (["m/1/x", "other/2/y", "README.md"], ["m/1/x", "other/2/y"], []),
        (["repo/m/1/x", "repo/o/1/y"], ["m/1/x", "o/1/y"], []),
        (["m/config.pbtxt", "o/1/y"], ["m/config.pbtxt", "o/1/y"], ["m/1"]),
        (["config.pbtxt"], ["m/config.pbtxt"], ["m/1"]),
        (["config.pbtxt", "configs/gpu.pbtxt"], ["m/config.pbtxt", "m/configs/gpu.pbtxt"], ["m/1"]),
        (["1/model.savedmodel/saved_model.pb"], ["m/1/model.savedmodel/saved_model.pb"], []),
    ],
)
def test_repositories(files: list[str], moves: list[str], folders: list[str]) -> None:
    layout = laid(dict.fromkeys(files, b"x"))
    assert (layout.kind, layout.backend) == ("repository", None)
    assert sorted(layout.moves.values()) == sorted(moves)
    assert list(layout.folders) == folders


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        (
            {"a.onnx": ONNX, "b.onnx": ONNX},
            LayoutAmbiguous,
            ["a.onnx", "b.onnx", "spec.model.backend"],
        ),
        ({"a.onnx": ONNX, "b.plan": PLAN}, LayoutAmbiguous, ["onnxruntime", "tensorrt"]),
        ({"a.py": SCRIPT, "b.py": SCRIPT}, LayoutAmbiguous, ["a.py", "b.py"]),
        ({"a/saved_model.pb": b"", "b/saved_model.pb": b""}, LayoutAmbiguous, ["SavedModel"]),
        ({"m/1/x": b"", "net.onnx": ONNX}, LayoutAmbiguous, ["beside other files", "net.onnx"]),
        ({"a/1/x": b"", "b/1/x": b""}, LayoutAmbiguous, ["spec.model.name", "a, b"]),
        ({"x.onnx": ONNX, "model.onnx": b"<html>" + bytes(20)}, ArtifactInvalid, ["<html>"]),
        ({"x.onnx": b""}, ArtifactInvalid, ["empty"]),
        ({"x.plan": b"ftr"}, ArtifactInvalid, ["TensorRT"]),
        ({"x.xml": XML}, ArtifactInvalid, [".bin"]),
        ({"x.json": XGB_JSON[:-3]}, ArtifactInvalid, ["XGBoost"]),
        ({"x.txt": LGB[:-14]}, ArtifactInvalid, ["LightGBM"]),
        ({"0/model.onnx": ONNX}, ArtifactInvalid, ["start with 0"]),
        ({"01/model.onnx": ONNX, "config.pbtxt": b"c"}, ArtifactInvalid, ["start with 0"]),
        ({"config.pbtxt": b"c", "weights.dat": b"w"}, ArtifactInvalid, ["folder named 1"]),
        ({"w.pt": ZIP}, UnknownBackend, ["torch.jit.save"]),
        ({"pytorch_model.bin": b"w"}, UnknownBackend, ["torch.jit.save"]),
        ({"m.pkl": b"\x80\x04"}, UnknownBackend, ["treelite"]),
        ({"m.safetensors": b"w"}, UnknownBackend, ["config.pbtxt names"]),
        ({"m.h5": b"w"}, UnknownBackend, ["SavedModel"]),
        ({"m.py": b"print()"}, UnknownBackend, ["TritonPythonModel"]),
        ({"README.md": b"r"}, UnknownBackend, ["ONNX"]),
        ({"a.bin2": b"w"}, UnknownBackend, ["a.bin2"]),
    ],
)
def test_refusals(files: dict[str, bytes], error: type[FetchError], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        laid(files)
    for word in words:
        assert word in caught.value.message


def test_a_stated_backend_decides_between_two() -> None:
    files = {"a.onnx": ONNX, "b.plan": PLAN}
    assert laid(files, "tensorrt").moves["b.plan"] == "m/1/model.plan"
    with pytest.raises(UnknownBackend, match=r"a\.onnx is an ONNX model"):
        laid(files, "pytorch")


def test_two_files_for_one_place() -> None:
    with pytest.raises(LayoutAmbiguous, match=r"m/1/model\.py"):
        laid({"serve.py": SCRIPT, "model.py": b"helpers"})


@pytest.mark.parametrize(
    ("name", "head", "shape"),
    [
        ("x.json", XGB_JSON, {"num_feature": "13", "num_class": "3", "model_type": "xgboost_json"}),
        ("x.ubj", XGB_UBJ, {"num_feature": "13", "model_type": "xgboost_ubj"}),
        ("x.txt", LGB, {"num_feature": "28", "num_class": "1", "model_type": "lightgbm"}),
        ("x.tl", b"t", {"model_type": "treelite_checkpoint"}),
    ],
)
def test_the_shape_of_a_forest(name: str, head: bytes, shape: dict[str, str]) -> None:
    assert laid({name: head}).parameters == shape


def test_the_shape_stands_in_the_tail_of_a_large_file() -> None:
    large = Probe("x.json", 10**9, b'{"learner":{"gradient_booster":', XGB_JSON[-120:])
    assert lay_out([large], "m").parameters["num_feature"] == "13"


@pytest.mark.parametrize("name", ["0", "01", "", "1a", "-1", "¹", "1.0"])
def test_folders_that_triton_ignores(name: str) -> None:
    assert not is_version(name)


PARTS = st.sampled_from(
    ["1", "2", "01", "m", "other", "a", "config.pbtxt", "model.onnx", "model.py"]
)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
HEADS = st.sampled_from([ONNX, SCRIPT, b"", b"x"])


def _tree(files: dict[str, bytes]) -> bool:
    return not any(q.startswith(p + "/") for p in files for q in files)


@given(st.dictionaries(PATHS, HEADS, min_size=1, max_size=6).filter(_tree))
def test_whatever_the_tree_either_a_repository_or_a_refusal(files: dict[str, bytes]) -> None:
    try:
        layout = laid(files)
    except FetchError:
        return
    targets = list(layout.moves.values())
    assert len(set(targets)) == len(targets)
    assert set(layout.moves) <= set(files)
    assert "m" in layout.models()
    assert _tree(dict.fromkeys(targets, b""))
    assert any(
        is_version(t.split("/")[1]) for t in (*targets, *layout.folders) if t.startswith("m/")
    )
    if layout.kind == "bare":
        assert {"m/1/model.onnx", "m/1/model.py"} & set(targets)
    # Nothing that counts is lost without a word.
    assert set(layout.moves) == set(files)
    assert laid(files) == layout
