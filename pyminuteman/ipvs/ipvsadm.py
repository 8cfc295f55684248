"""Writing the text format of ``ipvsadm -S``; :mod:`pyminuteman.ipvs.ipvsadm_parser` reads it.

Pure. What we print equals ``ipvsadm -Sn`` (1.31) byte for byte, including what looks odd in it:

- Rows are sorted by the *wrapped* difference of their numbers, so 192.168.0.1 comes before 10.0.0.1, and three networks may
  stand in a circle; what comes out then depends on the sorting algorithm (glibc's merge sort) and on the kernel's order.
- A firewall mark above 2**31 - 1 is printed as a negative number.
- A third scheduler flag is not printed for ``sh`` and ``mh``; thresholds are never printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from pyminuteman.addresses import IPV4, IPV6, format_endpoint
from pyminuteman.ipvs.destination import Destination, ForwardingMethod, TunnelFlags, TunnelType
from pyminuteman.ipvs.service import Protocol, Service, ServiceFlags, ServiceKey
from pyminuteman.ipvs.snapshot import Desired, Snapshot

__all__ = ["format_destination", "format_key", "format_service", "format_table", "scheduler_flags"]

Row = TypeVar("Row")

_LETTERS: Final = {Protocol.TCP: "-t", Protocol.UDP: "-u", Protocol.SCTP: "--sctp-service"}
_FORWARDS: Final = {ForwardingMethod.MASQUERADE: " -m", ForwardingMethod.TUNNEL: " -i"}  # "-g" for all others, as ipvsadm does
_TUNNELS: Final = {TunnelType.IPIP: "ipip", TunnelType.GUE: "gue", TunnelType.GRE: "gre"}
_CHECKSUMS: Final = {TunnelFlags.NONE: "nocsum", TunnelFlags.CHECKSUM: "csum", TunnelFlags.REMOTE_CHECKSUM: "remcsum"}


def scheduler_flags(service: Service) -> str:
    """``sh-fallback,sh-port``; ``flag-1,flag-3`` for schedulers whose flags have no names; empty for none."""
    scheduler, flags = service.scheduler, service.flags
    names = {ServiceFlags.SCHEDULER_1: "flag-1", ServiceFlags.SCHEDULER_2: "flag-2", ServiceFlags.SCHEDULER_3: "flag-3"}
    if scheduler in {"sh", "mh"}:
        names = {ServiceFlags.SCHEDULER_1: f"{scheduler}-fallback", ServiceFlags.SCHEDULER_2: f"{scheduler}-port"}
    return ",".join(name for flag, name in names.items() if flags & flag)


def format_key(key: ServiceKey) -> str:
    """``-t 10.0.0.1:80``, ``-f 7``, ``-f 8 -6``."""
    if key.mark:
        return f"-f {_signed(key.mark)}" + (" -6" if key.family == IPV6 else "")
    letter = _LETTERS.get(key.protocol, f"--protocol-{key.protocol}") if key.protocol is not None else "-t"
    return f"{letter} {format_endpoint(key.address, key.port)}"


def format_service(service: Service, verb: str = "-A") -> str:
    """``-A -t 10.0.0.1:80 -s wlc -p 300``: one line, without its end."""
    persistence = service.persistence
    parts = [verb, format_key(service.key), f"-s {service.scheduler}"]
    if persistence:
        parts.append(f"-p {persistence.timeout_seconds}")
        if persistence.netmask:
            parts.append(f"-M {persistence.netmask}")
    if service.persistence_engine:
        parts.append(f"--pe {service.persistence_engine}")
    if service.flags & ServiceFlags.ONE_PACKET:
        parts.append("-o")
    if service.flags & (ServiceFlags.SCHEDULER_1 | ServiceFlags.SCHEDULER_2 | ServiceFlags.SCHEDULER_3):
        parts.append(f"-b {scheduler_flags(service)}")
    return " ".join(parts)


def format_destination(key: ServiceKey, destination: Destination, verb: str = "-a", *, thresholds: bool = False) -> str:
    """``-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 3``: one line, without its end."""
    line = f"{verb} {format_key(key)} -r {destination}{_FORWARDS.get(destination.forward, ' -g')} -w {destination.weight}"
    if destination.tunnel:
        tunnel = destination.tunnel
        line += f" --tun-type {_TUNNELS.get(tunnel.type, tunnel.type)}"
        if tunnel.type == TunnelType.GUE:
            line += f" --tun-port {tunnel.port}"
        if tunnel.type != TunnelType.IPIP:
            line += f" --tun-{_CHECKSUMS.get(tunnel.flags, 'nocsum')}"
    if thresholds and destination.upper_threshold:
        line += f" -x {destination.upper_threshold} -y {destination.lower_threshold}"
    return line


def format_table(table: Desired, *, thresholds: bool = False) -> str:
    """The whole table as ``ipvsadm -Sn`` prints it, each line ended.

    Args:
        table: A snapshot in the kernel's order (:meth:`IPVSTable.export` takes one) is printed byte for byte as ipvsadm would;
            another table may differ in the order of rows from three or more far-apart networks.
        thresholds: Add ``-x`` and ``-y``, which ipvsadm leaves out and so loses; ``ipvsadm -R`` takes them.
    """
    lines: list[str] = []
    services: Iterable[Service] = table
    if isinstance(table, Snapshot):
        services = [Service.from_packed(service) for service, _ in table.entries.values()]
    for service in _sort(list(services), _service_order, _service_numbers):
        lines.append(format_service(service))
        lines += [
            format_destination(service.key, destination, thresholds=thresholds)
            for destination in _sort(list(table[service]), _destination_order, _destination_numbers)
        ]
    return "".join(f"{line}\n" for line in lines)


def _signed(number: int) -> int:
    """A 32-bit number as C's int."""
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def _words(packed: bytes) -> list[int]:
    return [int.from_bytes(packed[at : at + 4], "big") for at in range(0, 16, 4)]


