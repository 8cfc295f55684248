"""Network namespaces for tests of host set-up on whatever kernel runs here: made by a thread, entered, and left again."""

from __future__ import annotations

import ctypes
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Self, TypeVar

from pyminuteman.testing.network_namespace import bring_idle_threads, fresh_network_namespace
from tests.support.tools import missing

_CLONE_NEWNET = 0x40000000


@contextmanager
def own_namespace() -> Iterator[None]:
    """The calling thread in an empty network namespace with ``lo`` up, and back at the end; without the right to, a skip (under CI, a failure)."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fresh_network_namespace()
        except OSError as error:
            missing(f"the right to make a network namespace ({error})")
        bring_idle_threads()
        yield
    finally:
        ctypes.CDLL(None, use_errno=True).setns(here, _CLONE_NEWNET)
        os.close(here)
        bring_idle_threads()


class Greeter:
    """A TCP server that says who it is to everybody, until the end of the block."""

    def __init__(self, address: str, port: int, text: bytes) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._server = socket.create_server((address, port), family=family, backlog=64)
        self._text = text
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self._text)


def greeting(address: str, port: int, timeout: float = 3.0) -> str:
    """What a server says, or the name of the error."""
    try:
        with socket.create_connection((address, port), timeout) as client:
            return client.recv(99).decode()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return type(error).__name__


T = TypeVar("T")


class Inside:
    """A network namespace that a thread of its own holds, with ``lo`` up; work is handed to that thread."""

    def __init__(self) -> None:
        self.path = ""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._hold)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(lambda: None)
        return self

    def __exit__(self, *_: object) -> None:
        self._work.put(None)
        self._thread.join()

    def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, or raises, in there. Sockets, processes and threads that it makes belong there."""
        result: Future[T] = Future()

        def carry_out() -> None:
            try:
                result.set_result(work())
            except BaseException as error:  # noqa: BLE001 - the other thread's
                result.set_exception(error)

        self._work.put(carry_out)
        return result.result(60)

    def _hold(self) -> None:
        fresh_network_namespace()
        self.path = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        while (work := self._work.get()) is not None:
            work()
