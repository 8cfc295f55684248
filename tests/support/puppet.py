"""PuppetKernel: the kernel's end of the C module's socket, played by a thread over a FakeKernel.

The requests that our C code packs are read byte by byte, and answered as a 6.1 kernel answers: an acknowledgement only where
it was asked for, errors always, dumps in several datagrams. ``misbehave`` sees every honest answer and may send another.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from pyminuteman.addresses import parse_address
from pyminuteman.ipvs import records
from pyminuteman.ipvs.control import SyncDaemon, SyncRole, Timeouts
from pyminuteman.ipvs.errors import KernelError
from pyminuteman.ipvs.netlink import NetlinkBackend
from pyminuteman.ipvs.records import Command
from pyminuteman.ipvs.service import ServiceKey
from pyminuteman.testing.fake_kernel import FakeKernel
from tests.support import netlink_messages as netlink
from tests.support.netlink_messages import F_DUMP_INTR, Request

GET_SERVICE, GET_DEST, NEW_DAEMON, DEL_DAEMON, GET_DAEMON, SET_CONFIG, GET_CONFIG, SET_INFO, GET_INFO = (
    4,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
)
OF_DESTINATIONS = {Command.ADD_DESTINATION, Command.EDIT_DESTINATION, Command.REMOVE_DESTINATION}
WHOLE = {Command.ADD_SERVICE, Command.EDIT_SERVICE, Command.ADD_DESTINATION, Command.EDIT_DESTINATION}

Misbehaviour = Callable[[Request, list[bytes]], list[bytes] | None]
"""From a request and the datagrams of the honest answer: those to send; None closes the socket."""


class PuppetKernel:
    """Plays the kernel for any number of sockets, until :meth:`close`.

    Attributes:
        fake: Holds the table.
        misbehave: Changes answers.
        metrics: Attributes of the rows of tcp_metrics; None: this kernel has no such family.
        interrupts: So many dumps to come say NLM_F_DUMP_INTR.
        datagrams: Sizes of the datagrams received: how requests were packed.
        opened: Sockets opened so far.
        failures: What went wrong on this side; :meth:`close` raises the first.
    """

    def __init__(self, fake: FakeKernel | None = None, *, misbehave: Misbehaviour | None = None, capped: bool = True) -> None:
        self.fake = fake if fake is not None else FakeKernel()
        self.misbehave = misbehave
        self.capped = capped
        self.metrics: list[bytes] | None = None
        self.rows_per_datagram = (9, 60)
        self.interrupts = 0
        self.datagrams: list[int] = []
        self.opened = 0
        self.failures: list[BaseException] = []
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def backend(self, timeout_seconds: float = 5.0) -> NetlinkBackend:
        """The C module at the other end."""
        milliseconds = int(timeout_seconds * 1000)
        return NetlinkBackend(opener=lambda ffi, lib, out: self._open(ffi, lib, out, milliseconds))

    def _open(self, _ffi: Any, lib: Any, out: Any, milliseconds: int) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.opened += 1
        error: int = lib.pmm_attach(out, theirs.detach(), netlink.FAMILY, milliseconds)
        thread = threading.Thread(target=self._serve, args=(ours,), daemon=True)
        self._ends.append(ours)
        self._threads.append(thread)
        thread.start()
        return error

    def close(self) -> None:
        """End the threads, and raise what any of them stumbled over."""
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for failure in self.failures:
            raise failure

    def _serve(self, end: socket.socket) -> None:
        with end:
            try:
                while datagram := end.recv(1 << 18):
                    self.datagrams.append(len(datagram))
                    if not all(self._reply(end, request) for request in netlink.requests(datagram)):
                        return
            except (ConnectionError, BrokenPipeError):
                return
            except BaseException as failure:  # noqa: BLE001 - raised again by close()
                self.failures.append(failure)

    def _reply(self, end: socket.socket, request: Request) -> bool:
        answer: list[bytes] | None = self.answer(request)
        if self.misbehave is not None and answer is not None:
            answer = self.misbehave(request, answer)
        if answer is None:
            return False
        for datagram in answer:
            end.send(datagram)
        return True

    def answer(self, request: Request) -> list[bytes]:
        """The honest answer to one request, as datagrams."""
        if request.type != netlink.FAMILY and self.metrics is not None:
            return self._answer_of_metrics(request, self.metrics)
        if request.type != netlink.FAMILY:
            return [netlink.error(request, 2, capped=self.capped)]
        if self.fake.denied:
            return [netlink.error(request, 1, capped=self.capped)]
        if request.command in {GET_SERVICE, GET_DEST, GET_DAEMON, GET_INFO, GET_CONFIG}:
            return self._get(request)
        errno, words = self._change(request)
        if errno or request.flags & netlink.F_ACK:
            return [netlink.error(request, errno, words, capped=self.capped)]
        return []

    def _answer_of_metrics(self, request: Request, rows: list[bytes]) -> list[bytes]:
        if request.type == netlink.CONTROLLER:
            assert request.command == 3
            assert netlink.attributes(request.body) == {2: b"tcp_metrics\0"}
            parts = netlink.text(2, b"tcp_metrics"), netlink.u16(1, netlink.METRICS_FAMILY), netlink.u32(3, 1)
            return [netlink.row(request.sequence, 1, *parts, flags=0, family=netlink.CONTROLLER)]
        assert (request.type, request.command, request.is_dump) == (netlink.METRICS_FAMILY, 1, True)
        assert request.body == b""
        return self._dump(request, 1, rows, family=netlink.METRICS_FAMILY)

    def _get(self, request: Request) -> list[bytes]:  # noqa: PLR0911 - a return for each command
        if request.command == GET_INFO:
            information = self.fake.information()
            version = int.from_bytes(bytes(information.version), "big")
            return [self._single(request, SET_INFO, netlink.u32(1, version), netlink.u32(2, information.connection_table_size))]
        if request.command == GET_CONFIG:
            now = self.fake.timeouts()
            parts = netlink.u32(4, now.tcp), netlink.u32(5, now.tcp_fin), netlink.u32(6, now.udp)
            return [self._single(request, SET_CONFIG, *parts)]
        if request.command == GET_SERVICE and not request.is_dump:
            key = netlink.service_record(netlink.attributes(request.body)[1], whole=False)[: records.SERVICE_KEY_SIZE]
            if key not in self.fake.services:
                return [netlink.error(request, 3, capped=self.capped)]
            return [self._single(request, 1, self._service(key))]
        if request.command == GET_SERVICE:
            return self._dump(request, 1, [self._service(key) for key in self.fake.services])
        if request.command == GET_DAEMON:
            daemons = self.fake.sync_daemons()
            rows = [netlink.nest(3, *netlink.daemon_attributes(one, parse_address(one.group)[1])) for one in daemons]
            return self._dump(request, NEW_DAEMON, rows)
        key = netlink.service_record(netlink.attributes(request.body)[1], whole=False)[: records.SERVICE_KEY_SIZE]
        return self._dump(request, 5, self._destinations(key))

    def _single(self, request: Request, command: int, *parts: bytes) -> bytes:
        return netlink.row(request.sequence, command, *parts, flags=0)

    def _service(self, key: bytes) -> bytes:
        one = self.fake.statistics(ServiceKey.from_packed(key))[ServiceKey.from_packed(key)]
        record = self.fake.services[key].record
        return netlink.nest(1, *netlink.service_attributes(record, one.counters, one.rates, self.fake.features))

    def _destinations(self, key: bytes) -> list[bytes]:
        if key not in self.fake.services:
            return []  # and no error: so does the kernel
        one = self.fake.statistics(ServiceKey.from_packed(key))[ServiceKey.from_packed(key)]
        by_key = {destination.key: found for destination, found in one.destinations.items()}
        rows = reversed(self.fake.services[key].destinations.items())
        return [netlink.nest(2, *netlink.destination_attributes(row, by_key[place], self.fake.features)) for place, row in rows]

    def _dump(self, request: Request, command: int, nests: list[bytes], *, family: int = netlink.FAMILY) -> list[bytes]:
        flags = netlink.F_MULTI
        if self.interrupts:
            self.interrupts -= 1
            flags |= F_DUMP_INTR
        rows = [netlink.row(request.sequence, command, one, flags=flags, family=family) for one in nests]
        datagrams = [b"".join(batch) for batch in netlink.batches(rows, self.rows_per_datagram)] or [b""]
        datagrams[-1] += netlink.done(request.sequence, flags=flags)
        return datagrams

    def _change(self, request: Request) -> tuple[int, str]:
        top = netlink.attributes(request.body)
        if request.command == SET_CONFIG:
            numbers = [struct.unpack("=I", top[kind])[0] if kind in top else 0 for kind in (4, 5, 6)]
            self.fake.set_timeouts(Timeouts(*numbers))
            return 0, ""
        if request.command in {NEW_DAEMON, DEL_DAEMON}:
            return self._change_daemon(request.command, netlink.attributes(top[3]))
        if 1 not in top:
            assert request.command in {Command.ZERO, Command.FLUSH}
            return self.fake.ask(request.command, None)
        service = netlink.service_record(top[1], whole=request.command in {Command.ADD_SERVICE, Command.EDIT_SERVICE})
        if request.command not in OF_DESTINATIONS:
            return self.fake.ask(request.command, service)
        row = netlink.destination_record(top[2], service[1], whole=request.command in WHOLE)
        return self.fake.ask(request.command, service, row)

    def _change_daemon(self, command: int, a: dict[int, bytes]) -> tuple[int, str]:
        role = SyncRole(struct.unpack("=I", a[1])[0])
        try:
            if command == DEL_DAEMON:
                assert set(a) == {1}
                self.fake.stop_sync_daemon(role)
                return 0, ""
            group = a.get(5) or a.get(6)
            self.fake.start_sync_daemon(
                SyncDaemon(
                    role,
                    a[2].rstrip(b"\0").decode("utf-8", "surrogateescape"),
                    struct.unpack("=I", a[3])[0],
                    struct.unpack("=H", a[4])[0] if 4 in a else 0,
                    socket.inet_ntop(socket.AF_INET if len(group) == 4 else socket.AF_INET6, group) if group else "",
                    struct.unpack("=H", a[7])[0] if 7 in a else 0,
                    a[8][0] if 8 in a else 0,
                )
            )
        except KernelError as error:
            return error.errno, error.text
        return 0, ""
