"""The kernel's side of generic netlink, byte by byte: what it reads from a request, and what it answers with.

Written from linux/ip_vs.h and from dumps of a 6.1 kernel, and not from our C code, which it is there to contradict.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import records
from pyminuteman.ipvs.control import SyncDaemon
from pyminuteman.ipvs.snapshot import Features
from pyminuteman.ipvs.statistics import Counters, DestinationStatistics, Rates

FAMILY = 0x1D
"""The number of the family IPVS on the puppet's side; the kernel hands out such numbers as families come."""
METRICS_FAMILY = 0x15
"""That of tcp_metrics."""
CONTROLLER = 0x10
"""Whom the numbers of families are asked of (GENL_ID_CTRL)."""
NLMSG_ERROR, NLMSG_DONE = 2, 3
F_MULTI, F_ACK, F_DUMP_INTR, F_DUMP, F_CAPPED, F_ACK_TLVS = 2, 4, 0x10, 0x300, 0x100, 0x200
F_NESTED = 0x8000
HEADER = struct.Struct("=IHHII")
GENERIC = struct.Struct("=BBH")


@dataclass(frozen=True)
class Request:
    """One request, its attributes still packed."""

    raw: bytes
    type: int
    flags: int
    sequence: int
    command: int
    body: bytes

    @property
    def is_dump(self) -> bool:
        return self.flags & F_DUMP == F_DUMP


