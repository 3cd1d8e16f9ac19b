"""Small files that the frameworks themselves wrote, recognised and given a configuration.

``artefacts/`` was written by lightgbm 4, xgboost 3, treelite 4 and openvino 2026 from 60 rows of
four random features; the ONNX file is one of onnxruntime's own examples.
"""

from pathlib import Path

import pytest

from tidegate.fetch import config as configs
from tidegate.fetch.errors import ConfigInvalid
from tidegate.fetch.layout import lay_out
from tidegate.fetch.probe import probe_tree

ARTEFACTS = Path(__file__).parent / "artefacts"


@pytest.mark.parametrize(
    ("files", "backend", "main", "dims"),
    [
        (["lightgbm.txt"], "fil", "m/1/model.txt", [[4], [1]]),
        (["xgboost.json"], "fil", "m/1/xgboost.json", [[4], [3]]),
        (["xgboost.ubj"], "fil", "m/1/xgboost.ubj", [[4], [3]]),
        (["onnx.onnx"], "onnxruntime", "m/1/model.onnx", []),
        (["openvino.xml", "openvino.bin"], "openvino", "m/1/model.xml", []),
    ],
)
def test_real_files(files: list[str], backend: str, main: str, dims: list[list[int]]) -> None:
    probes = probe_tree(ARTEFACTS, {f: (ARTEFACTS / f).stat().st_size for f in files})
    layout = lay_out(probes, "m")
    assert layout.backend == backend
    assert main in layout.moves.values()
    config = configs.generated(backend, layout.parameters)
    paths = tuple(to.removeprefix("m/") for to in layout.moves.values())
    assert configs.check(config, "m", paths, ("m",)) == backend
    assert [list(t.dims) for t in (*config.input, *config.output)] == dims


def test_a_treelite_checkpoint_tells_no_shape() -> None:
    name = "treelite.tl"
    layout = lay_out(probe_tree(ARTEFACTS, {name: (ARTEFACTS / name).stat().st_size}), "m")
    assert layout.backend == "fil"
    config = configs.generated("fil", layout.parameters)
    with pytest.raises(ConfigInvalid, match="input and output"):
        configs.check(config, "m", ("1/checkpoint.tl",), ("m",))
