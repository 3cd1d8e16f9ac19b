"""Which hosts and addresses may be connected to."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.fetch import address
from tidegate.fetch.address import AddressPolicy, Guard, refusal_in
from tidegate.fetch.errors import AddressRefused, SourceUnreachable

PUBLIC = AddressPolicy()


@pytest.mark.parametrize(
    ("ip", "word"),
    [
        *((ip, "loopback") for ip in ("127.0.0.1", "127.9.9.9", "::1")),
        *((ip, "link-local") for ip in ("169.254.169.254", "fe80::1", "fe80::1%eth0")),
        *((ip, "private") for ip in ("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1")),
        *((ip, "private") for ip in ("fd00::1", "198.18.0.1", "192.0.0.1", "2001:db8::1")),
        *((ip, "not the address") for ip in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "ff02::1")),
        # Ways to write an inner IPv4 address as IPv6.
        ("::ffff:127.0.0.1", ""),
        ("::ffff:10.0.0.1", ""),
        ("2002:7f00:1::", ""),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("localhost", "not an IP"),
        ("127.1", "not an IP"),
    ],
)
def test_inner_addresses_are_refused(ip: str, word: str) -> None:
    why = PUBLIC.why_refused(ip)
    assert why is not None
    assert word in why


@pytest.mark.parametrize("ip", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_fine(ip: str) -> None:
    assert PUBLIC.why_refused(ip) is None


def test_the_platform_may_allow_networks() -> None:
    policy = AddressPolicy(allowed_networks=("10.96.0.0/12", "fd00::/8"))
    assert policy.why_refused("10.96.0.1") is None
    assert policy.why_refused("fd00::1") is None
    assert policy.why_refused("10.0.0.1") is not None
    assert policy.why_refused("127.0.0.1") is not None


@given(st.ip_addresses())
def test_only_global_addresses_pass(ip: Any) -> None:
    if PUBLIC.why_refused(str(ip)) is None and ip not in address.NAT64:
        assert ip.is_global
        assert not ip.is_multicast


@pytest.mark.parametrize(
    ("globs", "host", "allowed"),
    [
        ((), "anything", True),
        (("a.example",), "A.Example.", True),
        (("a.example",), "b.a.example", False),
        (("*.example",), "a.b.example", True),
        (("*.example",), "example", False),
        (("*.example",), "a.example.evil", False),
        (("10.1.2.3",), "10.1.2.3", True),
    ],
)
def test_hosts(globs: tuple[str, ...], host: str, allowed: bool) -> None:
    assert AddressPolicy(globs).host_allowed(host) is allowed


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "::1", "169.254.169.254"])
def test_an_inner_address_in_a_url(host: str) -> None:
    with pytest.raises(AddressRefused):
        PUBLIC.check_host(host)
    AddressPolicy(allowed_networks=("0.0.0.0/0", "::/0")).check_host(host)
    PUBLIC.check_host("localhost")  # a name is judged when it is resolved


@pytest.fixture
def listener() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


LOCAL = AddressPolicy(allowed_networks=("127.0.0.0/8", "::1/128"))


def test_every_way_to_connect_is_judged(listener: int) -> None:
    async def by_asyncio(host: str) -> None:
        _, writer = await asyncio.open_connection(host, listener)
        writer.close()
        await writer.wait_closed()

    ways: dict[str, Callable[[str], None]] = {
        "create_connection": lambda h: socket.create_connection((h, listener)).close(),
        "asyncio": lambda h: asyncio.run(by_asyncio(h)),
        "connect_ex": lambda h: _raw("connect_ex", h, listener),
        "connect": lambda h: _raw("connect", h, listener),
    }
    for name, way in ways.items():
        for host in ("127.0.0.1", "localhost"):
            with Guard(PUBLIC) as guard, pytest.raises(AddressRefused):
                way(host)
            assert guard.refusal is not None, name
    for name in ("create_connection", "asyncio"):
        with Guard(LOCAL):
            ways[name]("127.0.0.1")
            ways[name]("localhost")


def _raw(method: str, host: str, port: int) -> None:
    with socket.socket() as sock:
        getattr(sock, method)((host, port))


def test_without_a_guard_nothing_is_judged(listener: int) -> None:
    with Guard(PUBLIC):
        pass
    socket.create_connection(("localhost", listener)).close()


def test_a_name_that_answers_differently_the_second_time(
    monkeypatch: pytest.MonkeyPatch, listener: int
) -> None:
    answers = iter(["93.184.215.14", "127.0.0.1"])

    def rebinding(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), listener))]

    with Guard(PUBLIC) as guard:
        assert guard.resolve(rebinding, "evil.example", listener)[0][4][0] == "93.184.215.14"
        with pytest.raises(AddressRefused, match="resolves to 127"):
            guard.resolve(rebinding, "evil.example", listener)
        # A library that resolves by ways of its own still has to connect.
        with pytest.raises(AddressRefused), socket.socket() as sock:
            sock.connect(("127.0.0.1", listener))


def test_bad_answers_are_left_out_and_good_ones_kept() -> None:
    def mixed(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, 1, 6, "", (ip, 443)) for ip in ("10.0.0.1", "8.8.8.8")]

    guard = Guard(PUBLIC)
    assert [e[4][0] for e in guard.resolve(mixed, "both.example", 443)] == ["8.8.8.8"]


def test_with_a_list_of_hosts_only_their_addresses_are_connected_to() -> None:
    def lookup(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, 1, 6, "", ("8.8.8.8", 443))]

    guard = Guard(AddressPolicy(("good.example",)))
    with pytest.raises(AddressRefused, match=r"good\.example"):
        guard.check_connect("8.8.8.8", 443)
    with pytest.raises(AddressRefused, match=r"bad\.example"):
        guard.resolve(lookup, "bad.example", 443)
    guard.resolve(lookup, "good.example", 443)
    guard.check_connect("8.8.8.8", 443)
    with pytest.raises(AddressRefused):
        guard.check_connect("8.8.4.4", 443)


def test_the_platforms_proxy_is_not_judged(monkeypatch: pytest.MonkeyPatch, listener: int) -> None:
    monkeypatch.setenv("https_proxy", f"http://user:x@localhost:{listener}")
    proxies = address.environment_proxies()
    assert proxies == (("localhost", listener),)
    with Guard(AddressPolicy(("good.example",)), proxies):
        socket.create_connection(("localhost", listener)).close()
        with pytest.raises(AddressRefused):
            socket.create_connection(("localhost", listener + 1))
    with Guard(PUBLIC, [("127.0.0.1", listener)]):
        socket.create_connection(("127.0.0.1", listener)).close()


def test_two_guards_would_hide_each_other() -> None:
    with Guard(PUBLIC), pytest.raises(RuntimeError), Guard(PUBLIC):
        pass


def test_a_refusal_is_found_inside_of_other_errors() -> None:
    refusal = AddressRefused("host", "h", "no", "mend")
    wrapped = OSError("x")
    wrapped.__context__ = ExceptionGroup("g", [ValueError(1), RuntimeError(refusal)])
    outer = KeyError("y")
    outer.__cause__ = wrapped
    assert refusal_in(outer) is refusal
    assert refusal_in(OSError()) is None
    loop = OSError()
    loop.__context__ = SourceUnreachable("a", "b", "c", "d")
    loop.__context__.__context__ = loop
    assert isinstance(refusal_in(loop), SourceUnreachable)


def test_every_embedded_inner_address_is_refused() -> None:
    for inner in ("127.0.0.1", "10.0.0.1", "169.254.169.254"):
        number = int(ipaddress.IPv4Address(inner))
        for ip in (0xFFFF << 32 | number, 0x2002 << 112 | number << 80, 0x64FF9B << 96 | number):
            assert PUBLIC.why_refused(str(ipaddress.IPv6Address(ip))) is not None


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("http://169.254.170.23/v1/credentials", (("169.254.170.23", 80),)),
        ("http://[fd00:ec2::23]/v1/credentials", (("fd00:ec2::23", 80),)),
        # The metadata server, whatever it is called, and others' services.
        ("http://169.254.169.254/latest/meta-data", ()),
        ("http://agent.example/v1/credentials", ()),
        ("https://169.254.170.23/v1/credentials", ()),
        ("", ()),
    ],
)
def test_only_the_agent_of_eks_is_let_in(
    monkeypatch: pytest.MonkeyPatch, uri: str, found: tuple[tuple[str, int], ...]
) -> None:
    monkeypatch.setenv(address.AGENT_VARIABLE, uri)
    assert address.environment_agents() == found
    guard = Guard(AddressPolicy(), address.environment_agents())
    for host, port in found:
        guard.check_connect(host, port)
        with pytest.raises(AddressRefused):
            guard.check_connect(host, port + 1)
        # Not for a model's address, nor for a redirect of one.
        with pytest.raises(AddressRefused):
            AddressPolicy().check_host(host)
    with pytest.raises(AddressRefused):
        guard.check_connect("169.254.169.254", 80)
