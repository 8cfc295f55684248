"""Our chains for iptables, as the text of iptables-restore(8), and what iptables-save(8) shows of them. Pure.

For kernels where nftables cannot do NAT. In chains of our own; of others' chains we touch one rule each, the jump to ours.

**bypass**: first in nat's PREROUTING and OUTPUT. ACCEPT ends the table nat for the packet, so that host-port rules behind it (Docker, CNI
portmap) are not asked. Who inserts theirs in front of ours later wins: the audit puts ours first again. Chains of nftables are not held off.

**masquerade**: what IPVS forwards by masquerading (``-m ipvs``), in nat's POSTROUTING. Takes ``net.ipv4.vs.conntrack=1``.

**guard**: first in filter's INPUT, which is in LOCAL_IN at priority 0 and so *before* IPVS (98 and 99). Here the ports that are VIP services
must be listed before IPVS serves them, and no REJECT can stand behind IPVS: security (50) is in front of it too, and in nat (100) nothing may be
rejected. Rules are looked through one by one, only for packets to a VIP that begin a connection: made for some hundred services.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pyminuteman.addresses import format_address, parse_address
from pyminuteman.host.filtering import Listed, Parts, Port, family_of

__all__ = [
    "COMMENT",
    "JUMPS",
    "PROBE_CHAIN",
    "SavedRules",
    "install",
    "is_whole",
    "listed",
    "parse_saved",
    "probe",
    "remove",
    "update",
]

COMMENT: Final = "minuteman"
"""Of the rules in chains that are not ours."""
PROBE_CHAIN: Final = "MINUTEMAN-PROBE"
_BYPASS, _MASQUERADE = "MINUTEMAN-BYPASS", "MINUTEMAN-MASQUERADE"
_GUARD, _SERVICES = "MINUTEMAN-GUARD", "MINUTEMAN-SERVICES"
_REMARK: Final = f"-m comment --comment {COMMENT}"
_BEGINS: Final = "-m conntrack ! --ctstate RELATED,ESTABLISHED"
JUMPS: Final = {
    "nat": (
        ("PREROUTING", f"{_REMARK} -j {_BYPASS}"),
        ("OUTPUT", f"{_REMARK} -j {_BYPASS}"),
        ("POSTROUTING", f"{_REMARK} -j {_MASQUERADE}"),
    ),
    "filter": (("INPUT", f"{_BEGINS} {_REMARK} -j {_GUARD}"),),
}
"""Table to chain and rule: where others' chains lead to ours."""
_CHAINS: Final = {"nat": (_BYPASS, _MASQUERADE), "filter": (_GUARD, _SERVICES)}
_IPVS: Final = "-m ipvs --ipvs --vdir ORIGINAL --vmethod MASQ -j MASQUERADE"
_ICMP: Final = {4: ("icmp", "icmp-port-unreachable"), 6: ("ipv6-icmp", "icmp6-port-unreachable")}

SavedRules = Mapping[str, Mapping[str, list[str]]]
"""Table to chain to rules, each without its ``-A CHAIN``."""


def _wanted(table: str, parts: Parts) -> list[str]:
    """Our chains in a table that have something to do."""
    use = {_BYPASS: parts.bypass, _MASQUERADE: parts.masquerade, _GUARD: parts.guard, _SERVICES: parts.guard}
    return [chain for chain in _CHAINS[table] if use[chain]]


def _address(address: str) -> str:
    return f"-d {address}/{32 if family_of(address) == 4 else 128}"  # noqa: PLR2004 - IPv4


def _port_rule(port: Port) -> str:
    match = f" -m {port.protocol} --dport {port.port}" if port.port else ""  # port 0: a service on every port
    return f"{_address(port.address)} -p {port.protocol}{match} -j RETURN"


def _address_rules(address: str, parts: Parts) -> list[tuple[str, str, str]]:
    rules = []
    if parts.bypass:
        rules.append(("nat", _BYPASS, f"{_address(address)} -j ACCEPT"))
    if parts.guard:
        rules.append(("filter", _GUARD, f"{_address(address)} -j {_SERVICES}"))
    return rules


def _last_rules(version: int) -> list[str]:
    protocol, unreachable = _ICMP[version]
    return [
        f"-p {protocol} -j RETURN",
        "-p tcp -j REJECT --reject-with tcp-reset",
        f"-j REJECT --reject-with {unreachable}",
    ]


def _text(tables: Mapping[str, Iterable[str]]) -> str:
    return "".join(
        f"*{table}\n" + "".join(f"{line}\n" for line in lines) + "COMMIT\n" for table, lines in tables.items() if lines
    )


