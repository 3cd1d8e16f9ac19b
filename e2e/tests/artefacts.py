"""Models of the tests: a small one that says who it is, and broken ones.

Each is a set of files; `put` makes an S3 prefix equal to it.
"""

import hashlib
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from e2e.cluster import paths
from e2e.demo.upload import upload
from e2e.models.magika import build as magika
from e2e.tests.space import SETTINGS

BUCKET: Final = "e2e"
Files = dict[str, bytes]
"""Content by path."""

_MODEL: Final = '''\
"""Says which version it is, in which pod, and which GPUs the pod was given."""

import os

import numpy as np
import triton_python_backend_utils as pb_utils

SAYS = {
    "label": "@LABEL@",
    "pod": os.environ["HOSTNAME"],
    "gpus": os.environ.get("NVIDIA_VISIBLE_DEVICES", ""),
    "greeting": os.environ.get("GREETING", ""),
}


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            content = pb_utils.get_input_tensor_by_name(request, "content").as_numpy()
            responses.append(pb_utils.InferenceResponse([
                pb_utils.Tensor(name, np.full(content.shape, text.encode(), dtype=object))
                for name, text in SAYS.items()
            ]))
        return responses
'''
OUTPUTS: Final = ("label", "pod", "gpus", "greeting")


def config(backend: str = "python", dims: str = "1", outputs: tuple[str, ...] = OUTPUTS) -> bytes:
    """A ``config.pbtxt``."""
    lines = [f'backend: "{backend}"', "max_batch_size: 8"]
    lines += [f'input {{ name: "content" data_type: TYPE_STRING dims: {dims} }}']
    lines += [f'output {{ name: "{name}" data_type: TYPE_STRING dims: 1 }}' for name in outputs]
    lines += ["instance_group { kind: KIND_CPU count: 1 }"]
    return "\n".join(lines).encode()


def whoami(label: str) -> Files:
    """A model whose output ``label`` is that text."""
    return {"config.pbtxt": config(), "1/model.py": _MODEL.replace("@LABEL@", label).encode()}


def raising(words: str) -> Files:
    """A model that raises while it is loaded."""
    code = (
        "class TritonPythonModel:\n"
        "    def initialize(self, args):\n"
        f"        raise RuntimeError({words!r})\n"
        "    def execute(self, requests):\n"
        "        return []\n"
    )
    return {"config.pbtxt": config(), "1/model.py": code.encode()}


def expecting(dims: int) -> Files:
    """A model whose input has other dimensions than its configuration says."""
    code = (
        "class TritonPythonModel:\n"
        "    @staticmethod\n"
        "    def auto_complete_config(config):\n"
        "        wanted = {'name': 'content', 'data_type': 'TYPE_STRING', "
        f"'dims': [{dims}]}}\n"
        "        config.add_input(wanted)\n"
        "        return config\n"
        "    def execute(self, requests):\n"
        "        return []\n"
    )
    return {"config.pbtxt": config(), "1/model.py": code.encode()}


def zip_bomb(megabytes: int = 200) -> bytes:
    """Zeros that pack to a thousandth."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("1/weights.bin", "w", force_zip64=True) as member,
    ):
        for _ in range(megabytes):
            member.write(bytes(1 << 20))
    return packed.getvalue()


def tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A ``.tar.gz`` with these files and symbolic links, whatever their names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return packed.getvalue()


def put(prefix: str, files: Mapping[str, bytes]) -> str:
    """Make a prefix of the bucket equal to these files; returns its URI."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), files)
        _upload(Path(folder), f"{BUCKET}/{prefix}")
    return f"s3://{BUCKET}/{prefix}"


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def put_magika() -> dict[str, str]:
    """Both generations of Magika; their URIs by name (``v1``, ``v3``)."""
    folders = magika.build(paths.CACHE / "magika" / "repositories")
    for name, folder in folders.items():
        _upload(folder, f"{BUCKET}/magika/{name}")
    return {name: f"s3://{BUCKET}/magika/{name}" for name in folders}


def _upload(folder: Path, destination: str) -> None:
    upload(
        folder,
        destination,
        endpoint=SETTINGS.s3_endpoint,
        access_key=SETTINGS.s3_access_key,
        secret_key=SETTINGS.s3_secret_key,
    )


def sha256(content: bytes) -> str:
    """In hex."""
    return hashlib.sha256(content).hexdigest()
