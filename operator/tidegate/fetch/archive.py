"""Safe extraction of archives: regular files and folders only, all inside, no bombs.

Refused, never skipped: links, devices, absolute paths, ``..``, a name twice, encryption, and
anything that unpacks to far more than it is. Layers of a container image are unpacked in order
with whiteouts; links in them (an image's root file system is full of them) are left out, since no
file is ever opened through a path that an earlier member made.
"""

import bz2
import errno
import gzip
import hashlib
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tidegate.fetch.download import Limits
from tidegate.fetch.errors import ArchiveUnsafe, ArtifactInvalid, disk_full
from tidegate.fetch.paths import why_unsafe

BLOCK = 1 << 20
MAX_RATIO = 200
"""Bytes out for a byte in. Weights compress by less than 10; deflate can do 1,032."""
RATIO_FREE_BYTES = 64 << 20
"""Below this size the ratio does not matter: configuration files compress well."""
MAX_HEADER_BYTES = 1 << 20
_HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
# What tarfile, zipfile and the decompressors raise for damaged files.
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, IndexError, KeyError, OverflowError),
)
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".zip")
WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"


def is_archive(name: str) -> bool:
    """Whether a file's name says that it is an archive."""
    return name.lower().endswith(SUFFIXES)


class Extractor:
    """Extracts archives into one folder, under common limits."""

    def __init__(self, root: Path, limits: Limits) -> None:
        """``root`` must be a fresh folder that nobody else writes to."""
        self._root = root
        self._limits = limits
        self.files: dict[str, tuple[int, str]] = {}
        self.links: set[str] = set()
        self._bytes = 0

    def extract(self, archive: Path, name: str, into: str = "") -> None:
        """Unpack one archive.

        Args:
            archive: the file.
            name: what it is called, for its kind and for messages.
            into: folder below the root.

        Raises:
            ArchiveUnsafe: see the module.
            ArtifactInvalid: it is broken, or not an archive.
            TooLarge: more than the platform allows.
            DiskFull: no room.
        """
        prefix = f"{into}/" if into else ""
        seen: set[str] = set()
        budget = _Budget(name, archive.stat().st_size)
        with self._translated(name):
            if name.lower().endswith(".zip"):
                self._zip(archive, name, prefix, seen, budget)
                return
            with _open_tar(archive, name) as tar:
                for member in tar:
                    self._tar_member(tar, member, name, prefix, seen, budget)

    def apply_layer(self, archive: Path, name: str) -> None:
        """Unpack a layer of a container image over the ones before it."""
        budget = _Budget(name, archive.stat().st_size)
        seen: set[str] = set()
        with self._translated(name), _open_tar(archive, name) as tar:
            for member in tar:
                path = _normal(member.name)
                folder, _, base = path.rpartition("/")
                if base == OPAQUE:
                    self._drop_below(folder, keep=seen)
                elif base.startswith(WHITEOUT):
                    gone = f"{folder}/{base[len(WHITEOUT) :]}".lstrip("/")
                    self._drop(gone)
                    self._drop_below(gone, keep=set())
                elif member.isreg() or member.isdir():
                    if member.isreg():
                        self._drop_below(path, keep=set())
                        self._drop(path)
                    self.links.discard(path)
                    self._tar_member(tar, member, name, "", seen, budget)
                else:
                    self._drop(path)
                    self.links.add(path)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Errors of the archive libraries as ours."""
        try:
            yield
        except _BROKEN as exc:
            raise _broken(name, exc) from exc
        except OSError as exc:
            if full := disk_full(exc, self._root):
                raise full from exc
            # gzip's and bz2's own errors have no errno; offsets that lie give EINVAL.
            if exc.errno in (None, errno.EINVAL):
                raise _broken(name, exc) from exc
            raise
        except Exception as exc:
            if type(exc).__name__ == "ZstdError":
                raise _broken(name, exc) from exc
            raise

    def select(self, folder: str) -> None:
        """Make a folder of an image the root, if it has that folder.

        Raises:
            ArchiveUnsafe: the model itself holds a link.
        """
        start = f"{folder}/"
        if any(p.startswith(start) for p in self.files):
            for path in [p for p in self.files if not p.startswith(start)]:
                self._drop(path)
            self.links = {p for p in self.links if p.startswith(start)}
            kept = self._root.with_name(self._root.name + ".selected")
            (self._root / folder).rename(kept)
            shutil.rmtree(self._root)
            kept.rename(self._root)
            self.files = {p[len(start) :]: f for p, f in self.files.items()}
        if self.links:
            raise ArchiveUnsafe(
                "image layer",
                min(self.links),
                "it is a link or a device; a model is made of files and folders",
                "Copy the file itself into the image",
            )

    def _tar_member(
        self,
        tar: tarfile.TarFile,
        member: tarfile.TarInfo,
        name: str,
        prefix: str,
        seen: set[str],
        budget: "_Budget",
    ) -> None:
        if member.isdir() and _normal(member.name) == "":
            return
        path = self._checked(member.name, name, prefix, seen)
        if member.isdir():
            (self._root / path).mkdir(parents=True, exist_ok=True)
            return
        if not member.isreg() or member.issparse():
            raise ArchiveUnsafe(
                f"archive {name}",
                member.name,
                f"it is {_kind(member)}; only files and folders are unpacked",
                "Pack the files themselves (tar --dereference)",
            )
        stream = tar.extractfile(member)
        assert stream is not None
        with stream:
            self._write(path, stream, budget)
        if self.files[path][0] != member.size:
            raise _broken(name, EOFError(f"{member.name} is cut off"))

    def _zip(
        self, archive: Path, name: str, prefix: str, seen: set[str], budget: "_Budget"
    ) -> None:
        with zipfile.ZipFile(archive) as z:
            members = z.infolist()
            self._limits.check(sum(m.file_size for m in members), len(members), f"archive {name}")
            for member in members:
                path = self._checked(member.filename, name, prefix, seen)
                mode = member.external_attr >> 16
                if member.is_dir():
                    (self._root / path).mkdir(parents=True, exist_ok=True)
                    continue
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                    raise ArchiveUnsafe(
                        f"archive {name}",
                        member.filename,
                        "it is a link or a device; only files and folders are unpacked",
                        "Pack the files themselves",
                    )
                if member.flag_bits & 1:
                    raise ArtifactInvalid(
                        f"archive {name}", member.filename, "it is encrypted", "Pack it openly"
                    )
                with z.open(member) as stream:
                    self._write(path, stream, budget)

    def _checked(self, raw: str, name: str, prefix: str, seen: set[str]) -> str:
        inner = _normal(raw)
        problem = "it is absolute" if raw.startswith("/") else why_unsafe(inner)
        path = prefix + inner
        if problem is None and path in seen and (self._root / path).is_file():
            problem = "it comes twice"
        # A parent that is a file would be written through; a member cannot make a link.
        if problem is None and any(
            p.is_file() for p in (self._root / path).parents if self._root in p.parents
        ):
            problem = "its folder is a file"
        if problem:
            raise ArchiveUnsafe(f"archive {name}", raw, problem, "Pack the model's folder anew")
        seen.add(path)
        self._limits.check(0, len(seen), f"archive {name}")
        return path

    def _write(self, path: str, stream: IO[bytes], budget: "_Budget") -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._limits.check(self._bytes, len(self.files) + 1, "unpacked archive")
        if target.is_dir():
            raise ArchiveUnsafe(
                f"archive {budget.name}", path, "a file where a folder is", "Pack it anew"
            )
        digest, size = hashlib.sha256(), 0
        before = self.files.pop(path, (0, ""))[0]
        self._bytes -= before
        with target.open("wb") as out:
            while block := stream.read(BLOCK):
                size += len(block)
                self._limits.check(self._bytes + size, 0, "unpacked archive")
                budget.spend(len(block))
                digest.update(block)
                out.write(block)
        self._bytes += size
        self.files[path] = (size, digest.hexdigest())

    def _drop(self, path: str) -> None:
        self.links.discard(path)
        if path in self.files:
            self._bytes -= self.files.pop(path)[0]
            (self._root / path).unlink()

    def _drop_below(self, folder: str, keep: set[str]) -> None:
        start = f"{folder}/" if folder else ""
        for path in [p for p in self.files if p.startswith(start) and p not in keep]:
            self._drop(path)


@dataclass
class _Budget:
    """How much one archive may still unpack to."""

    name: str
    packed: int
    spent: int = 0

    def spend(self, size: int) -> None:
        self.spent += size
        if self.spent > RATIO_FREE_BYTES and self.spent > self.packed * MAX_RATIO:
            raise ArchiveUnsafe(
                f"archive {self.name}",
                f"{self.packed} bytes",
                f"it unpacks to more than {MAX_RATIO} times its size",
                "Looks like a bomb; publish the files unpacked if they are meant to be so",
            )


class _BoundedTarInfo(tarfile.TarInfo):
    """Refuses huge extended headers, which `tarfile` would read into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADER_TYPES and self.size > MAX_HEADER_BYTES:
            raise ArchiveUnsafe(
                "archive header", f"{self.size} bytes", "too long for a name", "Pack it anew"
            )
        done: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return done


