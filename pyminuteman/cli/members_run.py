"""``minuteman members run``: the node, its signals and its output."""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.cli import exit_codes
from pyminuteman.cli.terminal import clean, say
from pyminuteman.errors import ConfigurationError, MinutemanError
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Conflict,
    LocalStall,
    MemberDown,
    MemberLeft,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    Notification,
    PartitionSuspected,
)
from pyminuteman.membership.errors import InsecureError, KeyringError
from pyminuteman.membership.keyring import Keyring, load_key_file
from pyminuteman.membership.priority import be_realtime
from pyminuteman.membership.records import Record
from pyminuteman.membership.trio_driver import Membership, open_membership

__all__ = ["LineWriter", "NodeProgram", "state_of"]

_EVENTS: Final[dict[type[Any], str]] = {
    MemberUp: "up",
    MemberSuspect: "suspect",
    MemberDown: "down",
    MemberLeft: "left",
    MemberUpdated: "updated",
    Conflict: "conflict",
}


_STALL_TOLD_SECONDS: Final = 1.0
"""Shorter stalls are everyday on a busy machine, and none of the operator's business; metrics count them."""


class LineWriter:
    """Writes lines to a descriptor without ever keeping the node from its work: a reader that is slow makes only the writing wait."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = trio.Lock()
        kind = os.fstat(descriptor).st_mode
        self._is_pipe = stat.S_ISFIFO(kind)
        # No others: epoll refuses files, for a disk makes nobody wait in its sense.
        self._waits = self._is_pipe or stat.S_ISSOCK(kind) or os.isatty(descriptor)

    async def write(self, line: str) -> None:
        """One line, whole.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        rest = memoryview(f"{line}\n".encode(errors="backslashreplace"))
        async with self._lock:
            while rest:
                if self._waits:
                    await trio.lowlevel.wait_writable(self._descriptor)
                # So much, a pipe that is ready takes without blocking; the descriptor itself may be others' too, and stays as it is.
                rest = rest[os.write(self._descriptor, rest[: select.PIPE_BUF]) :]

    async def wait_unread(self) -> None:
        """Return when the reader of a pipe has gone; for other outputs, never."""
        if not self._is_pipe:
            await trio.sleep_forever()
        await trio.lowlevel.wait_readable(self._descriptor)  # of a pipe's writing end, only its error is ever readable


