"""Whose signature counts, and what it must be of.

``artefacts/signed`` was signed by model-signing 1.1.1 (``model_signing sign key``, P-256); the
others are made here in the same form.
"""

import base64
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tidegate.fetch.digest import file_sha256
from tidegate.fetch.errors import ConfigInvalid, FetchError, SignatureInvalid
from tidegate.fetch.main import run
from tidegate.fetch.request import Mounts
from tidegate.fetch.signature import NAME, check, find, verify
from tidegate.platform import FetchPolicy, Verify, VerifyRule

SIGNED = Path(__file__).parent / "artefacts" / "signed"
PUBLIC = SIGNED.with_suffix(".pem").read_text()


def key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    found = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found.decode()


MINE, OTHER = key(), key()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def statement(files: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    listed = [{"name": n, "algorithm": "sha256", "digest": h} for n, h in sorted(files.items())]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "m", "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": listed,
        },
    } | changes


def bundle(
    document: Any, private: ec.EllipticCurvePrivateKey = MINE, kind: str | None = None
) -> bytes:
    payload = json.dumps(document).encode()
    kind = kind or "application/vnd.in-toto+json"
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload
    sizes = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    signature = private.sign(signed, ec.ECDSA(sizes[private.curve.key_size]))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    return json.dumps({"verificationMaterial": {}, "dsseEnvelope": envelope}).encode()


FILES = {"m/config.pbtxt": sha(b"config"), "m/1/model.onnx": sha(b"weights")}
GOOD = bundle(statement(FILES))
THERE = {**FILES, NAME: sha(GOOD)}


def tree(root: Path) -> dict[str, str]:
    return {p.relative_to(root).as_posix(): file_sha256(p) for p in root.rglob("*") if p.is_file()}


class TestRealSignature:
    def test_it_is_good(self) -> None:
        check(SIGNED, tree(SIGNED), Verify(keys=(pem(OTHER), PUBLIC)))

    @pytest.mark.parametrize("kept", ["m/1/model.onnx", "m/config.pbtxt"])
    def test_one_changed_byte_is_seen(self, tmp_path: Path, kept: str) -> None:
        shutil.copytree(SIGNED, tmp_path / "m")
        changed = tmp_path / "m" / kept
        changed.write_bytes(changed.read_bytes()[:-1] + b"X")
        with pytest.raises(SignatureInvalid, match=f"changed since: {kept}"):
            check(tmp_path / "m", tree(tmp_path / "m"), Verify(keys=(PUBLIC,)))

    def test_another_key_is_not_enough(self) -> None:
        with pytest.raises(SignatureInvalid, match="by none of the platform's keys") as raised:
            check(SIGNED, tree(SIGNED), Verify(keys=(pem(OTHER),)))
        assert "by 425da5982b7c6fda" in raised.value.message, "which one it names"

    def test_a_pod_serves_it_or_says_why_not(self, tmp_path: Path) -> None:
        """The whole program, with the files in a claim."""

        def fetched(target: str, source: Path, keys: str, required: bool) -> dict[str, Any]:
            (tmp_path / target).mkdir()
            request = {
                "uri": "pvc://claim/",
                "modelName": "m",
                "source": str(source),
                "target": str(tmp_path / target),
                "verify": {"keys": [keys], "required": required},
            }
            (tmp_path / "fetch.json").write_text(json.dumps(request))
            none = tmp_path / "none"
            code, text = run(
                Mounts(tmp_path / "fetch.json", none / "digest", none, none, none, none)
            )
            message: dict[str, Any] = json.loads(text)
            served = (tmp_path / target / "m" / "1" / "model.onnx").exists()
            assert served == (code == 0) == ("reason" not in message)
            return message

        assert fetched("good", SIGNED, PUBLIC, True)["layout"] == "repository"
        assert not (tmp_path / "good" / NAME).exists(), "no business of Triton's"
        refused = fetched("by-another", SIGNED, pem(OTHER), False)
        assert refused["reason"] == "SignatureInvalid", "what is signed must be signed well"
        shutil.copytree(SIGNED / "m", tmp_path / "bare" / "m")
        assert fetched("missing", tmp_path / "bare", PUBLIC, True)["reason"] == "SignatureMissing"
        assert "reason" not in fetched("unasked", tmp_path / "bare", PUBLIC, False)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_all_curves_that_model_signing_signs_with(curve: ec.EllipticCurve) -> None:
    private = key(curve)
    verify(bundle(statement(FILES), private), THERE, [pem(OTHER), pem(private)])


