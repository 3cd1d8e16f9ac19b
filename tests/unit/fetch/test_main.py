"""The request, the pin, and the termination message."""

import json
import re
from pathlib import Path

import pytest

from tidegate.api.spec import Model
from tidegate.fetch import main as module
from tidegate.fetch.credentials import Credentials
from tidegate.fetch.errors import REASONS, ConfigInvalid, FetchError, SchemeRefused, redact
from tidegate.fetch.fetching import Result
from tidegate.fetch.main import MAX_MESSAGE_BYTES, failure_message, main, run, success_message
from tidegate.fetch.request import (
    FetchRequest,
    Mounts,
    pinned_request,
    read_pin,
    read_request,
)
from tidegate.fetch.source import SCHEMES, Listing, RemoteFile
from tidegate.platform import FetchPolicy


def mounts(tmp_path: Path, document: object) -> Mounts:
    path = tmp_path / "fetch.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return Mounts(request=path, pin=tmp_path / "digest", termination_log=tmp_path / "log")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "JSON"),
        ({}, "uri"),
        ({"uri": "s3://a/b"}, "modelName"),
        ({"uri": "s3://a/b", "modelName": "../x"}, "modelName"),
        ({"uri": "s3://a/b", "modelName": "m", "sha256": "abc"}, "sha256"),
        ({"uri": "s3://a/b", "modelName": "m", "colour": 1}, "colour"),
        (
            {"uri": "s3://a/b", "modelName": "m", "policy": {"allowPrivateAddresses": ["x"]}},
            "policy",
        ),
    ],
)
def test_requests_that_are_none(tmp_path: Path, document: object, words: str) -> None:
    with pytest.raises(ConfigInvalid, match=words):
        read_request(mounts(tmp_path, document))


def test_the_policy_of_the_platform_is_understood_whole() -> None:
    policy = FetchPolicy().model_dump(mode="json", by_alias=True)
    request = FetchRequest.model_validate({"uri": "s3://a/b", "modelName": "m", "policy": policy})
    assert request.policy.model_dump(mode="json", by_alias=True) == policy


def test_every_scheme_that_a_platform_may_allow_is_served() -> None:
    assert set(FetchPolicy().allowed_schemes) <= set(SCHEMES)


@pytest.mark.parametrize(
    "uri", ["s3:/x", "file:///etc/passwd", "models/x", "ftp://a/b", "http://a"]
)
def test_schemes_that_are_refused(uri: str) -> None:
    request = FetchRequest(uri=uri, model_name="m")
    with pytest.raises(SchemeRefused, match="Use one of: s3, https"):
        _ = request.scheme


def test_the_pin(tmp_path: Path) -> None:
    where = mounts(tmp_path, {})
    assert read_pin(where) is None
    where.pin.write_text("sha256:" + "a" * 64 + "\n")
    assert read_pin(where) == "a" * 64
    for text in ("", "a" * 64, "md5:" + "a" * 64, "sha256:" + "a" * 63):
        where.pin.write_text(text)
        with pytest.raises(ConfigInvalid):
            read_pin(where)


def test_pinned_bytes_are_taken_from_where_they_stay(tmp_path: Path) -> None:
    where = mounts(tmp_path, {})
    request = FetchRequest(uri="mlflow://m/@champion", model_name="m")
    assert pinned_request(request, where) is request
    where.pinned_address.write_text("mlflow://m/7")
    assert pinned_request(request, where).uri == "mlflow://m/7"


def test_the_version_of_a_source_is_made_as_it_always_was() -> None:
    # A fleet that follows its sources takes another text for a change (or, with another format
    # before the dash, as nothing to compare with).
    file = RemoteFile("1/m.onnx", 7, '"etag"', "bucket/m/1/m.onnx")
    other = RemoteFile("config.pbtxt", 3, None, "k", sha256="ab" * 32, unpack="")
    assert Listing((file, other)).version == "v1-286c3f38570d86d6c505a91e8cc7fc9ffa3aeb57"
    assert (
        Listing((other, file), address="s3://elsewhere").version
        == "v1-286c3f38570d86d6c505a91e8cc7fc9ffa3aeb57"
    )
    assert Listing((RemoteFile("m.onnx", 7),)).version is None


