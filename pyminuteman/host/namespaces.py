"""Doing something in another network namespace, without any thread of ours ever leaving its own.

A thread is made, goes there, does it and ends. Programs it starts, sockets it opens and what it sees under ``/proc/sys/net`` and
``/proc/thread-self/net`` are of that namespace; what is under ``/proc/net`` is not.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from errno import EINVAL, EPERM
from typing import Final, TypeVar

from pyminuteman.capabilities import in_own_thread
from pyminuteman.host.errors import HostSetupError
from pyminuteman.libc import libc

__all__ = ["enter", "enter_open", "in_namespace"]

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h


def in_namespace(netns: str | None, work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises, in the network namespace at this path (None: in ours, in this very thread).

    Raises:
        HostSetupError: There is no such namespace, or we may not enter it: that takes CAP_SYS_ADMIN, beside CAP_NET_ADMIN in there.
    """
    if netns is None:
        return work()

    def go() -> T:
        enter(netns)
        return work()

    return in_own_thread(go)


def enter(netns: str) -> None:
    """Move the calling thread there for good.

    Raises:
        HostSetupError: See :func:`in_namespace`.
    """
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HostSetupError("namespace", f"network namespace {netns} cannot be opened: {reason}") from error
    try:
        enter_open(descriptor, netns)
    finally:
        os.close(descriptor)


def enter_open(descriptor: int, netns: str) -> None:
    """Move the calling thread for good to the namespace that is open there, and in errors is called ``netns``.

    Raises:
        HostSetupError: It may not be entered, or is no network namespace.
    """
    if libc().setns(descriptor, _CLONE_NEWNET) != 0:  # os.setns came with Python 3.12
        raise refused(netns, ctypes.get_errno())


def refused(netns: str, errno: int) -> HostSetupError:
    """The error for a namespace that could not be entered."""
    hint = {
        EPERM: "that takes CAP_SYS_ADMIN; CAP_NET_ADMIN alone is enough for our own namespace only. Of a service, "
        "minuteman.service.d/namespaces.conf grants it",
        EINVAL: "it is no network namespace",
    }.get(errno, "")
    return HostSetupError("namespace", f"network namespace {netns} cannot be entered: {os.strerror(errno)}", hint)
