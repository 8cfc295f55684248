"""What is to be told of what the membership notices. Pure."""

from __future__ import annotations

from typing import Any, Final

from pyminuteman.daemon.differences import Telling
from pyminuteman.membership import (
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

__all__ = ["is_of_member", "telling"]

_STALL_TOLD_SECONDS: Final = 1.0

_OF_MEMBERS: Final[dict[type[Any], tuple[str, str]]] = {
    MemberUp: ("member_up", "is there"),
    MemberSuspect: ("member_suspect", "has fallen silent: its backends get no new connections"),
    MemberDown: ("member_down", "is down: its backends are taken away"),
    MemberLeft: ("member_left", "has left"),
    MemberUpdated: ("member_updated", "says something new of itself"),
}


def is_of_member(notification: Notification) -> bool:
    """Whether it tells how a member is, which bears on what is desired."""
    return type(notification) in _OF_MEMBERS


def telling(notification: Notification) -> Telling | None:
    """The event that it is; None for what is no news to people."""
    match notification:
        case MemberUp() | MemberSuspect() | MemberDown() | MemberLeft() | MemberUpdated():
            kind, verdict = _OF_MEMBERS[type(notification)]
            record = notification.record
            return kind, f"{record.name} {verdict}", {"node": str(record.id), "name": record.name}
        case Conflict():
            data = {"node": str(notification.record.id), "other": str(notification.other.id)}
            return "conflict", f"{notification.record.name}: {notification.reason}", data
        case PartitionSuspected():
            text = f"{notification.unreachable} members went out of reach together: is the network cut?"
            return "partition", text, {"unreachable": notification.unreachable, "reachable": notification.reachable}
        case LocalStall() if notification.seconds >= _STALL_TOLD_SECONDS:
            text = f"this process did not run for {notification.seconds:.1f} s"
            return "stall", text, {"seconds": notification.seconds}
        case _:
            return None
