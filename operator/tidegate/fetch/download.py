"""Download: many ranges at a time, resumable, hashed while they are written.

A file is cut into segments. Workers fetch segments into ``<file>.part``; a journal beside it names
the finished ones, so that a restarted container goes on where the last one stopped, as long as
the source still has the same version. The hash follows the front of finished segments (they are
then still in the page cache). Memory is a few pieces per worker, whatever the sizes.
"""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.fetch.errors import (
    ArtifactEmpty,
    ArtifactInvalid,
    ChecksumMismatch,
    DiskFull,
    SourceUnreachable,
    TooLarge,
    disk_full,
)
from tidegate.fetch.paths import check_paths
from tidegate.fetch.progress import Progress, reporting
from tidegate.fetch.retry import Backoff, retry
from tidegate.fetch.source import Listing, RemoteFile, Source

SEGMENT_BYTES = 16 << 20
WORKERS = 8
WRITE_BYTES = 1 << 20
HASH_BYTES = 4 << 20
PART, JOURNAL = ".part", ".journal"


@dataclass(frozen=True)
class Limits:
    """What the platform allows one model to be."""

    max_bytes: int
    max_files: int

    def check(self, size: int, files: int, what: str) -> None:
        """Refuse what is too large.

        Raises:
            TooLarge: it is.
        """
        mend = "Make the model smaller, or ask the platform team to raise fetch.{} in the values"
        if files > self.max_files:
            raise TooLarge(
                what, f"{files} files", f"at most {self.max_files}", mend.format("maxFiles")
            )
        if size > self.max_bytes:
            raise TooLarge(
                what, f"{size} bytes", f"at most {self.max_bytes}", mend.format("maxBytes")
            )


@dataclass(frozen=True)
class Fetched:
    """A file on disk.

    Attributes:
        file: what it was at the source.
        path: where it lies.
        size: bytes.
        sha256: hex.
    """

    file: RemoteFile
    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Plan:
    """How a download goes about; tests make the pieces small."""

    segment_bytes: int = SEGMENT_BYTES
    workers: int = WORKERS
    backoff: Backoff = field(default_factory=Backoff)


def check_listing(listing: Listing, limits: Limits, uri: str) -> None:
    """Refuse a listing before a byte is downloaded.

    Raises:
        ArtifactEmpty: no files, or all are empty.
        ArtifactInvalid: names that cannot be used.
        TooLarge: more than allowed.
    """
    files = listing.files
    if not files or all(f.size == 0 for f in files):
        raise ArtifactEmpty(
            "spec.model.source.uri",
            uri,
            f"{len(files)} files, 0 bytes" if files else "no files",
            "Upload the model there",
        )
    if not listing.layers:
        check_paths((f.path for f in files), "file at the source")
    limits.check(sum(f.size or 0 for f in files), len(files), "spec.model.source.uri")


async def download(
    source: Source, listing: Listing, folder: Path, limits: Limits, plan: Plan | None = None
) -> list[Fetched]:
    """Bring all files of a listing to ``folder/<number>``, in the listing's order.

    Args:
        source: read from.
        listing: checked by `check_listing`.
        folder: kept between attempts; holds finished files, parts and journals.
        limits: also for files whose size is only known at their end.
        plan: segments and workers.

    Raises:
        FetchError: a file could not be had, or is not what the source says.
    """
    plan = plan or Plan()
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    sizes = [f.size for f in listing.files]
    total = None if None in sizes else sum(s or 0 for s in sizes)
    jobs = [_Job(f, folder / str(i), listing.ranges, plan) for i, f in enumerate(listing.files)]
    for job in jobs:
        await asyncio.to_thread(job.resume)
    progress = Progress(total, len(jobs), sum(j.have_bytes for j in jobs))
    progress.done_files = sum(j.result is not None for j in jobs)
    _check_room(folder, (total or 0) - progress.done_bytes)
    segments = ((j, i) for j in jobs for i in j.missing())

    async def work() -> None:
        for job, index in segments:  # one generator, shared by all workers
            await job.fetch(source, index, progress, limits)

    try:
        async with reporting(progress), asyncio.TaskGroup() as group:
            for _ in range(plan.workers):
                group.create_task(work())
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from None
    finally:
        for job in jobs:
            job.close()
    return [j.fetched() for j in jobs]


