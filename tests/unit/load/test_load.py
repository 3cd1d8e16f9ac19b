import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from e2e.load import Load, Orders, Reply, Request, Summary, answers, due_times, open_loop


async def test_every_request_is_recorded_once_and_in_order() -> None:
    asked = 0

    async def ask() -> Reply:
        nonlocal asked
        asked += 1
        number = asked
        await asyncio.sleep(0.001 * (number % 5))
        return Reply() if number % 10 else Reply(error="tenth")

    found = await open_loop(ask, rate_hz=1000.0, seconds=0.1)
    assert asked == len(found) == 100
    assert [r.due_s for r in found] == sorted(r.due_s for r in found)
    assert sum(r.error == "tenth" for r in found) == 10
    assert all(r.took_s >= r.late_s >= 0 for r in found)


async def test_requests_leave_though_earlier_ones_hang() -> None:
    release = asyncio.Event()
    asked = 0

    async def ask() -> Reply:
        nonlocal asked
        asked += 1
        if asked == 20:
            release.set()
        await release.wait()
        return Reply()

    # A client that waits for answers before it asks again would hang here.
    async with asyncio.timeout(10.0):
        found = await open_loop(ask, rate_hz=2000.0, seconds=0.01)
    assert len(found) == 20
    # The first one waited for all the others to be sent, and its latency says so.
    assert found[0].took_s >= found[-1].due_s


async def test_more_in_flight_than_allowed_fail_without_being_sent() -> None:
    release, full = asyncio.Event(), asyncio.Event()
    asked = running = most = 0

    async def ask() -> Reply:
        nonlocal asked, running, most
        asked += 1
        running += 1
        if running == 3:
            full.set()
        most = max(most, running)
        await release.wait()
        running -= 1
        return Reply()

    async def later() -> None:
        await full.wait()
        await asyncio.sleep(0.05)
        release.set()

    found, _ = await asyncio.gather(
        open_loop(ask, rate_hz=5000.0, seconds=0.01, in_flight=3), later()
    )
    assert most == 3
    assert len(found) == 50
    refused = [r for r in found if r.error]
    assert len(refused) == 50 - asked
    assert {r.error for r in refused} == {"not sent: 3 in flight"}


def test_a_summary_counts_failures_and_takes_latency_from_answers_only() -> None:
    requests = [Request(0.1 * n, 0.001, 0.001 * n) for n in range(1, 101)]
    requests += [Request(11.0, 0.5, 30.0, "503 x"), Request(12.0, 0.001, 30.0, "503 x")]
    found = Summary.of(requests)
    assert (found.sent, found.failed, found.errors) == (102, 2, {"503 x": 2})
    assert found.p50_ms == pytest.approx(50.0)
    assert found.p99_ms == pytest.approx(99.0)
    assert found.max_ms == pytest.approx(100.0)
    assert found.client_late_p99_ms == pytest.approx(1.0)


def test_a_load_that_nobody_answered_has_no_summary() -> None:
    with pytest.raises(ValueError, match="quantile"):
        Summary.of([Request(0.0, 0.0, 1.0, "refused")])


async def test_a_request_that_raises_is_not_lost() -> None:
    async def ask() -> Reply:
        raise RuntimeError("a defect of the client")

    with pytest.raises(ExceptionGroup) as raised:
        await open_loop(ask, rate_hz=1000.0, seconds=60.0)
    assert "a defect of the client" in repr(raised.value.exceptions)


async def test_it_stops_when_told() -> None:
    stop = asyncio.Event()
    asked = 0

    async def ask() -> Reply:
        nonlocal asked
        asked += 1
        if asked == 5:
            stop.set()
        return Reply()

    told: list[Request] = []
    found = await open_loop(
        ask, rate_hz=1000.0, seconds=60.0, client="one", stop=stop, record=told.append
    )
    assert asked == len(found) == 5
    assert told == found
    assert {r.client for r in found} == {"one"}


class _Model(BaseHTTPRequestHandler):
    """Speaks as Triton does; every fourth request fails, every fifth gets another label."""

    protocol_version = "HTTP/1.1"
    hosts: "set[str]" = set()  # noqa: RUF012
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        _Model.asked += 1
        _Model.hosts.add(self.headers["Host"])
        label = "other" if _Model.asked % 5 == 0 else "python"
        outputs = [{"name": "label", "data": [label]}, {"name": "served_by", "data": ["me"]}]
        body = json.dumps({"outputs": outputs}).encode()
        self.send_response(500 if _Model.asked % 4 == 0 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def model() -> Iterator[str]:
    """Its ``host:port``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_load_of_its_own_keeps_every_request(model: str) -> None:
    orders = Orders(
        *(model, None, "magika", "text"),
        http_clients=2,
        rate_hz=100.0,
        limit_s=30.0,
        host="magika.example",
        expected="python",
    )
    with Load(orders) as load:
        load.await_more(30)
    assert len(load.requests) == _Model.asked >= 60
    assert _Model.hosts == {"magika.example"}
    assert {r.client for r in load.requests} == {"HTTP 0", "HTTP 1"}
    refused = [r for r in load.failures if r.status == "500"]
    wrong = [r for r in load.failures if r.status == "200"]
    assert len(refused) == _Model.asked // 4
    assert {r.error for r in wrong} == {"label 'other' instead of 'python'"}
    assert set(answers(load.requests, "served_by")) == {"me"}
    with pytest.raises(AssertionError, match=f"{len(load.failures)} of {len(load.requests)}"):
        load.assert_no_failure()


def test_a_load_ends_by_itself() -> None:
    # Nobody listens there: every request fails, and the failures are told.
    orders = Orders("127.0.0.1:1", None, "magika", "text", rate_hz=50.0, limit_s=0.2)
    with Load(orders) as load, pytest.raises(AssertionError, match="ended by itself"):
        load.await_more(1000)
    assert len(load.requests) == 10
    assert all("ClientConnectorError" in r.error for r in load.failures)


def test_a_course_goes_from_rate_to_rate_in_straight_lines() -> None:
    course = ((10.0, 20.0), (20.0, 200.0), (5.0, 200.0), (20.0, 20.0))
    due = list(due_times(course))
    assert due == sorted(due)
    counts = Counter(int(at) for at in due)
    assert [counts[second] for second in (0, 9, 10, 29, 31, 34, 54)] == pytest.approx(
        [20, 20, 24.5, 195.5, 200, 200, 24.5], abs=1
    )
    assert len(due) == 200 + 2200 + 1000 + 2200
    assert list(due_times(((2.0, 2.0),))) == [0.0, 0.5, 1.0, 1.5]
