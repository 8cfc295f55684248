"""What is measured: the tables, the changes to them, and what must be in the kernel afterwards.

Every peer builds its own objects from these numbers; ``limit.c`` knows the same arithmetic. Service ``s`` is
TCP 10.0.0.1 + s, port 80, scheduler wlc; destination ``n``, counted through all services, is 172.16.0.1 + n, port 8080,
masquerade, weight 1 + n % 9.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVICE_ADDRESS = 0x0A000001
DESTINATION_ADDRESS = 0xAC100001
SERVICE_PORT, DESTINATION_PORT = 80, 8080

Table = dict[str, set[tuple[str, ...]]]
"""Services to their destinations, in the words of ``/proc/net/ip_vs``: (address, method, weight)."""

HEAVIER = 10  # what W5 and W8 add to a weight
DELTA_STEP = 8  # W4 takes away every 8th destination: 12.5 %
WEIGHTS_STEP = 100  # W5 changes 1 %


@dataclass(frozen=True)
class Workload:
    """One row of the results."""

    name: str
    kind: str  # load | read | delta | weights | one
    services: int
    per_service: int
    title: str

    @property
    def destinations(self) -> int:
        return self.services * self.per_service

    @property
    def starts_loaded(self) -> bool:
        """Whether the table is there before the clock starts."""
        return self.kind != "load"

    @property
    def requests(self) -> int:
        """How many changes the kernel is asked for; of a read, how many services and destinations it lists."""
        return {
            "load": self.services + self.destinations,
            "read": self.services + self.destinations,
            "delta": 2 * len(self.delta()),
            "weights": len(self.weights()),
            "one": 1,
        }[self.kind]

    def delta(self) -> range:
        """The destinations that W4 removes and adds again."""
        return range(0, self.per_service, DELTA_STEP)

    def weights(self) -> range:
        """The destinations whose weight changes."""
        return range(0, self.destinations, self.destinations if self.kind == "one" else WEIGHTS_STEP)

    def weight(self, destination: int, *, after: bool = False) -> int:
        """A destination's weight before, or after, the change."""
        heavier = after and self.kind in {"weights", "one"} and destination in self.weights()
        return 1 + destination % 9 + (HEAVIER if heavier else 0)

    def behind(self, service: int) -> range:
        """The destinations of a service."""
        return range(service * self.per_service, (service + 1) * self.per_service)

    def expected(self) -> Table:
        """The kernel's table afterwards."""
        return {
            hexadecimal(SERVICE_ADDRESS + service, SERVICE_PORT): {
                (hexadecimal(DESTINATION_ADDRESS + n, DESTINATION_PORT), "Masq", str(self.weight(n, after=True)))
                for n in self.behind(service)
            }
            for service in range(self.services)
        }

    @property
    def passes(self) -> int:
        """How often a fast peer does it in one repetition. Odd: changes go there and back, and end there."""
        return {"load": 1, "read": 3 if self.destinations > 20_000 else 5}.get(self.kind, 9)

    def limit_command(self, number: int = 0) -> str:
        """The same for ``limit.c``: pass `number`, those with odd numbers going back."""
        weights = f"weights {self.services} {self.per_service} {self.weights().step} {0 if number % 2 else HEAVIER}"
        return {
            "load": f"load {self.services} {self.per_service}",
            "read": "dump",
            "delta": f"delta {len(self.delta())} {DELTA_STEP}",
        }.get(self.kind, weights)


def dotted(address: int) -> str:
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def hexadecimal(address: int, port: int) -> str:
    return f"{address:08X}:{port:04X}"


def service_address(service: int) -> str:
    return dotted(SERVICE_ADDRESS + service)


def destination_address(destination: int) -> str:
    return dotted(DESTINATION_ADDRESS + destination)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("W1", "load", 1, 1000, "load 1,000 destinations of one service"),
        Workload("W2", "load", 1000, 10, "load 1,000 services of 10"),
        Workload("W3", "read", 1000, 10, "nothing to do, 1,000 services of 10"),
        Workload("W3n", "read", 1, 1000, "nothing to do, one service of 1,000"),
        Workload("W4", "delta", 1, 1000, "remove 125 of 1,000, add them again"),
        Workload("W5", "weights", 1000, 10, "change the weight of 100 in 10,000"),
        Workload("W6", "load", 1000, 100, "load 100,000: 1,000 services of 100"),
        Workload("W7", "read", 1000, 100, "nothing to do, 100,000"),
        Workload("W8", "one", 1000, 100, "change one of 100,000"),
    )
}
# Small ones, to count system calls under strace.
TRACED = {
    workload.name: workload
    for workload in (
        Workload("S2", "load", 50, 10, "load 50 services of 10"),
        Workload("S3", "read", 50, 10, "nothing to do, 50 services of 10"),
    )
}


def read_back(text: str) -> Table:
    """Parse ``/proc/net/ip_vs``, whose heading ends with the first line of a service."""
    table: Table = {}
    for part in text.split("\nTCP ")[1:]:
        service, *rows = part.splitlines()
        table[service.split()[0]] = {tuple(row.split()[1:4]) for row in rows}
        if len(table[service.split()[0]]) != len(rows):
            raise AssertionError(part)
    return table
