"""The demo's network: this process is the director, the backends and the client have namespaces of their own.

::

    client 10.9.0.2 ---- 10.9.0.1  director  10.0.0.1 ---- bridge ---- web1 10.0.0.11, web2 10.0.0.12, ...
                                   dummy "minuteman": the VIPs 11.0.0.1, 11.0.0.2, 11.0.0.3

All of it is in namespaces that the demo makes; the host's own network is not touched, and nothing outlives the processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from demo.processes import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, Child, Children, mount, run, unshare

VIPS: Final = {"web": "11.0.0.1", "api": "11.0.0.2", "shop": "11.0.0.3"}
VIP_PORT: Final = 80
VIP_NETWORK: Final = "11.0.0.0/8"
BACKENDS: Final = {
    "web1": "10.0.0.11",
    "web2": "10.0.0.12",
    "web3": "10.0.0.13",
    "web4": "10.0.0.14",
    "api1": "10.0.0.21",
    "api2": "10.0.0.22",
    "shop1": "10.0.0.31",
    "shop2": "10.0.0.32",
}
BACKEND_PORT: Final = 8080
_BACKEND_SIDE: Final = "10.0.0.1"
_CLIENT_SIDE: Final = "10.9.0.1"
_CLIENT: Final = "10.9.0.2"

_SYSCTLS: Final = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/vs/conntrack": "1",  # without it the masquerade rule never sees what IPVS forwards
}
# Replies must come back through the director. The first of these that this machine has, tried by doing it: a kernel may
# list tables that it cannot fill. nftables has no "ipvs" match, but the connection's original destination says the same.
_NFT: Final = (
    "table ip demo { chain post { type nat hook postrouting priority srcnat; "
    f"ct original ip daddr {VIP_NETWORK} masquerade; }}; }}"
)
_IPVS_MATCH: Final = "-m ipvs --ipvs --vdir ORIGINAL --vmethod MASQ"
_IPTABLES: Final = tuple(f"-w -t nat -I POSTROUTING {_IPVS_MATCH} -j MASQUERADE".split())
_MASQUERADES: Final = (
    (("nft", "-f", "-"), _NFT),
    (("iptables", *_IPTABLES), ""),
    (("iptables-legacy", *_IPTABLES), ""),
)


def leave_host() -> None:
    """Move this process into new, empty network and mount namespaces.

    The mounts are for iptables, which keeps a lock file in /run.
    """
    unshare(CLONE_NEWNET | CLONE_NEWNS)
    mount("none", "/", "none", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/run", "tmpfs", 0)


def build(client: Child, backends: dict[str, Child]) -> str:
    """Connect everything; returns the name of the tool that masquerades.

    Raises:
        RuntimeError: A tool is missing or failed; the text says which and what it said.
    """
    run("ip", "-batch", "-", text="\n".join(_director(client, backends)))
    for path, value in _SYSCTLS.items():
        Path("/proc/sys", path).write_text(value, encoding="ascii")
    tool = _masquerade()
    Children.configure(client, [*_end(f"{_CLIENT}/24"), f"route add default via {_CLIENT_SIDE}"])
    for name, child in backends.items():
        Children.configure(child, _end(f"{BACKENDS[name]}/24"))
    return tool


def _director(client: Child, backends: dict[str, Child]) -> list[str]:
    lines = ["link set lo up", "link add minuteman type dummy", "link set minuteman up"]
    lines += [f"addr add {vip}/32 dev minuteman" for vip in VIPS.values()]
    lines += ["link add backends type bridge", "link set backends up", f"addr add {_BACKEND_SIDE}/24 dev backends"]
    for name, child in backends.items():
        lines += [f"link add {name} type veth peer name eth0 netns {child.pid}", f"link set {name} master backends up"]
    lines += [f"link add client type veth peer name eth0 netns {client.pid}", "link set client up"]
    lines += [f"addr add {_CLIENT_SIDE}/24 dev client"]
    return lines


def _end(address: str) -> list[str]:
    return ["link set lo up", "link set eth0 up", f"addr add {address} dev eth0"]


def _masquerade() -> str:
    refusals = []
    for command, text in _MASQUERADES:
        try:
            run(*command, text=text)
        except RuntimeError as error:
            refusals.append(str(error))
        else:
            return command[0]
    msg = "no way to masquerade (apt-get install iptables, or nftables):\n  " + "\n  ".join(refusals)
    raise RuntimeError(msg)
