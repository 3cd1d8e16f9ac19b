"""Who is sent golden requests, when, and what is kept of it: a real HTTP server, a fake clock."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from tests.unit.runtime.fakes import Clock, FakeServer
from tidegate.actions import ShortLoad, Verify
from tidegate.observed import GoldenResult
from tidegate.runtime.cache import Key
from tidegate.runtime.golden import CONFIG_MAP, OF_ONE_AT_ONCE, GoldenRunner, Verification
from tidegate.runtime.golden_client import LENGTH_HEADER, PodClient, base_url
from tidegate.runtime.kube import ForbiddenError, UnreachableError

KEY = Key("ns", "m")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = {
    "inputs": [{"name": "in", "datatype": "INT32", "shape": [1], "data": [7]}],
    "expected": {"outputs": [{"name": "out", "data": [7]}]},
}
METADATA = {
    "name": "m",
    "inputs": [{"name": "in", "datatype": "INT32", "shape": [1]}],
    "outputs": [{"name": "out", "datatype": "INT32", "shape": [1]}],
}
GOOD = "1 of 1 golden requests answered as expected"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Triton:
    """Gives the input back, plus what it is told; says 503 like a sidecar without Triton."""

    added: int = 0
    status: int = 200
    metadata_status: int = 200
    ready: int = 200
    asked: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    hold: asyncio.Event | None = None
    crowd: int = 1
    crowded: asyncio.Event = field(default_factory=asyncio.Event)
    drop: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/health/ready":
            return web.Response(status=self.ready)
        if request.method == "GET":
            error = {"error": "unknown model"}
            return web.json_response(
                METADATA if self.metadata_status == 200 else error, status=self.metadata_status
            )
        if self.drop:
            self.drop -= 1
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        body = await request.read()
        length = int(request.headers[LENGTH_HEADER])
        self.asked.append(request.headers["Host"])
        self.models.append(request.path.split("/")[3])
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        if self.at_once == self.crowd:
            self.crowded.set()
        if self.hold is not None:
            await self.hold.wait()
        self.at_once -= 1
        if self.status != 200:
            return web.json_response({"error": "no"}, status=self.status)
        value = int.from_bytes(body[length:], "little") + self.added
        output = {
            "name": "out",
            "datatype": "INT32",
            "shape": [1],
            "parameters": {"binary_data_size": 4},
        }
        head = json.dumps({"outputs": [output]}).encode()
        return web.Response(
            body=head + value.to_bytes(4, "little"), headers={LENGTH_HEADER: str(len(head))}
        )


@contextlib.asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[str]:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def pod(uid: str, *, ready: bool = True, restarts: int = 0) -> dict[str, Any]:
    return {
        "metadata": {"name": f"pod-{uid}", "uid": uid},
        "spec": {},
        "status": {
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "triton", "restartCount": restarts}],
        },
    }


def verify(
    *pods: str,
    every_s: float | None = None,
    config_map: str = "g",
    load: ShortLoad | None = None,
) -> Verify:
    return Verify(config_map, "m", pods, every_s, load)


@dataclass
class World:
    """One ModelDeployment's golden requests, driven by hand."""

    triton: Triton
    kube: FakeServer
    clock: Clock
    client: PodClient
    told: int = 0

    def __post_init__(self) -> None:
        self.verification = Verification(
            KEY,
            self.kube,
            self.client,
            asyncio.Semaphore(16),
            lambda: None,
            self._tell,
            lambda: BEGAN + timedelta(seconds=self.clock.now),
            self.clock,
        )
        self.write(REQUEST)

    def _tell(self) -> None:
        self.told += 1

    def write(self, *requests: Any, name: str = "g") -> None:
        """The ConfigMap, as somebody writes it."""
        data = {f"{i}.json": json.dumps(r) for i, r in enumerate(requests)}
        self.kube.put(CONFIG_MAP, {"metadata": {"name": name, "namespace": "ns"}, "data": data})

    async def look(self) -> float | None:
        """Look, let all that is asked be answered, look again."""
        await self.verification.look()
        await self.verification.settled()
        return await self.verification.look()

    async def passes(self, seconds: float) -> float | None:
        self.clock.now += seconds
        return await self.look()

    @property
    def said(self) -> dict[str, tuple[bool, str]]:
        return {u: (r.passed, r.message) for u, r in self.verification.results.items()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    triton = Triton()
    async with serving(triton.handle) as url:
        client = PodClient(lambda pod: url)
        found = World(triton, FakeServer(), Clock(), client)
        yield found
        found.verification.close()
        await client.close()


async def test_each_pod_once(world: World) -> None:
    world.verification.want(verify("a", "b"), [pod("a"), pod("b"), pod("c")])
    assert await world.look() is None
    assert world.said == {"a": (True, GOOD), "b": (True, GOOD)}
    assert world.verification.results["a"] == GoldenResult(
        True, GOOD, BEGAN + timedelta(seconds=1000)
    )
    assert world.verification.problem == ""
    assert world.told == 2
    world.verification.want(verify("a", "b"), [pod("a"), pod("b")])
    await world.passes(10_000)
    assert len(world.triton.asked) == 2
    assert world.kube.reads == ["g"]  # nobody is to be asked, so nothing is read


async def test_a_wrong_answer_is_named(world: World) -> None:
    world.triton.added = 1
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    assert world.said == {
        "a": (
            False,
            "1 of 1 golden requests failed; 0.json: output out: expected 7 at [0], got 8 "
            "(tolerance absolute 0, relative 0)",
        )
    }
    await world.passes(1_000)
    assert len(world.triton.asked) == 1


async def test_only_ready_pods_are_asked(world: World) -> None:
    world.verification.want(verify("a"), [pod("a", ready=False)])
    assert await world.look() is None
    assert world.triton.asked == []
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    assert world.said == {"a": (True, GOOD)}


async def test_again_on_schedule(world: World) -> None:
    world.verification.want(verify("a", every_s=60.0), [pod("a")])
    assert await world.look() == 60.0
    assert await world.passes(59.0) == pytest.approx(1.0)
    assert len(world.triton.asked) == 1
    world.triton.added = 1
    assert await world.passes(1.0) == 60.0
    assert world.said["a"][0] is False
    assert (len(world.triton.asked), world.told) == (2, 2)
    # The same again is no news, but its time is.
    before = world.verification.results["a"].at
    await world.passes(60.0)
    assert (len(world.triton.asked), world.told) == (3, 2)
    assert world.verification.results["a"].at == before + timedelta(seconds=60)


async def test_again_after_a_restart_of_triton(world: World) -> None:
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    world.verification.want(verify("a"), [pod("a", restarts=1, ready=False)])
    assert world.said == {}  # what the last process answered says nothing of this one
    await world.look()
    assert (world.said, world.told) == ({}, 2)
    world.verification.want(verify("a"), [pod("a", restarts=1)])
    await world.look()
    assert world.said == {"a": (True, GOOD)}
    assert len(world.triton.asked) == 2


async def test_a_restart_while_it_is_asked_leaves_no_result(world: World) -> None:
    world.triton.hold = asyncio.Event()
    world.verification.want(verify("a"), [pod("a")])
    await world.verification.look()
    await world.triton.crowded.wait()
    world.verification.want(verify("a"), [pod("a", restarts=1)])
    world.triton.hold.set()
    await world.verification.settled()
    assert world.said == {}
    await world.look()
    assert world.said == {"a": (True, GOOD)}


async def test_all_again_when_the_config_map_changed(world: World) -> None:
    world.verification.want(verify("a", "b", every_s=40.0), [pod("a"), pod("b")])
    await world.look()
    world.write(REQUEST, REQUEST)
    await world.passes(20.0)  # nobody is due
    assert len(world.triton.asked) == 2
    # A third pod comes before the others' time: the change is seen, and all are asked.
    world.clock.now += 11.0
    pods = [pod("a"), pod("b"), pod("c")]
    world.verification.want(verify("a", "b", "c", every_s=40.0), pods)
    await world.look()
    assert {m for _, m in world.said.values()} == {"2 of 2 golden requests answered as expected"}
    assert len(world.triton.asked) == 8


async def test_the_config_map_is_read_every_30_s_at_most(world: World) -> None:
    world.verification.want(verify("a", every_s=10.0), [pod("a")])
    await world.look()
    for _ in range(12):
        await world.passes(10.0)
    assert len(world.triton.asked) == 13
    assert len(world.kube.reads) == 1 + 120 // 30


async def test_no_such_config_map(world: World) -> None:
    world.verification.want(verify("a", config_map="other"), [pod("a")])
    assert await world.look() == 5.0
    assert world.verification.problem == (
        "goldenRequests.configMapName: ConfigMap ns/other does not exist. Create it, or correct "
        "the name."
    )
    assert (world.said, world.told) == ({}, 1)
    await world.passes(5.0)
    assert world.told == 1
    world.write(REQUEST, name="other")
    await world.passes(5.0)
    assert (world.verification.problem, world.said) == ("", {"a": (True, GOOD)})


async def test_a_config_map_that_does_not_parse(world: World) -> None:
    world.write({"inputs": []})
    world.verification.want(verify("a"), [pod("a")])
    assert await world.look() == 30.0
    assert world.verification.problem.startswith(
        "goldenRequests.configMapName: ConfigMap g, 0.json: expected is missing."
    )
    world.write(REQUEST)
    await world.passes(30.0)
    assert (world.verification.problem, world.said) == ("", {"a": (True, GOOD)})


async def test_a_broken_change_keeps_the_results_and_stops_the_schedule(world: World) -> None:
    world.verification.want(verify("a", every_s=30.0), [pod("a")])
    await world.look()
    world.write("broken")
    await world.passes(30.0)
    assert "it must be an object" in world.verification.problem
    assert world.said == {"a": (True, GOOD)}
    assert len(world.triton.asked) == 1


async def test_no_right_to_read(world: World) -> None:
    world.kube.fail.append(ForbiddenError("no"))
    world.verification.want(verify("a"), [pod("a")])
    assert await world.look() == 30.0
    assert "Grant the operator get on it." in world.verification.problem
    await world.passes(30.0)
    assert (world.verification.problem, world.said) == ("", {"a": (True, GOOD)})
    # Taken away later, and given back: the ConfigMap itself is as it was.
    world.kube.fail.append(ForbiddenError("no"))
    world.verification.want(verify("a", every_s=30.0), [pod("a")])
    await world.passes(30.0)
    assert "Grant the operator get on it." in world.verification.problem
    await world.passes(30.0)
    assert (world.verification.problem, len(world.triton.asked)) == ("", 2)


async def test_an_api_server_that_does_not_answer(world: World) -> None:
    world.kube.fail.append(UnreachableError("gone"))
    world.verification.want(verify("a", every_s=60.0), [pod("a")])
    assert await world.look() == 5.0
    assert "cannot be read: gone" in world.verification.problem
    await world.passes(5.0)
    assert world.verification.problem == ""
    # Later, what was read before still holds.
    world.kube.fail.append(UnreachableError("gone"))
    await world.passes(60.0)
    assert (world.verification.problem, len(world.triton.asked)) == ("", 2)


async def test_another_config_map_forgets_all(world: World) -> None:
    world.write(REQUEST, REQUEST, name="other")
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    world.verification.want(verify("a", config_map="other"), [pod("a")])
    assert world.said == {}
    await world.look()
    assert world.said == {"a": (True, "2 of 2 golden requests answered as expected")}


async def test_a_pod_that_is_not_wanted_any_more(world: World) -> None:
    world.verification.want(verify("a", "b"), [pod("a"), pod("b")])
    await world.look()
    world.verification.want(verify("b"), [pod("a"), pod("b")])
    assert set(world.said) == {"b"}
    world.verification.want(verify("b"), [])
    assert world.said == {}


@pytest.mark.parametrize(
    ("triton", "why"),
    [
        (Triton(status=503), "HTTP 503: no"),
        (Triton(metadata_status=503), "its Triton is not ready (HTTP 200)"),
        (Triton(metadata_status=400, ready=400), "its Triton is not ready (HTTP 400)"),
    ],
)
async def test_a_pod_that_cannot_answer_is_unknown(triton: Triton, why: str) -> None:
    async with serving(triton.handle) as url:
        client = PodClient(lambda pod: url)
        world = World(triton, FakeServer(), Clock(), client)
        world.verification.want(verify("a"), [pod("a")])
        # Longer and longer pauses, and a word after some of them.
        for pause, told in ((1.0, 0), (2.0, 0), (4.0, 1), (8.0, 1), (10.0, 1), (10.0, 1)):
            assert await world.look() == pytest.approx(pause)
            assert (world.said, world.told) == ({}, told)
            world.clock.now += pause
        assert world.verification.problem == (
            f"pod pod-a cannot be sent golden requests: {why}. It is tried again."
        )
        triton.status = triton.metadata_status = triton.ready = 200
        assert await world.look() is None
        assert (world.said, world.verification.problem) == ({"a": (True, GOOD)}, "")
        # Known once, it stays so while it cannot be asked.
        triton.status = 503
        world.verification.want(verify("a", every_s=30.0), [pod("a")])
        for _ in range(5):
            await world.passes(30.0)
        assert (world.said, world.verification.problem) == ({"a": (True, GOOD)}, "")
        await client.close()


async def test_no_connection_is_unknown() -> None:
    client = PodClient(lambda pod: "http://127.0.0.1:9")
    world = World(Triton(), FakeServer(), Clock(), client)
    world.verification.want(verify("a"), [pod("a")])
    for _ in range(4):
        await world.passes(10.0)
    assert world.said == {}
    assert "pod pod-a cannot be sent golden requests: Cannot connect" in world.verification.problem
    await client.close()


async def test_one_retry_of_a_broken_connection(world: World) -> None:
    world.triton.drop = 1
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    assert world.said == {"a": (True, GOOD)}


async def test_a_connection_that_breaks_twice_is_unknown(world: World) -> None:
    world.triton.drop = 2
    world.verification.want(verify("a"), [pod("a")])
    assert await world.look() == pytest.approx(1.0)
    assert world.said == {}


async def test_no_answer_fails() -> None:
    """A model that hangs: the connection stands, and nothing comes."""
    triton = Triton(hold=asyncio.Event())
    async with serving(triton.handle) as url:
        client = PodClient(lambda pod: url, timeout_s=0.2)
        world = World(triton, FakeServer(), Clock(), client)
        world.verification.want(verify("a"), [pod("a")])
        await world.look()
        assert world.said == {"a": (False, "0.json: no answer within 0.2 s")}
        assert triton.hold is not None
        triton.hold.set()
        await client.close()


async def test_tensors_that_the_model_lacks_are_named_before_any_is_sent(world: World) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [""]}
    world.write(REQUEST, {**REQUEST, "inputs": [tensor]})
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    assert world.said == {
        "a": (False, '1.json: inputs[0].name is "text", but model m has inputs in.')
    }
    assert world.triton.asked == []


