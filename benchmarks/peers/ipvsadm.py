"""ipvsadm: ``-R`` with the changes on its input, ``-Sn`` to read. Whole processes are timed, as an administrator has them."""

from __future__ import annotations

import shutil
import subprocess

from peers.worker import Driver, serve
from workloads import (
    DESTINATION_PORT,
    SERVICE_PORT,
    Workload,
    destination_address,
    service_address,
)

IPVSADM = shutil.which("ipvsadm", path="/usr/sbin:/sbin:/usr/local/sbin") or "ipvsadm"


def address(service: int) -> str:
    return f"{service_address(service)}:{SERVICE_PORT}"


def destination(command: str, workload: Workload, n: int, *, after: bool = False) -> str:
    place = f"{command} -t {address(n // workload.per_service)} -r {destination_address(n)}:{DESTINATION_PORT}"
    return place if command == "-d" else f"{place} -m -w {workload.weight(n, after=after)}"


def table(workload: Workload) -> list[str]:
    lines = []
    for service in range(workload.services):
        lines.append(f"-A -t {address(service)} -s wlc")
        lines += [destination("-a", workload, n) for n in workload.behind(service)]
    return lines


class Ipvsadm(Driver):
    """Text in, text out."""

    def prepare(self, workload: Workload) -> None:
        if workload.kind == "delta":
            lines = [destination(command, workload, n) for command in ("-d", "-a") for n in workload.delta()]
        elif workload.kind in {"weights", "one"}:
            lines = [destination("-e", workload, n, after=True) for n in workload.weights()]
        else:
            lines = table(workload)
        self.lines = lines
        self.input = "".join(line + "\n" for line in lines).encode()
        self.wanted = set(self.input.splitlines())

    def run(self, workload: Workload, _number: int) -> None:
        if workload.kind == "read":
            found = subprocess.run([IPVSADM, "-Sn"], capture_output=True, check=True).stdout
            if {line.rstrip() for line in found.splitlines()} != self.wanted:
                raise AssertionError(found[:2000])
        else:
            subprocess.run([IPVSADM, "-R"], input=self.input, check=True)


if __name__ == "__main__":
    serve(Ipvsadm())
