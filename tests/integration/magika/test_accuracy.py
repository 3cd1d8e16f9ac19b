"""The served Magika says of real files exactly what the magika package says."""

import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc

from e2e.demo.client import identify_grpc, identify_http
from e2e.models.magika.build import GENERATIONS, Generation, build
from e2e.models.magika.reference import identify
from e2e.native.processes import Pod, pod

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[3]
MACHINE = (Path("/usr/share"), Path("/usr/lib/python3"), Path("/usr/lib"), Path("/usr/bin"))
PER_SUFFIX = 5
LARGEST_BYTES = 4 << 20
FEWEST_REAL_FILES = 200
FEWEST_LABELS = 20


def real_files() -> list[Path]:
    """This repository's own files, and of the machine's a few of each suffix."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    own = [REPOSITORY / name for name in tracked.split("\0") if name]
    by_suffix: dict[str, list[Path]] = defaultdict(list)
    seen = 0
    for folder in MACHINE:
        for path in folder.rglob("*"):
            seen += 1
            if seen > 60_000:
                break
            kind = by_suffix[path.suffix.lower()]
            if len(kind) < PER_SUFFIX and path.is_file() and not path.is_symlink():
                kind.append(path)
    machine = [path for kind in by_suffix.values() for path in kind]
    return [
        path for path in (*own, *machine) if path.is_file() and path.stat().st_size <= LARGEST_BYTES
    ]


def edge_files(folder: Path) -> list[Path]:
    """Files at the edges of what the features are made of: sizes, whitespace, text or not."""
    source = (REPOSITORY / "operator/tidegate/api/admission.py").read_bytes() * 3
    contents = {
        "empty": b"",
        "whitespace": b" \n\t" * 3000,
        "little-in-whitespace": b" " * 5000 + b"word" + b"\n" * 5000,
        "blank-first-block": b"\n" * 4096 + source,
        "blank-last-block": source[:9000] + b"\n" * 4096,
        "not-text": bytes(range(128, 140)),
        "zeros": bytes(20_000),
        "cut-character": ("x" * 4 + "é" * 3).encode()[:-1],
        "late-character": b"\n" * 4095 + "é".encode(),
    }
    # 4096 is the block, 8704 where the older generation changes its way, 8 and 16 the fewest bytes.
    for size in (1, 7, 8, 9, 15, 16, 17, 18, 511, 512, 513, 1023, 1024, 1025, 2048, 4095, 4096,
                 4097, 8191, 8192, 8193, 8703, 8704, 8705, 12_288):  # fmt: skip
        contents[f"text-{size}"] = source[:size]
        contents[f"padded-{size}"] = (b"  \n" + source[: max(0, size - 5)] + b"\n ")[:size]
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [*real_files(), *edge_files(tmp_path_factory.mktemp("edges"))]


@pytest.fixture(scope="module", params=GENERATIONS, ids=lambda generation: generation.name)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Generation, Pod]]:
    repositories = build(tmp_path_factory.mktemp("repositories"))
    with pod(repositories[request.param.name]) as running:
        yield request.param, running


def ask(running: Pod, files: list[Path]) -> dict[Path, tuple[str, float]]:
    """Several files a request."""
    answers = {}
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.ports.serving}") as client:
        for start in range(0, len(files), 16):
            batch = files[start : start + 16]
            contents = np.array([[file.read_bytes()] for file in batch], dtype=object)
            tensor = tritonclient.grpc.InferInput("content", list(contents.shape), "BYTES")
            tensor.set_data_from_numpy(contents)
            reply = client.infer("magika", [tensor])
            labels, scores = reply.as_numpy("label"), reply.as_numpy("score")
            for file, label, score in zip(batch, labels[:, 0], scores[:, 0], strict=True):
                answers[file] = (label.decode(), float(score))
    return answers


def test_labels_equal_the_packages(
    served: tuple[Generation, Pod], files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    generation, running = served
    truth = identify(generation, files)
    answers = ask(running, files)
    assert answers.keys() == truth.keys()
    wrong = {
        str(file): (answers[file], truth[file])
        for file in files
        if answers[file][0] != truth[file].label
        or answers[file][1] != pytest.approx(truth[file].score, abs=1e-5)
    }
    assert wrong == {}
    labels = Counter(label for label, _ in answers.values())
    real = len(files) - sum("edges" in str(file) for file in files)
    with capsys.disabled():
        print(f"\n{generation.name}: {real} real files, {len(files) - real} edge cases, ", end="")
        print(f"{len(labels)} labels: {', '.join(name for name, _ in labels.most_common(12))}, ...")
    assert real >= FEWEST_REAL_FILES
    assert len(labels) >= FEWEST_LABELS


def test_both_protocols_agree(served: tuple[Generation, Pod]) -> None:
    _, running = served
    files = [REPOSITORY / "pyproject.toml", REPOSITORY / "Makefile", Path(__file__)]
    address = f"127.0.0.1:{running.ports.serving}"
    over_http, over_grpc = identify_http(address, files), identify_grpc(address, files)
    assert [(a.file, a.label, a.score) for a in over_http] == [
        (a.file, a.label, a.score) for a in over_grpc
    ]
    assert [a.label for a in over_grpc][1:] == ["makefile", "python"]


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    def tree(folder: Path) -> dict[str, bytes]:
        return {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }

    one, two = build(tmp_path / "one"), build(tmp_path / "two")
    for name in one:
        assert tree(one[name]) == tree(two[name])
    assert tree(one["v1"]) != tree(one["v3"])