async def test_a_model_that_is_not_there_is_named(world: World) -> None:
    world.triton.metadata_status = 400
    world.write({**REQUEST, "model": "a/b"})
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    assert world.said["a"] == (
        False,
        "model a/b cannot be asked: HTTP 400: unknown model. Correct model in the golden request, "
        "or model.name.",
    )


async def test_each_request_goes_to_its_model(world: World) -> None:
    world.write(REQUEST, {**REQUEST, "model": "other"})
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    assert world.triton.models == ["m", "other"]


async def test_not_too_many_pods_at_once(world: World) -> None:
    world.triton.hold, world.triton.crowd = asyncio.Event(), OF_ONE_AT_ONCE
    uids = [str(n) for n in range(3 * OF_ONE_AT_ONCE)]
    world.verification.want(verify(*uids), [pod(uid) for uid in uids])
    await world.verification.look()
    await world.triton.crowded.wait()
    world.triton.hold.set()
    await world.verification.settled()
    assert world.triton.most_at_once == OF_ONE_AT_ONCE
    assert len(world.said) == len(uids)


def test_where_a_pod_is_asked() -> None:
    plain: dict[str, Any] = {"spec": {"initContainers": []}, "status": {"podIP": "10.0.0.7"}}
    assert base_url(plain) == "http://10.0.0.7:8000"
    sidecar = {"spec": {"initContainers": [{"name": "envoy"}]}, "status": {"podIP": "fd00::7"}}
    assert base_url(sidecar) == "http://[fd00::7]:9091"


