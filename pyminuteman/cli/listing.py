"""Tables in ipvsadm's words and columns (``ipvsadm -Ln``). Pure.

Byte for byte what ipvsadm 1.31 prints, but for: the order of rows, which is that of numbers (ipvsadm compares by wrapped
differences, and puts 192.168.0.1 before 10.0.0.1); firewall marks above 2**31 - 1, which are not shown as negative; and a third
scheduler flag of sh and mh, which ipvsadm leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from pyminuteman.addresses import IPV6, format_endpoint
from pyminuteman.ipvs import (
    Connection,
    Counters,
    Destination,
    DestinationStatistics,
    ForwardingMethod,
    KernelInformation,
    Protocol,
    Rates,
    Service,
    ServiceKey,
    ServiceStatistics,
)
from pyminuteman.plain.ipvs_words import flag_names

__all__ = ["View", "format_connections", "format_listing", "large_number", "service_name", "service_settings"]

_WORDS = {
    ForwardingMethod.MASQUERADE: "Masq",
    ForwardingMethod.LOCAL: "Local",
    ForwardingMethod.TUNNEL: "Tunnel",
    ForwardingMethod.ROUTE: "Route",
}


class View(Enum):
    """Which columns."""

    PLAIN = "plain"
    STATISTICS = "stats"
    RATES = "rate"
    THRESHOLDS = "thresholds"
    PERSISTENT = "persistent-conn"


_COUNTED = {
    View.STATISTICS: ("Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"),
    View.RATES: ("CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"),
}
_TITLES = {
    View.PLAIN: "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
    View.THRESHOLDS: f"{'Prot LocalAddress:Port':33} {'Uthreshold':10} {'Lthreshold':10} {'ActiveConn':10} {'InActConn':10}",
    View.PERSISTENT: f"{'Prot LocalAddress:Port':33} {'Weight':9} {'PersistConn':11} {'ActiveConn':10} {'InActConn':10}",
} | {view: "Prot LocalAddress:Port".ljust(33) + "".join(f" {name:>8}" for name in names) for view, names in _COUNTED.items()}


def large_number(number: int, *, exact: bool = False) -> str:
    """Nine columns, the first a blank: 100 million and more are cut to thousands, millions and so on."""
    if exact or number < 10**8:
        return f" {number:8}"
    for limit, unit, letter in ((10**9, 10**3, "K"), (10**11, 10**6, "M"), (10**14, 10**9, "G")):
        if number < limit:
            return f"{number // unit:8}{letter}"
    return f"{number // 10**12:8}T"


def service_name(key: ServiceKey) -> str:
    """``TCP  10.0.0.1:80``, ``FWM  8 IPv6``."""
    if key.mark:
        return f"FWM  {key.mark}" + (" IPv6" if key.family == IPV6 else "")
    name = key.protocol.name if isinstance(key.protocol, Protocol) else str(key.protocol)
    return f"{name:4} {format_endpoint(key.address, key.port)}"


def service_settings(service: Service) -> str:
    """``sh (sh-fallback,sh-port) persistent 77 mask 255.255.0.0 pe sip ops``."""
    flags = flag_names(service.scheduler, service.flags)
    persistence = service.persistence
    words = [service.scheduler]
    if named := [name for name in flags if name != "ops"]:
        words.append(f"({','.join(named)})")
    if persistence:
        words.append(f"persistent {persistence.timeout_seconds}")
        if persistence.netmask:
            words.append(f"mask {persistence.netmask}")
    if service.persistence_engine:
        words.append(f"pe {service.persistence_engine}")
    if "ops" in flags:
        words.append("ops")
    return " ".join(words)


def format_listing(
    table: Iterable[ServiceStatistics],
    view: View = View.PLAIN,
    *,
    information: KernelInformation | None = None,
    exact: bool = False,
    quiesced: Callable[[str], str] = str,
) -> Iterator[str]:
    """Lines, without their ends.

    Args:
        table: Services with their destinations and counters, in the order wanted.
        view: Which columns.
        information: For the first line; None leaves it out, as ipvsadm does for one service.
        exact: Do not shorten large numbers.
        quiesced: Applied to the lines of destinations of weight 0: colour.
    """
    if information:
        version = ".".join(map(str, information.version))
        yield f"IP Virtual Server version {version} (size={information.connection_table_size})"
    yield _TITLES[view]
    if view is not View.PLAIN:
        yield "  -> RemoteAddress:Port"
    for service in table:
        name = service_name(service.service.key)
        if view in _COUNTED:
            yield f"{name:33}{_counted(service.counters, service.rates, view, exact)}"
        else:
            yield f"{name} {service_settings(service.service)}"
        for destination, numbers in service.destinations.items():
            line = f"  -> {destination!s:28}{_columns(destination, numbers, view, exact)}"
            yield line if destination.weight else quiesced(line)


def _counted(counters: Counters, rates: Rates, view: View, exact: bool) -> str:
    row = counters if view is View.STATISTICS else rates
    numbers = (row.connections, row.in_packets, row.out_packets, row.in_bytes, row.out_bytes)
    return "".join(large_number(number, exact=exact) for number in numbers)


def _columns(destination: Destination, numbers: DestinationStatistics, view: View, exact: bool) -> str:
    if view in _COUNTED:
        return _counted(numbers.counters, numbers.rates, view, exact)
    active, inactive = numbers.connections.active, numbers.connections.inactive
    if view is View.THRESHOLDS:
        return f" {destination.upper_threshold:<10} {destination.lower_threshold:<10} {active:<10} {inactive:<10}"
    if view is View.PERSISTENT:
        return f" {destination.weight:<9} {numbers.connections.persistent:<11} {active:<10} {inactive:<10}"
    word = _WORDS.get(destination.forward, "Bypass")
    return f" {word:7} {destination.weight:<6} {active:<10} {inactive:<10}"


def format_connections(connections: Iterable[Connection]) -> Iterator[str]:
    """As ``ipvsadm -Lnc``: lines, without their ends."""
    yield "IPVS connection entries"
    yield "pro expire state       source             virtual            destination"
    for one in connections:
        minutes, seconds = divmod(one.expires_seconds, 60)
        ends = (
            format_endpoint(one.client, one.client_port),
            format_endpoint(one.virtual, one.virtual_port),
            format_endpoint(one.destination, one.destination_port),
        )
        line = f"{one.protocol:3} {minutes:02}:{seconds:02}  {one.state:11} {ends[0]:18} {ends[1]:18} {ends[2]}"
        yield " ".join(filter(None, (line, one.engine, one.engine_data)))