@pytest.mark.parametrize(
    ("found", "files", "said"),
    [
        (b"", THERE, "no Sigstore bundle"),
        (b"[]", THERE, "no Sigstore bundle"),
        (b'{"dsseEnvelope": {"signatures": []}}', THERE, "no Sigstore bundle"),
        (GOOD.replace(b'"sig": "', b'"sig": "!'), THERE, "no Sigstore bundle"),
        (GOOD.replace(b'"sig": "', b'"sig": "AAAA'), THERE, "none of the platform's keys"),
        (bundle(statement(FILES), OTHER), THERE, "none of the platform's keys"),
        (bundle(statement(FILES), kind="text/plain"), THERE, "payload is 'text/plain'"),
        (bundle({}), THERE, "cannot be read"),
        (bundle([]), THERE, "cannot be read"),
        (bundle(statement(FILES, predicateType="x")), THERE, "it states 'x'"),
        (bundle(statement(FILES, predicate={})), THERE, "cannot be read"),
        (GOOD, {**THERE, "m/1/extra.so": sha(b"x")}, "not signed: m/1/extra.so"),
        (GOOD, {**THERE, ".hidden": sha(b"x")}, "not signed: .hidden"),
        (GOOD, {**THERE, "m/model.sig": sha(b"x")}, "not signed: m/model.sig"),
        (GOOD, {k: v for k, v in THERE.items() if "onnx" not in k}, "not there: m/1/model.onnx"),
        (GOOD, {**THERE, "m/1/model.onnx": sha(b"y")}, "changed since: m/1/model.onnx"),
    ],
)
def test_what_is_refused(found: bytes, files: dict[str, str], said: str) -> None:
    with pytest.raises(SignatureInvalid, match=said):
        verify(found, files, [pem(MINE)])


@pytest.mark.parametrize(
    "change",
    [
        {"method": "shards", "hash_type": "sha256"},
        {"method": "files", "hash_type": "blake2b"},
    ],
)
def test_other_ways_to_hash_are_named(change: dict[str, str]) -> None:
    document = statement(FILES)
    document["predicate"]["serialization"] = change
    with pytest.raises(SignatureInvalid, match="not files by sha256"):
        verify(bundle(document), THERE, [pem(MINE)])


def test_a_file_listed_twice() -> None:
    document = statement(FILES)
    document["predicate"]["resources"] += statement({"m/config.pbtxt": sha(b"evil")})["predicate"][
        "resources"
    ]
    with pytest.raises(SignatureInvalid, match="twice"):
        verify(bundle(document), THERE, [pem(MINE)])


def test_ignored_paths_are_not_believed() -> None:
    document = statement(FILES)
    document["predicate"]["serialization"]["ignore_paths"] = ["m/1/evil.py"]
    with pytest.raises(SignatureInvalid, match=r"not signed: m/1/evil\.py"):
        verify(bundle(document), {**THERE, "m/1/evil.py": sha(b"")}, [pem(MINE)])


def test_it_is_about_the_folder_that_it_lies_in() -> None:
    inside = {f"release-3/{path}": digest for path, digest in THERE.items()}
    assert find(inside) == "release-3/model.sig"
    verify(GOOD, inside, [pem(MINE)], "release-3/model.sig")
    with pytest.raises(SignatureInvalid, match="not signed: /loose"):
        verify(GOOD, {**inside, "loose": sha(b"")}, [pem(MINE)], "release-3/model.sig")