def test_a_look_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    request = {"uri": "pvc://claim/model.onnx", "modelName": "m", "source": str(tmp_path)}
    code, message = run(mounts(tmp_path, {}), json.dumps(request))
    assert (code, json.loads(message)["sourceAddress"]) == (0, None)
    assert json.loads(message)["sourceVersion"].startswith("v1-")
    gone = json.dumps(request | {"uri": "pvc://claim/none.onnx"})
    code, message = run(mounts(tmp_path, {}), gone)
    assert (code, json.loads(message)["reason"]) == (1, "SourceNotFound")
    code, message = run(mounts(tmp_path, {}), "{")
    assert (code, json.loads(message)["reason"]) == (1, "ConfigInvalid")


CONTRACT = (
    "SourceMoved ArtifactGone SourceNotFound SourceUnreachable AccessDenied CredentialsMissing "
    "ChecksumMismatch SignatureMissing SignatureInvalid "
    "ArtifactEmpty ArtifactInvalid ArchiveUnsafe LayoutAmbiguous UnknownBackend "
    "ConfigInvalid AddressRefused SchemeRefused TooLarge DiskFull"
)


def test_the_reasons_are_those_of_the_contract() -> None:
    made = {cls("f", "v", "p", "m").reason for cls in _all(FetchError)}
    assert made == set(CONTRACT.split())
    assert {c.__name__ for c in REASONS} == made


def _all(cls: type[FetchError]) -> list[type[FetchError]]:
    return [d for c in cls.__subclasses__() for d in (c, *_all(c))]


def test_a_message_names_field_value_and_mend() -> None:
    for cls in _all(FetchError):
        error = cls("spec.x", "v" * 1000, "it is wrong", "Mend it")
        assert error.message.startswith("spec.x 'v")
        assert error.message.endswith(": it is wrong. Mend it.")
        assert len(error.message) < 400


@pytest.mark.parametrize("text", ["x" * 10_000, "ü" * 5_000, '"\\\n' * 4_000, "short"])
def test_a_failure_fits_into_a_termination_message(text: str) -> None:
    message = failure_message("ConfigInvalid", text)
    assert len(message.encode()) < MAX_MESSAGE_BYTES
    assert json.loads(message)["reason"] == "ConfigInvalid"
    assert json.loads(message)["message"][:3] == text[:3]
    assert json.loads(message)["message"][-3:] == text[-3:]


def test_a_success() -> None:
    message = json.loads(success_message(Result("a" * 64, 10, 2, "python", "bare", 1.23456, True)))
    assert message == {
        "digest": "sha256:" + "a" * 64,
        "bytes": 10,
        "files": 2,
        "backend": "python",
        "layout": "bare",
        "seconds": 1.235,
        "cached": True,
    }


def test_whatever_happens_ends_in_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = mounts(tmp_path, {"uri": "s3://a/b", "modelName": "m", "target": str(tmp_path / "t")})
    for exc in (MemoryError(), RecursionError("deep"), ValueError("x" * 9000), KeyError("k")):

        async def fail(*_: object, exc: Exception = exc) -> Result:
            raise exc

        monkeypatch.setattr(module, "fetch", fail)
        code, message = run(where)
        assert code == 1
        assert type(exc).__name__ in json.loads(message)["message"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    missing = str(tmp_path / "none.json")
    assert main([missing, "--termination-log", str(log)]) == 1
    assert json.loads(log.read_text())["reason"] == "ConfigInvalid"
    assert main([missing, "--termination-log", "/nonexistent/log"]) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "ConfigInvalid"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h/x?sig=s3cret#f", "https://h/x?..."),
        ("https://h/x", "https://h/x"),
        ("s3://b/k", "s3://b/k"),
        ("http://[bad", "<not a URL>"),
    ],
)
def test_secrets_in_addresses(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_credentials_are_the_mounted_keys(tmp_path: Path) -> None:
    assert not Credentials.read(tmp_path / "none").mounted
    data = tmp_path / "..2026"
    data.mkdir()
    (data / "token").write_text(" s3cret\n")
    (data / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "..data").symlink_to(data)
    (tmp_path / "token").symlink_to("..data/token")
    (tmp_path / "binary").symlink_to("..data/binary")
    credentials = Credentials.read(tmp_path)
    assert credentials.get("token") == "s3cret"
    assert credentials.get("binary", "none") is None
    assert "s3cret" not in repr(credentials)
    with pytest.raises(FetchError, match="keys: token") as caught:
        credentials.need("other", purpose="s3")
    assert "s3cret" not in caught.value.message


def test_the_model_name_rule_is_that_of_the_resource() -> None:
    field = Model.model_fields["name"]
    ours = next(
        m for m in FetchRequest.model_fields["model_name"].metadata if hasattr(m, "pattern")
    )
    assert str(ours.pattern) in re.sub(r"\\\\", r"\\", repr(field))