async def test_the_runner_wakes_its_key() -> None:
    """With the real event loop's time: tasks, and their end."""
    triton, kube, woken = Triton(), FakeServer(), asyncio.Event()
    kube.put(
        CONFIG_MAP,
        {"metadata": {"name": "g", "namespace": "ns"}, "data": {"a.json": json.dumps(REQUEST)}},
    )
    async with serving(triton.handle) as url:
        keys: list[Key] = []

        def wake(key: Key) -> None:
            keys.append(key)
            woken.set()

        runner = GoldenRunner(kube, wake, PodClient(lambda pod: url))
        runner.want(KEY, [], ())
        assert (runner.results(KEY), runner.problems(KEY)) == ({}, {})
        runner.want(KEY, [verify("a")], [pod("a")])
        await woken.wait()
        assert keys == [KEY]
        assert runner.results(KEY)["a"].passed
        # A new pod does not wait for a timer.
        woken.clear()
        runner.want(KEY, [verify("a", "b")], [pod("a"), pod("b")])
        await woken.wait()
        assert set(runner.results(KEY)) == {"a", "b"}
        runner.want(KEY, [], ())
        assert (runner.results(KEY), runner.problems(KEY)) == ({}, {})
        runner.want(KEY, [verify("a")], [pod("a")])
        await runner.close()
        assert [t for t in asyncio.all_tasks() if t.get_name().startswith("golden")] == []


