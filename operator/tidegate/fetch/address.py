"""Which hosts and addresses a model may come from, enforced under every library's sockets.

A URL that looks harmless can lead inside: by its name (DNS), by a redirect, or by a name that
answers differently the second time (rebinding). So the rule stands at two points that every
Python library passes through, whatever HTTP client it brings:

* name resolution (`socket.getaddrinfo`): the host must be allowed, and only allowed addresses
  come back;
* connecting (the audit event ``socket.connect``): the very address that is being connected to is
  judged again, and it must have been answered for an allowed host.

What is judged is thus what is used; there is no time between check and use. Libraries that open
sockets outside Python (gRPC, hf-xet) are not used by any source.
"""

import fnmatch
import ipaddress
import os
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tidegate.fetch.errors import AddressRefused, FetchError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
AGENT_VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
AGENTS = frozenset({"169.254.170.23", "fd00:ec2::23"})
HOSTS_MEND = "Ask the platform team to add the host to fetch.allowedHosts in the chart's values"
CIDR_MEND = (
    "Ask the platform team to add its network to fetch.allowPrivateAddresses in the chart's values"
)


@dataclass(frozen=True)
class AddressPolicy:
    """Pure judgement of hosts and addresses.

    Attributes:
        allowed_hosts: globs over lower-case host names; empty: any.
        allowed_networks: CIDRs that are allowed although they are not public.
    """

    allowed_hosts: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()

    def host_allowed(self, host: str) -> bool:
        """Whether a name (or an address written in a URL) is on the list."""
        host = host.lower().rstrip(".")
        return not self.allowed_hosts or any(
            fnmatch.fnmatchcase(host, glob.lower()) for glob in self.allowed_hosts
        )

    def why_refused(self, address: str) -> str | None:
        """What is wrong with an address; None if it may be connected to."""
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return "is not an IP address"
        networks = [ipaddress.ip_network(n) for n in self.allowed_networks]
        # An embedded IPv4 address is what the packet reaches in the end: both are judged.
        for one in _destinations(ip):
            if any(one in n for n in networks):
                continue
            if one.is_loopback:
                return "is a loopback address"
            if one.is_link_local:
                return "is a link-local address (cloud metadata lives there)"
            if one.is_multicast or one.is_unspecified or one.is_reserved:
                return "is not the address of a host"
            if not one.is_global:
                return "is a private address"
        return None

    def check_host(self, host: str) -> None:
        """Refuse a host that is not on the list, or an address that is written out and is inside.

        For hosts in URLs: through a proxy nothing else would look at them.

        Raises:
            AddressRefused: it may not be used.
        """
        if _is_address(host) and (problem := self.why_refused(host)):
            raise AddressRefused("address", host, f"it {problem}", CIDR_MEND)
        if not self.host_allowed(host):
            allowed = ", ".join(self.allowed_hosts)
            raise AddressRefused("host", host, f"models may only come from {allowed}", HOSTS_MEND)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _destinations(ip: IPAddress) -> list[IPAddress]:
    if not isinstance(ip, ipaddress.IPv6Address):
        return [ip]
    if ip in NAT64:
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    return [ip, *(a for a in (ip.ipv4_mapped, ip.sixtofour) if a is not None)]


