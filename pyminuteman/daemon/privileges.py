"""The rights of the process: to keep few of them, and never to get one back.

Programming IPVS, the sysctls of networks, addresses and netfilter takes CAP_NET_ADMIN and nothing else. Other network namespaces take
CAP_SYS_ADMIN, answering for names on port 53 takes CAP_NET_BIND_SERVICE, and iptables-legacy CAP_NET_RAW; who does without has none of these.
The rest goes at the start, before anything is read from outside.

1. What is dropped is out of the bounding set where that is allowed, and ``no_new_privs`` is set: no program that this process starts gets
   it back, whoever owns its file.
2. The kernel keeps these sets for each thread (capabilities(7)), so they are dropped while there is only one: others inherit.
3. What is so already is not asked for: under a unit of systemd that has done all of it, no system call is made that its filter forbids.
4. Programs that are started never have more rights, and none at all (unless by root) where the ambient set is emptied: whoever starts one
   that needs them, ``nft`` say, then raises them for its own thread.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import struct
from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

from pyminuteman.errors import ConfigurationError, MinutemanError

__all__ = ["Capability", "Privileges", "RightsMissing", "User", "drop", "needed"]

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
_SETPCAP: Final = 1 << 8
"""CAP_SETPCAP: to take capabilities out of the bounding set."""


class Capability(IntEnum):
    """Those that this program has a use for, by their number in linux/capability.h."""

    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21

    def __str__(self) -> str:
        return f"CAP_{self.name}"


class RightsMissing(MinutemanError):
    """The process lacks a right that it was to keep, or the kernel refused to take the others away. The text says what to do.

    Rights may have been dropped already: the process is to end.
    """


def needed(*, namespaces: bool = False, low_ports: bool = False, legacy_iptables: bool = False) -> frozenset[Capability]:
    """What a configuration takes.

    Args:
        namespaces: Other network namespaces are programmed.
        low_ports: A port below 1024 is listened on, that of DNS for one.
        legacy_iptables: ``iptables-legacy`` is called, which opens a raw socket; nft and iptables-nft do without.
    """
    found = {Capability.NET_ADMIN}
    if namespaces:
        found.add(Capability.SYS_ADMIN)
    if low_ports:
        found.add(Capability.NET_BIND_SERVICE)
    if legacy_iptables:
        found.add(Capability.NET_RAW)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class User:
    """Whom to become.

    Attributes:
        name: Of the user.
        uid: Never 0.
        gid: The group.
        groups: Further groups.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @classmethod
    def named(cls, text: str) -> Self:
        """``minuteman``, or ``minuteman:group``; names, or numbers of those that have a name.

        Raises:
            ConfigurationError: There is none of this name, or it is root.
        """
        name, colon, group = text.partition(":")
        try:
            found = pwd.getpwuid(int(name)) if name.isascii() and name.isdigit() else pwd.getpwnam(name)
        except (KeyError, ValueError, OverflowError):
            how = "make it with systemd-sysusers, or useradd --system --no-create-home"
            raise ConfigurationError(None, "user", f"there is no user {name!r}; {how}") from None
        gid = found.pw_gid
        if colon:
            try:
                gid = (grp.getgrgid(int(group)) if group.isascii() and group.isdigit() else grp.getgrnam(group)).gr_gid
            except (KeyError, ValueError, OverflowError):
                raise ConfigurationError(None, "user", f"there is no group {group!r}") from None
        if found.pw_uid == 0:
            raise ConfigurationError(None, "user", f"{name!r} is root; leave the user out to stay root")
        return cls(found.pw_name, found.pw_uid, gid, tuple(os.getgrouplist(found.pw_name, gid)))


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


def drop(keep: Collection[Capability], user: User | None = None, *, hand_on: bool = True) -> Privileges:
    """Have these rights and no others, for good. To be called while the process has one thread.

    Args:
        keep: See :func:`needed`.
        user: Whom to become; None: nobody else. As root without a user, files of others are no longer open to the process either.
        hand_on: Whether programs that this process starts have the same rights (the ambient set; root's have them in any case).

    Returns:
        What the process has now.

    Raises:
        RightsMissing: It has not what is to be kept, there are other threads, or the kernel refused.
    """
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - Path.iterdir is no shorter
    if threads != 1:
        raise RightsMissing(f"there are {threads} threads: rights are to be dropped before others are started")
    before = Privileges.now()
    wanted = sum(1 << one for one in set(keep))
    missing = [str(one) for one in sorted(keep) if not before.permitted & 1 << one]
    if missing:
        names = " and ".join(missing)
        hint = "run it as root, or by a unit with AmbientCapabilities="
        raise RightsMissing(f"the process has no {names}: {hint}{' '.join(missing)}")
    kernel = _Kernel()
    if before.effective & _SETPCAP:
        kernel.bound(before.bounding & ~wanted)
    if user is not None and (before.uid, before.gid) != (user.uid, user.gid):
        _become(user, kernel)
    now = Privileges.now()
    if (now.effective, now.permitted, now.inheritable) != (wanted, wanted, wanted):
        kernel.set(wanted)
    kernel.hand_on(now.ambient, wanted if hand_on else 0)
    if not now.no_new_privs:
        kernel.prctl("set no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)
    return _checked(wanted, wanted if hand_on else 0, user)


def _become(user: User, kernel: _Kernel) -> None:
    kernel.prctl("keep capabilities", _PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups(list(user.groups or (user.gid,)))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise RightsMissing(
            f"this process cannot become {user.name} ({error.strerror}): start it as root, or as {user.name}"
        ) from error
    kernel.prctl("keep no capabilities", _PR_SET_KEEPCAPS, 0)


def _checked(wanted: int, ambient: int, user: User | None) -> Privileges:
    """Nothing above is trusted: what the kernel says in the end is what counts."""
    now = Privileges.now()
    sets = (now.effective, now.permitted, now.inheritable)
    who = user is None or (now.uid, now.gid) == (user.uid, user.gid)
    if set(sets) != {wanted} or now.ambient != ambient or not now.no_new_privs or not who:
        raise RightsMissing(f"rights were not dropped as asked for: {now}")
    return now


class _Kernel:
    """The two calls that Python does not have."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def prctl(self, what: str, option: int, *arguments: int) -> None:
        words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
        if self._libc.prctl(ctypes.c_int(option), *words) != 0:
            self._refused(what)

    def bound(self, surplus: int) -> None:
        """Take these out of the bounding set."""
        for number in _bits(surplus):
            self.prctl("take a capability out of the bounding set", _PR_CAPBSET_DROP, number)

    def hand_on(self, ambient: int, wanted: int) -> None:
        """Have ``wanted`` in the ambient set, which is what programs get that are started by other users than root."""
        for number in _bits(ambient ^ wanted):
            how = _PR_CAP_AMBIENT_RAISE if wanted >> number & 1 else _PR_CAP_AMBIENT_LOWER
            self.prctl("set an ambient capability", _PR_CAP_AMBIENT, how, number)

    def set(self, mask: int) -> None:
        """Effective, permitted and inheritable alike; two words each, the low ones first."""
        low, high = mask & _LOW, mask >> 32
        if self._libc.capset(_HEADER.pack(_VERSION, 0), _WORDS.pack(low, low, low, high, high, high)) != 0:
            self._refused("set capabilities")

    def _refused(self, what: str) -> None:
        code = ctypes.get_errno()
        raise RightsMissing(f"the kernel refuses to {what}: {os.strerror(code)}")


def _bits(mask: int) -> list[int]:
    return [number for number in range(mask.bit_length()) if mask >> number & 1]
