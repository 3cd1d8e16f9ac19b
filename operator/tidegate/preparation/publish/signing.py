"""A signature by OpenSSF's model-signing, beside the files that it is of.

Whoever signs twice signs differently (ECDSA draws a random number), and the signature counts in the
tree's digest. So it is kept in the working folder, by files and key, and taken again while it fits.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Final

from tidegate.fetch.digest import file_sha256, tree_digest
from tidegate.fetch.signature import NAME, verify
from tidegate.preparation.errors import INSTALL, PreparationError, one_line
from tidegate.preparation.publish.target import files_in
from tidegate.preparation.writing import writable

PASSWORD: Final = "TIDEGATE_SIGN_PASSWORD"


class SigningError(PreparationError):
    """The key cannot be used; the text says why."""


def check(key: Path) -> str:
    """Whether a key can sign; before hours of work.

    Returns:
        Its public half, as PEM.

    Raises:
        SigningError: it cannot.
    """
    try:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        private = _loaded(key)
        signer(key)
        public: bytes = private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return public.decode()
    except ModuleNotFoundError as error:
        raise SigningError(f"{error.name} is not installed: {INSTALL}") from None
    except OSError as error:
        raise SigningError(f"{key} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise SigningError(
            f"{key} cannot sign ({one_line(error)}): name the PEM file of a private key of an "
            f"elliptic curve, P-256, P-384 or P-521; its password, if it has one, in {PASSWORD}"
        ) from error


def _loaded(key: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(key.read_bytes(), _password())


def _password() -> Any:
    """As bytes, whatever model-signing's types say: it passes it on as it is."""
    said = os.environ.get(PASSWORD)
    return said.encode() if said else None


def signer(key: Path) -> Any:
    """model-signing's, with a key; of all files, git's own, too."""
    from model_signing import hashing, signing

    every = hashing.Config().set_ignored_paths(paths=[NAME], ignore_git_paths=False)
    config = signing.Config().set_hashing_config(every)
    return config.use_elliptic_key_signer(private_key=key, password=_password())


def sign(folder: Path, key: Path, kept: Path) -> None:
    """Put the signature into a folder, at its root.

    Args:
        folder: whose files; nothing of them may change afterwards.
        key: the private key.
        kept: folder of the signatures that were made before.

    Raises:
        SigningError: the key cannot be used.
    """
    files = {name: file_sha256(path) for name, path in files_in(folder).items() if name != NAME}
    public = check(key)
    place = (
        kept / f"{tree_digest(files)[:32]}-{hashlib.sha256(public.encode()).hexdigest()[:16]}.sig"
    )
    if not place.exists():
        with writable(place):
            kept.mkdir(parents=True, exist_ok=True)
            part = place.with_suffix(".part")
            signer(key).sign(folder, part)
            part.replace(place)
    made = place.read_bytes()
    verify(made, {**files, NAME: ""}, [public])  # as pods will
    (folder / NAME).write_bytes(made)
