"""FakeKernel: an IPVS table in memory that keeps the kernel's rules, for tests of what uses one.

It needs neither root nor libnl. It is believed because the real kernel passes the same contract suite
(``tests/contracts``); every rule here is a test there. Beside the rules it takes orders that a kernel would not: to fail
at a certain operation, to change the table behind the caller's back, to lose answers, to be an older kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from errno import ECANCELED, EEXIST, EINVAL, ENODEV, ENOENT, EPERM, ERANGE, ESRCH
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import records
from pyminuteman.ipvs.control import KernelInformation, SyncDaemon, SyncRole, Timeouts
from pyminuteman.ipvs.destination import WEIGHT_MAX, Destination, ForwardingMethod, TunnelType
from pyminuteman.ipvs.errors import SnapshotUnstable, kernel_error
from pyminuteman.ipvs.plan import Plan, diff
from pyminuteman.ipvs.records import Command
from pyminuteman.ipvs.scope import Scope
from pyminuteman.ipvs.service import Service, ServiceKey
from pyminuteman.ipvs.snapshot import Features, Snapshot
from pyminuteman.ipvs.statistics import Connections, Counters, DestinationStatistics, Rates, ServiceStatistics

__all__ = ["HEADING", "SCHEDULERS", "FakeKernel", "FakeService"]

SCHEDULERS: Final = frozenset(["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"])
"""Those of Linux 6.1."""
HEADING: Final = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
"""The first line of ``/proc/net/ip_vs_conn``."""
_NOTHING: Final = DestinationStatistics(Counters(), Rates(), Connections())
_NO_DESTINATION: Final = bytes(records.DESTINATION_SIZE)
_STRIDE: Final = records.SERVICE_SIZE + records.SERVICE_COUNT.size
_NEW_DAEMON, _DEL_DAEMON = 9, 10  # IPVS_CMD_*


@dataclass
class FakeService:
    """One service of a :class:`FakeKernel`."""

    record: bytes
    destinations: dict[bytes, bytes] = field(default_factory=dict)
    """Packed destinations by their keys, in the order of adding: the kernel lists the newest first."""


class FakeKernel:
    """A :class:`~pyminuteman.ipvs.backend.TableBackend` in memory.

    Args:
        features: What this kernel knows. What it does not know it ignores without a word, as old kernels do.
        schedulers: Names that are not refused.
        engines: Persistence engines that are not refused.
        interfaces: Network interfaces that synchronisation daemons may use.

    Attributes:
        services: The table, by packed key. Tests may change it: that is somebody else at work.
        connections: Lines of ``/proc/net/ip_vs_conn``, without the heading.
        denied: While true, every call fails with EPERM.
        unstable_reads: So many reads to come raise SnapshotUnstable.
        before_execute: Each is called once, before the next ``execute``: what others do between our read and our write.
        reads: Calls of :meth:`read` so far.
        operations: Operations asked for so far, refused ones included.
    """

    def __init__(
        self,
        *,
        features: Features = Features.ALL,
        schedulers: Iterable[str] = SCHEDULERS,
        engines: Iterable[str] = ("sip",),
        interfaces: Iterable[str] = ("eth0",),
    ) -> None:
        """Begin with an empty table and the kernel's default timeouts."""
        self.features = features
        self.schedulers = {name.encode() for name in schedulers}
        self.engines = {name.encode() for name in engines} | {b""}
        self.interfaces = set(interfaces)
        self.services: dict[bytes, FakeService] = {}
        self.connections: list[str] = []
        self.denied = False
        self.unstable_reads = 0
        self.before_execute: list[Callable[[], object]] = []
        self.reads = 0
        self.operations = 0
        self.closed = False
        self._timeouts = Timeouts(900, 120, 300)
        self._daemons: dict[SyncRole, SyncDaemon] = {}
        self._statistics: dict[tuple[bytes, bytes], DestinationStatistics] = {}
        self._faults: dict[int, tuple[int, str, bool]] = {}

    # Orders that only a fake takes

    def fail(self, nth: int, errno: int, text: str = "", *, done: bool = False) -> None:
        """Fail the ``nth`` operation from now (0 is the next) with this error.

        Args:
            nth: Counted over all calls of :meth:`execute`.
            errno: Positive. ENODATA with ``done`` is an answer that was lost.
            text: The kernel's words.
            done: Carry it out all the same.
        """
        self._faults[self.operations + nth] = (errno, text, done)

    def count(self, key: ServiceKey, statistics: DestinationStatistics, destination: Destination | None = None) -> None:
        """Let these be the counters of a service (``connections`` ignored), or of a destination behind it."""
        self._statistics[key.packed, destination.key if destination else b""] = statistics

    def connect(self, key: ServiceKey, destination: Destination, active: int, inactive: int = 0) -> None:
        """Let a destination have so many connections just now."""
        old = self._statistics.get((key.packed, destination.key), _NOTHING)
        self.count(key, replace(old, connections=Connections(active, inactive)), destination)

    # The kernel's rules

    def carry_out(self, command: int, service: bytes | None, destination: bytes = _NO_DESTINATION) -> int:  # noqa: PLR0911
        """Carry out one request (:class:`~pyminuteman.ipvs.records.Command`) on packed records; 0, or a positive errno."""
        if command == Command.FLUSH:
            self._statistics.clear()
            self.services.clear()
            return 0
        if service is None:
            return self._zero(self.services)
        key = service[: records.SERVICE_KEY_SIZE]
        found = self.services.get(key)
        if found is None and command != Command.ADD_SERVICE:
            return ESRCH
        if command in {Command.ADD_SERVICE, Command.EDIT_SERVICE}:
            return self._put_service(key, found, service, added=command == Command.ADD_SERVICE)
        if command == Command.REMOVE_SERVICE:
            self._forget(key)
            del self.services[key]
            return 0
        if command == Command.ZERO:
            return self._zero([key])
        assert found is not None  # noqa: S101 - for the type checker
        return self._change_destination(command, found, destination)

    def _zero(self, keys: Iterable[bytes]) -> int:
        for place, one in self._statistics.items():
            if place[0] in keys:
                self._statistics[place] = replace(_NOTHING, connections=one.connections)
        return 0

    def _forget(self, key: bytes, destination: bytes = b"") -> None:
        """A row that is added again counts from zero."""
        for place in list(self._statistics):
            if place[0] == key and destination in {b"", place[1]}:
                del self._statistics[place]

    def _put_service(self, key: bytes, found: FakeService | None, record: bytes, *, added: bool) -> int:
        """ip_vs_add_service and ip_vs_edit_service."""
        if added and found is not None:
            return EEXIST
        _, scheduler, engine, flags, _, netmask = records.SERVICE.unpack(record)
        if scheduler.rstrip(b"\0") not in self.schedulers or engine.rstrip(b"\0") not in self.engines:
            return ENOENT
        if key[1] == IPV6 and not 1 <= int.from_bytes(netmask, "big") <= 128:  # noqa: PLR2004 - bits of an address
            return EINVAL
        if not flags & 1:  # persistence: without it neither timeout nor mask is looked at, nor shown
            plain = b"\xff\xff\xff\xff" if key[1] == IPV4 else b"\0\0\0\x80"
            record = record[:56] + records.SERVICE.pack(b"", b"", b"", flags, 0, plain)[56:]
        self.services[key] = FakeService(record, found.destinations if found else {})
        return 0

    def _change_destination(self, command: int, found: FakeService, wanted: bytes) -> int:  # noqa: PLR0911 - one an errno
        """ip_vs_genl_set_cmd, then ip_vs_add_dest, ip_vs_edit_dest, ip_vs_del_dest."""
        row = self._as_this_kernel_reads(found.record[1], wanted)
        family, address, _, weight, upper, lower, forward, kind, port, _ = records.DESTINATION.unpack(row)
        key = row[: records.DESTINATION_KEY_SIZE]
        if command == Command.REMOVE_DESTINATION:
            self._forget(found.record[: records.SERVICE_KEY_SIZE], key)
            return 0 if found.destinations.pop(key, None) else ENOENT
        tunnelled = forward == ForwardingMethod.TUNNEL
        if family != found.record[1] and (not tunnelled or self._daemons):
            return EINVAL
        if weight > WEIGHT_MAX or lower > upper:
            return ERANGE
        if tunnelled and kind == TunnelType.GUE and not port:
            return EINVAL
        if command == Command.EDIT_DESTINATION:
            if key not in found.destinations:
                return ENOENT
        elif key in found.destinations:
            return EEXIST
        elif not _is_unicast(family, address):
            return EINVAL
        found.destinations[key] = row
        return 0

    def _as_this_kernel_reads(self, family: int, row: bytes) -> bytes:
        """The record as an older kernel understands it: attributes that it does not know count for nothing."""
        parts = list(records.DESTINATION.unpack(row))
        if not self.features & Features.ADDRESS_FAMILY:
            parts[0] = family
            parts[1] = parts[1] if family == IPV6 else parts[1][:4]
        if not self.features & Features.TUNNEL or parts[6] != ForwardingMethod.TUNNEL:
            parts[7:] = [0, 0, 0]
        if not self.features & Features.TUNNEL_FLAGS:
            parts[9] = 0
        return records.DESTINATION.pack(*parts)

    # TableBackend

    def read(self, previous: Snapshot | None = None, *, kernel_order: bool = False) -> Snapshot:
        """See :meth:`TableBackend.read`. Services come in the order of adding."""
        self._check("read the table")
        self.reads += 1
        if self.unstable_reads:
            self.unstable_reads -= 1
            msg = "read the table: the table changed during every one of our reads"
            raise SnapshotUnstable(msg)
        known = previous.entries if previous is not None else {}
        entries: dict[bytes, records.Entry] = {}
        for key, one in self.services.items():
            rows = list(reversed(one.destinations.values()))
            entry = (one.record, b"".join(rows if kernel_order else sorted(rows)))
            entries[key] = known[key] if known.get(key) == entry else entry
        seen = self.features
        if not entries:
            seen |= Features.STATS64
        if not any(rows for _, rows in entries.values()):
            seen |= Features.ADDRESS_FAMILY | Features.TUNNEL | Features.TUNNEL_FLAGS
        return Snapshot(entries, seen)

    def diff(self, current: Snapshot, wanted: Snapshot) -> Plan:
        """See :meth:`TableBackend.diff`."""
        return diff(current, wanted, scope=Scope.everything())

    def execute(self, plan: Plan, *, stop_on_error: bool = False) -> dict[int, tuple[int, str]]:
        """See :meth:`TableBackend.execute`."""
        self._check("")
        while plan and self.before_execute:
            self.before_execute.pop(0)()
        failures: dict[int, tuple[int, str]] = {}
        for at in range(len(plan)):
            if failures and stop_on_error:
                failures[at] = (ECANCELED, "")
                continue
            command, index, row = records.OPERATION.unpack_from(plan.operations, at * records.OPERATION_SIZE)
            start = index * _STRIDE
            service = None if index == records.NO_SERVICE else plan.services[start : start + records.SERVICE_SIZE]
            errno, text = self.ask(command, service, row)
            if errno:
                failures[at] = (errno, text)
        return failures

    def ask(self, command: int, service: bytes | None, destination: bytes = _NO_DESTINATION) -> tuple[int, str]:
        """:meth:`carry_out`, with what :meth:`fail` and ``denied`` ordered; the errno, and the kernel's words."""
        errno, text, done = self._faults.pop(self.operations, (0, "", True))
        self.operations += 1
        if self.denied:
            return EPERM, ""
        outcome = self.carry_out(command, service, destination) if done else 0
        return errno or outcome, text

    def statistics(self, key: ServiceKey | None = None) -> Mapping[ServiceKey, ServiceStatistics]:
        """See :meth:`TableBackend.statistics`."""
        self._check(f"read {key}" if key else "read the table", ESRCH if key and key.packed not in self.services else 0)
        found: dict[ServiceKey, ServiceStatistics] = {}
        for packed in sorted(self.services if key is None else [key.packed]):
            one = self.services[packed]
            own = self._statistics.get((packed, b""), _NOTHING)
            rows = {
                Destination.from_packed(row): self._statistics.get((packed, place), _NOTHING)
                for place, row in sorted(one.destinations.items())
            }
            service = Service.from_packed(one.record)
            found[service.key] = ServiceStatistics(service, own.counters, own.rates, rows)
        return found

    def information(self) -> KernelInformation:
        """See :meth:`TableBackend.information`."""
        self._check("read the settings")
        return KernelInformation((1, 2, 1), 4096)

    def timeouts(self) -> Timeouts:
        """See :meth:`TableBackend.timeouts`."""
        self._check("read the settings")
        return self._timeouts

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """See :meth:`TableBackend.set_timeouts`."""
        self._check(f"set {timeouts}")
        old = self._timeouts
        self._timeouts = Timeouts(timeouts.tcp or old.tcp, timeouts.tcp_fin or old.tcp_fin, timeouts.udp or old.udp)

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """See :meth:`TableBackend.sync_daemons`."""
        self._check("read the synchronisation daemons")
        return tuple(self._daemons[role] for role in sorted(self._daemons))

    def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        """See :meth:`TableBackend.start_sync_daemon`. What is left at 0 takes the kernel's defaults."""
        errno = EEXIST if daemon.role in self._daemons else 0 if daemon.interface in self.interfaces else ENODEV
        if daemon.group and not ip_address(daemon.group).is_multicast:
            errno = errno or EINVAL
        if any(row[0] != one.record[1] for one in self.services.values() for row in one.destinations.values()):
            errno = EINVAL  # the protocol of the daemons knows no mixed families
        self._check(f"start the {daemon.role.name.lower()} synchronisation daemon on {daemon.interface}", errno, _NEW_DAEMON)
        headers = 48 if ":" in daemon.group else 28  # of IP and UDP
        least = 1024 if daemon.role == SyncRole.BACKUP else 1
        asked = min(max(daemon.payload_bytes, least), 65535 - headers)
        self._daemons[daemon.role] = replace(
            daemon,
            payload_bytes=asked if daemon.payload_bytes else 1500 - headers,
            group=daemon.group or "224.0.0.81",
            port=daemon.port or 8848,
            ttl=daemon.ttl or 1,
        )

    def stop_sync_daemon(self, role: SyncRole) -> None:
        """See :meth:`TableBackend.stop_sync_daemon`."""
        errno = 0 if role in self._daemons else ESRCH
        self._check(f"stop the {SyncRole(role).name.lower()} synchronisation daemon", errno, _DEL_DAEMON)
        del self._daemons[role]

    def connection_lines(self) -> Iterable[str]:
        """See :meth:`TableBackend.connection_lines`."""
        self._check_open()
        return [HEADING, *(line.rstrip("\n") + "\n" for line in self.connections)]

    def close(self) -> None:
        """See :meth:`TableBackend.close`. The table stays, as the kernel's does."""
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            msg = "this table is closed"
            raise ValueError(msg)

    def _check(self, operation: str, errno: int = 0, command: int = 0) -> None:
        """Refuse: a closed table; everything, when ``denied``; what has an errno. Changes report EPERM one by one."""
        self._check_open()
        if operation and self.denied:
            errno = EPERM
        if errno:
            raise kernel_error(errno, command, operation)


def _is_unicast(family: int, address: bytes) -> bool:
    """inet_addr_type() == RTN_UNICAST, as far as no routing table is needed to tell; loopback addresses count."""
    if family == IPV4:
        return any(address[:4]) and not 224 <= address[0] < 240 and address[:4] != b"\xff" * 4  # noqa: PLR2004
    link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80  # noqa: PLR2004 - fe80::/10
    return any(address) and address[0] != 0xFF and not link_local  # noqa: PLR2004


if TYPE_CHECKING:
    from pyminuteman.ipvs.backend import TableBackend

    _: type[TableBackend] = FakeKernel
