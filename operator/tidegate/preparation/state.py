"""What a run has done so far, by what it was done with: a later run goes on from there.

One JSON file in the working folder, written anew (and renamed) after each result. A result is known
by a digest of everything that it depends on, so nothing is taken over from other inputs.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tidegate.preparation.errors import PreparationError
from tidegate.preparation.writing import writable

FORMAT: Final = 1
FILE: Final = "state.json"


def key_of(parts: Mapping[str, Any]) -> str:
    """A digest of JSON values by name."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class State:
    """Results by key.

    Args:
        folder: the working folder; made where it is not there.

    Raises:
        PreparationError: it cannot be written, or what is there is not ours.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        with writable(self._path):
            folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Any] = {}
        if self._path.exists():
            try:
                found = json.loads(self._path.read_text())
                known = found["results"] if found["format"] == FORMAT else {}
            except (ValueError, KeyError, TypeError) as error:
                raise PreparationError(
                    f"{self._path} cannot be read ({error}): remove the working folder, or name "
                    "another with --work"
                ) from error
            self._known = dict(known)

    def recall(
        self,
        what: str,
        parts: Mapping[str, Any],
        make: Callable[[], Any],
        *,
        still: Callable[[Any], bool] = lambda value: True,
    ) -> Any:
        """A result that is known, or made now and kept.

        Args:
            what: kind of result.
            parts: all that it depends on, as JSON values.
            make: makes it; a JSON value.
            still: whether a known one still holds (its files may be gone).
        """
        key = f"{what}:{key_of(parts)}"
        if key in self._known and still(self._known[key]):
            return self._known[key]
        self._known[key] = made = json.loads(json.dumps(make()))
        self._write()
        return made

    def _write(self) -> None:
        partial = self._path.with_suffix(".partial")
        with writable(self._path):
            with partial.open("w") as f:
                json.dump({"format": FORMAT, "results": self._known}, f, indent=1)
                f.flush()
                os.fsync(f.fileno())
            partial.replace(self._path)
