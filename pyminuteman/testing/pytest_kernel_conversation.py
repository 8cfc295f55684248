"""One inner pytest as the outer one sees it: started somewhere, talked to, and ended.

The language is described in `pytest_kernel_inner`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import IO, Any, Protocol

from pyminuteman.testing import guest_processes
from pyminuteman.testing.guest import DIED, AnyGuest, Sink, forwarded_environment
from pyminuteman.testing.guest_init import FILES

PLAN = "PMM_KERNEL_PLAN"  # environment of the inner pytest: the path of its plan
_PLAN_FILE = "plan.json"
_QUIT_SECONDS = 10.0  # for the fixtures that a stopped run (-x) leaves to tear down
_TAIL = 4000  # characters of console or output in a failure
# Not `-m pytest`: an inner module search path equal to the outer one finds the same modules.
_START = """\
import json, sys
with open(sys.argv[1], encoding="ascii") as file: plan = json.load(file)
sys.path[:] = plan["path"]
import pytest
sys.exit(pytest.main(plan["args"]))
"""


class Carrier(Protocol):
    """What runs an inner pytest: a guest, or a `HostProcess`."""

    console: bytearray

    def run(self, out: Sink, err: Sink, channel: Sink) -> int:
        """Stream until it ends; returns the exit code."""
        ...

    def send(self, data: bytes) -> None:
        """Write to the channel; raises BrokenPipeError when it has ended."""
        ...

    def kill(self) -> None:
        """Make `run` return soon."""
        ...


class HostProcess:
    """An inner pytest as a process of this machine, in a session of its own."""

    def __init__(self, plan: dict[str, Any], cwd: str) -> None:
        """Plan it; `run` starts it."""
        self.console = bytearray()
        self._plan, self._cwd = plan, cwd
        self._lock = threading.Lock()  # over the next two
        self._killed, self._to_inner = False, -1
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, out: Sink, err: Sink, channel: Sink) -> int:
        """Stream until the process ends; returns its exit code, -N for signal N."""
        del err  # it shares a pipe with out, which keeps their order
        with tempfile.TemporaryDirectory(prefix="pmm-kernel-") as directory:
            path = pathlib.Path(directory, _PLAN_FILE)
            (reader, to_inner), (from_inner, writer) = os.pipe(), os.pipe()
            path.write_text(json.dumps(self._plan | {"channel": [reader, writer]}), encoding="ascii")
            with self._lock:
                self._to_inner = to_inner
                self._process = process = subprocess.Popen(  # noqa: S603
                    ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", _START, str(path)],  # noqa: S607
                    cwd=self._cwd,
                    env=os.environ | {PLAN: str(path)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(reader, writer),
                    start_new_session=True,
                )
            os.close(reader)
            os.close(writer)
            if self._killed:
                self.kill()
            threads = [
                threading.Thread(target=_pump, args=pair, daemon=True)
                for pair in ((process.stdout, out), (os.fdopen(from_inner, "rb", 0), channel))
            ]
            for thread in threads:
                thread.start()
            # Not reaped before its session has ended: until then its number cannot be another's.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            guest_processes.end_session(process.pid)
            for thread in threads:
                thread.join()
            with self._lock:
                os.close(self._to_inner)
                self._to_inner = -1
                return process.wait()

    def send(self, data: bytes) -> None:
        """Write to the channel; raises BrokenPipeError when the process has ended."""
        with self._lock:
            if self._to_inner < 0:
                raise BrokenPipeError("the inner pytest is not running")
            os.write(self._to_inner, data)

    def kill(self) -> None:
        """End the process and those of its session."""
        with self._lock:
            self._killed = True
            if self._process is not None and self._to_inner >= 0:
                os.kill(self._process.pid, signal.SIGKILL)


class Conversation:
    """An inner pytest that runs in a thread's care until it quits, is killed, or dies.

    Attributes:
        ended: Why there is nothing more to hear, with the last words; None before.
        remarks: What it said that is no message, since this was last emptied: the stack of a test
            that hangs, or what broke the inner run off.
    """

    def __init__(self, carrier: Carrier, *, show: bool) -> None:
        """Start it; with `show` its standard output goes to ours as it comes."""
        self._carrier, self._show = carrier, show
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._output, self._buffer = bytearray(), b""
        self.ended: str | None = None
        self.remarks = ""
        self._thread = threading.Thread(target=self._run, name="kernel-tests", daemon=True)
        self._thread.start()

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None when it has ended; raises queue.Empty after `seconds`."""
        message = self._messages.get(timeout=max(0.0, seconds))
        if message is None:
            self._thread.join()
            self._messages.put(None)  # and so for ever
        return message

    def send(self, **message: object) -> None:
        """Say something; if it has ended, `receive` will tell."""
        with contextlib.suppress(BrokenPipeError):
            self._carrier.send(json.dumps(message).encode("ascii") + b"\n")

    def quit(self, *, at_once: bool) -> None:
        """End it and wait until nothing is left, gracefully unless `at_once`."""
        if not at_once:
            self.send(quit=True)
            self._thread.join(_QUIT_SECONDS)
        self._carrier.kill()
        self._thread.join()

    def last_words(self) -> str:
        """The end of the kernel's console, or of the standard output if that says nothing."""
        console = self._carrier.console.decode(errors="replace").strip()
        return (console or self._output.decode(errors="replace").strip())[-_TAIL:]

    def _run(self) -> None:
        try:
            code = self._carrier.run(self._hear_output, self._hear_output, self._hear)
            dead = code == DIED
            said = self.last_words() if dead else self._output.decode(errors="replace")[-_TAIL:]
            who = "the guest kernel died; its last words:" if dead else f"the inner pytest ended with exit code {code}:"
            self.ended = f"{who}\n{said}"
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told where it matters)
            self.ended = f"{type(error).__name__}: {error}"
        finally:
            self._messages.put(None)

    def _hear_output(self, data: bytes) -> None:
        self._output += data
        if self._show:
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()

    def _hear(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self._messages.put(json.loads(line))
            else:
                self.remarks += line.decode(errors="replace") + "\n"


def _pump(stream: IO[bytes], sink: Sink) -> None:
    with stream:
        while data := os.read(stream.fileno(), 65536):
            sink(data)


def in_guest(module: ModuleType, plan: dict[str, Any], *, cwd: str, mem: str, rw: Sequence[str], ro: Sequence[str]) -> AnyGuest:
    """A guest that will run an inner pytest by `plan`: of `kernel_guest` or `qemu_guest`."""
    path = f"{FILES}/{_PLAN_FILE}"
    data = json.dumps(plan | {"channel": module.CHANNEL}).encode("ascii")
    environment = {PLAN: path, "PYTHONDONTWRITEBYTECODE": "1"}
    guest: AnyGuest = module.Guest(
        [sys.executable, "-c", _START, path],
        mem=mem,
        rw=rw,
        ro=ro,
        env=forwarded_environment(**environment),
        cwd=cwd,
        timeout=None,
        files={_PLAN_FILE: data},
    )
    return guest
