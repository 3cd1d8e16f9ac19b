"""The whole way of one model: source or cache, digest, layout, repository. Composes the others."""

import asyncio
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tidegate.fetch.address import AddressPolicy
from tidegate.fetch.archive import Extractor, is_archive
from tidegate.fetch.cache import Cache, CachedTree
from tidegate.fetch.credentials import Credentials
from tidegate.fetch.digest import file_sha256, tree_digest
from tidegate.fetch.download import Fetched, Limits, Plan, check_listing, discard, download
from tidegate.fetch.errors import (
    ArtifactEmpty,
    ArtifactGone,
    ChangedWhileReading,
    ChecksumMismatch,
    FetchError,
    SourceMoved,
    SourceNotFound,
    disk_full,
    redact,
)
from tidegate.fetch.layout import lay_out
from tidegate.fetch.paths import check_paths
from tidegate.fetch.probe import probe_tree
from tidegate.fetch.progress import log
from tidegate.fetch.repository import WORK, write_repository
from tidegate.fetch.request import FetchRequest, Mounts
from tidegate.fetch.retry import retry
from tidegate.fetch.source import Context, Listing, Source, open_source
from tidegate.fetch.trust import build_trust
from tidegate.fetch.warmup import read_golden

RESTARTS = 3
"""How often a source that changes while it is read is begun anew."""
IMAGE_FOLDER = "models"
"""Where a container image keeps its model, by the convention of "modelcars"."""
NOTE = ".json"
"""Beside the tree: what it was made from."""


@dataclass(frozen=True)
class Result:
    """What the termination message tells.

    Attributes:
        digest: of the source's tree, 64 hex characters.
        bytes: of the tree.
        files: of the tree.
        backend: Triton's name.
        layout: ``repository`` or ``bare``.
        seconds: for everything.
        cached: the bytes came from the claim.
        version: of the source when it was listed (`Listing.version`); None: it was not asked, or
            tells none.
        address: under which these files stay (`Listing.address`); None: there is none.
    """

    digest: str
    bytes: int
    files: int
    backend: str
    layout: str
    seconds: float
    cached: bool
    version: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Tree:
    """The source's files on this container's disk.

    Attributes:
        root: folder.
        files: path to bytes and SHA-256 hex.
        object_sha256: of the one object that the URI names (an archive before it was unpacked);
            None for folders.
        cached: it came from the claim.
        listing: what the source listed; None: it was not asked.
    """

    root: Path
    files: dict[str, tuple[int, str]]
    object_sha256: str | None = None
    cached: bool = False
    listing: Listing | None = None

    @property
    def digest(self) -> str:
        """See `tidegate.fetch.digest`."""
        return tree_digest(self.hashes)

    @property
    def hashes(self) -> dict[str, str]:
        """Path to SHA-256 hex."""
        return {path: sha256 for path, (_, sha256) in self.files.items()}


async def fetch(
    request: FetchRequest,
    mounts: Mounts,
    pin: str | None,
    started_s: float | None = None,
    plan: Plan | None = None,
) -> Result:
    """Fetch, verify and lay out.

    Args:
        request: what.
        mounts: where tuning, override, credentials and CA lie.
        pin: the digest that this revision is held to; None: the first fetch.
        started_s: monotonic clock.
        plan: of the download.

    Raises:
        FetchError: with its reason.
    """
    started_s = time.monotonic() if started_s is None else started_s
    shown = redact(request.uri)
    log("info", "fetching", uri=shown, model=request.model_name, pinned=pin)
    work = request.target / WORK
    context = context_of(request, mounts)
    limits = Limits(request.policy.max_bytes, request.policy.max_files)
    cache = Cache.open(request.cache)
    try:
        tree = await _tree(context, cache, work, limits, pin, plan)
        _check_digest(tree, request, pin)
        if request.verify is not None:
            # Here, since it is cryptography's memory that few pods need.
            from tidegate.fetch.signature import check

            await asyncio.to_thread(check, tree.root, tree.hashes, request.verify)
        probes = await asyncio.to_thread(
            probe_tree, tree.root, {path: size for path, (size, _) in tree.files.items()}
        )
        layout = lay_out(probes, request.model_name, request.backend)
        written = await asyncio.to_thread(
            write_repository,
            tree.root,
            layout,
            request,
            _text(mounts.tuning),
            _text(mounts.override),
            read_golden(mounts.golden),
        )
    except OSError as exc:
        raise disk_full(exc, exc.filename or request.target) or exc from exc
    await asyncio.to_thread(discard, work)
    return Result(
        tree.digest,
        sum(size for size, _ in tree.files.values()),
        len(tree.files),
        written.backend,
        written.layout,
        time.monotonic() - started_s,
        tree.cached,
        tree.listing.version if tree.listing else None,
        tree.listing.address if tree.listing else None,
    )


