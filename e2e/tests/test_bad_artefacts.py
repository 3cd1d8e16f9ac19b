"""A bad model never goes live; its reason stands in Ready=False; the one before it serves on."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from e2e.load import Load, Orders, answers
from e2e.tests import artefacts
from e2e.tests.space import Space, condition, model_deployment, stable

NAME: Final = "whoami"
WORDS: Final = "weights.bin has 7 layers, not 12"
ONNX_START: Final = b"\x08\x08\x12\x07pytorch"
"""As an ONNX file begins; all that was left of it."""


@dataclass(frozen=True)
class Bad:
    """A bad model.

    Attributes:
        case: its name.
        files: what lies at the source; empty: nothing.
        reason: of Ready=False; ``ModelNotLoaded``: Triton says so, and no pod of it will ever load.
        texts: what its message holds.
        object: the one file of `files` that the URI names; empty: the whole folder.
        source: more of ``model.source``.
    """

    case: str
    files: Mapping[str, bytes]
    reason: str
    texts: tuple[str, ...]
    object: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rolled_back(self) -> bool:
        """Whether it was tried and failed, rather than waits for files that are mended."""
        return self.reason == "ModelNotLoaded"


def table() -> list[Bad]:
    """What people upload."""
    good = artefacts.whoami("bad")
    return [
        Bad("nothing there", {}, "SourceNotFound", ("spec.model.source.uri",)),
        Bad("only an empty file", {"README": b""}, "ArtifactEmpty", ("spec.model.source.uri",)),
        Bad(
            "truncated onnx",
            {"model.onnx": ONNX_START},
            "ArtifactInvalid",
            ("model.onnx", "cut off", "upload it anew"),
        ),
        Bad(
            "wrong sha256",
            good,
            "ChecksumMismatch",
            ("spec.model.source.sha256", "a" * 64, "Correct the digest"),
            source={"sha256": "a" * 64},
        ),
        Bad("zip bomb", {"m.zip": artefacts.zip_bomb()}, "ArchiveUnsafe", ("m.zip",), "m.zip"),
        Bad(
            "archive with a link",
            {"m.tar.gz": artefacts.tar(good, {"1/weights.bin": "/etc/passwd"})},
            "ArchiveUnsafe",
            ("1/weights.bin", "link"),
            "m.tar.gz",
        ),
        Bad(
            "archive that leads outside",
            {"m.tar.gz": artefacts.tar(good | {"../../models/evil/1/model.py": b"x"})},
            "ArchiveUnsafe",
            ("../../models/evil",),
            "m.tar.gz",
        ),
        Bad(
            "0-byte config.pbtxt",
            good | {"config.pbtxt": b""},
            "ConfigInvalid",
            ("config.pbtxt", "it is empty"),
        ),
        Bad(
            "config.pbtxt that is none",
            good | {"config.pbtxt": b"name: {{ .Values.name }}"},
            "ConfigInvalid",
            ("config.pbtxt",),
        ),
        Bad(
            "files of no backend",
            {"model.pkl": b"\x80\x04K\x01."},
            "UnknownBackend",
            ("model.pkl", "treelite"),
        ),
        Bad(
            "a backend that nobody knows",
            {"config.pbtxt": artefacts.config("nonesuch"), "1/model.bin": b"x"},
            "UnknownBackend",
            ("config.pbtxt backend", "nonesuch", "spec.model.backend"),
        ),
        Bad("raises while it loads", artefacts.raising(WORDS), "ModelNotLoaded", (WORDS,)),
        Bad(
            "shapes that cannot be",
            good | {"config.pbtxt": artefacts.config(dims="[ 1, -7 ]")},
            "ConfigInvalid",
            ("config.pbtxt input", "content", "-7"),
        ),
        Bad(
            "shapes other than the model's",
            artefacts.expecting(dims=7),
            "ModelNotLoaded",
            ("content", "dims"),
        ),
    ]


@pytest.fixture(scope="module")
def first(space: Space, whoami: dict[str, str]) -> str:
    """Hash of the revision that serves before, between and after."""
    space.apply(model_deployment(NAME, whoami["one"]))
    return str(stable(space.ready(NAME))["hash"])


@pytest.fixture(scope="module")
def load(space: Space, first: str) -> Iterator[Load]:
    """Requests that go on while all this happens."""
    http, grpc = space.address(NAME), space.grpc_address(NAME)
    with Load(Orders(http, grpc, NAME, "x", rate_hz=5, limit_s=600)) as found:
        yield found


@pytest.mark.parametrize("bad", [pytest.param(bad, id=bad.case) for bad in table()])
def test_reason_is_told_and_the_previous_revision_serves(
    space: Space, load: Load, first: str, bad: Bad
) -> None:
    pods = space.restarts(NAME)
    serving = {p["metadata"]["uid"] for p in space.pods(NAME) if revision_of(p) == first}
    assert len(serving) == 1
    uri = artefacts.put(f"bad/{re.sub('[^a-z0-9]+', '-', bad.case)}", bad.files)
    source = {"sha256": None, **bad.source, "uri": uri + (f"/{bad.object}" if bad.object else "")}
    space.patch(NAME, {"model": {"source": source}})
    if bad.rolled_back:
        told = space.not_ready(NAME, "RolledBack", bad.reason, *bad.texts)
        found = space.live(NAME)
        assert condition(found, "Stalled")["reason"] == "RolledBack"
        assert "canary" not in found["status"]["revisions"]
        assert found["status"]["history"][0]["outcome"] == "RolledBack"
        assert [t["weight"] for t in found["status"]["traffic"]] == [100]
    else:
        told = space.not_ready(NAME, bad.reason, *bad.texts)
        found = space.live(NAME)
        assert condition(found, "Stalled")["reason"] == bad.reason
        canary = found["status"]["revisions"]["canary"]
        assert canary["reason"] == bad.reason
        assert canary["source"] == source["uri"]
        assert [t["weight"] for t in found["status"]["traffic"]] == [100, 0]
    assert f"Revision {first} goes on serving" in told["message"]
    assert condition(found, "Available")["status"] == "True"
    assert stable(found)["hash"] == first
    entry = space.require("v1", "Service", NAME)
    assert entry["spec"]["selector"]["tidegate.dev/revision"] == first
    assert {uid: n for uid, n in space.restarts(NAME).items() if uid in serving} == {
        uid: pods[uid] for uid in serving
    }
    load.await_more(3)
    load.assert_no_failure(at_least=3)
    assert set(answers(load.requests, "label")) == {"one"}


def test_a_good_one_goes_live_and_no_request_failed(
    space: Space, load: Load, first: str, whoami: dict[str, str]
) -> None:
    space.patch(NAME, {"model": {"source": {"uri": whoami["two"], "sha256": None}}})
    found = space.ready(NAME)
    assert stable(found)["source"] == whoami["two"]
    assert condition(found, "Stalled")["status"] == "False"
    assert "canary" not in found["status"]["revisions"]
    assert found["status"]["history"][0]["outcome"] == "Promoted"
    load.await_more(30)
    load.assert_no_failure()
    said = answers(load.requests, "label")
    assert set(said) == {"one", "two"}
    assert said[-1] == "two"
    space.until(
        NAME,
        lambda _: (
            {key for key in space.owned(NAME) if first in key[1]}
            == {("ControllerRevision", f"{NAME}-{first}")}
        ),
        "of the first revision only its record is left",
    )


def revision_of(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["tidegate.dev/revision"])
