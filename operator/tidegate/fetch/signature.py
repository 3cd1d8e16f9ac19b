"""The signature that a model's files bring: whether it is one of the platform's, and of these.

It is what OpenSSF's model-signing writes with a key: a Sigstore bundle around a DSSE envelope
(https://github.com/secure-systems-lab/dsse) around an in-toto statement that lists every file
with its SHA-256. The package itself brings Sigstore's client, twenty packages that no key needs;
reading its file takes a signature check by ``cryptography`` and a comparison.

Stricter than that package: a file that the signature does not list is refused, whatever the
signature says of ignored paths. No clock, no network.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from tidegate.fetch.errors import ConfigInvalid, SignatureInvalid, SignatureMissing
from tidegate.fetch.progress import log
from tidegate.platform import Verify

NAME: Final = "model.sig"
MAX_BYTES: Final = 64 << 20
"""Of the signature: a hundred thousand files need a third of it."""
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
SHOWN: Final = 3
_AGAIN: Final = "Sign the files anew, after their last change, and publish both"
# By Sigstore's algorithm registry; model-signing signs with no other curve.
_HASHES: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


def check(root: Path, files: Mapping[str, str], wanted: Verify) -> None:
    """Hold a model's files to what the platform asks of their signature.

    Args:
        root: folder.
        files: all of them, path to SHA-256 hex.
        wanted: the platform's policy.

    Raises:
        SignatureMissing: there is none, and there must be.
        SignatureInvalid: it is not by one of these keys, or not of these files.
        ConfigInvalid: a key of the platform's is none.
    """
    name = find(files)
    if name is None:
        if wanted.required:
            raise SignatureMissing(
                "model files",
                f"no {NAME}",
                "the platform serves only signed models here, and these bring no signature",
                "Sign them (tidegate prepare --sign, or model_signing sign key) and publish the "
                "signature with them",
            )
        log("info", "no signature, and none is asked for")
        return
    if (root / name).stat().st_size > MAX_BYTES:
        raise SignatureInvalid(name, "", f"it is above {MAX_BYTES} bytes", _AGAIN)
    signer = verify((root / name).read_bytes(), files, wanted.keys, name)
    log("info", "the signature is good", key=signer, files=len(files) - 1)


def find(files: Mapping[str, str]) -> str | None:
    """The signature's path: the topmost file of its name; None: there is none."""
    found = [path for path in files if path.rpartition("/")[2] == NAME]
    return min(found, key=lambda path: (path.count("/"), path), default=None)


def verify(bundle: bytes, files: Mapping[str, str], keys: Sequence[str], name: str = NAME) -> str:
    """Check a signature; see `check`.

    Args:
        bundle: the signature file.
        files: all files, the signature's own, too: path to SHA-256 hex.
        keys: PEM; one of them must have signed.
        name: path of the signature; it is about the folder that it lies in.

    Returns:
        The first digits of the key's fingerprint, as model-signing writes it.
    """
    payload, signature = _envelope(bundle, name)
    signed_bytes = b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )
    known = [_key(pem, number) for number, pem in enumerate(keys)]
    signer = next((key for key in known if _has_signed(key, signature, signed_bytes)), None)
    if signer is None:
        tried = ", ".join(map(fingerprint, known))
        raise SignatureInvalid(
            name,
            _hint(bundle),
            f"it is by none of the platform's keys ({tried})",
            "Have it signed by one of them, or ask the platform team to add the key to "
            "fetch.verify in the chart's values",
        )
    folder = name[: -len(NAME)]
    _compare(_resources(payload, name), {p: h for p, h in files.items() if p != name}, folder, name)
    return fingerprint(signer)


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """The beginning of a key's SHA-256, as model-signing's bundles hint at it."""
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()[:16]


def _envelope(bundle: bytes, name: str) -> tuple[bytes, bytes]:
    """Payload and signature."""
    try:
        envelope = json.loads(bundle)["dsseEnvelope"]
        (signature,) = envelope["signatures"]
        kind = envelope["payloadType"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        sig = base64.b64decode(signature["sig"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error) as exc:
        raise _unreadable(name, "it is no Sigstore bundle with one signature") from exc
    if kind != PAYLOAD_TYPE:
        raise _unreadable(name, f"its payload is {kind!r}, not {PAYLOAD_TYPE}")
    return payload, sig


def _key(pem: str, number: int) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise ConfigInvalid(
            "fetch.verify keys",
            f"number {number + 1}",
            "it is no public key of an elliptic curve P-256, P-384 or P-521",
            "The platform team sets it in the chart's values",
        )
    return key


def _has_signed(key: ec.EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, ec.ECDSA(_HASHES[key.curve.name]()))
    except InvalidSignature:
        return False
    return True


def _hint(bundle: bytes) -> str:
    """By which key it says to be; only to show."""
    try:
        hint = json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError):
        return "by an unnamed key"
    return f"by {str(hint)[:16]}"


def _resources(payload: bytes, name: str) -> dict[str, str]:
    """What was signed: path to SHA-256 hex. The payload is authentic by now."""
    try:
        statement: Any = json.loads(payload)
        if (statement["_type"], statement["predicateType"]) != (STATEMENT, PREDICATE):
            raise _unreadable(name, f"it states {statement['predicateType']!r}, not {PREDICATE}")
        predicate = statement["predicate"]
        method, kind = (predicate["serialization"][k] for k in ("method", "hash_type"))
        listed = [(r["name"], r["algorithm"], r["digest"]) for r in predicate["resources"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise _unreadable(name, "its statement cannot be read") from exc
    if method != "files" or {kind, *(a for _, a, _ in listed)} != {"sha256"}:
        raise _unreadable(name, f"it lists {method!r} by {kind!r}, not files by sha256")
    found = {str(path): str(digest) for path, _, digest in listed}
    if len(found) != len(listed):
        raise _unreadable(name, "it lists a file twice")
    return found


def _compare(signed: Mapping[str, str], files: Mapping[str, str], folder: str, name: str) -> None:
    # Files outside the signed folder keep their whole path, which no signed name has.
    there = {(p[len(folder) :] if p.startswith(folder) else f"/{p}"): h for p, h in files.items()}
    problems = (
        ("changed since", [p for p, h in signed.items() if there.get(p, h) != h]),
        ("not there", [p for p in signed if p not in there]),
        ("not signed", [p for p in there if p not in signed]),
    )
    told = "; ".join(f"{what}: {_some(paths)}" for what, paths in problems if paths)
    if told:
        raise SignatureInvalid(name, folder or ".", f"it is of other files ({told})", _AGAIN)


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(sorted(paths)[:SHOWN]) + more


def _unreadable(name: str, problem: str) -> SignatureInvalid:
    return SignatureInvalid(
        name, "", problem, "Sign with model-signing 1.x and a key, by its defaults for hashing"
    )
