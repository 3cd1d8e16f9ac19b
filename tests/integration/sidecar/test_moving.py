"""Traffic moves from one revision to another where only Services choose: no gateway is there.

A Service whose selector moves chooses for new connections only. Seen here: open ones stay, and
once the old pod drains each of them brings at most one more request, whose answer ends it.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from e2e.native.processes import Pod, pod
from tests.integration.sidecar.conftest import MODELS
from tests.integration.sidecar.test_drain import Clients, ClusterIP
from tests.integration.sidecar.wire import call, counts
from tidegate.resources.drain import pre_stop_command

pytestmark = pytest.mark.integration

OF_EACH = 4


@dataclass
class Watched(ClusterIP):
    """Also counts connections by the pod that they were given."""

    given: Counter[int] = field(default_factory=Counter)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.given[self.pods[0].ports.serving] += 1
        await super().accept(reader, writer)


def started(which: Pod) -> int:
    return sum(counts(which, cluster).started for cluster in ("client_http", "client_grpc"))


async def test_open_connections_leave_with_the_pod_and_not_before() -> None:
    with pod(MODELS) as old, pod(MODELS) as new:
        service = Watched([old])
        async with service.serve():
            clients = Clients(f"127.0.0.1:{service.port}")
            tasks = [
                asyncio.create_task(ask(f"{protocol} {number}", "knob", 0.0, 0.05))
                for protocol, ask in (("http", clients.http), ("grpc", clients.grpc))
                for number in range(OF_EACH)
            ]
            await asyncio.sleep(2)
            connections = service.given[old.ports.serving]

            service.pods = [new]  # the selector
            before = started(old)
            await asyncio.sleep(2)
            assert service.given[new.ports.serving] == 0
            assert started(old) - before > connections

            command = pre_stop_command(
                spread_s=1, admin_port=old.ports.admin, drain_folder=str(old.folder)
            )
            # Its first act, by hand, to count from there.
            assert call(f"{old.admin}/healthcheck/fail", b"").status == 200
            before = started(old)
            pre_stop = await asyncio.create_subprocess_exec(*command)
            assert await pre_stop.wait() == 0
            at_end = started(old)
            assert at_end - before <= 2 * OF_EACH
            await asyncio.sleep(2)
            assert started(old) == at_end
            clients.stop.set()
            await asyncio.gather(*tasks)
        assert started(new) > 0
    for name, got in clients.got.items():
        assert set(got) == {"200" if name.startswith("http") else "OK"}, (name, got)