def _address_order(family: int, first: bytes, second: bytes) -> int:
    """ipvs_cmp_services and ipvs_cmp_dests: word by word, each difference wrapped; IPv4 has one word."""
    for one, other in zip(_words(first)[: 1 if family == IPV4 else 4], _words(second), strict=False):
        if order := _signed(one - other):
            return order
    return 0


def _service_order(one: Service, other: Service) -> int:
    a, b = one.key, other.key
    return (
        _signed(a.mark - b.mark)
        or a.family - b.family
        or (a.protocol or 0) - (b.protocol or 0)
        or (0 if a.mark else _address_order(a.family, a.packed[4:20], b.packed[4:20]))
        or a.port - b.port
    )


def _destination_order(one: Destination, other: Destination) -> int:
    return _address_order(one.family, one.packed[2:18], other.packed[2:18]) or one.port - other.port


def _service_numbers(service: Service) -> tuple[int, ...]:
    key = service.key
    return (key.mark, key.family, key.protocol or 0, *_words(key.packed[4:20]), key.port)


def _destination_numbers(destination: Destination) -> tuple[int, ...]:
    return (destination.family, *_words(destination.packed[2:18]), destination.port)


def _sort(rows: list[Row], order: Callable[[Row, Row], int], numbers: Callable[[Row], tuple[int, ...]]) -> list[Row]:
    """Sort by ``order``: by the numbers that it compares, where no difference of theirs is so large that it wraps."""
    keys = list(map(numbers, rows))
    columns = list(zip(*keys, strict=True))
    one_family = len({key[0] for key in keys}) <= 1 or order is _service_order
    if one_family and all(max(column) - min(column) < 1 << 31 for column in columns):
        return [rows[at] for at in sorted(range(len(rows)), key=keys.__getitem__)]
    return _merge_sort(rows, order)


def _merge_sort(rows: list[Row], order: Callable[[Row, Row], int]) -> list[Row]:
    """Sort as glibc's qsort does (up to 2.36, and again from 2.41): merge sort, the smaller half first, ties from the left.

    With an order that is no order (see the module's text) the algorithm decides the outcome, so it must be the same one.
    """
    if len(rows) <= 1:
        return rows
    middle = len(rows) // 2
    left, right = _merge_sort(rows[:middle], order), _merge_sort(rows[middle:], order)
    merged: list[Row] = []
    at_left = at_right = 0
    while at_left < len(left) and at_right < len(right):
        if order(left[at_left], right[at_right]) <= 0:
            merged.append(left[at_left])
            at_left += 1
        else:
            merged.append(right[at_right])
            at_right += 1
    return merged + left[at_left:] + right[at_right:]