def requests(datagram: bytes) -> Iterator[Request]:
    """As netlink_rcv_skb cuts them; what is malformed ends the datagram without a word."""
    while len(datagram) >= HEADER.size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(datagram)
        if length < HEADER.size + GENERIC.size or length > len(datagram):
            return
        command, version, _ = GENERIC.unpack_from(datagram, HEADER.size)
        assert version == 1
        yield Request(datagram[:length], kind, flags, sequence, command, datagram[HEADER.size + GENERIC.size : length])
        datagram = datagram[-(-length // 4) * 4 :]


def attributes(body: bytes) -> dict[int, bytes]:
    """Attribute numbers to values."""
    found = {}
    while len(body) >= 4:
        length, kind = struct.unpack_from("=HH", body)
        assert 4 <= length <= len(body), "the kernel would refuse this"
        found[kind & ~F_NESTED] = body[4:length]
        body = body[-(-length // 4) * 4 :]
    assert not body, "bytes left over"
    return found


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def u64(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=Q", value))


def text(kind: int, value: bytes) -> bytes:
    return attribute(kind, value + b"\0")


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | F_NESTED, b"".join(parts))


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return (
        HEADER.pack(HEADER.size + len(payload), kind, flags, sequence & 0xFFFFFFFF, 4711) + payload + bytes(-len(payload) % 4)
    )


def row(sequence: int, command: int, *parts: bytes, flags: int = F_MULTI, family: int = FAMILY) -> bytes:
    """One message of the family."""
    return message(family, flags, sequence, GENERIC.pack(command, 1, 0) + b"".join(parts))


def done(sequence: int, error: int = 0, flags: int = F_MULTI) -> bytes:
    return message(NLMSG_DONE, flags, sequence, struct.pack("=i", error))


def error(request: Request, errno: int, words: str = "", *, capped: bool = True) -> bytes:
    """An error, or with 0 an acknowledgement; ``capped`` leaves out the request's body."""
    payload = struct.pack("=i", -errno) + (request.raw[: HEADER.size] if capped else request.raw)
    payload += bytes(-len(payload) % 4)
    flags = F_CAPPED if capped else 0
    if words:
        flags |= F_ACK_TLVS
        payload += text(1, words.encode())
    return message(NLMSG_ERROR, flags, request.sequence, payload)


# Requests, as records


def service_record(nested: bytes, *, whole: bool) -> bytes:
    """ip_vs_genl_parse_service."""
    a = attributes(nested)
    family = struct.unpack("=H", a[1])[0]
    if 5 in a:
        key = records.SERVICE_KEY.pack(1, family, 0, struct.unpack("=I", a[5])[0].to_bytes(4, "big"), b"")
    else:
        assert len(a[3]) == 16
        address = a[3] if family == IPV6 else a[3][:4]
        key = records.SERVICE_KEY.pack(0, family, struct.unpack("=H", a[2])[0], address, a[4])
    if not whole:
        assert set(a) <= {1, 2, 3, 4, 5}
        return key + bytes(records.SERVICE_SIZE - len(key))
    flags, mask = struct.unpack("=II", a[7])
    assert mask == 0xFFFFFFFF
    netmask = struct.unpack("=I", a[9])[0].to_bytes(4, "big") if family == IPV6 else a[9]
    timeout = struct.unpack("=I", a[8])[0]
    return records.SERVICE.pack(key, a[6].rstrip(b"\0"), a.get(11, b"").rstrip(b"\0"), flags, timeout, netmask)


def destination_record(nested: bytes, service_family: int, *, whole: bool) -> bytes:
    """ip_vs_genl_parse_dest."""
    a = attributes(nested)
    family = struct.unpack("=H", a[11])[0] if 11 in a else service_family
    address = a[1] if family == IPV6 else a[1][:4]
    if not whole:
        assert set(a) <= {1, 2, 11}
        return records.DESTINATION.pack(family, address, a[2], 0, 0, 0, 0, 0, 0, 0)
    forward, weight, upper, lower = (struct.unpack("=I", a[kind])[0] for kind in (3, 4, 5, 6))
    kind = a[13][0] if 13 in a else 0
    port = struct.unpack(">H", a[14])[0] if 14 in a else 0
    flags = struct.unpack("=H", a[15])[0] if 15 in a else 0
    return records.DESTINATION.pack(family, address, a[2], weight, upper, lower, forward & 7, kind, port, flags)


# Answers, from records


def stats(kind: int, counters: Counters, rates: Rates, *, wide: bool) -> bytes:
    """The old nest has 32 bits for most and 64 for bytes; the new one 64 throughout, with padding between."""
    totals = (counters.connections, counters.in_packets, counters.out_packets)
    speeds = (rates.connections, rates.in_packets, rates.out_packets, rates.in_bytes, rates.out_bytes)
    narrow = u64 if wide else u32
    parts = [narrow(at, value) for at, value in enumerate(totals, 1)]
    parts.append(attribute(11, b""))
    parts += [u64(4, counters.in_bytes), u64(5, counters.out_bytes)]
    parts += [narrow(at, value) for at, value in enumerate(speeds, 6)]
    return nest(kind, *parts)


def service_attributes(record: bytes, counters: Counters, rates: Rates, features: Features) -> list[bytes]:
    """In the order of ip_vs_genl_fill_service."""
    key, scheduler, engine, flags, timeout, netmask = records.SERVICE.unpack(record)
    by_mark, family, protocol, address, port = records.SERVICE_KEY.unpack(key)
    parts = [u16(1, family)]
    if by_mark:
        parts.append(u32(5, int.from_bytes(address[:4], "big")))
    else:
        parts += [u16(2, protocol), attribute(3, address), attribute(4, port)]
    parts.append(text(6, scheduler.rstrip(b"\0")))
    if engine.rstrip(b"\0"):
        parts.append(text(11, engine.rstrip(b"\0")))
    parts += [
        attribute(7, struct.pack("=II", flags | 2, 0xFFFFFFFF)),  # 2: IP_VS_SVC_F_HASHED
        u32(8, timeout),
        attribute(9, netmask) if family == IPV4 else u32(9, int.from_bytes(netmask, "big")),
        stats(10, counters, rates, wide=False),
    ]
    if features & Features.STATS64:
        parts.append(stats(12, counters, rates, wide=True))
    return parts


def destination_attributes(record: bytes, one: DestinationStatistics, features: Features) -> list[bytes]:
    """In the order of ip_vs_genl_fill_dest."""
    family, address, port, weight, upper, lower, forward, kind, tunnel_port, flags = records.DESTINATION.unpack(record)
    parts = [attribute(1, address), attribute(2, port), u32(3, forward | 0x100), u32(4, weight)]
    if features & Features.TUNNEL:
        parts += [u8(13, kind), attribute(14, struct.pack(">H", tunnel_port))]
    if features & Features.TUNNEL_FLAGS:
        parts.append(u16(15, flags))
    now = one.connections
    parts += [u32(5, upper), u32(6, lower), u32(7, now.active), u32(8, now.inactive), u32(9, now.persistent)]
    if features & Features.ADDRESS_FAMILY:
        parts.append(u16(11, family))
    parts.append(stats(10, one.counters, one.rates, wide=False))
    if features & Features.STATS64:
        parts.append(stats(12, one.counters, one.rates, wide=True))
    return parts


def daemon_attributes(daemon: SyncDaemon, group: bytes) -> list[bytes]:
    """In the order of ip_vs_genl_fill_daemon."""
    return [
        u32(1, daemon.role),
        text(2, daemon.interface.encode("utf-8", "surrogateescape")),
        u32(3, daemon.sync_id),
        u16(4, daemon.payload_bytes),
        attribute(5 if len(group) == 4 else 6, group),
        u16(7, daemon.port),
        u8(8, daemon.ttl),
    ]


def metric_attributes(address: bytes, *, age_ms: int, rtt: int, deviation: int) -> bytes:
    """tcp_metrics_fill_info, for a row with a source: what is 0 is left out; a round trip is told in milliseconds as well."""
    kind = 1 if len(address) == 4 else 2
    values = [u32(5, 10)]
    values += [u32(6, rtt), u32(1, max(rtt // 1000, 1))] if rtt else []
    values += [u32(7, deviation), u32(2, max(deviation // 1000, 1))] if deviation else []
    parts = [attribute(kind, address), attribute(kind + 10, address), u64(3, age_ms), nest(6, *values)]
    return b"".join(parts)


def batches(rows: Iterable[bytes], sizes: Iterable[int]) -> list[list[bytes]]:
    """Cut rows into datagrams of these many; the last size serves for all the rest."""
    left, result, size, more = list(rows), [], 1, iter(sizes)
    while left:
        size = next(more, size)
        result.append(left[:size])
        left = left[size:]
    return result
