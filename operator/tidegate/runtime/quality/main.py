"""The quality component's entry point: ``tidegate-quality``."""

import asyncio
import os
import signal
import sqlite3
import ssl
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import aiohttp
import kopf
import structlog
from aiohttp import web

from tidegate.runtime.fence import Fence
from tidegate.runtime.kinds import MODEL_DEPLOYMENT
from tidegate.runtime.kube import Kube, KubeError
from tidegate.runtime.login import Connection, login
from tidegate.runtime.quality.answering import Answering, Document
from tidegate.runtime.quality.server import Access, Intake, Worker
from tidegate.runtime.quality.store import Store
from tidegate.runtime.telemetry import set_up_logging

log: Final = structlog.get_logger(__name__)

EXIT_SETTINGS: Final = 2
LOOK_EVERY_S: Final = 5.0
CERTIFICATE_CHECK_S: Final = 60.0
SHUTDOWN_S: Final = 3.0
FILE: Final = "quality.db"
FOREVER_S: Final = 1e12


class SettingsError(ValueError):
    """A setting that the process cannot start with; the text names it and the mend."""


@dataclass(frozen=True)
class Settings:
    """The process's settings.

    Attributes:
        folder: where counts are kept.
        port: where samples and labels are posted; 0: any free one.
        namespaces: whose ModelDeployments are looked at; empty: all.
        tls_folder: with tls.crt and tls.key, to answer HTTPS; None: HTTP.
        max_bytes: of the file.
    """

    folder: Path
    port: int = 8080
    namespaces: tuple[str, ...] = ()
    tls_folder: Path | None = None
    max_bytes: int = 512 << 20

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Settings from the variables that the chart sets.

        Raises:
            SettingsError: one is missing or cannot be used.
        """
        folder = Path(environ.get("TIDEGATE_DATA") or "/data")
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise SettingsError(f"TIDEGATE_DATA={folder} is no folder that can be written to")
        tls = environ.get("TIDEGATE_TLS_FOLDER", "")
        namespaces = environ.get("TIDEGATE_NAMESPACES", "").split(",")
        return cls(
            folder=folder,
            port=_whole(environ, "TIDEGATE_HTTP_PORT", cls.port, 65_535),
            namespaces=tuple(n.strip() for n in namespaces if n.strip()),
            tls_folder=Path(tls) if tls else None,
            max_bytes=_whole(environ, "TIDEGATE_MAX_BYTES", cls.max_bytes, 1 << 40),
        )


def _whole(environ: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) > most:
        raise SettingsError(f"{name}={text} is no whole number up to {most}")
    return int(text)


class _Uncounted:
    """Where requests to the API server are not counted."""

    def request(self, verb: str, kind: str, code: str, seconds: float, *, write: bool) -> None:
        """See `tidegate.runtime.kube.Requests`."""


async def listed(kube: Kube, namespaces: tuple[str, ...]) -> list[Document]:
    """All ModelDeployments of these namespaces, or of all where none is named.

    Raises:
        KubeError: not all of them could be read.
    """
    return [
        item
        for namespace in namespaces or (None,)
        async for page in kube.pages(MODEL_DEPLOYMENT, namespace)
        for item in page.get("items") or ()
    ]


class Certificate:
    """The one that it answers with; it may be renewed while it runs.

    Args:
        folder: as `Settings.tls_folder`.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._folder = folder
        self._load()

    def renew(self) -> None:
        """Read it again if the last time is a while ago; new connections get the new one."""
        if time.monotonic() - self._loaded_at < CERTIFICATE_CHECK_S:
            return
        try:
            self._load()
        except OSError as error:
            log.error("the certificate is not renewed", error=str(error))

    def _load(self) -> None:
        self._loaded_at = time.monotonic()
        self.context.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")


async def run(settings: Settings, connection: Connection, stop: asyncio.Event) -> None:
    """Take in and answer until told to stop.

    Raises:
        OSError: the port is taken, or a certificate cannot be read.
        sqlite3.Error: the file cannot be used.
    """
    # Nobody else writes what it writes: there is no lease to hold.
    fence = Fence(FOREVER_S)
    fence.renewed(time.monotonic())
    # Who posts is known by its token alone, never by a certificate of ours.
    bare = replace(
        connection.info,
        certificate_path=None,
        certificate_data=None,
        private_key_path=None,
        private_key_data=None,
    )
    own = None if settings.tls_folder is None else Certificate(settings.tls_folder)
    worker = Worker(Store(str(settings.folder / FILE), settings.max_bytes))
    try:
        async with (
            Kube(connection, fence, _Uncounted()) as kube,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=bare.as_ssl_context()),
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
        ):
            intake = Intake(Access(connection.server, session), worker)
            runner = web.AppRunner(intake.app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
            await runner.setup()
            try:
                context = None if own is None else own.context
                site = web.TCPSite(runner, None, settings.port, ssl_context=context)
                await site.start()
                log.info("quality answers", port=settings.port, tls=own is not None)
                answering = Answering(kube, worker, intake.known)
                while not stop.is_set():
                    try:
                        await answering.look(await listed(kube, settings.namespaces))
                        intake.looked = True
                    except KubeError as error:
                        log.warning("ModelDeployments not read", error=str(error))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await stop.wait()
                    if own is not None:
                        own.renew()
                await answering.withdraw()
            finally:
                await runner.cleanup()
    finally:
        worker.close()


def main() -> int:
    """Run the quality component. Returns the exit status."""
    set_up_logging("info", "json")
    try:
        settings = Settings.from_environment()
        connection = login()
    except (SettingsError, kopf.LoginError) as error:
        print(f"tidegate-quality: {error}", file=sys.stderr)
        return EXIT_SETTINGS

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, connection, stop)

    try:
        asyncio.run(until_told())
    except (OSError, sqlite3.Error) as error:
        print(f"tidegate-quality: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
