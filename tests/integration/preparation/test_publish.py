"""Signed and published by the whole command, and fetched by the code that pods run."""

import errno
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import model_signing
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from typer.testing import CliRunner

from tests.integration.fetch.pod import Pod
from tests.integration.fetch.registry import Registry
from tests.integration.preparation.conftest import Silent
from tidegate.cli.main import app
from tidegate.fetch.errors import SignatureInvalid
from tidegate.fetch.signature import NAME, check
from tidegate.platform import Verify
from tidegate.preparation import pipeline
from tidegate.preparation.errors import PreparationError
from tidegate.preparation.lineage import digest
from tidegate.preparation.order import Order, Place
from tidegate.preparation.publish import oci, publishing, signing
from tidegate.preparation.publish.target import files_in

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


def saved(
    place: Path, private: Any, encryption: KeySerializationEncryption | None = None
) -> tuple[Path, str]:
    encryption = encryption or NoEncryption()
    place.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return place, public.decode()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A private key's file, and the public key."""
    place = tmp_path_factory.mktemp("keys") / "release.pem"
    return saved(place, ec.generate_private_key(ec.SECP256R1()))


def hashes(folder: Path) -> dict[str, str]:
    return {name: digest(path).removeprefix("sha256:") for name, path in files_in(folder).items()}


def options(order: Order, out: Path, registry: Registry, key: Path, name: str) -> list[str]:
    said = ["--name", "digits", "--model", str(order.model), "--data", str(order.data)]
    said += ["--slo", "p95=200ms", "--max-drop", "3%", "--framework", "sklearn", "--quick"]
    said += ["--optimise", "int8-dynamic,pruned", "--triton", order.triton]
    said += ["--work", str(order.work), "--licence", "Apache-2.0", "--out", str(out)]
    said += ["--publish", f"oci://{registry.host}/{name}", "--endpoint", registry.url]
    return [*said, "--sign", str(key)]


