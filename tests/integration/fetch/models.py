"""Small models as files: a Triton repository's folder with a Python backend, and bare artefacts."""

import io
import tarfile
from pathlib import Path

from tidegate.fetch.digest import tree_digest

SCRIPT = b"class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
PYTHON_MODEL: dict[str, bytes] = {
    "config.pbtxt": b'backend: "python"\nmax_batch_size: 8\n',
    "1/model.py": SCRIPT,
    "1/weights.bin": bytes(range(256)) * 512,
}
ONNX = b"\x08\x08\x12\x07pytorch" + b"\x00" * 2000


def write(root: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def digest_of(files: dict[str, bytes]) -> str:
    import hashlib

    return "sha256:" + tree_digest({p: hashlib.sha256(d).hexdigest() for p, d in files.items()})


def tar_gz(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
