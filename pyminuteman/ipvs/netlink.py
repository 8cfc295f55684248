"""The kernel's table over generic netlink: the only importer of the C module, and the only place where cffi's Any is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from errno import EBADMSG, EBUSY, ECONNRESET, EINTR, EMSGSIZE, ENOBUFS, ENODATA, ENOMEM, EPROTONOSUPPORT, ETIMEDOUT
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from pyminuteman.addresses import IPV4, format_address, parse_address
from pyminuteman.ipvs import records
from pyminuteman.ipvs.control import KernelInformation, SyncDaemon, SyncRole, Timeouts
from pyminuteman.ipvs.destination import Destination
from pyminuteman.ipvs.errors import IPVSUnavailableError, KernelError, SnapshotUnstable, kernel_error
from pyminuteman.ipvs.plan import Plan
from pyminuteman.ipvs.service import Service, ServiceKey
from pyminuteman.ipvs.snapshot import Features, Snapshot
from pyminuteman.ipvs.statistics import DestinationStatistics, ServiceStatistics
from pyminuteman.ipvs.tcp_metrics import METRIC, TCPMetric, read_metrics

__all__ = ["NetlinkBackend"]

_SERVICE_SIZE: Final = records.SERVICE_SIZE + records.SERVICE_COUNT.size
_SPOILT: Final = {ETIMEDOUT, ENOBUFS, EBADMSG, EBUSY, ECONNRESET, EINTR, EMSGSIZE, ENODATA, ENOMEM}
"""After these a socket may still have answers under way: it is opened anew for the next call."""
_NEW_DAEMON, _DEL_DAEMON = 9, 10  # IPVS_CMD_*
_CONNECTIONS: Final = "/proc/thread-self/net/ip_vs_conn"


def _load() -> tuple[Any, Any]:
    """The C module, at the first table and not at import: the pure parts work without libnl."""
    try:
        from pyminuteman.ipvs._native import ffi, lib  # noqa: PLC0415
    except ImportError as error:
        msg = f"the C module cannot be loaded ({error}): install libnl-3-200 and libnl-genl-3-200, or build it: pip install ."
        raise IPVSUnavailableError(msg) from error
    return ffi, lib


class NetlinkBackend:
    """A :class:`~pyminuteman.ipvs.backend.TableBackend` on the kernel.

    Args:
        netns: The network namespace: a path (``/run/netns/blue``, ``/proc/4711/ns/net``); None for this thread's. Entering
            another takes CAP_SYS_ADMIN, for the moment of opening.
        timeout_seconds: The longest wait for any one answer of the kernel, which as a rule answers at once.
        opener: Opens the C socket in another way: for tests, which play the kernel over a socket pair.

    Raises:
        IPVSUnavailableError: No libnl, no IPVS in this kernel, or no such namespace.
        ValueError: The timeout is not positive.
    """

    def __init__(
        self,
        *,
        netns: str | os.PathLike[str] | None = None,
        timeout_seconds: float = 5.0,
        opener: Callable[[Any, Any, Any], int] | None = None,
    ) -> None:
        """Open the socket."""
        if not timeout_seconds > 0:
            msg = f"a timeout of {timeout_seconds!r} s is not positive"
            raise ValueError(msg)
        self._ffi, self._lib = _load()
        self._allocate = self._ffi.new_allocator(should_clear_after_alloc=False)
        self._timeout_ms = max(1, int(timeout_seconds * 1000))
        self._opener = opener
        self._netns_fd = -1
        self._socket: Any = None
        self._system_calls = 0
        if netns is not None:
            try:
                self._netns_fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                msg = f"network namespace {os.fspath(netns)}: {error.strerror}"
                raise IPVSUnavailableError(msg) from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Nothing more to do: the socket is open."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the socket, and the namespace's descriptor. Twice does no harm."""
        self._drop()
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1
        self._opener = _closed

    @property
    def system_calls(self) -> int:
        """Sends and receives so far: what benchmarks divide by."""
        return self._system_calls + (int(self._lib.pmm_system_calls(self._socket)) if self._socket else 0)

    def _open(self) -> Any:
        if self._socket is None:
            out = self._ffi.new("struct pmm_socket **")
            if self._opener is not None:
                error = self._opener(self._ffi, self._lib, out)
            else:
                error = self._lib.pmm_open(out, self._netns_fd, self._timeout_ms)
            if error:
                raise _unavailable(-error)
            self._socket = out[0]
        return self._socket

    def _drop(self) -> None:
        if self._socket is not None:
            self._system_calls += int(self._lib.pmm_system_calls(self._socket))
            self._lib.pmm_close(self._socket)
            self._socket = None

    def _check(self, result: int, operation: str, command: int = 0) -> int:
        """Turn a negative errno into its exception."""
        if result >= 0:
            return result
        text = self._text(0)
        if -result in _SPOILT:
            self._drop()
        if -result == EINTR:
            msg = f"{operation}: the table changed during every one of our reads"
            raise SnapshotUnstable(msg)
        raise kernel_error(-result, command, operation, text)

    def _text(self, at: int) -> str:
        raw: bytes = self._ffi.string(self._lib.pmm_text(self._socket, at))
        return raw.decode("utf-8", "replace")

    def _dump(self, flags: int, only: ServiceKey | None = None) -> Any:
        table = self._ffi.new("struct pmm_table *")
        key = self._ffi.NULL
        if only is not None:
            key = self._ffi.new("struct pmm_service *")
            self._ffi.memmove(key, only.packed, records.SERVICE_KEY_SIZE)
        operation = f"read {only}" if only else "read the table"
        self._check(self._lib.pmm_dump(self._open(), key, flags, table), operation)
        return table

    def read(self, previous: Snapshot | None = None, *, kernel_order: bool = False) -> Snapshot:
        """See :meth:`TableBackend.read`.

        Raises:
            SnapshotUnstable: The table changed during five reads running.
            NotPermitted, KernelError: The kernel refused, or did not answer in time.
        """
        table = self._dump(self._lib.PMM_DUMP_KERNEL_ORDER if kernel_order else 0)
        known = previous.entries if previous is not None else {}
        services = bytes(self._ffi.buffer(table.services, table.service_count * _SERVICE_SIZE)) if table.service_count else b""
        rows = self._ffi.buffer(table.destinations, table.destination_count * records.DESTINATION_SIZE)
        entries: dict[bytes, records.Entry] = {}
        count_of = records.SERVICE_COUNT.unpack_from
        at = 0
        for start in range(0, len(services), _SERVICE_SIZE):
            service = services[start : start + records.SERVICE_SIZE]
            end = at + count_of(services, start + records.SERVICE_SIZE)[0] * records.DESTINATION_SIZE
            key = service[: records.SERVICE_KEY_SIZE]
            entry = known.get(key)
            destinations = rows[at:end]
            if entry is None or entry[1] != destinations or entry[0] != service:
                entry = (service, destinations)
            entries[key] = entry
            at = end
        return Snapshot(entries, _features(table))

    def diff(self, current: Snapshot, wanted: Snapshot) -> Plan:
        """See :meth:`TableBackend.diff`: the merge in C."""
        have_services, have_rows = records.flatten([current.entries[key] for key in sorted(current.entries)])
        want_services, want_rows = records.flatten([wanted.entries[key] for key in sorted(wanted.entries)])
        most = (len(have_rows) + len(want_rows)) // records.DESTINATION_SIZE + len(current) + len(wanted)
        out = self._allocate("struct pmm_operation[]", most)
        cast = self._ffi.from_buffer
        count = self._lib.pmm_diff(
            cast("struct pmm_service[]", have_services),
            len(current),
            cast("struct pmm_destination[]", have_rows),
            cast("struct pmm_service[]", want_services),
            len(wanted),
            cast("struct pmm_destination[]", want_rows),
            out,
            most,
        )
        operations = bytes(self._ffi.buffer(out, count * records.OPERATION_SIZE)) if count else b""
        return Plan(want_services + have_services, operations)

    def execute(self, plan: Plan, *, stop_on_error: bool = False) -> dict[int, tuple[int, str]]:
        """See :meth:`TableBackend.execute`."""
        if not plan:
            return {}
        outcomes = self._allocate("struct pmm_outcome[]", len(plan))
        failed = self._lib.pmm_apply(
            self._open(),
            self._ffi.from_buffer("struct pmm_service[]", plan.services),
            len(plan.services) // _SERVICE_SIZE,
            self._ffi.from_buffer("struct pmm_operation[]", plan.operations),
            len(plan),
            outcomes,
            stop_on_error,
        )
        if not failed:
            return {}
        failures: dict[int, tuple[int, str]] = {}
        for at in range(len(plan)):
            error = outcomes[at].error
            if error:
                failures[at] = (-error, self._text(outcomes[at].text) if outcomes[at].text else "")
        if not _SPOILT.isdisjoint(errno for errno, _ in failures.values()):
            self._drop()
        return failures

    def statistics(self, key: ServiceKey | None = None) -> Mapping[ServiceKey, ServiceStatistics]:
        """See :meth:`TableBackend.statistics`."""
        table = self._dump(self._lib.PMM_DUMP_COUNTERS, key)
        found: list[tuple[ServiceKey, ServiceStatistics]] = []
        at = 0
        for index in range(table.service_count):
            service = Service.from_packed(self._bytes(table.services, index, _SERVICE_SIZE))
            rows: list[tuple[Destination, DestinationStatistics]] = []
            for row in range(at, at + table.services[index].destinations):
                destination = Destination.from_packed(self._bytes(table.destinations, row, records.DESTINATION_SIZE))
                counters = self._bytes(table.destination_counters, row, records.COUNTERS.size)
                rows.append((destination, DestinationStatistics.from_packed(counters)))
            at += len(rows)
            own = DestinationStatistics.from_packed(self._bytes(table.service_counters, index, records.COUNTERS.size))
            found.append((service.key, ServiceStatistics(service, own.counters, own.rates, dict(sorted(rows, key=_first)))))
        return dict(sorted(found, key=_first))

    def _bytes(self, array: Any, index: int, size: int) -> bytes:
        return bytes(self._ffi.buffer(array + index, size))

    def information(self) -> KernelInformation:
        """See :meth:`TableBackend.information`."""
        config = self._config()
        version = config.version
        return KernelInformation((version >> 16, version >> 8 & 0xFF, version & 0xFF), config.table_size)

    def timeouts(self) -> Timeouts:
        """See :meth:`TableBackend.timeouts`."""
        config = self._config()
        return Timeouts(config.tcp_timeout, config.tcp_fin_timeout, config.udp_timeout)

    def _config(self) -> Any:
        config = self._ffi.new("struct pmm_config *")
        self._check(self._lib.pmm_get_config(self._open(), config), "read the settings")
        return config

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """See :meth:`TableBackend.set_timeouts`."""
        config = self._ffi.new("struct pmm_config *", (0, 0, timeouts.tcp, timeouts.tcp_fin, timeouts.udp))
        self._check(self._lib.pmm_set_config(self._open(), config), f"set {timeouts}")

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """See :meth:`TableBackend.sync_daemons`."""
        out = self._ffi.new("struct pmm_daemon[2]")
        count = self._check(self._lib.pmm_get_daemons(self._open(), out), "read the synchronisation daemons")
        daemons = []
        for daemon in out[0:count]:
            size = 4 if daemon.group_family == IPV4 else 16
            daemons.append(
                SyncDaemon(
                    SyncRole(daemon.state),
                    self._ffi.string(daemon.interface).decode("utf-8", "surrogateescape"),
                    daemon.sync_id,
                    daemon.sync_maxlen,
                    format_address(bytes(self._ffi.buffer(daemon.group, size))) if daemon.group_family else "",
                    daemon.port,
                    daemon.ttl,
                )
            )
        return tuple(sorted(daemons, key=lambda daemon: daemon.role))

    def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        """See :meth:`TableBackend.start_sync_daemon`."""
        record = self._ffi.new("struct pmm_daemon *")
        record.state, record.sync_id = daemon.role, daemon.sync_id
        record.sync_maxlen, record.port, record.ttl = daemon.payload_bytes, daemon.port, daemon.ttl
        record.interface = daemon.interface.encode("utf-8", "surrogateescape")
        if daemon.group:
            record.group_family, group = parse_address(daemon.group)
            self._ffi.memmove(record.group, group, len(group))
        operation = f"start the {daemon.role.name.lower()} synchronisation daemon on {daemon.interface}"
        self._check(self._lib.pmm_start_daemon(self._open(), record), operation, _NEW_DAEMON)

    def stop_sync_daemon(self, role: SyncRole) -> None:
        """See :meth:`TableBackend.stop_sync_daemon`."""
        record = self._ffi.new("struct pmm_daemon *")
        record.state = role
        operation = f"stop the {SyncRole(role).name.lower()} synchronisation daemon"
        try:
            self._check(self._lib.pmm_stop_daemon(self._open(), record), operation, _DEL_DAEMON)
        except KernelError as error:
            # One that is stopped before its thread has run ends with EINTR, which netlink does not acknowledge.
            if error.errno != ETIMEDOUT or any(daemon.role == role for daemon in self.sync_daemons()):
                raise

    def connection_lines(self) -> Iterable[str]:
        """See :meth:`TableBackend.connection_lines`."""
        if self._opener is _closed:
            _closed(None, None, None)
        fd = self._lib.pmm_open_file(self._netns_fd, _CONNECTIONS.encode())
        if fd < 0:
            raise kernel_error(-fd, 0, f"read {_CONNECTIONS}")
        with os.fdopen(fd, encoding="ascii", errors="replace") as lines:
            yield from lines

    def tcp_metrics(self) -> dict[str, TCPMetric]:
        """What the kernel remembers of TCP connections of this network namespace, by the address at the other end.

        Raises:
            KernelError: The kernel keeps no such metrics (ENOENT), refused, or did not answer in time.
        """
        out = self._ffi.new("struct pmm_metric **")
        count = self._check(self._lib.pmm_get_metrics(self._open(), out), "read tcp_metrics")
        return read_metrics(bytes(self._ffi.buffer(out[0], count * METRIC.size)) if count else b"")


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


def _features(table: Any) -> Features:
    """What was seen, and what no row was there to show."""
    features = Features(table.features)
    if not table.has_services:
        features |= Features.STATS64
    if not table.has_destinations:
        features |= Features.ADDRESS_FAMILY | Features.TUNNEL | Features.TUNNEL_FLAGS
    return features


def _closed(_ffi: Any, _lib: Any, _out: Any) -> int:
    msg = "this table is closed"
    raise ValueError(msg)


def _unavailable(errno: int) -> Exception:
    if errno == EPROTONOSUPPORT:
        return IPVSUnavailableError(
            "this kernel has no IPVS: load its module (modprobe ip_vs), or install a kernel that was built with CONFIG_IP_VS; "
            "the kernel loads it by itself for a process with CAP_NET_ADMIN"
        )
    return kernel_error(errno, 0, "open a netlink socket to IPVS")


if TYPE_CHECKING:
    from pyminuteman.ipvs.backend import TableBackend

    _: type[TableBackend] = NetlinkBackend