async def test_each_config_map_has_pods_results_and_problems_of_its_own() -> None:
    triton, kube, told = Triton(), FakeServer(), asyncio.Event()
    wrong = REQUEST | {"expected": {"outputs": [{"name": "OUT", "shape": [9]}]}}
    for name, request in (("old", REQUEST), ("new", wrong)):
        meta = {"name": name, "namespace": "ns"}
        kube.put(CONFIG_MAP, {"metadata": meta, "data": {"a.json": json.dumps(request)}})
    pods = [pod("a"), pod("b"), pod("c")]
    both = [verify("a", config_map="old"), verify("b", config_map="new")]
    async with serving(triton.handle) as url:
        runner = GoldenRunner(kube, lambda key: told.set(), PodClient(lambda pod: url))

        async def until(wanted: dict[str, bool], problems: set[str]) -> None:
            while (
                {uid: r.passed for uid, r in runner.results(KEY).items()},
                set(runner.problems(KEY)),
            ) != (wanted, problems):
                await told.wait()
                told.clear()

        async with asyncio.timeout(5.0):
            runner.want(KEY, both, pods)
            await until({"a": True, "b": False}, set())
            runner.want(KEY, [*both, verify("c", config_map="gone")], pods)
            await until({"a": True, "b": False}, {"gone"})
            # What is not wanted any more is forgotten, and nothing else.
            runner.want(KEY, both[:1], pods)
            await until({"a": True}, set())
        await runner.close()
        assert [t for t in asyncio.all_tasks() if t.get_name().startswith("golden")] == []


