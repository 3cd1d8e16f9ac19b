"""Kubeconfigs as kubectl reads them, and the client's small print."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidegate.cli import client as client_module
from tidegate.cli.client import ApiError, Client, Unreachable, retry_in_s
from tidegate.cli.kubeconfig import Access, access
from tidegate.cli.trouble import Trouble


def config(name: str, **more: Any) -> dict[str, Any]:
    return {
        "current-context": name,
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": f"ns-{name}"}}
        ],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example.com/"}}],
        "users": [{"name": name, "user": {"token": f"token-{name}"}}],
        **more,
    }


def write(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    one = write(tmp_path, "one", config("a"))
    other = config("b")
    other["clusters"].append({"name": "a", "cluster": {"server": "https://other.example.com"}})
    two = write(tmp_path, "two", other)
    environment = {"KUBECONFIG": f"{one}:{tmp_path}/none:{two}"}
    found = access(environment=environment)
    assert (found.server, found.namespace) == ("https://a.example.com", "ns-a")
    found = access(context="b", environment=environment)
    assert found.credentials().authorization() == "Bearer token-b"


def test_the_default_file(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube", "config", config("home"))
    assert access(environment={"HOME": str(tmp_path)}).server == "https://home.example.com"


def test_paths_count_from_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CA")
    (tmp_path / "token").write_text("t\n")
    document = config("a")
    document["clusters"][0]["cluster"]["certificate-authority"] = "ca.pem"
    document["users"][0]["user"] = {"tokenFile": "token"}
    found = access(kubeconfig=str(write(tmp_path, "config", document)))
    assert found.authority == "CA"
    assert found.credentials().authorization() == "Bearer t"


def test_user_name_and_password(tmp_path: Path) -> None:
    document = config("a")
    document["users"][0]["user"] = {"username": "ada", "password": "x"}
    found = access(kubeconfig=str(write(tmp_path, "config", document)))
    assert found.credentials().authorization() == "Basic YWRhOng="


def test_acting_as_somebody_else(tmp_path: Path) -> None:
    document = config("a")
    document["users"][0]["user"] |= {
        "as": "bo",
        "as-groups": ["g1", "g2"],
        "as-user-extra": {"scopes": ["view"]},
    }
    found = access(kubeconfig=str(write(tmp_path, "config", document)))
    assert found.impersonation() == [
        ("Impersonate-User", "bo"),
        ("Impersonate-Group", "g1"),
        ("Impersonate-Group", "g2"),
        ("Impersonate-Extra-scopes", "view"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"current-context": ""}, "no current context; pass --context, one of a"),
        ({"current-context": "z"}, "has no context z; it has a"),
        ({"clusters": [{"name": "x", "cluster": {}}]}, "has no cluster a; it has x"),
        ({"users": []}, r"has no user a; it has \(none\)"),
        ({"clusters": [{"name": "a", "cluster": {}}]}, "cluster a has no server"),
    ],
)
def test_what_is_missing(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "config", config("a") | change)
    with pytest.raises(Trouble, match=message):
        access(kubeconfig=str(path))


@pytest.mark.parametrize("text", ["[1, 2]", "{a: b", "text"])
def test_no_kubeconfig_at_all(text: str, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="correct it"):
        access(kubeconfig=str(write(tmp_path, "config", text)))


def test_nothing_names_an_api_server(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="set KUBECONFIG"):
        access(environment={"HOME": str(tmp_path)}, service_account=tmp_path)


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ({"command": "no-such-plugin", "installHint": "get it"}, "not installed; get it"),
        ({"command": "false"}, "failed: .*; log in again"),
        ({"command": "echo", "args": ["hello"]}, "printed no ExecCredential"),
    ],
)
def test_exec_plugins_that_do_not_work(
    plugin: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    document = config("a")
    document["users"][0]["user"] = {"exec": plugin}
    found = access(kubeconfig=str(write(tmp_path, "config", document)))
    with pytest.raises(Trouble, match=message):
        found.credentials()


@pytest.mark.parametrize(
    ("rules", "host", "bypassed"),
    [
        ("", "api.example.com", False),
        ("*", "api.example.com", True),
        ("example.com", "api.example.com", True),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("ample.com", "api.example.com", False),
        ("other.com, api.example.com:6443", "api.example.com", True),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("", "127.0.0.1", True),
        ("", "localhost", True),
    ],
)
def test_no_proxy(rules: str, host: str, bypassed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", rules)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example.com:3128")
    expected = "" if bypassed else "http://proxy.example.com:3128"
    assert client_module._proxy("", "https", host, 6443) == expected
    assert client_module._proxy("http://own:1", "https", host, 6443) == "http://own:1"


def test_a_proxy_that_is_none_of_ours() -> None:
    found = Client(Access("https://api.example.com", proxy="socks5://proxy:1080"))
    with pytest.raises(Trouble, match="use an http:// proxy"):
        found.request("GET", "/")


Answer = tuple[int, Any]


@contextmanager
def answering(*answers: Answer, hang_up: bool = False) -> Iterator[tuple[Client, list[str]]]:
    """A server that gives these answers in turn; with `hang_up` it closes after each silently."""
    asked: list[str] = []
    rest = iter(answers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = next(rest)
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = hang_up

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found = Client(Access(f"http://127.0.0.1:{server.server_port}/clusters/c1"))
        try:
            yield found, asked
        finally:
            found.close()
            server.shutdown()
            thread.join()


def test_a_path_in_the_servers_address() -> None:
    with answering((200, {"items": []})) as (client, asked):
        assert client.list("/api/v1/pods", labels={"a": "b"}) == []
    assert asked == ["/clusters/c1/api/v1/pods?limit=500&labelSelector=a%3Db"]


def test_a_connection_that_the_server_closed_is_made_again() -> None:
    with answering((200, {"n": 1}), (200, {"n": 2}), hang_up=True) as (client, _):
        assert [client.request("GET", "/")["n"] for _ in range(2)] == [1, 2]


def test_a_list_that_expired_is_read_again_in_one_piece() -> None:
    page = {"metadata": {"continue": "next"}, "items": [{"n": 1}]}
    gone = {"reason": "Expired", "message": "the provided continue parameter is too old"}
    whole = {"items": [{"n": 1}, {"n": 2}]}
    with answering((200, page), (410, gone), (200, whole)) as (client, asked):
        assert client.list("/x") == [{"n": 1}, {"n": 2}]
    assert [a.partition("?")[2] for a in asked] == [
        "limit=500",
        "limit=500&continue=next",
        "limit=0",
    ]


def test_a_busy_server_says_when_to_come_back() -> None:
    busy = {"reason": "TooManyRequests", "message": "slow down"}
    with answering((429, busy)) as (client, _), pytest.raises(ApiError) as caught:
        client.request("GET", "/")
    assert retry_in_s(caught.value) == 7
    assert retry_in_s(ApiError(403, "Forbidden", "no")) is None
    assert retry_in_s(Unreachable("away")) == 1


def test_something_that_is_no_api_server() -> None:
    with (
        answering((200, "<html>log in</html>")) as (client, _),
        pytest.raises(Trouble, match="does not answer as a Kubernetes API server does"),
    ):
        client.request("GET", "/")
    with answering((502, "<html>bad\ngateway")) as (client, _), pytest.raises(ApiError) as caught:
        client.request("GET", "/")
    assert str(caught.value) == "<html>bad gateway"