def test_from_the_command_to_the_pod_and_again_from_its_report(
    order: Order,
    report: Mapping[str, Any],
    registry: Registry,
    key: tuple[Path, str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    said = options(order, out, registry, key[0], "team/digits:stable")
    first = CliRunner().invoke(app, ["prepare", *said])
    assert first.exit_code == 0, first.output
    made = json.loads((out / "report.json").read_text())
    uri, sha256 = made["published"]["uri"], made["published"]["sha256"]
    assert f"published: {uri}" in first.output
    assert uri.startswith(f"oci://{registry.host}/team/digits@sha256:")
    assert made["published"]["signed"]
    assert made["tuning"] == report["tuning"], "measured once"
    (manifest,) = yaml.safe_load_all((out / "manifests/modeldeployment.yaml").read_text())
    assert manifest["spec"]["model"]["source"] == {
        "uri": uri,
        "sha256": sha256,
        "endpoint": registry.url,
    }

    verify = {"keys": [key[1]], "required": True}
    followed = f"oci://{registry.host}/team/digits:stable"
    for number, address in enumerate((uri, followed)):
        pod = Pod(tmp_path / f"pod-{number}")
        message = pod.fetch(
            address, endpoint=registry.url, sha256=sha256, modelName="digits", verify=verify
        ).ok()
        assert message["digest"] == f"sha256:{sha256}"
    url = f"{registry.url}/v2/team/digits/manifests/{sha256[:16]}-report"
    with registry._request("GET", url, Accept=oci.MANIFEST) as answer:
        layers = json.loads(answer.read())["layers"]
    titles = {layer["annotations"][oci.TITLE] for layer in layers}
    assert {"report.json", "report.html", "curve.png", "manifests/golden.yaml"} <= titles

    again = CliRunner().invoke(app, ["prepare", "--from-report", str(out / "report.json")])
    assert again.exit_code == 0, again.output
    assert "sending model" not in again.output
    assert json.loads((out / "report.json").read_text())["published"] == made["published"]

    (out / "report.json").write_text(json.dumps(made | {"candidates": []}))
    refused = CliRunner().invoke(app, ["prepare", "--from-report", str(out / "report.json")])
    assert refused.exit_code != 0
    assert "no finished preparation" in str(refused.exception)


def test_a_full_disc_leaves_what_was_published_and_goes_on(
    order: Order,
    report: Mapping[str, Any],
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the folder, after everything was sent: the tag does not move, and nothing is half."""
    out = tmp_path / "out"
    store = f"oci://{registry.host}/full:stable"
    full = replace(order, place=Place(out, store=store, endpoint=registry.url))
    # Those of the first run: a server would answer the same, only later.
    (golden,) = yaml.safe_load_all((order.place.folder / "manifests/golden.yaml").read_text())
    monkeypatch.setattr(publishing, "_golden", lambda prepared, tell: golden)
    announced: list[str] = []
    announce = oci.Registry.announce
    monkeypatch.setattr(oci.Registry, "announce", lambda self: announced.append(announce(self)))

    filed = oci.Registry.file

    def no_room(self: oci.Registry, papers: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(oci.Registry, "file", no_room)
    with pytest.raises(PreparationError, match="No space left on device"):
        pipeline.prepare(full, Silent())
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []
    assert announced == []

    monkeypatch.setattr(oci.Registry, "file", filed)
    teller = Silent()
    made = pipeline.prepare(full, teller)
    assert announced == [store]
    assert not any(text.startswith("sending digits/") for text in teller.told), "it went on"
    assert made["tuning"] == report["tuning"]


class TestSigning:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        (tmp_path / "model" / "m" / "1").mkdir(parents=True)
        (tmp_path / "model" / "m" / "1" / "model.onnx").write_bytes(b"weights")
        (tmp_path / "model" / ".gitignore").write_text("*")
        return tmp_path / "model"

    @pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
    def test_what_it_signs_pods_verify(
        self, model: Path, tmp_path: Path, curve: ec.EllipticCurve
    ) -> None:
        private, public = saved(tmp_path / "key.pem", ec.generate_private_key(curve))
        signing.sign(model, private, tmp_path / "kept")
        check(model, hashes(model), Verify(keys=(public,)))
        with_key = model_signing.verifying.Config().use_elliptic_key_verifier(
            public_key=_file(tmp_path / "key.pub", public)
        )
        every = model_signing.hashing.Config().set_ignored_paths(
            paths=[NAME], ignore_git_paths=False
        )
        with_key.set_hashing_config(every).verify(model, model / NAME)
        (model / "m" / "1" / "model.onnx").write_bytes(b"others!")
        with pytest.raises(SignatureInvalid, match=r"changed since: m/1/model\.onnx"):
            check(model, hashes(model), Verify(keys=(public,)))

    def test_signed_twice_is_signed_the_same(
        self, model: Path, tmp_path: Path, key: tuple[Path, str]
    ) -> None:
        signing.sign(model, key[0], tmp_path / "kept")
        first = hashes(model)
        signing.sign(model, key[0], tmp_path / "kept")
        assert hashes(model) == first
        (model / "m" / "new").write_text("x")
        signing.sign(model, key[0], tmp_path / "kept")
        assert hashes(model)[NAME] != first[NAME]
        check(model, hashes(model), Verify(keys=(key[1],)))

    def test_a_key_with_a_password(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = ec.generate_private_key(ec.SECP256R1())
        private, public = saved(tmp_path / "key.pem", made, BestAvailableEncryption(b"secret"))
        with pytest.raises(signing.SigningError, match=signing.PASSWORD):
            signing.check(private)
        monkeypatch.setenv(signing.PASSWORD, "wrong")
        with pytest.raises(signing.SigningError, match="cannot sign"):
            signing.check(private)
        monkeypatch.setenv(signing.PASSWORD, "secret")
        signing.sign(model, private, tmp_path / "kept")
        check(model, hashes(model), Verify(keys=(public,)))

    def test_keys_that_cannot_sign(self, tmp_path: Path) -> None:
        with pytest.raises(signing.SigningError, match="cannot be read"):
            signing.check(tmp_path / "none.pem")
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        for private in (
            _file(tmp_path / "text.pem", "no key"),
            saved(tmp_path / "rsa.pem", other)[0],
            _file(tmp_path / "public.pem", saved(tmp_path / "x.pem", other)[1]),
        ):
            with pytest.raises(signing.SigningError, match="cannot sign") as raised:
                signing.check(private)
            assert "\n" not in str(raised.value)


def _file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