def test_the_topmost_counts() -> None:
    assert find({}) is None
    assert find({"a/model.sig.txt": ""}) is None
    assert find({"a/b/model.sig": "", "z/model.sig": "", "b/model.sig": ""}) == "b/model.sig"


@pytest.mark.parametrize(
    "made",
    [
        "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n",
        pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        pem(key(ec.SECP256K1())),
    ],
)
def test_a_key_that_is_none_is_the_platforms_fault(made: str) -> None:
    with pytest.raises(ConfigInvalid, match="number 2"):
        verify(GOOD, THERE, [pem(MINE), made])


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xyz"), min_size=1, max_size=4))
def test_only_the_very_files_pass(files: dict[str, str]) -> None:
    """Whatever is there beside the signature: it passes if and only if it is what was signed."""
    signed = {"a": sha(b"x"), "b": sha(b"y")}
    there = {path: sha(text.encode()) for path, text in files.items()}
    made = bundle(statement(signed))
    try:
        verify(made, {**there, NAME: sha(made)}, [pem(MINE)])
    except FetchError:
        assert there != signed
    else:
        assert there == signed


def rule(**fields: Any) -> VerifyRule:
    return VerifyRule.model_validate({"keys": [PUBLIC], **fields})


class TestPolicy:
    @pytest.mark.parametrize(
        ("namespaces", "sources", "fits"),
        [
            ([], [], True),
            (["prod"], [], True),
            (["pro*", "x"], [], True),
            (["test"], [], False),
            ([], ["s3://models/prod"], True),
            ([], ["s3://models/prod/"], True),
            ([], ["s3://models/prod/digits/3"], True),
            ([], ["s3://"], True),
            ([], ["s3://models/pro"], False),
            ([], ["hf://"], False),
            (["test"], ["s3://"], False),
        ],
    )
    def test_a_rule_fits(self, namespaces: list[str], sources: list[str], fits: bool) -> None:
        found = rule(namespaces=namespaces, sources=sources)
        assert found.fits("prod", "s3://models/prod/digits/3") == fits

    @pytest.mark.parametrize(
        ("uri", "source"),
        [
            ("oci://reg.example/models/m:v1", "oci://reg.example/models/m"),
            ("oci://reg.example/models/m@sha256:1", "oci://reg.example/models/m"),
            ("hf://owner/name@main", "hf://owner/name"),
        ],
    )
    def test_versions_belong_to_their_repository(self, uri: str, source: str) -> None:
        assert rule(sources=[source]).fits("n", uri)

    @pytest.mark.parametrize(
        ("uri", "source"),
        [
            ("https://h/public/../private/m", "https://h/public"),
            ("https://h/public/%2e%2e/private/m", "https://h/public"),
            ("oci://reg.example:5000/m:v1", "oci://reg.example"),
            ("https://h.evil.example/m", "https://h"),
        ],
    )
    def test_an_exception_is_not_got_by_spelling(self, uri: str, source: str) -> None:
        assert not rule(sources=[source]).fits("n", uri)

    def test_the_first_that_fits_counts(self) -> None:
        policy = FetchPolicy(
            verify=(rule(sources=["s3://sandbox"], required=False), rule(namespaces=["prod"]))
        )
        found = policy.verified("prod", "s3://sandbox/m")
        assert found is not None
        assert not found.required
        found = policy.verified("prod", "s3://models/m")
        assert found == Verify(keys=(PUBLIC,), required=True)
        assert policy.verified("dev", "s3://models/m") is None

    @pytest.mark.parametrize(
        "keys", [[], ["abc"], ["-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"]]
    )
    def test_keys_are_public_keys(self, keys: list[str]) -> None:
        with pytest.raises(ValidationError):
            Verify.model_validate({"keys": keys})
