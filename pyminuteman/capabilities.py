"""Capabilities: what a thread may do, taking rights away from it, and work in a thread of its own for that.

The kernel keeps these sets for each thread (capabilities(7)), and :func:`os.fork` hands on those of the thread that calls it. So a program
is started with other rights than ours from a thread that was made for it (:func:`in_own_thread`) and changed its own: nothing runs between
fork and exec, and no other thread sees any of it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from errno import EAGAIN
from pathlib import Path
from typing import Final, Self, TypeVar

from pyminuteman.libc import error_of, libc

__all__ = [
    "Capability",
    "Privileges",
    "add_ambient",
    "gain_nothing",
    "give_up_all",
    "hand_on_no_priority",
    "in_own_thread",
    "keep_capabilities",
    "numbers",
    "set_ambient",
    "set_capabilities",
    "take_from_bounding",
]

T = TypeVar("T")

# linux/prctl.h
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_LOWER: Final = 3
# linux/capability.h: _LINUX_CAPABILITY_VERSION_3, and two structures of 32 bits each
_VERSION: Final = 0x20080522
_HEADER: Final = struct.Struct("=Ii")
_WORDS: Final = struct.Struct("=6I")
_LOW: Final = 0xFFFF_FFFF


class Capability(IntEnum):
    """Those that this program has a use for, by their number in linux/capability.h."""

    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21

    def __str__(self) -> str:
        return f"CAP_{self.name}"


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a thread may do, as its kernel says it. The sets are bit masks: bit 12 is CAP_NET_ADMIN."""

    uid: int
    gid: int
    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int
    no_new_privs: bool

    @classmethod
    def now(cls) -> Self:
        """Those of the calling thread."""
        lines = Path("/proc/thread-self/status").read_text(encoding="ascii", errors="replace").splitlines()
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}

        def mask(name: str) -> int:
            return int(fields[name][0], 16)

        return cls(
            uid=int(fields["Uid"][1]),
            gid=int(fields["Gid"][1]),
            effective=mask("CapEff"),
            permitted=mask("CapPrm"),
            inheritable=mask("CapInh"),
            bounding=mask("CapBnd"),
            ambient=mask("CapAmb"),
            no_new_privs=fields["NoNewPrivs"] == ["1"],
        )

    def may(self, capability: Capability) -> bool:
        """Whether it has the right now."""
        return bool(self.effective & 1 << capability)


def numbers(mask: int) -> Iterator[int]:
    """The capabilities of a mask."""
    return (number for number in range(mask.bit_length()) if mask >> number & 1)


# The calls below change the calling thread, and raise OSError where the kernel refuses.


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """The three sets; what is no longer permitted or inheritable is no longer ambient either."""
    sets = (effective, permitted, inheritable)
    words = _WORDS.pack(*(one & _LOW for one in sets), *(one >> 32 for one in sets))
    _done(libc().capset(_HEADER.pack(_VERSION, 0), words), "set capabilities")


def set_ambient(before: int, wanted: int) -> None:
    """Have ``wanted`` in the ambient set, which is what programs get that are started by other users than root."""
    for number in numbers(before ^ wanted):
        how = _PR_CAP_AMBIENT_RAISE if wanted >> number & 1 else _PR_CAP_AMBIENT_LOWER
        _prctl("set an ambient capability", _PR_CAP_AMBIENT, how, number)


def take_from_bounding(surplus: int) -> None:
    """Take these out of the bounding set; takes CAP_SETPCAP."""
    for number in numbers(surplus):
        _prctl("take a capability out of the bounding set", _PR_CAPBSET_DROP, number)


def keep_capabilities(*, keep: bool) -> None:
    """Whether the permitted ones stay when root becomes somebody else."""
    _prctl("keep capabilities" if keep else "keep no capabilities", _PR_SET_KEEPCAPS, int(keep))


def gain_nothing() -> None:
    """Set ``no_new_privs``: no program gets a right that this thread has not, whoever owns its file. For good, also for what it starts."""
    _prctl("set no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def add_ambient(wanted: Iterable[Capability]) -> None:
    """Have programs that this thread starts keep these capabilities, as far as we have them.

    Root's programs have all of root's anyway; then this changes nothing that matters.
    """
    now = Privileges.now()
    ours = sum(1 << one for one in set(wanted)) & now.permitted
    if ours & ~now.inheritable:
        set_capabilities(now.effective, now.permitted, now.inheritable | ours)
    set_ambient(now.ambient, now.ambient | ours)


def give_up_all() -> None:
    """Leave this thread, and what it starts, without any capability.

    The bounding set may stay as it is: with ``no_new_privs``, a program gets none that its starter was not permitted, not even root's.
    What is so already is not asked for, as a filter of system calls may forbid it.
    """
    now = Privileges.now()
    if now.effective or now.permitted or now.inheritable:
        set_capabilities(0, 0, 0)
    if not now.no_new_privs:
        gain_nothing()


def hand_on_no_priority() -> None:
    """What the calling thread starts from now on has no real-time priority (``SCHED_FIFO``), if this thread has.

    A filter of system calls may refuse it; then the priority is not of our asking, but of whoever started us, and stays.
    """
    if (policy := os.sched_getscheduler(0)) == os.SCHED_FIFO:
        with suppress(PermissionError):
            os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, os.sched_getparam(0))


def in_own_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns, or raises, in a thread that is made for it: what it changes of itself (namespace, rights) ends with it.

    Raises:
        OSError: Of its own, EAGAIN: there can be no more threads.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def go() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=go, name="errand", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(EAGAIN, str(error)) from error
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _prctl(what: str, option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    _done(libc().prctl(ctypes.c_int(option), *words), what)


def _done(result: int, what: str) -> None:
    if result != 0:
        raise error_of(f"the kernel refuses to {what}")