class Guard:
    """While entered, applies an `AddressPolicy` to every socket of this process.

    Attributes:
        refusal: the last refusal; libraries may wrap or swallow the exception itself.
    """

    def __init__(self, policy: AddressPolicy, proxies: Iterable[tuple[str, int]] = ()) -> None:
        """Make a guard.

        Args:
            policy: what is allowed.
            proxies: host and port of the platform's proxies and agents, which are not judged.
        """
        self.policy = policy
        self.refusal: AddressRefused | None = None
        self._proxies = frozenset((host.lower(), port) for host, port in proxies)
        self._answers: dict[str, str] = {}

    def __enter__(self) -> "Guard":
        global _active
        if _active is not None:
            raise RuntimeError("a guard is already active in this process")
        _install()
        _active = self
        return self

    def __exit__(self, *_: object) -> None:
        global _active
        _active = None

    def resolve(self, lookup: Callable[..., list[Any]], host: Any, *args: Any, **kw: Any) -> Any:
        """`socket.getaddrinfo` without hosts and addresses that are not allowed."""
        name = host.decode() if isinstance(host, bytes) else host
        if name is None:
            return lookup(host, *args, **kw)
        trusted = any(name.lower() == proxy for proxy, _ in self._proxies)
        if not trusted:
            try:
                self.policy.check_host(name)
            except AddressRefused as exc:
                raise self._refused(exc) from None
        found = lookup(host, *args, **kw)
        good, why = [], None
        for entry in found:
            address = entry[4][0]
            problem = None if trusted else self.policy.why_refused(address)
            if problem is None:
                good.append(entry)
                self._answers[address] = name
            else:
                why = why or f"it resolves to {address}, which {problem}"
        if not good and why:
            raise self._refused(AddressRefused("host", name, why, CIDR_MEND))
        return good

    def check_connect(self, address: str, port: int) -> None:
        """Judge the address that a socket is about to connect to.

        Raises:
            AddressRefused: it is not allowed.
        """
        host = self._answers.get(address)
        if ((host or address).lower(), port) in self._proxies:
            return
        if problem := self.policy.why_refused(address):
            raise self._refused(AddressRefused("address", address, f"it {problem}", CIDR_MEND))
        if host is None and not self.policy.host_allowed(address):
            raise self._refused(
                AddressRefused(
                    "address",
                    address,
                    f"models may only come from {', '.join(self.policy.allowed_hosts)}",
                    HOSTS_MEND,
                )
            )

    def _refused(self, exc: AddressRefused) -> AddressRefused:
        self.refusal = exc
        return exc


_active: Guard | None = None
_installed = False


def _install() -> None:
    """Put the two hooks in place, once a process; without an active guard they do nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    lookup = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kw: Any) -> Any:
        guard = _active
        return (
            lookup(host, *args, **kw) if guard is None else guard.resolve(lookup, host, *args, **kw)
        )

    def hook(event: str, args: tuple[Any, ...]) -> None:
        guard = _active
        if guard is None or event != "socket.connect":
            return
        sock, address = args
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            try:
                guard.check_connect(str(address[0]), int(address[1]))
            except AddressRefused:
                sock.close()  # callers only close it after an OSError
                raise

    socket.getaddrinfo = getaddrinfo
    sys.addaudithook(hook)


def refusal_in(exc: BaseException) -> FetchError | None:
    """The `FetchError` that a library wrapped, by cause, context or argument; None if none."""
    seen: set[int] = set()
    stack: list[object] = [exc]
    while stack:
        e = stack.pop()
        if not isinstance(e, BaseException) or id(e) in seen:
            continue
        seen.add(id(e))
        if isinstance(e, FetchError):
            return e
        stack += [e.__cause__, e.__context__, *e.args]
        stack += getattr(e, "kwargs", {}).values() if hasattr(e, "kwargs") else []
        stack += getattr(e, "exceptions", ())
    return None


def environment_agents() -> tuple[tuple[str, int], ...]:
    """EKS' Pod Identity agent on this node, where its webhook put the address into the environment.

    Its addresses are link-local, as the metadata server's are, and fixed: nothing else is let in.
    """
    parts = urlsplit(os.environ.get(AGENT_VARIABLE) or "")
    if parts.scheme != "http" or parts.hostname not in AGENTS:
        return ()
    return ((parts.hostname, parts.port or 80),)


def environment_proxies() -> tuple[tuple[str, int], ...]:
    """Proxies in this container's environment (the platform's profile sets them)."""
    found = []
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        parts = urlsplit(os.environ.get(name) or os.environ.get(name.lower()) or "")
        if parts.hostname:
            found.append((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)))
    return tuple(found)
