"""What is told of what the membership notices."""

from __future__ import annotations

import pytest

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.daemon.differences import Telling
from pyminuteman.daemon.events import KINDS
from pyminuteman.daemon.member_events import is_of_member, telling
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
    Record,
    ViewChanged,
)

ONE = Record(id=NodeId(b"1" * 16), epoch=1, version=1, name="web1", endpoint=Endpoint("10.0.0.1", 1))
TWO = Record(id=NodeId(b"2" * 16), epoch=1, version=1, name="web1", endpoint=Endpoint("10.0.0.2", 1))


@pytest.mark.parametrize(
    ("notification", "kind"),
    [
        (MemberUp(ONE), "member_up"),
        (MemberSuspect(ONE), "member_suspect"),
        (MemberDown(ONE), "member_down"),
        (MemberLeft(ONE), "member_left"),
        (MemberUpdated(ONE, TWO), "member_updated"),
    ],
)
def test_of_a_member_its_name_and_id_are_told(notification: Notification, kind: str) -> None:
    told = telling(notification)
    assert told is not None
    assert (told[0], told[2]) == (kind, {"node": str(ONE.id), "name": "web1"})
    assert told[1].startswith("web1 ")
    assert is_of_member(notification)


@pytest.mark.parametrize(
    ("notification", "told"),
    [
        (
            Conflict(ONE, TWO, "two of this name"),
            ("conflict", "web1: two of this name", {"node": str(ONE.id), "other": str(TWO.id)}),
        ),
        (
            PartitionSuspected(unreachable=3, reachable=5),
            (
                "partition",
                "3 members went out of reach together: is the network cut?",
                {"unreachable": 3, "reachable": 5},
            ),
        ),
        (LocalStall(2.5), ("stall", "this process did not run for 2.5 s", {"seconds": 2.5})),
        (LocalStall(0.9), None),
        (ViewChanged(()), None),
    ],
)
def test_what_else_is_told(notification: Notification, told: Telling | None) -> None:
    assert telling(notification) == told
    assert told is None or told[0] in KINDS
    assert not is_of_member(notification)
