"""pyroute2: ``IPVS.service`` and ``IPVS.dest``, a request and its answer at a time.

Its ``update`` deletes; ``set`` is the one that changes. Reading keeps tuples, not ``IPVSDest`` objects, which would not fit into
the guest's memory. With ``--noop N`` it does not serve, but prints the seconds that N additions take when the kernel has nothing
to do for them (see native.py).
"""

from __future__ import annotations

import sys
import time
from socket import IPPROTO_TCP
from typing import Any

from peers.worker import Driver, serve
from pyroute2 import IPVS, IPVSDest, IPVSService
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket
from pyroute2.netlink.nlsocket import AsyncNetlinkSocket
from workloads import (
    DESTINATION_PORT,
    SERVICE_PORT,
    WORKLOADS,
    Workload,
    destination_address,
    service_address,
)

MASQUERADE = 0


def service_of(service: int) -> IPVSService:
    return IPVSService(addr=service_address(service), port=SERVICE_PORT, protocol=IPPROTO_TCP, sched_name="wlc")


def destination_of(workload: Workload, n: int, *, after: bool = False) -> IPVSDest:
    weight = workload.weight(n, after=after)
    return IPVSDest(addr=destination_address(n), port=DESTINATION_PORT, weight=weight, fwd_method=MASQUERADE)


class Pyroute2(Driver):
    """The library's documented way."""

    def open(self) -> None:
        self.ipvs = IPVS()

    def close(self) -> None:
        self.ipvs.close()

    def prepare(self, workload: Workload) -> None:
        if workload.kind == "read":
            self.wanted = {
                (service_address(service), SERVICE_PORT): {
                    (destination_address(n), DESTINATION_PORT): (workload.weight(n), MASQUERADE)
                    for n in workload.behind(service)
                }
                for service in range(workload.services)
            }
            return
        services = [service_of(service) for service in range(workload.services)]
        if workload.kind == "load":
            places, commands = range(workload.destinations), ["add"]
        elif workload.kind == "delta":
            places, commands = workload.delta(), ["del", "add"]
        else:
            places, commands = workload.weights(), ["set"]
        self.services = services if workload.kind == "load" else []
        # An object each time: the library changes those that it is handed.
        self.changes = [
            (command, services[n // workload.per_service], destination_of(workload, n, after=command == "set"))
            for command in commands
            for n in places
        ]

    def run(self, workload: Workload, _number: int) -> None:
        if workload.kind == "read":
            if self.read() != self.wanted:
                raise AssertionError
            return
        for service in self.services:
            self.ipvs.service("add", service=service)
        for command, service, destination in self.changes:
            self.ipvs.dest(command, service=service, dest=destination)

    def read(self) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for message in self.ipvs.service("dump"):
            service = IPVSService.from_message(message)
            rows = found[service["addr"], service["port"]] = {}
            for answer in self.ipvs.dest("dump", service=service):
                row = dict(answer.get("IPVS_CMD_ATTR_DEST")["attrs"])
                place = row["IPVS_DEST_ATTR_ADDR"], row["IPVS_DEST_ATTR_PORT"]
                rows[place] = row["IPVS_DEST_ATTR_WEIGHT"], row["IPVS_DEST_ATTR_FWD_METHOD"]
        return found


async def bind_to_nothing(self: Any, _proto: str, _message: type, groups: int = 0, pid: int | None = None) -> None:
    """In place of the look-up of a family: messages of type NLMSG_NOOP."""
    await AsyncNetlinkSocket.bind(self, groups, pid)
    self._prid = 1


def noop(count: int) -> None:
    AsyncGenericNetlinkSocket.bind = bind_to_nothing
    driver, workload = Pyroute2(), WORKLOADS["W2"]
    driver.open()
    driver.prepare(workload)
    service, changes = driver.services[0], driver.changes[: 2 * count]
    for part in changes[:count], changes[count:]:  # the first is to warm up
        began = time.perf_counter()
        for command, _, destination in part:
            driver.ipvs.dest(command, service=service, dest=destination)
        seconds = time.perf_counter() - began
    print(seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--noop"]:
        noop(int(sys.argv[2]))
    else:
        serve(Pyroute2())