@dataclass(frozen=True)
class Seen:
    """What one look at a source found.

    Attributes:
        version: see `Listing.version`; None: the source tells none.
        address: see `Listing.address`.
    """

    version: str | None
    address: str | None


async def look(request: FetchRequest, mounts: Mounts, plan: Plan | None = None) -> Seen:
    """What is behind the URI now, without reading a file of it.

    Raises:
        FetchError: with its reason; nothing is known then.
    """
    source = open_source(context_of(request, mounts))
    try:
        listing = await retry(source.listing, (plan or Plan()).backoff)
    finally:
        await source.close()
    return Seen(listing.version, listing.address)


def context_of(request: FetchRequest, mounts: Mounts) -> Context:
    """What a source is opened with."""
    trust = build_trust(mounts.ca, Path(tempfile.gettempdir()))
    addresses = AddressPolicy(request.policy.allowed_hosts, request.policy.allow_private_addresses)
    return Context(request, Credentials.read(mounts.credentials), addresses, trust)


async def _tree(
    context: Context,
    cache: Cache | None,
    work: Path,
    limits: Limits,
    pin: str | None,
    plan: Plan | None,
) -> Tree:
    """The source's files, from the claim if it has them."""
    request = context.request
    root = work / "tree"
    context.request.scheme  # noqa: B018 (the policy counts for cached bytes too)
    if cache is not None:
        for digest in filter(None, (pin, request.sha256)):
            if hit := await asyncio.to_thread(cache.take, digest, root):
                return _from_cache(hit, root)
    source = open_source(context)
    try:
        for attempt in range(1, RESTARTS + 1):
            try:
                return await _from_source(source, context, cache, work, limits, plan)
            except ChangedWhileReading:
                if attempt == RESTARTS:
                    raise
                log("warning", "the source changed while it was read; beginning anew")
                await asyncio.to_thread(_fresh, work)
            except SourceNotFound as exc:
                if pin is None:
                    raise
                raise ArtifactGone(
                    "spec.model.source.uri",
                    redact(request.uri),
                    f"nothing is there any more; this revision is pinned to sha256:{pin}",
                    "Put the same bytes back, or change the source, which makes a new revision",
                ) from exc
        raise AssertionError
    finally:
        await source.close()


async def _from_source(
    source: Source,
    context: Context,
    cache: Cache | None,
    work: Path,
    limits: Limits,
    plan: Plan | None,
) -> Tree:
    plan, request = plan or Plan(), context.request
    listing = await retry(source.listing, plan.backoff)
    check_listing(listing, limits, redact(request.uri))
    tree = await _listed(source, listing, context, cache, work, limits, plan)
    return replace(tree, listing=listing)


async def _listed(
    source: Source,
    listing: Listing,
    context: Context,
    cache: Cache | None,
    work: Path,
    limits: Limits,
    plan: Plan,
) -> Tree:
    """The listed files, downloaded or as they were kept."""
    request = context.request
    root = work / "tree"
    identity = listing.identity
    if identity is not None and (kept := await asyncio.to_thread(_kept, root, identity)):
        log("info", "downloaded before, and checked again", digest=kept.digest)
        return kept
    if cache is None or identity is None:
        tree = await _download(source, listing, root, work / "parts", limits, plan)
        await asyncio.to_thread(_keep, tree, identity)
        return tree
    async with cache.turn(request.uri, request.endpoint, identity) as entry:
        if (digest := entry.digest()) and (
            hit := await asyncio.to_thread(cache.take, digest, root)
        ):
            return _from_cache(hit, root)
        try:
            tree = await _download(source, listing, entry.tree, entry.parts, limits, plan)
            await asyncio.to_thread(entry.publish, tree.digest, tree.files, tree.object_sha256)
        except FetchError as exc:
            if exc.reason != "DiskFull":
                raise
            log("warning", "the cache claim is full; going on without it", error=exc.message)
            await asyncio.to_thread(entry.abandon)
            return await _download(source, listing, root, work / "parts", limits, plan)
        hit = await asyncio.to_thread(cache.take, tree.digest, root)
        if hit is None:  # taken away by someone else in between
            return await _download(source, listing, root, work / "parts", limits, plan)
        return Tree(root, tree.files, tree.object_sha256)