class _Talk(logging.Handler):
    """What the library has to say goes where the command talks."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"minuteman: {self.format(record)}")


@dataclass
class NodeProgram:
    """One node as a process. Fields are the options of the command."""

    name: str
    bind: Endpoint
    advertise: Endpoint | None = None
    dual_stack: bool = False
    contacts: tuple[Endpoint, ...] = ()
    key_file: Path | None = None
    cluster: str = "minuteman"
    insecure: bool = False
    state_dir: Path | None = None
    profile: str = "lan"
    tags: dict[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    as_json: bool = False
    realtime: bool = False
    keyring: Keyring | None = field(default=None, init=False)

    async def run(self) -> int:
        """Until a signal ends it.

        Returns:
            The exit code.

        Raises:
            MinutemanError: It could not be had; the text says why.
            OSError: Likewise.
        """
        logging.getLogger("pyminuteman.membership").addHandler(_Talk())
        gc.freeze()  # what was imported stays: without this, a collection would look through all of it, for 10 ms
        try:
            return await self._run()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            if isinstance(error, InsecureError):
                reason = f"{self.bind} can be reached by others: give --key-file, or say --insecure and mean it"
                raise ConfigurationError(None, "--bind", reason) from None
            raise error from None

    async def _run(self) -> int:
        writer = LineWriter(sys.stdout.fileno())
        stop = trio.Event()
        # One that waits is enough: it will be answered with how things are then.
        ask, asked = trio.open_memory_channel[None](1)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        code = exit_codes.INTERRUPTED
        # Before anything is read or said: what comes from here on is obeyed as soon as there is a node.
        with trio.open_signal_receiver(*numbers) as signals:
            if self.key_file is not None:
                try:
                    self.keyring = Keyring(load_key_file(self.key_file), cluster=self.cluster)
                except KeyringError as error:
                    raise ConfigurationError(None, "--key-file", str(error)) from error
            if self.realtime and not (had := be_realtime()).granted:
                say(f"minuteman: at normal priority, for real-time priority is {had.reason}")
            async with trio.open_nursery() as outer:
                async with self._open() as membership, trio.open_nursery() as inner:
                    outer.start_soon(self._obey, signals, stop, ask, outer.cancel_scope, membership)
                    inner.start_soon(self._print, membership, writer, asked)
                    inner.start_soon(_end_unread, writer)
                    await stop.wait()
                    inner.cancel_scope.cancel()
                code = exit_codes.OK
                outer.cancel_scope.cancel()
        return code

    def _open(self) -> AbstractAsyncContextManager[Membership]:
        return open_membership(
            name=self.name,
            bind=self.bind,
            advertise=self.advertise,
            dual_stack=self.dual_stack,
            contacts=self.contacts,
            config=MembershipConfig.profile(self.profile),
            keyring=self.keyring,
            cluster=self.cluster,
            state_directory=self.state_dir,
            tags=self.tags,
            addresses=self.addresses,
            insecure=self.insecure,
        )

    async def _obey(
        self,
        signals: AsyncIterator[int],
        stop: trio.Event,
        ask: trio.MemorySendChannel[None],
        at_once: trio.CancelScope,
        membership: Membership,
    ) -> None:
        """Do what signals ask for, also while the node leaves; never wait for whoever reads the output."""
        async for number in signals:
            match number:
                case signal.SIGHUP:
                    self._reload_keys(membership)
                case signal.SIGUSR1:
                    with suppress(trio.WouldBlock):
                        ask.send_nowait(None)
                case _ if stop.is_set():
                    at_once.cancel()
                case _:
                    stop.set()

    def _reload_keys(self, membership: Membership) -> None:
        keyring = self.keyring
        if keyring is None or self.key_file is None:
            say("minuteman: asked to read the key file again, but the node was started without one")
            return
        try:
            kept = membership.change_keys(load_key_file(self.key_file))
        except MinutemanError as error:
            say(f"minuteman: {error}; the keys that were used before still are")
            return
        say(f"minuteman: holding the keys {', '.join(key.hex() for key in keyring.key_ids)}; the first seals")
        for key in kept:
            say(
                f"minuteman: {key.hex()} is not in the file, but others still seal with it: read the file again when they do not"
            )

    async def _print(self, membership: Membership, writer: LineWriter, asked: trio.MemoryReceiveChannel[None]) -> None:
        with membership.notifications() as notifications:
            me = membership.me
            if not self.as_json:
                keys = "no keys" if not me.keys else f"keys {', '.join(key.hex() for key in me.keys)}"
                say(
                    f"minuteman: {me.name} ({me.id}) in cluster {self.cluster}, epoch {me.epoch}, {keys}; reached at {me.endpoint}"
                )
            await writer.write(self._line("up", me, {}))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_print_states, membership, writer, asked)
                async for notification in notifications:
                    if (line := self._line_of(notification)) is not None:
                        await writer.write(line)

    def _line_of(self, notification: Notification) -> str | None:
        match notification:
            case MemberUp() | MemberSuspect() | MemberDown() | MemberLeft():
                return self._line(_EVENTS[type(notification)], notification.record, {})
            case MemberUpdated():
                return self._line("updated", notification.record, {"tags": dict(notification.record.tags)})
            case Conflict():
                more = {"other": str(notification.other.id), "reason": notification.reason}
                return self._line("conflict", notification.record, more)
            case PartitionSuspected():
                say(f"minuteman: {notification.unreachable} members went out of reach together: is the network cut?")
            case LocalStall() if notification.seconds >= _STALL_TOLD_SECONDS:
                say(f"minuteman: this process did not run for {notification.seconds:.3f} s")
            case _:
                pass
        return None

    def _line(self, event: str, record: Record, more: dict[str, Any]) -> str:
        now = time.time_ns()
        if self.as_json:
            head = {
                "time_ns": now,
                "event": event,
                "node": str(record.id),
                "name": record.name,
                "address": str(record.endpoint),
            }
            return json.dumps(head | more)
        clock = datetime.fromtimestamp(now / 1e9).astimezone().time().isoformat(timespec="milliseconds")
        words = "".join(f"  {key}={value}" for key, value in more.items() if value)
        return clean(f"{clock}  {event:<8}  {record.name}  {record.endpoint}  {record.id.short}{words}")


async def _print_states(membership: Membership, writer: LineWriter, asked: trio.MemoryReceiveChannel[None]) -> None:
    async for _ in asked:
        await writer.write(json.dumps(state_of(membership)))


async def _end_unread(writer: LineWriter) -> None:
    await writer.wait_unread()
    raise BrokenPipeError


def state_of(membership: Membership) -> dict[str, Any]:
    """What ``SIGUSR1`` prints: views, members (this node included) and metrics."""
    me = membership.me
    members = {str(me.id): {"name": me.name, "status": "alive", "address": str(me.endpoint)}}
    for node, member in sorted(membership.members().items()):
        record = member.record
        members[str(node)] = {"name": record.name, "status": member.status.value, "address": str(record.endpoint)}
    return {
        "time_ns": time.time_ns(),
        "event": "state",
        "node": str(me.id),
        "epoch": me.epoch,
        "active_view": [str(peer.id) for peer in membership.active_view],
        "passive_view": [str(peer.id) for peer in membership.passive_view],
        "members": members,
        "metrics": membership.metrics(),
    }
