"""The node's network: one bridge, forwarding, and masquerading in a table of its own.

CNI's own masquerading would need iptables and leave chains in shared tables; a table of our own
goes away in one piece.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.processes import run_tool

_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
KUBE_PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
"""What kube-proxy in nftables mode makes and leaves behind (pkg/proxy/nftables/proxier.go)."""


@dataclass(frozen=True)
class Network:
    """Names and addresses of the node's network."""

    bridge: str = "br-tg"
    address: str = "10.244.0.1"
    """Of the bridge and so of the node: what kubelet, API server and DNS listen on."""
    prefix: int = 24
    pods: str = "10.244.0.0/24"
    services: str = "10.96.0.0/16"
    table: str = "tidegate-e2e"

    def masquerade_rules(self) -> str:
        """Return the nft script that gives pods a way out; running it again changes nothing."""
        return (
            f"table ip {self.table}\n"
            f"delete table ip {self.table}\n"
            f"table ip {self.table} {{\n"
            "  chain postrouting {\n"
            "    type nat hook postrouting priority srcnat; policy accept;\n"
            f'    ip saddr {self.pods} oifname != "{self.bridge}" masquerade\n'
            "  }\n"
            "}\n"
        )

    def cni_config(self, data: Path) -> str:
        """Return the CNI configuration list: a bridge with host-local addresses."""
        return json.dumps(
            {
                "cniVersion": "1.0.0",
                "name": "tidegate",
                "plugins": [
                    {
                        "type": "bridge",
                        "bridge": self.bridge,
                        "isGateway": True,
                        "hairpinMode": True,
                        "ipam": {
                            "type": "host-local",
                            "dataDir": str(data),
                            "ranges": [[{"subnet": self.pods}]],
                            "routes": [{"dst": "0.0.0.0/0"}],
                        },
                    }
                ],
            },
            indent=2,
        )


def run(command: Sequence[str], *, stdin: str = "", check: bool = True) -> str:
    """Run a system tool and return its output; a tool that is not there counts as failed.

    Raises:
        RuntimeError: with the tool's own words, if `check` and it fails.
    """
    try:
        done = run_tool(command, stdin=stdin)
    except (FileNotFoundError, PermissionError):
        if check:
            raise RuntimeError(f"{command[0]} is missing") from None
        return ""
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _links() -> list[dict[str, object]]:
    links: list[dict[str, object]] = json.loads(
        run(["ip", "-json", "link", "show"], check=False) or "[]"
    )
    return links


def up(network: Network, remembered: Path) -> None:
    """Make the bridge and the table and turn forwarding on; its former value is remembered."""
    if not remembered.exists():
        remembered.write_text(_FORWARD.read_text())
    _FORWARD.write_text("1\n")
    if not any(link["ifname"] == network.bridge for link in _links()):
        run(["ip", "link", "add", network.bridge, "type", "bridge"])
        run(["ip", "address", "add", f"{network.address}/{network.prefix}", "dev", network.bridge])
    run(["ip", "link", "set", network.bridge, "up"])
    run(["nft", "-f", "-"], stdin=network.masquerade_rules())


def down(network: Network, remembered: Path) -> None:
    """Remove what `up`, CNI and kube-proxy made; what is not there is fine."""
    for link in _links():
        if link.get("master") == network.bridge:
            run(["ip", "link", "delete", str(link["ifname"])], check=False)
    if any(link["ifname"] == network.bridge for link in _links()):
        run(["ip", "link", "delete", network.bridge])
    for family, table in (("ip", network.table), *KUBE_PROXY_TABLES):
        run(["nft", "delete", "table", family, table], check=False)
    if remembered.exists():
        _FORWARD.write_text(remembered.read_text())
        remembered.unlink()


def leftovers(network: Network) -> list[str]:
    """Name every interface and nft table of ours that still exists."""
    found = [
        f"interface {link['ifname']}"
        for link in _links()
        if link["ifname"] == network.bridge or link.get("master") == network.bridge
    ]
    tables = json.loads(run(["nft", "-j", "list", "tables"], check=False) or "{}").get(
        "nftables", []
    )
    ours = {("ip", network.table), *KUBE_PROXY_TABLES}
    for entry in tables:
        table = entry.get("table")
        if table and (table["family"], table["name"]) in ours:
            found.append(f"nft table {table['family']} {table['name']}")
    return found
