"""Optimised models, judged on real digits: what helps is accepted, what hurts is refused."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tidegate.preparation import metrics, running, session, timing
from tidegate.preparation.candidate import Candidate
from tidegate.preparation.convert import convert
from tidegate.preparation.errors import NothingToDo, PreparationError
from tidegate.preparation.gate import Allowed, Verdict
from tidegate.preparation.optimise.fp16 import to_fp16
from tidegate.preparation.optimise.graph import optimise_graph
from tidegate.preparation.optimise.prune import prune_structured, prune_unstructured
from tidegate.preparation.optimise.quantise import (
    Calibration,
    quantise_dynamic,
    quantise_static,
)
from tidegate.preparation.samples import Samples

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]

ALLOWED = Allowed(0.02)
Optimise = Callable[[Candidate, Path, Samples], Candidate]


@pytest.mark.parametrize(
    ("optimise", "name", "smaller"),
    [
        (lambda c, out, _: optimise_graph(c, out), "graph", False),
        (lambda c, out, _: to_fp16(c, out), "fp16", True),
        (lambda c, out, _: quantise_dynamic(c, out), "int8-dynamic", True),
        (lambda c, out, s: quantise_static(c, out, s), "int8-static", True),
        (
            lambda c, out, s: quantise_static(c, out, s, method=Calibration.ENTROPY),
            "int8-static",
            True,
        ),
        (
            lambda c, out, s: quantise_static(c, out, s, method=Calibration.PERCENTILE),
            "int8-static",
            True,
        ),
        (lambda c, out, _: prune_unstructured(c, out, 0.1), "pruned-0.1", False),
    ],
)
def test_good_candidates_are_accepted(
    optimise: Optimise,
    name: str,
    smaller: bool,
    original: Candidate,
    trained_on: Samples,
    held_out: Samples,
    tmp_path: Path,
) -> None:
    made = optimise(original, tmp_path / "m.onnx", trained_on)
    assert made.name == name
    assert made.steps[:-1] == original.steps
    assert (made.inputs, made.outputs) == (original.inputs, original.outputs)
    assert (made.size_bytes < 0.75 * original.size_bytes) == smaller
    found = metrics.judge(original, made, held_out, ALLOWED)
    assert found.verdict is Verdict.ACCEPTED, found.sentence()
    assert found.samples == len(held_out)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert "on one thread here" in timing.compare(original, made, held_out).sentence()


def test_one_after_the_other(original: Candidate, held_out: Samples, tmp_path: Path) -> None:
    narrow = prune_structured(original, tmp_path / "narrow.onnx", 0.05)
    made = quantise_dynamic(narrow, tmp_path / "small.onnx")
    assert made.name == "narrowed-0.05-int8-dynamic"
    assert made.steps == ("convert scikit-learn", "remove units 0.05", "int8 dynamic")
    assert "units of 2 layers removed" in made.notes["sparsity"]
    assert running.answers(made, held_out)["label"].shape == (len(held_out),)


def test_a_quantisation_that_hurts_is_refused(
    original: Candidate, held_out: Samples, tmp_path: Path
) -> None:
    """A made model: the first pixel is blank in all pictures, and its weights are enormous.

    In 32 bits they change nothing. In 8 bits they set the scale, and all else rounds to nothing.
    """
    model = onnx.load(str(original.path))
    first = next(n for n in model.graph.node if n.op_type == "MatMul").input[1]
    weights = next(i for i in model.graph.initializer if i.name == first)
    array = numpy_helper.to_array(weights).copy()
    assert not held_out.inputs["pixels"][:, 0].any()
    array[0, :] = 1e4
    weights.CopyFrom(numpy_helper.from_array(array, first))
    session.write(model, tmp_path / "made.onnx")
    made = session.candidate("fp32", tmp_path / "made.onnx", original.steps)
    same = metrics.judge(original, made, held_out, ALLOWED)
    assert (same.verdict, same.drop) == (Verdict.ACCEPTED, 0.0)

    hurt = quantise_dynamic(made, tmp_path / "hurt.onnx")
    for metric in ("accuracy", "f1"):
        found = metrics.judge(made, hurt, held_out, ALLOWED, metric=metric)
        assert found.verdict is Verdict.REFUSED
        assert found.low > 0.3
        assert found.sentence().startswith("refused: ")


def test_too_few_samples_say_how_many_are_needed(
    original: Candidate, held_out: Samples, tmp_path: Path
) -> None:
    made = optimise_graph(original, tmp_path / "m.onnx")
    found = metrics.judge(original, made, held_out.take(slice(0, 30)), Allowed(0.005))
    assert found.verdict is Verdict.TOO_FEW_SAMPLES
    assert found.needed == 736
    assert "about 736 would show it" in found.sentence()


def test_half_of_the_units_is_too_much(
    original: Candidate, held_out: Samples, tmp_path: Path
) -> None:
    made = prune_structured(original, tmp_path / "m.onnx", 0.5)
    assert made.size_bytes < 0.6 * original.size_bytes
    assert metrics.judge(original, made, held_out, ALLOWED).verdict is Verdict.REFUSED


def test_so_many_weights_are_zero(original: Candidate, tmp_path: Path) -> None:
    made = prune_unstructured(original, tmp_path / "m.onnx", 0.7)
    assert made.notes["sparsity"] == "70.0% of 6,464 weights are 0"
    assert made.size_bytes == pytest.approx(original.size_bytes, rel=0.05)


def convolutional(path: Path, *, dead: int) -> Candidate:
    """Two convolutions with what may stand between them, a flattening, two dense layers.

    Of the first convolution's 8 filters, the second's 6 and the first dense layer's 16 units so
    many are dead: all their weights are 0.
    """
    random = np.random.default_rng(5)
    shapes = {"a": (8, 1, 3, 3), "b": (6, 8, 3, 3), "c": (6 * 4, 16), "d": (10, 16)}
    arrays = {n: random.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    arrays |= {n: random.normal(size=s).astype(np.float32) for n, s in (("ab", 8), ("cb", 16))}
    arrays["bb"] = random.normal(size=(1, 6, 1, 1)).astype(np.float32)
    arrays |= {f"n{i}": random.random(8).astype(np.float32) + 0.5 for i in range(4)}
    for name in ("ab", "n1", "n2"):
        arrays[name][:dead] = 0.0
    arrays["a"][:dead], arrays["b"][:dead], arrays["bb"][:, :dead] = 0.0, 0.0, 0.0
    arrays["c"][:, :dead], arrays["cb"][:dead] = 0.0, 0.0
    nodes = [
        helper.make_node("Conv", ["x", "a", "ab"], ["1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["1", "n0", "n1", "n2", "n3"], ["2"]),
        helper.make_node("Relu", ["2"], ["3"]),
        helper.make_node("MaxPool", ["3"], ["4"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["4", "b"], ["5"]),
        helper.make_node("Add", ["bb", "5"], ["6"]),
        helper.make_node("Relu", ["6"], ["7"]),
        helper.make_node("Flatten", ["7"], ["8"]),
        helper.make_node("MatMul", ["8", "c"], ["9"]),
        helper.make_node("Add", ["9", "cb"], ["10"]),
        helper.make_node("Relu", ["10"], ["11"]),
        helper.make_node("Gemm", ["11", "d"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session.write(model, path)
    return session.candidate("fp32", path, ["made"])


def test_removing_dead_units_changes_nothing(tmp_path: Path) -> None:
    made = convolutional(tmp_path / "m.onnx", dead=2)
    samples = Samples({"x": np.random.default_rng(0).normal(size=(9, 1, 8, 8))})
    narrow = prune_structured(made, tmp_path / "n.onnx", 0.125)
    # An eighth of 8, 6 and 16 units.
    assert narrow.notes["sparsity"].startswith("3 units of 2 layers removed")
    narrow = prune_structured(made, tmp_path / "n.onnx", 0.34)
    assert narrow.notes["sparsity"].startswith("9 units of 3 layers removed")
    made = convolutional(tmp_path / "m.onnx", dead=6)
    narrow = prune_structured(made, tmp_path / "n.onnx", 0.34)
    before, after = running.answers(made, samples)["y"], running.answers(narrow, samples)["y"]
    assert np.abs(before).max() > 1.0
    assert after == pytest.approx(before, abs=1e-3)
    # Live ones do count.
    lively = convolutional(tmp_path / "l.onnx", dead=0)
    thin = prune_structured(lively, tmp_path / "t.onnx", 0.34)
    different = running.answers(thin, samples)["y"] - running.answers(lively, samples)["y"]
    assert np.abs(different).max() > 0.1


@pytest.fixture(scope="session")
def trees(trained_on: Samples, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """A model without any weights."""
    folder = tmp_path_factory.mktemp("trees")
    data = lightgbm.Dataset(trained_on.inputs["pixels"], trained_on.labels)
    settings = {"objective": "regression", "verbose": -1, "num_threads": 1}
    lightgbm.train(settings, data, 3).save_model(folder / "m.txt")
    return convert(folder / "m.txt", trained_on, folder / "m.onnx")


@pytest.mark.parametrize(
    "optimise",
    [
        lambda c, out, _: to_fp16(c, out),
        lambda c, out, _: quantise_dynamic(c, out),
        lambda c, out, s: quantise_static(c, out, s),
        lambda c, out, _: prune_unstructured(c, out, 0.5),
        lambda c, out, _: prune_structured(c, out, 0.5),
    ],
)
def test_trees_have_nothing_to_optimise(
    optimise: Optimise, trees: Candidate, trained_on: Samples, tmp_path: Path
) -> None:
    with pytest.raises(NothingToDo):
        optimise(trees, tmp_path / "m.onnx", trained_on)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("calibration", "told"),
    [
        (None, "needs calibration data"),
        (Samples({"pixels": np.zeros((31, 64))}), "needs 32 calibration samples at least, .* 31"),
        (Samples({"pixels": np.zeros((40, 63))}), r"takes shape \[samples, 64\]"),
    ],
)
def test_calibration_that_is_missing(
    calibration: Samples | None, told: str, original: Candidate, tmp_path: Path
) -> None:
    with pytest.raises(PreparationError, match=told):
        quantise_static(original, tmp_path / "m.onnx", calibration)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_a_share_is_a_share(original: Candidate, tmp_path: Path, share: float) -> None:
    for prune in (prune_unstructured, prune_structured):
        with pytest.raises(PreparationError, match="between 0 and 1"):
            prune(original, tmp_path / "m.onnx", share)


def test_the_users_own_metric(original: Candidate, held_out: Samples, tmp_path: Path) -> None:
    made = optimise_graph(original, tmp_path / "m.onnx")
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            def share_of_zeros(labels, outputs):
                return float(((outputs["label"] == 0) == (labels == 0)).mean())

            def wrong(labels, outputs):
                return 1 - share_of_zeros(labels, outputs)

            def broken(labels, outputs):
                return outputs["nothing"].mean()
            """
        )
    )

    def judged(name: str, better: str = "") -> Verdict:
        metric = f"{tmp_path}/mine.py:{name}"
        found = metrics.judge(original, made, held_out, ALLOWED, metric=metric, better=better)
        return found.verdict

    assert judged("share_of_zeros") is Verdict.ACCEPTED
    assert judged("wrong", "lower") is Verdict.ACCEPTED
    for name, told in (("broken", "broken raised KeyError: 'nothing'"), ("absent", "no function")):
        with pytest.raises(PreparationError, match=told):
            judged(name)
    for metric in ("mine.py", "missing.py:f", "precision"):
        with pytest.raises(PreparationError, match=r"FILE.py:FUNCTION|does not exist"):
            metrics.judge(original, made, held_out, ALLOWED, metric=metric)