@contextmanager
def _open_tar(path: Path, name: str) -> Iterator[tarfile.TarFile]:
    """A tar as a stream, whatever compresses it (told by its first bytes, not by its name).

    At the end the rest of the stream is read, so that the compressor's checksum is looked at.
    """
    with path.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        plain: Any = raw
        if magic.startswith(b"\x28\xb5\x2f\xfd"):
            import zstandard

            plain = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
                raw, read_across_frames=True
            )
        elif magic.startswith(b"\x1f\x8b"):
            plain = gzip.GzipFile(fileobj=raw)
        elif magic.startswith(b"BZh"):
            plain = bz2.BZ2File(raw)
        with tarfile.open(fileobj=plain, mode="r|", tarinfo=_BoundedTarInfo) as tar:
            yield tar
        rest = 0
        while block := plain.read(BLOCK):
            rest += len(block)
            if rest > RATIO_FREE_BYTES:
                raise ArchiveUnsafe(
                    "archive", name, "much follows after its end", "Pack the folder anew"
                )


def _normal(name: str) -> str:
    """``./a/b/`` as ``a/b``; anything else odd is left for the check."""
    while name.startswith("./"):
        name = name[2:]
    return "" if name == "." else name.rstrip("/")


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {member.linkname!r}"
    return "sparse" if member.issparse() else "a device or pipe"


def _broken(name: str, exc: BaseException) -> ArtifactInvalid:
    return ArtifactInvalid(
        "archive",
        name,
        f"it is broken or cut off ({str(exc)[:120] or type(exc).__name__})",
        "Pack and upload it anew",
    )
