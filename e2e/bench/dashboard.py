"""The dashboard before an API server that is played: memory, first paint, and many viewers.

The dashboard is a process of its own, as in its pod. One thousand ModelDeployments are listed; a
real Chromium draws them; then viewers with tokens of their own follow the fleet while one
ModelDeployment changes ten times a second.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from e2e.bench.report import Report, Usage, parser, quantile
from e2e.browser import chromium, opened
from e2e.cluster import paths
from e2e.ports import free_ports
from tests.unit.dashboard import documents
from tests.unit.dashboard.fake_api import MDEP, FakeApi, Reader

CHANGES_PER_S = 10.0
SETTLE_S = 60.0


def fleet(api: FakeApi, number: int) -> None:
    """Fill it: one in ten in rollout, one in fifty rolled back."""
    made = random.Random(1)
    for i in range(number):
        kind = made.choices(
            (documents.ready, documents.rolling, documents.rolled_back), (88, 10, 2)
        )[0]
        api.put(MDEP, kind(f"model-{i:04}", f"team-{i % 20:02}"))


@asynccontextmanager
async def playing(api: FakeApi) -> AsyncIterator[str]:
    """The API server's address."""
    runner = web.AppRunner(api.app(), shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def dashboard(upstream: str) -> AsyncIterator[tuple[str, int]]:
    """The process; its address and its id."""
    [port] = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tidegate.dashboard.main"),
        env={
            **os.environ,
            "PYTHONPATH": str(paths.REPOSITORY / "operator"),
            "TIDEGATE_API_SERVER": upstream,
            "TIDEGATE_HTTP_PORT": str(port),
            "TIDEGATE_MEASURE": "false",
        },
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{address}healthz"):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def paint(address: str, rows: int, rounds: int) -> dict[str, list[float]]:
    """How soon a browser shows the page, and the whole fleet once it is asked for, in ms."""
    first, whole = [], []
    with chromium() as browser:
        for _ in range(rounds):
            with opened(browser, address) as page:
                field = page.get_by_label("Token", exact=True)
                field.wait_for()
                first.append(
                    float(
                        page.evaluate(
                            "performance.getEntriesByName('first-contentful-paint')[0].startTime"
                        )
                    )
                )
                field.fill("reader-0")
                began = time.monotonic()
                page.keyboard.press("Enter")
                page.locator("table.list tbody tr").nth(rows - 1).wait_for()
                whole.append(1000 * (time.monotonic() - began))
    return {"first": first, "whole": whole}


async def view(
    session: aiohttp.ClientSession, address: str, token: str, seen: list[float], read: list[int]
) -> None:
    """Follow the fleet, and note how late each change comes."""
    headers = {"Authorization": f"Bearer {token}"}
    async with session.get(f"{address}api/v1/fleet", headers=headers) as response:
        rest = b""
        async for chunk in response.content.iter_any():
            read[0] += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["type"] == "change":
                    sent = message["item"]["message"].partition("sent ")[2]
                    if sent:
                        seen.append(1000 * (time.time() - float(sent)))


async def measure(report: Report, deployments: int, viewers: int, seconds: float) -> None:
    """All of it."""
    api = FakeApi({f"reader-{i}": Reader(f"reader-{i}") for i in range(viewers)})
    fleet(api, deployments)
    async with playing(api) as upstream, dashboard(upstream) as (address, pid):
        idle = Usage.of(pid)
        report.add("memory, nobody looks", "MB", [idle.rss_mb])
        if shutil.which("chromium"):
            # The synchronous driver wants a thread without a loop.
            found = await asyncio.to_thread(paint, address, deployments, rounds=5)
            report.add("first contentful paint", "ms", found["first"])
            report.add(f"token entered to {deployments:,} rows drawn", "ms", found["whole"])
        report.add(f"memory, {deployments:,} listed once", "MB", [Usage.of(pid).rss_mb])
        seen: list[float] = []
        read = [0]
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
        ) as session:
            tasks = [
                asyncio.create_task(view(session, address, f"reader-{i}", seen, read))
                for i in range(viewers)
            ]
            began = time.monotonic()
            for _ in range(round(SETTLE_S / 0.1)):
                if api.watches >= viewers:
                    break
                await asyncio.sleep(0.1)
            else:
                raise TimeoutError(f"{api.watches} of {viewers} viewers after {SETTLE_S:g} s")
            report.add(
                f"until all {viewers} viewers had all of it", "s", [time.monotonic() - began]
            )
            before, bytes_before = Usage.of(pid), read[0]
            seen.clear()
            changes = int(seconds * CHANGES_PER_S)
            for _ in range(changes):
                changed = documents.rolled_back("model-0000", "team-00")
                changed["status"]["rollout"]["message"] = f"sent {time.time()}"
                api.put(MDEP, changed)
                await asyncio.sleep(1 / CHANGES_PER_S)
            await asyncio.sleep(1)
            after = Usage.of(pid)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    report.add(f"memory, {viewers} viewers with tokens of their own", "MB", [after.rss_mb])
    report.add(f"processor, {viewers} viewers", "% of a core", [after.cpu_percent_since(before)])
    report.add("change to viewer, median", "ms", [statistics.median(seen)])
    report.add("change to viewer, 99th percentile", "ms", [quantile(seen, 0.99)])
    report.facts |= {
        "changes": changes,
        "received_by_each": len(seen) / viewers,
        "bytes_per_s_and_viewer": (read[0] - bytes_before) / seconds / viewers,
    }
    report.notes.append(
        "what changes more often than four times a second is told four times a second"
    )


def main() -> int:
    """Measure. Returns the exit status."""
    made = parser(__doc__)
    made.add_argument("--deployments", type=int, default=1000, help="default: %(default)s")
    made.add_argument("--viewers", type=int, default=50, help="default: %(default)s")
    made.add_argument("--seconds", type=float, default=20.0, help="default: %(default)s")
    given = made.parse_args()
    report = Report(
        "dashboard",
        f"{given.deployments:,} ModelDeployments, {given.viewers} viewers, one of them changing "
        f"{CHANGES_PER_S:g} times a second",
    )
    report.await_quiet(given.patience)
    asyncio.run(measure(report, given.deployments, given.viewers, given.seconds))
    report.finish(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
