"""The dashboard's entry point: ``tidegate-dashboard``."""

import asyncio
import signal
import ssl
import sys
from typing import Final

import structlog
from aiohttp import web

from tidegate.dashboard.app import served
from tidegate.dashboard.settings import Settings, SettingsError

EXIT_SETTINGS: Final = 2
SHUTDOWN_S: Final = 3.0
CERTIFICATE_CHECK_S: Final = 60.0


async def run(settings: Settings) -> None:
    """Serve until told to stop.

    Raises:
        OSError: the port is taken, or a certificate cannot be read.
    """
    log = structlog.get_logger(__name__)
    trust: ssl.SSLContext | bool = True
    if settings.ca_file is not None:
        trust = ssl.create_default_context(cafile=str(settings.ca_file))
        # Clusters' own authorities often lack what X.509 strictly asks for (key identifiers).
        trust.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    own = None
    if settings.tls_certificate is not None:
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(settings.tls_certificate, settings.tls_key)
    async with served(
        settings.api_server,
        trust,
        namespaces=settings.namespaces,
        max_streams=settings.max_streams,
        secure=own is not None,
        measure=settings.measure,
    ) as dashboard:
        runner = web.AppRunner(dashboard.app(), access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        site = web.TCPSite(runner, None, settings.port, ssl_context=own)
        await site.start()
        log.info("dashboard answers", port=settings.port, tls=own is not None)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            while not stop.is_set():
                try:
                    async with asyncio.timeout(CERTIFICATE_CHECK_S):
                        await stop.wait()
                except TimeoutError:
                    if own is not None and settings.tls_certificate is not None:
                        # It may have been renewed; new connections get the new one.
                        own.load_cert_chain(settings.tls_certificate, settings.tls_key)
        finally:
            await runner.cleanup()


def main() -> int:
    """Run the dashboard. Returns the exit status."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"tidegate-dashboard: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    try:
        asyncio.run(run(settings))
    except OSError as error:
        print(f"tidegate-dashboard: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