def test_labels_that_fit_no_output(original: Candidate, held_out: Samples) -> None:
    unlabelled = Samples(held_out.inputs)
    with pytest.raises(PreparationError, match="no labels, which accuracy needs"):
        metrics.judge(original, original, unlabelled, ALLOWED)
    words = Samples(held_out.inputs, np.full(len(held_out), "cat"))
    with pytest.raises(PreparationError, match="is not plain"):
        metrics.judge(original, original, words, ALLOWED)
    with pytest.raises(PreparationError, match="is not plain"):
        metrics.judge(
            original, original, Samples(held_out.inputs, np.zeros((797, 3))), ALLOWED, metric="rmse"
        )


def test_a_disc_that_fills_up(original: Candidate, tmp_path: Path) -> None:
    """Files may grow to 8 KiB only: the model that was there stays, nothing half is left."""
    out = tmp_path / "m.onnx"
    out.write_bytes(b"the one before")
    script = """
        import resource, sys
        from pathlib import Path
        from tidegate.preparation import session
        from tidegate.preparation.errors import PreparationError
        from tidegate.preparation.optimise.graph import optimise_graph
        from tidegate.preparation.optimise.prune import prune_unstructured
        from tidegate.preparation.optimise.quantise import quantise_dynamic

        made = session.candidate("fp32", Path(sys.argv[1]), [])
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        for work in (
            lambda out: prune_unstructured(made, out, 0.5), lambda out: quantise_dynamic(made, out),
        ):
            try:
                work(Path(sys.argv[2]))
            except PreparationError as problem:
                print(problem)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(original.path), str(out)],
        # The limit would cut what Python caches of its modules, too, for all runs after this one.
        env={
            "PYTHONPATH": "operator",
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stdout.splitlines()
    assert len(told) == 2, done
    assert all("is full: nothing of m.onnx was kept" in line for line in told), told
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.onnx", b"the one before")]


@pytest.mark.parametrize(
    ("after_ms", "told"),
    [
        ([0.5] * 21, "faster: 0.50 of the time (0.50 to 0.50)"),
        ([1.5] * 21, "slower: 1.50 times as long"),
        ([0.5, 2.0] * 10 + [1.0], "no difference shown: 1.00 of the time (0.50 to 2.00)"),
        # Four of 21 that were held up by something else change nothing.
        ([0.5] * 17 + [9.0] * 4, "faster: 0.50 of the time"),
    ],
)
def test_what_paired_times_say(after_ms: list[float], told: str) -> None:
    found = timing.speed([0.001] * 21, [ms / 1000.0 for ms in after_ms], batch=8)
    assert told in found.sentence()
