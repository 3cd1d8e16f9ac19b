"""Both generations of Magika, ONNX as published: real networks of many operators, real files."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from e2e.models.magika.build import GENERATIONS, Generation, wheel
from tidegate.preparation import metrics, running, session
from tidegate.preparation.convert import convert
from tidegate.preparation.gate import Allowed, Verdict
from tidegate.preparation.optimise.fp16 import to_fp16
from tidegate.preparation.optimise.quantise import quantise_static
from tidegate.preparation.samples import Samples

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

REPOSITORY = Path(__file__).resolve().parents[3]
PADDING = 256
FILES = 36
IN_16_BITS = {"v1": Verdict.REFUSED, "v3": Verdict.ACCEPTED}
"""A product of the first generation's leaves the range of 16 bits: no answer stays right."""


def tokens(path: Path, width: int) -> list[int]:
    """The file's first and last bytes, padded between."""
    half = width // 2
    content = path.read_bytes().strip()
    first, last = list(content[:half]), list(content[-half:])
    return first + [PADDING] * (half - len(first)) + [PADDING] * (half - len(last)) + last


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda g: g.name)
def test_magika(generation: Generation, tmp_path: Path) -> None:
    network = tmp_path / "network.onnx"
    with zipfile.ZipFile(wheel(generation)) as archive:
        network.write_bytes(archive.read(f"magika/models/{generation.network}/model.onnx"))
    (taken,), _ = session.tensors(session.opened(network))
    suffixes = (".py", ".md", ".yaml", ".toml", ".txt", ".json", ".svg", ".png", ".html", ".js")
    files = [p for p in sorted(REPOSITORY.glob("*/**/*")) if p.suffix in suffixes and p.is_file()]
    chosen = files[:: max(1, len(files) // FILES)][:FILES]
    samples = Samples({"bytes": np.array([tokens(p, taken.shape[1]) for p in chosen])})

    made = convert(network, samples, tmp_path / "model.onnx")
    assert made.steps == ("convert ONNX",)
    (scores,) = running.answers(made, samples).values()
    labelled = Samples(samples.inputs, scores.argmax(axis=1))
    # What the original says is the truth here: how many answers change?
    half = to_fp16(made, tmp_path / "half.onnx")
    assert half.size_bytes < 0.6 * made.size_bytes
    found = metrics.judge(made, half, labelled, Allowed(0.2))
    assert found.verdict is IN_16_BITS[generation.name], found.sentence()
    small = quantise_static(made, tmp_path / "small.onnx", samples)
    assert small.size_bytes < 0.35 * made.size_bytes
    assert (small.inputs, small.outputs) == (made.inputs, made.outputs)
