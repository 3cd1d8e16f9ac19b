"""Logs: the sidecar's lines as a reader wants them, and each line once."""

import json
from typing import Any

import pytest

from tests.unit.cli.api_server import Server
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_preparing import live
from tidegate.cli import logs
from tidegate.cli.client import ApiError, Client
from tidegate.cli.kubeconfig import Access
from tidegate.cli.trouble import Trouble

LINE = {
    "time": "2026-03-06T17:29:41.123Z",
    "id": "5f2c",
    "class": "client_http",
    "method": "POST",
    "path": "/v2/models/magika/infer",
    "code": 500,
    "duration_ms": 12,
    "detail": "via_upstream",
    "bytes_in": 40,
}


@pytest.mark.parametrize(
    ("change", "code", "message", "kind"),
    [
        ({}, "500", "answered so by the model server", "client"),
        ({"message": "bad\ninput"}, "500", "bad input", "client"),
        ({"code": 503, "detail": "cluster_not_found"}, "503", "cluster_not_found", "client"),
        ({"code": 0, "detail": "", "flags": "DC"}, "0", "DC", "client"),
        ({"code": 200, "grpc": "Internal", "class": "mirrored_grpc"}, "grpc Internal", "", ""),
    ],
)
def test_a_failed_request(change: dict[str, Any], code: str, message: str, kind: str) -> None:
    found = logs.failure(json.dumps(LINE | change))
    assert found is not None
    assert found.code == code
    columns = logs.told(found).split("\t")
    assert columns[:2] == ["2026-03-06T17:29:41.123Z", "5f2c"]
    assert columns[3] == "12ms"
    assert len(columns) == 7
    if message:
        assert (columns[6], columns[4]) == (message, kind)


@pytest.mark.parametrize("line", ["", "[2026][info] starting", "[]", "{}", "null", '{"code": 1}'])
def test_lines_that_are_no_request(line: str) -> None:
    assert logs.failure(line) is None


@pytest.mark.parametrize(
    ("line", "stamp"),
    [
        ("2026-03-06T17:29:41.5Z a", "2026-03-06T17:29:41.500000000Z"),
        ("2026-03-06T18:29:41.000000001+01:00 a", "2026-03-06T17:29:41.000000001Z"),
        ("2026-03-06T12:29:41.25-05:00 a", "2026-03-06T17:29:41.250000000Z"),
        ("2026-03-06T17:29:41Z a", "2026-03-06T17:29:41.000000000Z"),
    ],
)
def test_stamps_compare_as_times_do(line: str, stamp: str) -> None:
    assert logs.split_stamp(line) == (stamp, "a")


def test_a_line_without_a_stamp() -> None:
    assert logs.split_stamp("unable to retrieve logs") == ("", "unable to retrieve logs")


class Pods(Client):
    """An API server with pods and their logs."""

    def __init__(self, texts: dict[str, list[str] | int]) -> None:
        super().__init__(Access("http://nowhere"))
        self.texts = texts
        self.asked: list[dict[str, str]] = []

    def list(self, path: str, **_: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": name}} for name in self.texts]

    def text(self, method: str, path: str, *, params: Any = None, **_: Any) -> str:
        self.asked.append(dict(params))
        found = self.texts[path.split("/")[-2]]
        if isinstance(found, int):
            raise ApiError(found, "", "pods is forbidden")
        since = params.get("sinceTime", "")[:19]
        return "".join(f"{line}\n" for line in found if line[:19] >= since)


def test_each_line_once_in_the_order_of_time() -> None:
    pods = Pods(
        {
            "a": ["2026-03-06T17:00:01.5Z a1", "2026-03-06T17:00:03.1Z a3"],
            "b": ["2026-03-06T17:00:02Z b2"],
            "starting": 400,
            "gone": 404,
        }
    )
    tail = logs.Tail(pods, "models", {}, logs.SIDECAR)
    assert list(tail.news()) == [("a", "a1"), ("b", "b2"), ("a", "a3")]
    assert set(tail.unread) == {"starting", "gone"}
    assert list(tail.news()) == []
    assert isinstance(pods.texts["a"], list)
    pods.texts["a"].append("2026-03-06T17:00:03.25Z a4")
    assert list(tail.news()) == [("a", "a4")]
    assert pods.asked[-4]["sinceTime"] == "2026-03-06T17:00:03Z"


def test_without_the_right() -> None:
    tail = logs.Tail(Pods({"a": 403}), "models", {}, logs.SIDECAR)
    with pytest.raises(Trouble, match="ask for the role view there"):
        list(tail.news())


def test_the_containers_are_those_of_the_pods() -> None:
    from tidegate.resources import pod

    assert (logs.SIDECAR, logs.SERVER) == (pod.ENVOY, pod.TRITON)


@pytest.mark.parametrize("more", [(), ("--failed",)])
def test_pods_of_which_nothing_can_be_read_are_an_error(run: Run, more: tuple[str, ...]) -> None:
    """This API server has the pod, and no log of it; 'no failed requests' would be a lie."""
    done = run(Server(live()), "logs", "magika", *more, code=1)
    assert done.out == ""
    assert done.err.startswith("error: no log to read of magika-")
    assert done.err.endswith("could not find the requested resource; see tidegate get magika\n")
