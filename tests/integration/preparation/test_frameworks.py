"""PyTorch, TensorFlow and OpenVINO, with small networks trained here on real digits."""

from pathlib import Path

import numpy as np
import pytest

from tidegate.preparation import metrics, running
from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.check import Tolerance, compare, require
from tidegate.preparation.convert import convert
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.gate import Allowed, Verdict
from tidegate.preparation.optimise.fp16 import to_fp16
from tidegate.preparation.optimise.openvino import to_openvino
from tidegate.preparation.optimise.prune import prune_structured
from tidegate.preparation.optimise.quantise import quantise_dynamic, quantise_static
from tidegate.preparation.samples import Samples

pytestmark = [
    pytest.mark.integration,
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("default"),
]

ALLOWED = Allowed(0.02)


@pytest.fixture(scope="session")
def pictures(digits: Samples) -> Samples:
    """The digits as pictures, from 0 to 1."""
    pixels = digits.inputs["pixels"].reshape(-1, 1, 8, 8) / np.float32(16.0)
    return Samples({"pixels": pixels}, digits.labels)


@pytest.fixture(scope="session")
def program(pictures: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network, saved as a program of PyTorch."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    x = torch.from_numpy(pictures.inputs["pixels"][:1_000])
    y = torch.from_numpy(pictures.require_labels()[:1_000].astype(np.int64))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for begin in range(0, len(x), 50):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(x[begin : begin + 50]), y[begin : begin + 50])
            loss.backward()
            optimiser.step()
    exported = torch.export.export(
        model.eval(), (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    path = tmp_path_factory.mktemp("torch") / "cnn.pt2"
    torch.export.save(exported, path)
    return path


@pytest.fixture(scope="session")
def network(
    program: Path, pictures: Samples, tmp_path_factory: pytest.TempPathFactory
) -> Candidate:
    """The same, converted."""
    return convert(program, pictures, tmp_path_factory.mktemp("cnn") / "model.onnx")


@pytest.fixture(scope="session")
def unseen(pictures: Samples) -> Samples:
    """What the network was not trained on."""
    return pictures.take(slice(1_000, None))


def test_a_network_of_pytorch(network: Candidate, unseen: Samples) -> None:
    assert network.steps == ("convert PyTorch",)
    assert network.inputs == (TensorSpec("pixels", "FP32", (-1, 1, 8, 8)),)
    assert network.outputs == (TensorSpec("output", "FP32", (-1, 10)),)
    assert "torch" in network.notes["versions"]
    found = running.answers(network, unseen)["output"].argmax(axis=1)
    assert float((found == unseen.labels).mean()) > 0.9


def test_its_optimised_candidates(
    network: Candidate, pictures: Samples, unseen: Samples, tmp_path: Path
) -> None:
    seen = pictures.take(slice(0, 1_000))
    for made in (
        quantise_dynamic(network, tmp_path / "dynamic.onnx"),
        quantise_static(network, tmp_path / "static.onnx", seen),
        to_fp16(network, tmp_path / "half.onnx"),
    ):
        assert made.size_bytes < 0.7 * network.size_bytes
        found = metrics.judge(network, made, unseen, ALLOWED)
        assert found.verdict is Verdict.ACCEPTED, (made.name, found.sentence())
    narrow = prune_structured(network, tmp_path / "narrow.onnx", 0.25)
    assert "units of 3 layers removed" in narrow.notes["sparsity"]
    assert narrow.size_bytes < 0.8 * network.size_bytes


def test_weights_alone_are_no_program(pictures: Samples, tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(PreparationError, match=r"holds weights or Python classes.*export\.save"):
        convert(tmp_path / "weights.pt", pictures, tmp_path / "m.onnx")
    (tmp_path / "torn.pt2").write_bytes(b"?")
    with pytest.raises(PreparationError, match="is no PyTorch program"):
        convert(tmp_path / "torn.pt2", pictures, tmp_path / "m.onnx")


def test_openvino(network: Candidate, unseen: Samples, tmp_path: Path) -> None:
    made = to_openvino(network, tmp_path / "model.xml")
    assert made.platform == "openvino"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert made.inputs == network.inputs
    assert [t.shape for t in made.outputs] == [(-1, 10)]
    # In bfloat16 where the processor has it, so near but not equal: the gate judges what is served.
    assert made.notes["precision here"] in ("f32", "bf16", "f16")
    near = Tolerance(absolute=0.2, relative=0.0)
    require(compare(running.answers(network, unseen), running.answers(made, unseen), near))
    assert metrics.judge(network, made, unseen, ALLOWED).verdict is Verdict.ACCEPTED
    with pytest.raises(PreparationError, match="optimise the ONNX model it was made of"):
        quantise_dynamic(made, tmp_path / "q.onnx")


@pytest.mark.parametrize("form", ["keras", "saved_model"])
def test_tensorflow(form: str, pictures: Samples, unseen: Samples, tmp_path: Path) -> None:
    import tensorflow

    tensorflow.keras.utils.set_random_seed(0)
    layers = tensorflow.keras.layers
    model = tensorflow.keras.Sequential(
        [
            tensorflow.keras.Input((1, 8, 8), name="pixels"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    seen = pictures.take(slice(0, 1_000))
    model.fit(seen.inputs["pixels"], seen.labels, epochs=15, verbose=0)
    path = tmp_path / ("m.keras" if form == "keras" else "m")
    model.save(path) if form == "keras" else model.export(path, verbose=False)
    made = convert(path, pictures, tmp_path / "m.onnx")
    assert made.steps == ("convert TensorFlow",)
    assert [t.shape for t in made.inputs] == [(-1, 1, 8, 8)]
    (scores,) = running.answers(made, unseen).values()
    assert float((scores.argmax(axis=1) == unseen.labels).mean()) > 0.85
    smaller = quantise_dynamic(made, tmp_path / "q.onnx")
    assert metrics.judge(made, smaller, unseen, ALLOWED).verdict is Verdict.ACCEPTED