def install(version: int, content: Listed, parts: Parts, there: SavedRules) -> str:
    """Our chains anew, each table in one transaction, for IP version 4 or 6; ``there`` is what was saved just before."""
    tables: dict[str, list[str]] = {"nat": [], "filter": []}
    for table, lines in tables.items():
        wanted = _wanted(table, parts)
        lines.extend(f":{chain} - [0:0]" for chain in wanted)  # made, or emptied
        lines.extend(_without_jumps(table, there))
        lines.extend(
            f"-I {chain} 1 {rule}" for chain, rule in JUMPS[table] if any(rule.endswith(f"-j {ours}") for ours in wanted)
        )
    if parts.masquerade:
        tables["nat"].append(f"-A {_MASQUERADE} {_IPVS}")
    if parts.guard:
        tables["filter"] += [f"-A {_SERVICES} {rule}" for rule in _last_rules(version)]
    for table, lines in _changes(version, content, "-I", parts).items():
        tables[table] += lines
    for table, text in tables.items():  # chains of parts that are no longer wanted
        for chain in there.get(table, {}):
            if chain in _CHAINS[table] and chain not in _wanted(table, parts):
                text.insert(0, f"-F {chain}")
                text.append(f"-X {chain}")
    return _text(tables)


def _without_jumps(table: str, there: SavedRules) -> list[str]:
    """Delete every jump to one of ours, however it is written."""
    return [
        f"-D {chain} {rule}"
        for chain, rules in there.get(table, {}).items()
        if chain not in _CHAINS[table]
        for rule in rules
        if any(rule.endswith(f"-j {ours}") for ours in _CHAINS[table])
    ]


def remove(there: SavedRules) -> str:
    """Take away what is ours of what was saved just before."""
    tables: dict[str, list[str]] = {}
    for table, chains in _CHAINS.items():
        ours = [chain for chain in chains if chain in there.get(table, {})]
        tables[table] = [*_without_jumps(table, there), *(f"-F {chain}" for chain in ours), *(f"-X {chain}" for chain in ours)]
    return _text(tables)


def update(version: int, more: Listed, less: Listed, parts: Parts) -> str:
    """What to change. Fails, a table as a whole, when the chains are not as they were thought to be."""
    added, removed = _changes(version, more, "-I", parts), _changes(version, less, "-D", parts)
    return _text({table: [*added[table], *removed[table]] for table in added})


def _changes(version: int, content: Listed, verb: str, parts: Parts) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {"nat": [], "filter": []}
    if parts.guard:
        ports = sorted(port for port in content.ports if family_of(port.address) == version)
        tables["filter"] += [f"{verb} {_SERVICES} {_port_rule(port)}" for port in ports]
    for address in sorted(content.addresses):
        if family_of(address) == version:
            for table, chain, rule in _address_rules(address, parts):
                tables[table].append(f"{verb} {chain} {rule}")
    return tables


def probe(version: int, parts: Parts) -> tuple[str, str]:
    """What to add to see whether all that we use works, and what to remove it by."""
    _, unreachable = _ICMP[version]
    rules = {}
    if parts.masquerade or parts.bypass:
        rules["nat"] = _IPVS if parts.masquerade else f"{_REMARK} -j ACCEPT"
    if parts.guard:
        rules["filter"] = f"{_BEGINS} {_REMARK} -j REJECT --reject-with {unreachable}"
    add = {table: [f":{PROBE_CHAIN} - [0:0]", f"-A {PROBE_CHAIN} {rule}"] for table, rule in rules.items()}
    return _text(add), _text({table: [f"-F {PROBE_CHAIN}", f"-X {PROBE_CHAIN}"] for table in rules})


def parse_saved(text: str) -> SavedRules:
    """Read what iptables-save prints."""
    tables: dict[str, dict[str, list[str]]] = {}
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].split(" ", 1)[0], [])
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            chains.setdefault(chain, []).append(rule)
    return tables


def is_whole(version: int, saved: SavedRules, parts: Parts) -> bool:
    """Whether our chains are there with their fixed rules, and each jump comes first where it must."""
    for table in _CHAINS:
        there, wanted = saved.get(table, {}), _wanted(table, parts)
        if any((chain in there) != (chain in wanted) for chain in _CHAINS[table]):
            return False
        for chain, rule in JUMPS[table]:
            if any(rule.endswith(f"-j {ours}") for ours in wanted) and there.get(chain, [""])[:1] != [rule]:
                return False
    # iptables-legacy-save leaves "--ipvs" out where it follows from what is behind it.
    if parts.masquerade and [rule.replace(" --ipvs ", " ") for rule in saved["nat"][_MASQUERADE]] != [
        _IPVS.replace(" --ipvs ", " ")
    ]:
        return False
    last = _last_rules(version)
    return not parts.guard or saved["filter"][_SERVICES][-len(last) :] == last


def listed(saved: SavedRules) -> Listed:
    """The addresses and ports of our chains."""
    addresses: set[str] = set()
    ports: set[Port] = set()
    for chain in (saved.get("nat", {}).get(_BYPASS, []), saved.get("filter", {}).get(_GUARD, [])):
        addresses |= {_destination(rule) for rule in chain if rule.startswith("-d ")}
    for rule in saved.get("filter", {}).get(_SERVICES, []):
        if rule.startswith("-d "):
            words = rule.split()
            port = int(words[words.index("--dport") + 1]) if "--dport" in words else 0
            ports.add(Port(_destination(rule), words[words.index("-p") + 1], port))
    return Listed(frozenset(addresses), frozenset(ports))


def _destination(rule: str) -> str:
    return format_address(parse_address(rule.split()[1].split("/", maxsplit=1)[0])[1])