LOAD = ShortLoad(rate_per_s=500, duration_s=0.02, max_error_rate=0.01)


async def test_a_first_revision_is_loaded_with_what_it_answers_rightly(world: World) -> None:
    world.verification.want(verify("a", load=LOAD), [pod("a")])
    await world.look()
    text = "load test, 10 of 10 requests at 500 a second: 0 failed (1 allowed)"
    assert world.said == {"a": (True, f"{GOOD}; {text}")}
    assert len(world.triton.asked) == 11
    # It serves now: no more load, and what it passed stays passed.
    world.verification.want(verify("a"), [pod("a")])
    await world.look()
    assert len(world.triton.asked) == 11


async def test_a_wrong_answer_spares_the_load(world: World) -> None:
    world.triton.added = 1
    world.verification.want(verify("a", load=LOAD), [pod("a")])
    await world.look()
    assert not world.verification.results["a"].passed
    assert len(world.triton.asked) == 1


async def test_a_load_needs_a_request_that_is_answered(world: World) -> None:
    refused = REQUEST | {"expected": {"error": {"status": 400}}}
    world.triton.status = 400
    world.write(refused)
    world.verification.want(verify("a", load=LOAD), [pod("a")])
    await world.look()
    passed, message = world.said["a"]
    assert (passed, "expects an error" in message) == (False, True)
