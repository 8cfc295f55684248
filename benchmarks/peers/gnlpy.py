"""gnlpy 0.1.2, patched as it runs, for it does not run otherwise: a request and its answer at a time.

- ``array.fromstring`` is gone since Python 3.9: its arrays become bytearrays that have it.
- Its attribute tables end before what today's kernels answer (padding in the statistics, tunnels): they are continued.
- It runs ``modprobe`` when a socket is opened: left out, the module is loaded.

With ``--noop N`` it does not serve, but prints the seconds that N additions take when the kernel has nothing to do for them
(see native.py).
"""

from __future__ import annotations

import struct
import sys
import time
import types
from typing import Any, Self

import gnlpy.netlink
from peers.worker import Driver, serve
from workloads import (
    DESTINATION_PORT,
    SERVICE_PORT,
    WORKLOADS,
    Workload,
    destination_address,
    service_address,
)


class Array(bytearray):
    """As much of ``array.array('B')`` as the library uses."""

    def __new__(cls, _type: str, _initial: Any = b"") -> Self:
        return super().__new__(cls)

    def __init__(self, _type: str, initial: Any = b"") -> None:
        super().__init__(initial)

    def fromstring(self, data: str | bytes) -> None:
        self.extend(data.encode("latin-1") if isinstance(data, str) else data)


_create = gnlpy.netlink.create_attr_list_type


def create_longer(name: str, *fields: Any) -> Any:
    """Continue the tables that today's kernels outgrew."""
    more = {
        "IpvsStatsAttrList": ["PAD"],
        "IpvsStatsAttrList64": ["PAD"],
        "IpvsDestAttrList": ["TUN_TYPE", "TUN_PORT", "TUN_FLAGS"],
    }
    return _create(name, *fields, *[(field, gnlpy.netlink.BinaryType) for field in more.get(name, [])])


gnlpy.netlink.array = types.SimpleNamespace(array=Array)
gnlpy.netlink.create_attr_list_type = create_longer
gnlpy.netlink.subprocess = types.SimpleNamespace(check_call=lambda _command: 0)
from gnlpy import ipvs  # noqa: E402 - after the patches

MASQUERADE = ipvs.IPVS_MASQUERADING


class Gnlpy(Driver):
    """The library's documented way."""

    def open(self) -> None:
        self.client = ipvs.IpvsClient()

    def close(self) -> None:
        self.client.nlsock.close()

    def prepare(self, workload: Workload) -> None:
        self.wanted = {
            (service_address(service), SERVICE_PORT): {
                (destination_address(n), DESTINATION_PORT): (workload.weight(n), MASQUERADE) for n in workload.behind(service)
            }
            for service in range(workload.services)
        }
        self.changes: list[tuple[Any, ...]] = []
        for kind, method, places in (
            ("load", self.client.add_dest, range(workload.destinations)),
            ("delta", self.client.del_dest, workload.delta()),
            ("delta", self.client.add_dest, workload.delta()),
            ("weights", self.client.update_dest, workload.weights()),
            ("one", self.client.update_dest, workload.weights()),
        ):
            if kind == workload.kind:
                for n in places:
                    settings = {"weight": workload.weight(n, after=True), "method": MASQUERADE}
                    settings = {} if method == self.client.del_dest else settings
                    self.changes.append((method, service_address(n // workload.per_service), destination_address(n), settings))

    def run(self, workload: Workload, _number: int) -> None:
        if workload.kind == "read":
            found = {
                (pool.service().vip(), pool.service().port()): {
                    (row.ip(), row.port()): (row.weight(), row.fwd_method()) for row in pool.dests()
                }
                for pool in self.client.get_pools()
            }
            if found != self.wanted:
                raise AssertionError
            return
        if workload.kind == "load":
            for service in range(workload.services):
                self.client.add_service(service_address(service), SERVICE_PORT, sched_name="wlc")
        for method, service, destination, settings in self.changes:
            method(service, SERVICE_PORT, destination, DESTINATION_PORT, **settings)


def noop(count: int) -> None:
    gnlpy.netlink.NetlinkSocket.resolve_family = lambda *_: struct.unpack("=H", b"\1\0")[0]  # NLMSG_NOOP
    driver, workload = Gnlpy(), WORKLOADS["W2"]
    driver.open()
    driver.prepare(workload)
    changes = driver.changes[: 2 * count]
    for part in changes[:count], changes[count:]:  # the first is to warm up
        began = time.perf_counter()
        for method, service, destination, settings in part:
            method(service, SERVICE_PORT, destination, DESTINATION_PORT, **settings)
        seconds = time.perf_counter() - began
    print(seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--noop"]:
        noop(int(sys.argv[2]))
    else:
        serve(Gnlpy())
