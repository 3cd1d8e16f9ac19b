"""A cache of fetched models on a shared claim, safe for many pods at once.

Layout, below ``tidegate-v1`` on the claim::

    objects/<digest>/tree/...     the files of one model, named by the digest of their tree
    objects/<digest>/meta.json    paths, sizes and SHA-256 of the files
    refs/<key>                    source identity (URI, endpoint, listing) -> digest
    turns/<key>.lock              whoever downloads this identity holds it
    partial/<key>/                parts of a download, gone on with by the next holder

Correctness rests on two things only: an object appears by one atomic rename, whole; and whoever
takes it hashes every byte while copying it and compares with the digest in its name. The lock only
saves work, so a file system without locks is good enough. What is half written, or rotten, is
never used.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tidegate.fetch.digest import tree_digest
from tidegate.fetch.download import discard
from tidegate.fetch.errors import disk_full
from tidegate.fetch.paths import why_unsafe
from tidegate.fetch.progress import log

VERSION = "tidegate-v1"
COPY_BYTES = 1 << 20
POLL_S = 1.0
TELL_EVERY_S = 10.0
MAX_WAIT_S = 3600.0
"""Longest wait for another pod's download of the same bytes; then this pod does its own."""
STALE_S = 24 * 3600.0
"""Parts and trash that nobody has touched for so long are removed."""


@dataclass(frozen=True)
class CachedTree:
    """What was taken from the cache.

    Attributes:
        digest: of the tree, verified.
        files: path to bytes and SHA-256.
        object_sha256: of the one object that the source was; None for folders.
    """

    digest: str
    files: dict[str, tuple[int, str]]
    object_sha256: str | None


class Cache:
    """One claim."""

    def __init__(self, root: Path) -> None:
        """``root`` is the mounted claim's folder of this cache's version."""
        self._root = root
        self.objects = root / "objects"
        self.refs = root / "refs"
        self.turns = root / "turns"
        self.partial = root / "partial"
        self.trash = root / "trash"

    @classmethod
    def open(cls, mount: Path | None) -> "Cache | None":
        """The cache on a mounted claim; None if there is none, or it cannot be written."""
        if mount is None:
            return None
        cache = cls(mount / VERSION)
        try:
            for folder in (cache.objects, cache.refs, cache.turns, cache.partial, cache.trash):
                folder.mkdir(parents=True, exist_ok=True)
            cache.sweep()
        except OSError as exc:
            log("warning", "the cache cannot be used; going on without it", error=str(exc))
            return None
        return cache

    def take(self, digest: str, into: Path) -> CachedTree | None:
        """Copy a tree out of the cache, verifying every byte.

        Args:
            digest: 64 hex characters.
            into: folder to make; left absent if the answer is None.

        Raises:
            DiskFull: ``into``'s volume is.
        """
        entry = self.objects / digest
        discard(into)
        try:
            meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
            names = {str(p): str(sha) for p, (_, sha) in meta["files"].items()}
            if tree_digest(names) != digest or any(why_unsafe(p) for p in names):
                raise ValueError("its list of files does not have its digest")
            files = {}
            for path, sha256 in names.items():
                size, found = _copy_hashing(entry / "tree" / path, into / path)
                if found != sha256:
                    raise ValueError(f"{path} is not what it was")
                files[path] = (size, sha256)
            return CachedTree(digest, files, meta["object_sha256"])
        except FileNotFoundError:
            missing = not entry.exists()
            error = "a file is missing"
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            missing, error = False, str(exc)
        except OSError as exc:
            if full := disk_full(exc, into):
                raise full from exc
            missing, error = False, str(exc)
        discard(into)
        if not missing:
            log("warning", "a rotten cache entry is thrown away", digest=digest, error=error)
            self._throw_away(entry)
        return None

    @asynccontextmanager
    async def turn(
        self, uri: str, endpoint: str | None, identity: str, poll_s: float = POLL_S
    ) -> AsyncIterator["Entry"]:
        """Wait until no other pod downloads the same bytes, then hold the turn.

        Args:
            uri: of the source.
            endpoint: of the source.
            identity: of its listing.
            poll_s: between two looks at the lock.
        """
        key = hashlib.sha256(repr((uri, endpoint, identity)).encode()).hexdigest()
        lock = self.turns / f"{key}.lock"
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            held = await self._acquire(fd, key, poll_s)
            # Without the lock another pod may be writing to the shared parts.
            yield Entry(self, key, key if held else f"{key}-{uuid.uuid4().hex}")
        finally:
            os.close(fd)

    async def _acquire(self, fd: int, key: str, poll_s: float) -> bool:
        started = told = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                pass
            except OSError as exc:
                log("warning", "the cache has no locks; going on without", error=str(exc))
                return False
            now = time.monotonic()
            if now - started > MAX_WAIT_S:
                log("warning", "waited long enough for another pod's download")
                return False
            if now - told >= TELL_EVERY_S or told == started:
                told = now
                log("info", "another pod downloads the same model; waiting", seconds=now - started)
            await asyncio.sleep(poll_s)

    def sweep(self, now_s: float | None = None) -> None:
        """Remove parts and trash that were left behind long ago."""
        now_s = time.time() if now_s is None else now_s
        for folder in (self.partial, self.trash):
            for entry in folder.iterdir():
                with suppress(OSError):
                    newest = max(p.stat().st_mtime for p in (entry, *entry.rglob("*")))
                    if now_s - newest > STALE_S:
                        shutil.rmtree(entry, ignore_errors=True)

    def _throw_away(self, entry: Path) -> None:
        away = self.trash / uuid.uuid4().hex
        with suppress(OSError):
            entry.rename(away)
        shutil.rmtree(away, ignore_errors=True)


class Entry:
    """The turn to fill the cache with one source identity."""

    def __init__(self, cache: Cache, key: str, work: str) -> None:
        """``work`` names the folder of parts."""
        self._cache = cache
        self._ref = cache.refs / key
        self._work = cache.partial / work
        self.parts = self._work / "parts"
        self.tree = self._work / "tree"

    def digest(self) -> str | None:
        """The digest that this identity had when it was last downloaded."""
        try:
            text = self._ref.read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return text if len(text) == 64 and text.isalnum() else None

    def publish(
        self,
        digest: str,
        files: Mapping[str, tuple[int, str]],
        object_sha256: str | None,
    ) -> None:
        """Make the downloaded tree an object, by one rename.

        Raises:
            DiskFull: the claim is.
        """
        meta = {"files": dict(files), "object_sha256": object_sha256}
        try:
            _write_durably(self._work / "meta.json", json.dumps(meta))
            discard(self.parts)
            for path in files:
                _sync(self.tree / path)
            with suppress(OSError):  # another pod was faster, with the same bytes
                self._work.rename(self._cache.objects / digest)
            temporary = self._ref.with_name(f"{self._ref.name}.{uuid.uuid4().hex}")
            _write_durably(temporary, digest)
            temporary.rename(self._ref)
        except OSError as exc:
            raise disk_full(exc, self._cache.objects) or exc from exc
        discard(self._work)

    def abandon(self) -> None:
        """Give up: nothing of this download stays on the claim."""
        discard(self._work)


def _copy_hashing(source: Path, to: Path) -> tuple[int, str]:
    """Copy a file; its size in bytes and SHA-256 as read."""
    to.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as f, to.open("wb") as out:
        while block := f.read(COPY_BYTES):
            digest.update(block)
            out.write(block)
            size += len(block)
    return size, digest.hexdigest()


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


def _sync(path: Path) -> None:
    """Flush a file, so that a node's crash cannot leave an object with holes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