class _Job:
    """One file: its segments, its part file, its journal, its running hash."""

    def __init__(self, file: RemoteFile, path: Path, ranges: bool, plan: Plan) -> None:
        self.file = file
        self.path = path
        self.plan = plan
        self._ranges = ranges
        self._known = file.version is not None or file.sha256 is not None
        self.part = path.with_name(path.name + PART)
        self.journal = path.with_name(path.name + JOURNAL)
        self.result: Fetched | None = None
        self.have_bytes = 0
        cut = plan.segment_bytes if ranges and file.size else None
        self._bounds = _cut(file.size, cut)
        self._done = [False] * len(self._bounds)
        self._hash = hashlib.sha256()
        self._hashed = 0  # segments that are in the hash
        self._size = 0
        self._fd: int | None = None
        self._lock = asyncio.Lock()

    @property
    def _identity(self) -> dict[str, object]:
        f = self.file
        return {
            "path": f.path,
            "size": f.size,
            "version": f.version,
            "sha256": f.sha256,
            "segment": self.plan.segment_bytes,
        }

    def resume(self) -> None:
        """Take over what an earlier attempt left, if it was the same version."""
        try:
            first, *rest = self.journal.read_text(encoding="utf-8").split("\n")
            same = self._known and json.loads(first) == self._identity
        except (OSError, ValueError):
            same, rest = False, []
        # A line without newline was cut off.
        done = {int(n) for n in rest[:-1] if n.isdigit() and int(n) < len(self._bounds)}
        reach = max((self._bounds[n][1] or 0 for n in done), default=0)
        fits = self.part.is_file() and self.part.stat().st_size >= reach
        if not same or self.file.size is None or not fits:
            for old in (self.part, self.journal, self.path):
                old.unlink(missing_ok=True)
            return
        for n in done:
            self._done[n] = True
            self.have_bytes += self._length(n) or 0
        if any(self._done):
            self._advance()
            if all(self._done):
                self._finish()

    def missing(self) -> Iterator[int]:
        """Segments that are still to be had, in order."""
        return (i for i, done in enumerate(self._done) if not done)

    async def fetch(self, source: Source, index: int, progress: Progress, limits: Limits) -> None:
        """Bring one segment."""
        start, _ = self._bounds[index]
        length = self._length(index)
        got = most = 0

        async def attempt() -> None:
            nonlocal got, most
            if not self._ranges or length is None or not self._known:
                # The rest cannot be asked for, or nothing says that it would fit: start anew.
                progress.done_bytes -= got
                got = 0
            buffer = bytearray()
            left = None if length is None else length - got
            if left == 0:
                return
            async for chunk in source.read(self.file, start + got, left):
                buffer += chunk
                if length is not None and got + len(buffer) > length:
                    raise ArtifactInvalid(
                        "file at the source",
                        self.file.path,
                        f"it is longer than the {self.file.size} bytes that were announced",
                        "Mend the server",
                    )
                if len(buffer) >= WRITE_BYTES:
                    await self._write(bytes(buffer), start + got)
                    got += len(buffer)
                    most = max(most, got)
                    progress.done_bytes += len(buffer)
                    limits.check(progress.done_bytes, 0, "spec.model.source.uri")
                    buffer.clear()
            await self._write(bytes(buffer), start + got)
            got += len(buffer)
            most = max(most, got)
            progress.done_bytes += len(buffer)
            limits.check(progress.done_bytes, 0, "spec.model.source.uri")
            if length is not None and got < length:
                raise SourceUnreachable(
                    "file at the source",
                    self.file.path,
                    f"it broke off after {start + got} of {self.file.size} bytes",
                    "It is tried again; if it stays, upload the file anew",
                )

        await retry(attempt, self.plan.backoff, lambda: most)
        async with self._lock:
            self._done[index] = True
            if length is None:
                self._bounds = [(0, got)]
            await asyncio.to_thread(self._note, index)
            await asyncio.to_thread(self._advance)
            if all(self._done):
                await asyncio.to_thread(self._finish)
                progress.done_files += 1

    def fetched(self) -> Fetched:
        """The finished file."""
        assert self.result is not None, self.file.path
        return self.result

    def close(self) -> None:
        """Close the part file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _length(self, index: int) -> int | None:
        start, end = self._bounds[index]
        return None if end is None else end - start

    def _open(self) -> int:
        if self._fd is None:
            self._fd = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not self.journal.exists():
                self.journal.write_text(json.dumps(self._identity) + "\n", encoding="utf-8")
        return self._fd

    async def _write(self, data: bytes, offset: int) -> None:
        await asyncio.to_thread(self._write_now, data, offset)

    def _write_now(self, data: bytes, offset: int) -> None:
        try:
            fd = self._open()
            view = memoryview(data)
            while view:
                n = os.pwrite(fd, view, offset)
                view, offset = view[n:], offset + n
        except OSError as exc:
            raise disk_full(exc, self.part.parent) or exc from exc

    def _note(self, index: int) -> None:
        with self.journal.open("a", encoding="utf-8") as f:
            f.write(f"{index}\n")

    def _advance(self) -> None:
        """Hash the finished segments that follow the ones already hashed."""
        fd = self._open()
        while self._hashed < len(self._done) and self._done[self._hashed]:
            at, end = self._bounds[self._hashed]
            assert end is not None
            while at < end:
                data = os.pread(fd, min(HASH_BYTES, end - at), at)
                if not data:
                    raise SourceUnreachable(
                        "part file", self.part, "it is shorter than its journal says", "Retry"
                    )
                self._hash.update(data)
                at += len(data)
            self._hashed += 1
            self._size = end

    def _finish(self) -> None:
        os.ftruncate(self._open(), self._size)  # an attempt begun anew may have been longer
        self.close()
        sha256 = self._hash.hexdigest()
        if self.file.sha256 is not None and sha256 != self.file.sha256:
            self.part.unlink()
            self.journal.unlink(missing_ok=True)
            raise ChecksumMismatch(
                "file at the source",
                self.file.path,
                f"its sha256 is {sha256}, the source says {self.file.sha256}",
                "Upload it anew",
            )
        self.result = Fetched(self.file, self.part, self._size, sha256)


def _cut(size: int | None, segment: int | None) -> list[tuple[int, int | None]]:
    """The bounds of a file's segments."""
    if size is None:
        return [(0, None)]
    if segment is None or size <= segment:
        return [(0, size)]
    return [(at, min(at + segment, size)) for at in range(0, size, segment)]


def _check_room(folder: Path, need: int) -> None:
    """Refuse early what the volume cannot hold.

    Raises:
        DiskFull: less is free than is needed.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        raise DiskFull(
            "volume",
            folder,
            f"{need} bytes are needed, {free} are free",
            "Raise spec.runtime.resources.ephemeralStorage, or use a larger claim or node disk",
        )


def discard(folder: Path) -> None:
    """Remove what a download left behind."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
