"""Asking one backend whether it would serve: by connecting to it, by HTTP, or by a command of the administrator's.

1. A check passes by returning, and fails by raising :class:`CheckFailed`, whose text says why. Whoever runs it sets the deadline, by
   cancelling it; nothing of it is left behind then: no socket, no process.
2. Each check makes a connection of its own: one that was kept would say nothing of whether new ones are taken.
3. No name is looked up, and no shell is run. What comes back from outside is bounded, and shown without control characters.
4. When it is we who cannot ask (no free descriptor, port or memory), that is an OSError and no failure: it says nothing of the backend.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM
from functools import partial
from typing import Final, Protocol

import trio

from pyminuteman.addresses import IPV6, format_address, format_endpoint, parse_address
from pyminuteman.capabilities import give_up_all, hand_on_no_priority, in_own_thread
from pyminuteman.errors import MinutemanError
from pyminuteman.health.hysteresis import InvalidCheckError

__all__ = ["OUTPUT_MAX_BYTES", "Check", "CheckFailed", "CommandCheck", "HTTPCheck", "TCPCheck"]

OUTPUT_MAX_BYTES: Final = 65536
"""What a command may write; more is a failure."""
_HEAD_MAX_BYTES: Final = 4096
"""What a server may say before its status line is complete."""
_SHOWN: Final = 120
_REAP_LOOK_SECONDS: Final = 0.005
_REAP_SECONDS: Final = 1.0
"""How long to wait for a killed command; one that a broken disk holds outlasts it, and is reaped later."""
_PORT_MAX: Final = 65535
_OUR_TROUBLE: Final = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EAGAIN, EADDRNOTAVAIL}
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class CheckFailed(MinutemanError):
    """A backend did not pass. It was asked for nothing but an answer; the text says what came instead."""


class Check(Protocol):
    """A way to ask. Two that are equal ask the same."""

    async def run(self) -> None:
        """Ask once.

        Raises:
            CheckFailed: It does not pass.
            OSError: It could not be asked.
        """


@dataclass(frozen=True, slots=True)
class TCPCheck:
    """Passes when a connection is taken.

    Raises:
        InvalidCheckError: An address that is none, or a port beyond 1 to 65535.
    """

    address: str
    port: int

    def __post_init__(self) -> None:
        """Validate; the address is brought into its canonical form."""
        object.__setattr__(self, "address", _checked(self.address, self.port))

    async def run(self) -> None:
        """Connect, and close."""
        async with _connected(self.address, self.port):
            pass


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPCheck:
    """Passes when ``GET path`` is answered with an expected status. The body is not read.

    Raises:
        InvalidCheckError: An address, port, path, host or status that is none.
    """

    address: str
    port: int
    path: str = "/"
    host: str = ""
    """For the ``Host`` header, and for the server's certificate; empty: address and port, or the address."""
    statuses: frozenset[int] = frozenset(range(200, 300))
    """Those that pass. Redirects are not followed: 302 passes when it is named here."""
    tls: ssl.SSLContext | None = None
    """With what to trust, for https; None for http."""

    def __post_init__(self) -> None:
        """Validate: nothing of it may break out of its line of the request."""
        object.__setattr__(self, "address", _checked(self.address, self.port))
        for what, text, pattern in (("path", self.path, r"/[!-~]{0,2047}"), ("host", self.host, r"[!-~]{0,255}")):
            if re.fullmatch(pattern, text) is None:
                raise InvalidCheckError(f"{what} {text!r} is not {pattern} (printable ASCII without blanks)")
        if not self.statuses or not all(isinstance(status, int) and 100 <= status <= 599 for status in self.statuses):  # noqa: PLR2004 - RFC 9110
            raise InvalidCheckError(f"{sorted(self.statuses)!r} are not statuses (100 to 599, at least one)")

    async def run(self) -> None:
        """Ask, and read the status line."""
        place = format_endpoint(self.address, self.port)
        request = (
            f"GET {self.path} HTTP/1.1\r\nHost: {self.host or place}\r\n"
            "User-Agent: minuteman-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        async with _connected(self.address, self.port) as sock:
            stream: trio.abc.Stream = trio.SocketStream(sock)
            if self.tls is not None:
                stream = trio.SSLStream(stream, self.tls, server_hostname=self.host or self.address, https_compatible=True)
            try:
                await stream.send_all(request.encode("ascii"))
                status = await _status(stream)
            except trio.BrokenResourceError as error:
                raise CheckFailed(f"{place}: {error.__cause__ or 'the connection broke'}") from None
        if status not in self.statuses:
            raise CheckFailed(f"{place}{self.path}: answered {status}")


@dataclass(frozen=True, slots=True)
class CommandCheck:
    """Passes when a command ends with an expected exit code.

    It gets no input and a clean environment (``PATH``, ``LANG`` and ``environment``), and runs in ``/`` and in a session of its own.
    It has no capability, whichever we have, and gets none (``no_new_privs``): it answers for a backend, and programs no kernel. Nor has it our
    real-time priority. When it has ended, or its time is up, whatever is left of its process group is killed.

    Raises:
        InvalidCheckError: No command, or no path to one; an exit code beyond 0 to 255.
    """

    command: tuple[str, ...]
    """The absolute path of a program, and its arguments."""
    exit_codes: frozenset[int] = frozenset({0})
    environment: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Validate."""
        texts = [*self.command, *(text for pair in self.environment for text in pair)]
        if not self.command or not self.command[0].startswith("/") or any("\0" in text for text in texts):
            raise InvalidCheckError(f"command {list(self.command)!r} is not an absolute path and arguments")
        if any(not name or "=" in name for name, _ in self.environment):
            raise InvalidCheckError(f"{[name for name, _ in self.environment]!r} are not names of environment variables")
        if not self.exit_codes or not all(isinstance(code, int) and 0 <= code <= 255 for code in self.exit_codes):  # noqa: PLR2004
            raise InvalidCheckError(f"{sorted(self.exit_codes)!r} are not exit codes (0 to 255, at least one)")

    async def run(self) -> None:
        """Run it to its end."""
        name = self.command[0]
        read, write = os.pipe()
        try:
            # The thread is for the rights, and waited for: from the fork until the program is loaded, this process stands still in any case.
            process = in_own_thread(partial(self._start, write))
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        output = bytearray()
        async with trio.lowlevel.FdStream(read) as pipe:
            await _until_ended(process, pipe, output)
            with suppress(BlockingIOError):  # what it wrote with its last breath
                output += os.read(pipe.fileno(), OUTPUT_MAX_BYTES)
        if len(output) > OUTPUT_MAX_BYTES:
            raise CheckFailed(f"{name} wrote more than {OUTPUT_MAX_BYTES} bytes")
        code = process.returncode
        if code < 0:
            raise CheckFailed(f"{name} was ended by {_signal_name(-code)}{_shown(output)}")
        if code not in self.exit_codes:
            raise CheckFailed(f"{name} ended with {code}{_shown(output)}")

    def _start(self, output: int) -> subprocess.Popen[bytes]:
        """Start it without the rights of this thread, which are gone with that."""
        hand_on_no_priority()
        give_up_all()  # where this is refused, it is our trouble, and nothing is started
        try:
            return subprocess.Popen(  # noqa: S603 - no shell
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=_ENVIRONMENT | dict(self.environment),
                start_new_session=True,
            )
        except OSError as error:
            if error.errno in _OUR_TROUBLE:
                raise
            raise CheckFailed(f"{self.command[0]} cannot be run: {error.strerror}") from None


async def _until_ended(process: subprocess.Popen[bytes], pipe: trio.lowlevel.FdStream, output: bytearray) -> None:
    """Return when the command has ended; in any case, leave nothing of its process group."""
    try:
        ended = os.pidfd_open(process.pid)  # fails when too many files are open, and on kernels older than 5.3
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_collect, process.pid, pipe, output)
                await trio.lowlevel.wait_readable(ended)
                nursery.cancel_scope.cancel()
        finally:
            os.close(ended)
    finally:
        _kill_group(process.pid)  # before it is reaped: until then nobody else can have its number
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _REAP_SECONDS):
            while process.poll() is None:  # noqa: ASYNC110 - nobody tells; it is a matter of a millisecond
                await trio.sleep(_REAP_LOOK_SECONDS)


async def _collect(group: int, pipe: trio.lowlevel.FdStream, output: bytearray) -> None:
    async for piece in pipe:
        output += piece
        if len(output) > OUTPUT_MAX_BYTES:
            _kill_group(group)
            return


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # a command that changed its user is its administrator's business
        os.killpg(group, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # of the real-time signals, only the ends have names
        return f"signal {number}"


def _shown(output: bytearray) -> str:
    """The first line of what was written, fit to be shown."""
    text = bytes(output[:1024]).decode(errors="replace").strip()
    line = "".join(c if c.isprintable() else " " for c in text.split("\n", 1)[0])[:_SHOWN]
    return f": {line}" if line else ""


def _checked(address: str, port: int) -> str:
    """The address in canonical form."""
    try:
        canonical = format_address(parse_address(address)[1])
    except ValueError as error:
        raise InvalidCheckError(str(error)) from None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= _PORT_MAX:
        raise InvalidCheckError(f"{port!r} is not a port (1 to {_PORT_MAX})")
    return canonical


@asynccontextmanager
async def _connected(address: str, port: int) -> AsyncIterator[trio.socket.SocketType]:
    family = socket.AF_INET6 if parse_address(address)[0] == IPV6 else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            await sock.connect((address, port))
        except OSError as error:
            if error.errno in _OUR_TROUBLE:
                raise
            raise CheckFailed(f"{format_endpoint(address, port)}: {os.strerror(error.errno or 0)}") from None
        refuse_itself(sock)
        yield sock


def refuse_itself(sock: trio.socket.SocketType) -> None:
    """Fail where a socket was connected to itself.

    On the loopback, a connection to a free port of the ephemeral range may get just that one as its source, and TCP's simultaneous
    open then succeeds with nobody there (RFC 9293, 3.5).
    """
    if sock.getsockname() == sock.getpeername():
        host, port = sock.getsockname()[:2]
        raise CheckFailed(f"{format_endpoint(host, port)}: nobody listens (the check was connected to itself)")


async def _status(stream: trio.abc.ReceiveStream) -> int:
    head = bytearray()
    while b"\n" not in head:
        piece = await stream.receive_some(_HEAD_MAX_BYTES)
        if not piece:
            raise CheckFailed(f"the connection was closed {'within' if head else 'without'} an answer")
        head += piece
        if len(head) > _HEAD_MAX_BYTES:
            break
    found = _STATUS_LINE.match(head)
    if found is None:
        raise CheckFailed(f"what answers speaks no HTTP/1{_shown(head)}")
    return int(found[1])
