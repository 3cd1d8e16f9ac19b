"""Credentials: the keys of the one mounted Secret, as files. Nothing else is ever read.

The libraries' own search (environment, home folder, instance metadata) is switched off by each
source; workload identity of a cloud is used only where its webhook has put its variables into
this container's environment.
"""

from collections.abc import Mapping
from pathlib import Path

from tidegate.fetch.errors import CredentialsMissing

MAX_BYTES = 1 << 20  # a Secret is at most 1 MiB


class Credentials:
    """The Secret's keys; a value appears in no message."""

    def __init__(self, values: Mapping[str, str] | None) -> None:
        """``None``: no Secret is mounted."""
        self.mounted = values is not None
        self._values = dict(values or {})

    @classmethod
    def read(cls, folder: Path) -> "Credentials":
        """Read a mounted Secret; keys that are not text are left out."""
        if not folder.is_dir():
            return cls(None)
        values: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            # Kubernetes puts the data behind hidden ..data links.
            if path.name.startswith("..") or not path.is_file():
                continue
            try:
                values[path.name] = path.read_bytes()[:MAX_BYTES].decode().strip()
            except UnicodeDecodeError:
                continue
        return cls(values)

    def get(self, *keys: str) -> str | None:
        """The first of these keys that is there and not empty."""
        return next((v for k in keys if (v := self._values.get(k))), None)

    def need(self, key: str, *others: str, purpose: str) -> str:
        """Like `get`.

        Raises:
            CredentialsMissing: none of the keys is there.
        """
        value = self.get(key, *others)
        if value is None:
            raise self.missing(key, purpose)
        return value

    def missing(self, keys: str, purpose: str) -> CredentialsMissing:
        """The error for a source that wants these keys."""
        if not self.mounted:
            return CredentialsMissing(
                "spec.model.source.secretName",
                "<none>",
                f"{purpose} asks for credentials",
                f"Create a Secret with {keys} in this namespace and name it there",
            )
        have = ", ".join(sorted(self._values)) or "none"
        return CredentialsMissing(
            "spec.model.source.secretName",
            f"keys: {have}",
            f"{purpose} needs the key {keys}",
            "Add it to the Secret",
        )

    def __repr__(self) -> str:
        return f"Credentials(keys={sorted(self._values)})"
