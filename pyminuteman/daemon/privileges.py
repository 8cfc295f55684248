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

import grp
import os
import pwd
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from pyminuteman import capabilities
from pyminuteman.capabilities import Capability, Privileges
from pyminuteman.errors import ConfigurationError, MinutemanError

__all__ = ["RightsMissing", "User", "drop", "needed"]


class RightsMissing(MinutemanError):
    """The process lacks a right that it was to keep, or the kernel refused to take the others away. The text says what to do.

    Rights may have been dropped already: the process is to end.
    """


def needed(*, namespaces: bool = False, low_ports: bool = False, legacy_iptables: bool = False) -> frozenset[Capability]:
    """What a configuration takes.

    Args:
        namespaces: Other network namespaces are programmed.
        low_ports: A port is listened on that takes a right, that of DNS for one.
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
    try:
        _drop(before, wanted, wanted if hand_on else 0, user)
    except OSError as error:
        raise RightsMissing(error.strerror) from error
    return _checked(wanted, wanted if hand_on else 0, user)


def _drop(before: Privileges, wanted: int, ambient: int, user: User | None) -> None:
    if before.may(Capability.SETPCAP):
        capabilities.take_from_bounding(before.bounding & ~wanted)
    if user is not None and (before.uid, before.gid) != (user.uid, user.gid):
        _become(user)
    now = Privileges.now()
    if (now.effective, now.permitted, now.inheritable) != (wanted, wanted, wanted):
        capabilities.set_capabilities(wanted, wanted, wanted)
        now = Privileges.now()
    capabilities.set_ambient(now.ambient, ambient)
    if not now.no_new_privs:
        capabilities.gain_nothing()


def _become(user: User) -> None:
    capabilities.keep_capabilities(keep=True)
    try:
        os.setgroups(list(user.groups or (user.gid,)))
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        raise RightsMissing(
            f"this process cannot become {user.name} ({error.strerror}): start it as root, or as {user.name}"
        ) from error
    capabilities.keep_capabilities(keep=False)


def _checked(wanted: int, ambient: int, user: User | None) -> Privileges:
    """Nothing above is trusted: what the kernel says in the end is what counts."""
    now = Privileges.now()
    sets = (now.effective, now.permitted, now.inheritable)
    who = user is None or (now.uid, now.gid) == (user.uid, user.gid)
    if set(sets) != {wanted} or now.ambient != ambient or not now.no_new_privs or not who:
        raise RightsMissing(f"rights were not dropped as asked for: {now}")
    return now
