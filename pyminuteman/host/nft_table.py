"""Our nftables table, as the JSON of libnftables(5): what to say to ``nft -j -f -``, and how to read what it lists. Pure.

1. All that is ours is in the one table ``inet minuteman``; nobody else's is read, changed or relied on.
2. Who changes it does so in one transaction: it is there as a whole or as it was before.
3. Addresses and ports are in sets, so that the rules never change.

**bypass** (nat, prerouting and output, priority -101). The first NAT chain that sets up a mapping for a connection decides it, and later
ones are not asked (nf_nat_inet_fn in net/netfilter/nf_nat_core.c). So whoever goes to a VIP is mapped to where they go anyway, before the
chains at -100: those of Docker, of CNI portmap and of all of iptables, legacy or not. To ``accept`` would not do: it ends this chain only.

**masquerade** (nat, postrouting, priority 100). nftables cannot ask whether IPVS has a packet, but conntrack knows where its connection
went first. Takes ``net.ipv4.vs.conntrack=1``. A packet that still goes to the VIP is forwarded by route or tunnel and must keep its sender.

**guard** (filter, input, priority 101). IPVS takes its packets in the hook LOCAL_IN at priorities 98 and 99 (ip_vs_ops in
net/netfilter/ipvs/ip_vs_core.c). Behind it comes only what IPVS did not want, whatever its table is at that moment: so nothing is rejected for
a set that is a moment late. The set is for services whose destination is this host at the VIP itself. Local clients' packets come by here, too:
what IPVS does not take in LOCAL_OUT arrives over lo. Answers to a local client are addressed to the VIP (the kernel chose it as their
sender), but are of a connection that is known. An ``accept`` here overrides nobody's ``drop``: an INPUT policy counts as before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pyminuteman.addresses import format_address, parse_address
from pyminuteman.host.filtering import Listed, Parts, Port, family_of

__all__ = ["FAMILY", "TABLE", "install", "is_whole", "listed", "probe", "remove", "update"]

FAMILY: Final = "inet"
TABLE: Final = "minuteman"
_PLACE: Final = {"family": FAMILY, "table": TABLE}
_PROTOCOL: Final = {4: "ip", 6: "ip6"}
_PORT_TYPE: Final = {4: ["ipv4_addr", "inet_proto", "inet_service"], 6: ["ipv6_addr", "inet_proto", "inet_service"]}
_PROTOCOL_NUMBERS: Final = {6: "tcp", 17: "udp", 132: "sctp"}

Command = Mapping[str, Any]
Chain = tuple[str, Mapping[str, Any], list[tuple[str, list[Any]]]]
"""Name, hook, and rules with their comments."""


def install(content: Listed, parts: Parts) -> list[Command]:
    """The whole table anew, in place of the one that may be there."""
    commands: list[Command] = [*remove(), {"add": {"table": {"family": FAMILY, "name": TABLE}}}]
    for version in (4, 6):
        commands.append({"add": {"set": {**_PLACE, "name": f"vip{version}", "type": _PORT_TYPE[version][0]}}})
        commands.append({"add": {"set": {**_PLACE, "name": f"service{version}", "type": _PORT_TYPE[version]}}})
    for name, hook, rules in _chains(parts):
        commands.append({"add": {"chain": {**_PLACE, "name": name, **hook}}})
        commands += [
            {"add": {"rule": {**_PLACE, "chain": name, "expr": expression, "comment": comment}}}
            for comment, expression in rules
        ]
    return commands + _elements("add", content)


def remove() -> list[Command]:
    """Take the table away; to add it first makes that a success where there is none."""
    table = {"table": {"family": FAMILY, "name": TABLE}}
    return [{"add": table}, {"delete": table}]


def update(more: Listed, less: Listed) -> list[Command]:
    """What to change of the sets. Fails as a whole when they are not as they were thought to be."""
    return _elements("add", more) + _elements("delete", less)


def probe(parts: Parts) -> list[Command]:
    """A table with all that we use, made and removed in one transaction: a listing is no proof that rules can be added."""
    commands = install(Listed(frozenset({"192.0.2.1"}), frozenset({Port("192.0.2.1", "tcp", 9)})), parts)
    text_of = f"{TABLE}_probe"
    return [_renamed(command, text_of) for command in [*commands, *remove()[1:]]]


def is_whole(listing: Mapping[str, Any], parts: Parts) -> bool:
    """Whether the chains and rules of a listing (``nft -j list table``) are those of :func:`install`.

    By their hooks, their order and their comments: how ``nft`` writes an expression back changes between its versions.
    """
    chains: dict[str, tuple[Any, ...]] = {}
    rules: dict[str, list[str]] = {}
    for item in listing.get("nftables", ()):
        if chain := item.get("chain"):
            chains[chain["name"]] = tuple(chain.get(key) for key in ("type", "hook", "prio"))
        elif rule := item.get("rule"):
            rules.setdefault(rule["chain"], []).append(rule.get("comment", ""))
    wanted = _chains(parts)
    return chains == {name: tuple(hook.get(key) for key in ("type", "hook", "prio")) for name, hook, _ in wanted} and rules == {
        name: [comment for comment, _ in inside] for name, _, inside in wanted if inside
    }


def listed(listing: Mapping[str, Any]) -> Listed:
    """What the sets of a listing hold."""
    addresses: set[str] = set()
    ports: set[Port] = set()
    for item in listing.get("nftables", ()):
        found = item.get("set")
        if not found:
            continue
        for element in found.get("elem", ()):
            if isinstance(element, str):
                addresses.add(_canonical(element))
            elif isinstance(element, Mapping) and len(concat := element.get("concat", ())) == 3:  # noqa: PLR2004 - as the type says
                address, protocol, port = concat
                ports.add(Port(_canonical(address), _PROTOCOL_NUMBERS.get(protocol, str(protocol)), int(port)))
    return Listed(frozenset(addresses), frozenset(ports))


def _canonical(address: str) -> str:
    return format_address(parse_address(address)[1])


def _renamed(command: Command, name: str) -> Command:
    """The same for a table of another name."""
    ((verb, ((kind, what),)),) = ((verb, tuple(inside.items())) for verb, inside in command.items())
    return {verb: {kind: {**what, "name" if kind == "table" else "table": name}}}


def _elements(verb: str, content: Listed) -> list[Command]:
    commands: list[Command] = []
    for version in (4, 6):
        addresses = sorted(address for address in content.addresses if family_of(address) == version)
        ports = sorted(port for port in content.ports if family_of(port.address) == version)
        # Ports first when they go, addresses first when they come: either way a port's address is there.
        pairs: list[tuple[str, list[Any]]] = [
            (f"vip{version}", list(addresses)),
            (f"service{version}", [{"concat": [port.address, port.protocol, port.port]} for port in ports]),
        ]
        commands += [{verb: {"element": {**_PLACE, "name": name, "elem": elements}}} for name, elements in pairs if elements]
    return commands


def _payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _match(left: Any, right: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


_L4: Final = {"meta": {"key": "l4proto"}}


def _chains(parts: Parts) -> Iterable[Chain]:
    chains: list[Chain] = []
    if parts.bypass:
        rules = [_bypass(version) for version in (4, 6)]
        chains += [(f"bypass_{hook}", _hook("nat", hook, -101), rules) for hook in ("prerouting", "output")]
    if parts.masquerade:
        chains.append(("masquerade", _hook("nat", "postrouting", 100), [_masquerade(version) for version in (4, 6)]))
    if parts.guard:
        chains.append(("guarded", {}, _guarded()))
        to_vip = [(f"guard: ipv{version}", [_to_vip(version), {"jump": {"target": "guarded"}}]) for version in (4, 6)]
        chains.append(("guard", _hook("filter", "input", 101), to_vip))
    return chains


def _hook(kind: str, hook: str, priority: int) -> dict[str, Any]:
    return {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}


def _to_vip(version: int) -> dict[str, Any]:
    return _match(_payload(_PROTOCOL[version], "daddr"), f"@vip{version}")


def _bypass(version: int) -> tuple[str, list[Any]]:
    protocol = _PROTOCOL[version]
    here = {"dnat": {"family": protocol, "addr": _payload(protocol, "daddr")}}
    return f"bypass: ipv{version}", [_to_vip(version), here]


def _masquerade(version: int) -> tuple[str, list[Any]]:
    protocol = _PROTOCOL[version]
    original = {"ct": {"key": f"{protocol} daddr", "dir": "original"}}
    return f"masquerade: ipv{version}", [
        _match(_payload(protocol, "daddr"), f"@vip{version}", "!="),
        _match(original, f"@vip{version}"),
        {"masquerade": None},
    ]


def _guarded() -> list[tuple[str, list[Any]]]:
    rules: list[tuple[str, list[Any]]] = [
        ("guard: known", [_match({"ct": {"key": "state"}}, ["established", "related"], "in"), {"return": None}]),
        ("guard: icmp", [_match(_L4, {"set": ["icmp", "ipv6-icmp"]}), {"return": None}]),
    ]
    for version in (4, 6):
        concat = {"concat": [_payload(_PROTOCOL[version], "daddr"), _L4, _payload("th", "dport")]}
        rules.append((f"guard: service{version}", [_match(concat, f"@service{version}"), {"return": None}]))
    rules.append(("guard: reset", [_match(_L4, "tcp"), {"reject": {"type": "tcp reset"}}]))
    rules.append(("guard: reject", [{"reject": {"type": "icmpx", "expr": "port-unreachable"}}]))
    return rules
