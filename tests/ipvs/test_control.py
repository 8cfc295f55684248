"""Timeouts and synchronisation daemons: which can be asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pyminuteman.ipvs import SyncDaemon, SyncRole, Timeouts


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Timeouts(tcp=-1), "tcp timeout -1 is not a whole number"),
        (lambda: Timeouts(tcp_fin=2147484), "tcp_fin timeout 2147484"),
        (lambda: Timeouts(udp=1.5), "udp timeout 1.5"),
        (lambda: SyncDaemon(3, "eth0"), "3 is not a valid SyncRole"),
        (lambda: SyncDaemon(SyncRole.MASTER, ""), "interface '' is not a name of 1 to 15 bytes"),
        (lambda: SyncDaemon(SyncRole.MASTER, "ä" * 8), "is not a name of 1 to 15 bytes"),
        (lambda: SyncDaemon(SyncRole.MASTER, "eth0", 256), "sync id 256"),
        (lambda: SyncDaemon(SyncRole.MASTER, "eth0", 0, 65536), "payload 65536"),
        (lambda: SyncDaemon(SyncRole.MASTER, "eth0", port=-1), "port -1"),
        (lambda: SyncDaemon(SyncRole.MASTER, "eth0", ttl=256), "ttl 256"),
        (lambda: SyncDaemon(SyncRole.MASTER, "eth0", group="all"), "'all' is not an IP address"),
    ],
)
def test_numbers_out_of_range_are_refused(build: Callable[[], object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build()


def test_a_daemons_role_may_be_its_number() -> None:
    assert SyncDaemon(2, "eth0", group="224.0.0.81").role is SyncRole.BACKUP  # type: ignore[arg-type]