def _from_cache(hit: CachedTree, root: Path) -> Tree:
    log("info", "taken from the cache", digest=hit.digest)
    return Tree(root, hit.files, hit.object_sha256, cached=True)


async def _download(
    source: Source, listing: Listing, root: Path, parts: Path, limits: Limits, plan: Plan
) -> Tree:
    """Download and unpack into ``root``; what was half done in ``parts`` is gone on with."""
    fetched = await download(source, listing, parts, limits, plan)
    again = await retry(source.listing, plan.backoff)
    if again.identity != listing.identity:
        raise ChangedWhileReading(
            "spec.model.source.uri",
            "files",
            "they were changed while they were being read",
            "Publish each version under an address of its own",
        )
    await asyncio.to_thread(_fresh, root)
    files = await asyncio.to_thread(_assemble, fetched, listing, root, limits)
    await asyncio.to_thread(discard, parts)
    if not files or all(size == 0 for size, _ in files.values()):
        raise ArtifactEmpty(
            "spec.model.source.uri", listing.files[0].path, "no files with bytes", "Pack it anew"
        )
    return Tree(root, files, fetched[0].sha256 if listing.single else None)


def _assemble(
    fetched: list[Fetched], listing: Listing, root: Path, limits: Limits
) -> dict[str, tuple[int, str]]:
    """Put plain files in their places and unpack archives."""
    extractor = Extractor(root, limits)
    files: dict[str, tuple[int, str]] = {}
    for one in fetched:
        path, into = one.file.path, one.file.unpack
        if into is None and len(fetched) == 1 and is_archive(path):
            into = ""
        if listing.layers:
            extractor.apply_layer(one.path, path)
        elif into is not None:
            extractor.extract(one.path, path, into)
        else:
            place = root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(one.path, place)
            files[path] = (one.size, one.sha256)
    if listing.layers:
        extractor.select(IMAGE_FOLDER)
    check_paths([*files, *extractor.files], "file at the source")
    files |= extractor.files
    limits.check(sum(s for s, _ in files.values()), len(files), "model")
    return files


def _check_digest(tree: Tree, request: FetchRequest, pin: str | None) -> None:
    """Hold the tree to what was asked for.

    Raises:
        ChecksumMismatch: other than spec.model.source.sha256.
        SourceMoved: other than the pin.
    """
    digest = tree.digest
    wanted = request.sha256
    if wanted is not None and wanted not in (digest, tree.object_sha256):
        of_object = (
            f" (the file itself: {tree.object_sha256})" if tree.object_sha256 is not None else ""
        )
        raise ChecksumMismatch(
            "spec.model.source.sha256",
            wanted,
            f"the bytes at {redact(request.uri)} have {digest}{of_object}",
            "Correct the digest, or find out who changed the model",
        )
    if pin is not None and pin != digest:
        raise SourceMoved(
            "spec.model.source.uri",
            redact(request.uri),
            f"this revision is pinned to sha256:{pin}, the bytes there now have sha256:{digest}",
            "Put the old bytes back, or change spec.model.source, which makes a new revision",
        )


def _keep(tree: Tree, identity: str | None) -> None:
    """Note what was downloaded: if the model is refused later, the next start need not again."""
    if identity is not None:
        note = {
            "identity": identity,
            "files": tree.files,
            "object_sha256": tree.object_sha256,
        }
        tree.root.with_suffix(NOTE).write_text(json.dumps(note), encoding="utf-8")


def _kept(root: Path, identity: str) -> Tree | None:
    """What an earlier start of this container downloaded, if it is the same and every byte fits."""
    try:
        note = json.loads(root.with_suffix(NOTE).read_text(encoding="utf-8"))
        if note["identity"] != identity:
            return None
        for path, (_, sha256) in note["files"].items():
            if file_sha256(root / path) != sha256:
                return None
        files = {str(p): (int(size), str(sha)) for p, (size, sha) in note["files"].items()}
        return Tree(root, files, note["object_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fresh(folder: Path) -> None:
    """Make a folder that is empty."""
    discard(folder)
    folder.mkdir(parents=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
