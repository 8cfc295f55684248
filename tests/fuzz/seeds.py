"""The seed corpus: one datagram of each kind of answer. ``python -m tests.fuzz.seeds`` writes it anew."""

from __future__ import annotations

from pathlib import Path

from pyminuteman.ipvs import Destination, ForwardingMethod, Persistence, Plan, Service, SyncDaemon, SyncRole, Tunnel, TunnelType
from pyminuteman.ipvs.plan import AddDestination, AddService
from pyminuteman.testing.fake_kernel import FakeKernel
from tests.support import netlink_messages as netlink
from tests.support.puppet import GET_DAEMON, GET_DEST, GET_INFO, GET_SERVICE, PuppetKernel

CORPUS = Path(__file__).parent / "corpus"


def request(command: int, flags: int, body: bytes = b"") -> netlink.Request:
    raw = netlink.message(netlink.FAMILY, 1 | flags, 1, netlink.GENERIC.pack(command, 1, 0) + body)
    return next(netlink.requests(raw))


def make() -> dict[str, bytes]:
    """Names to datagrams."""
    web = Service.udp("11.0.0.1", 5060, persistence=Persistence(60, "24"), persistence_engine="sip")
    mark = Service.fwmark(2**32 - 1, family=10)
    rows = [
        Destination("10.0.0.1", 80),
        Destination("fd00::5", 80, 1, ForwardingMethod.TUNNEL, 9, 5, Tunnel(TunnelType.GUE, 6080)),
    ]
    fake = FakeKernel()
    fake.start_sync_daemon(SyncDaemon(SyncRole.MASTER, "eth0"))
    fake.start_sync_daemon(SyncDaemon(SyncRole.BACKUP, "eth0", 1, 0, "ff02::1"))
    puppet = PuppetKernel(fake)
    seeds = {"daemons": puppet.answer(request(GET_DAEMON, netlink.F_DUMP))}
    for role in SyncRole:
        fake.stop_sync_daemon(role)
    fake.execute(Plan.of([AddService(web), AddService(mark), *(AddDestination(web, row) for row in rows)]))
    key = netlink.nest(
        1,
        netlink.u16(1, 2),
        netlink.u16(2, 17),
        netlink.attribute(3, web.key.packed[4:20]),
        netlink.attribute(4, web.key.packed[20:22]),
    )
    seeds |= {
        "services": puppet.answer(request(GET_SERVICE, netlink.F_DUMP)),
        "destinations": puppet.answer(request(GET_DEST, netlink.F_DUMP, key)),
        "info": puppet.answer(request(GET_INFO, 0)),
        "config": puppet.answer(request(13, 0)),
        # To the harness all messages that count are of one family.
        "metrics": [
            b"".join(
                netlink.row(1, 1, netlink.metric_attributes(address, age_ms=10, rtt=160_000, deviation=40_000))
                for address in (bytes([10, 0, 0, 1]), bytes([0xFD, *range(15)]))
            )
        ],
        "family": [netlink.row(1, 1, netlink.text(2, b"tcp_metrics"), netlink.u16(1, netlink.METRICS_FAMILY), flags=0)],
        "error": [netlink.error(request(GET_INFO, 0), 5, "words")],
        "error-uncapped": [netlink.error(request(GET_DEST, 0, key), 5, "words", capped=False)],
        "acknowledgement": [netlink.error(request(GET_INFO, 0), 0)],
    }
    return {name: b"".join(datagrams) for name, datagrams in seeds.items()}


if __name__ == "__main__":
    CORPUS.mkdir(exist_ok=True)
    for name, datagram in make().items():
        (CORPUS / name).write_bytes(datagram)
