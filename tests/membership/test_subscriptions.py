"""Queues for listeners: bounded, and the last state of every member is in them."""

from __future__ import annotations

from collections import deque

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.effects import (
    Conflict,
    Delivered,
    EpochTaken,
    LocalStall,
    MemberDown,
    MemberLeft,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    Notification,
    PartitionSuspected,
    ViewChanged,
)
from pyminuteman.membership.messages import PacketId
from pyminuteman.membership.records import Record
from pyminuteman.membership.subscriptions import NotificationInbox, PacketInbox, coalesce


def record(node: int, version: int = 1) -> Record:
    return Record(id=NodeId(bytes([node]) * 16), epoch=1, version=version, name=f"n{node}", endpoint=Endpoint("10.0.0.1", node))


def packet(number: int) -> Delivered:
    return Delivered(PacketId(NodeId(bytes(16)), 1, number), "topic", b"%d" % number)


def inbox(kept: int = 4) -> NotificationInbox:
    return NotificationInbox(lambda _: None, kept)


def drain(made: NotificationInbox) -> list[Notification]:
    return [made.receive_nowait() for _ in range(len(made))]


def test_a_reader_in_time_sees_everything() -> None:
    made = inbox()
    all_of_it: list[Notification] = [MemberUp(record(1)), MemberSuspect(record(1)), MemberUp(record(1)), MemberDown(record(2))]
    for notification in all_of_it:
        made.put(notification)
    assert drain(made) == all_of_it
    assert made.coalesced == 0


def test_a_reader_who_is_late_sees_the_latest_of_each() -> None:
    made = inbox()
    for _ in range(1000):
        for kind in (MemberUp, MemberSuspect, MemberDown):
            for node in (1, 2, 3):
                made.put(kind(record(node)))
        assert len(made) <= 8
    latest = {notification.record.id: type(notification) for notification in drain(made)}  # type: ignore[union-attr]
    assert latest == {record(node).id: MemberDown for node in (1, 2, 3)}
    assert made.coalesced > 8900


def test_a_large_cluster_is_not_coalesced_at_every_step() -> None:
    made = inbox(kept=10)
    for node in range(1, 200):
        made.put(MemberUp(record(node)))
    for node in range(1, 200):
        made.put(MemberDown(record(node)))
    assert len(made) <= 400
    assert {type(n) for n in coalesce(deque(drain(made)))} == {MemberDown}


@pytest.mark.parametrize(
    ("earlier", "later", "told"),
    [
        (MemberUp(record(1)), MemberUpdated(record(1, 2), record(1)), MemberUp(record(1, 2))),
        (MemberSuspect(record(1)), MemberUpdated(record(1, 2), record(1)), MemberSuspect(record(1, 2))),
        (
            MemberUpdated(record(1, 2), record(1)),
            MemberUpdated(record(1, 3), record(1, 2)),
            MemberUpdated(record(1, 3), record(1)),
        ),
        (MemberUpdated(record(1, 2), record(1)), MemberDown(record(1, 2)), MemberDown(record(1, 2))),
        (MemberDown(record(1)), MemberLeft(record(1)), MemberLeft(record(1))),
        (LocalStall(0.25), LocalStall(0.5), LocalStall(0.75)),
        (ViewChanged(()), ViewChanged(()), ViewChanged(())),
        (EpochTaken(5), EpochTaken(6), EpochTaken(6)),
        (PartitionSuspected(5, 5), PartitionSuspected(7, 3), PartitionSuspected(7, 3)),
        (Conflict(record(1), record(2), "x"), Conflict(record(1), record(2), "y"), Conflict(record(1), record(2), "y")),
    ],
)
def test_two_become_one(earlier: Notification, later: Notification, told: Notification) -> None:
    assert list(coalesce(deque([earlier, later]))) == [told]


def test_different_things_stay_apart() -> None:
    different: list[Notification] = [
        MemberUp(record(1)),
        MemberUp(record(2)),
        ViewChanged(()),
        LocalStall(1.0),
        Conflict(record(1), record(2), "x"),
        Conflict(record(1), record(3), "x"),
        packet(1),
        packet(2),
    ]
    assert list(coalesce(deque(different))) == different


KINDS = st.sampled_from([MemberUp, MemberSuspect, MemberDown, MemberLeft, MemberUpdated])


@given(st.lists(st.tuples(st.integers(1, 5), KINDS), max_size=200), st.integers(1, 20))
def test_however_late_the_last_state_is_there(news: list[tuple[int, type]], kept: int) -> None:
    made = inbox(kept)
    expected: dict[int, type] = {}
    for version, (node, kind) in enumerate(news, 2):
        if kind is MemberUpdated:
            made.put(MemberUpdated(record(node, version), record(node, version - 1)))
        else:
            made.put(kind(record(node, version)))
            expected[node] = kind
    seen: dict[int, type] = {}
    newest: dict[int, int] = {}
    for notification in drain(made):
        assert isinstance(notification, MemberUp | MemberSuspect | MemberDown | MemberLeft | MemberUpdated)
        node = notification.record.id[0]
        newest[node] = notification.record.version
        if not isinstance(notification, MemberUpdated):
            seen[node] = type(notification)
    assert seen == expected
    assert newest == {node: version for version, (node, _) in enumerate(news, 2)}


def test_packets_drop_the_oldest() -> None:
    made = PacketInbox(lambda _: None, 2)
    assert [made.put(packet(number)) for number in range(4)] == [True, True, False, False]
    assert made.dropped == 2
    assert [made.receive_nowait().payload for _ in range(2)] == [b"2", b"3"]
    with pytest.raises(trio.WouldBlock):
        made.receive_nowait()


@pytest.mark.trio
async def test_readers_wait_and_are_woken(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    made = PacketInbox(lambda _: None, 10)
    got: list[bytes] = []

    async def reader() -> None:
        async for found in made:
            got.append(found.payload)  # noqa: PERF401

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            nursery.start_soon(reader)
            for number in range(5):
                await trio.testing.wait_all_tasks_blocked()
                made.put(packet(number))
            await trio.testing.wait_all_tasks_blocked()
            made.end()
    assert got == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.trio
async def test_closing_wakes_the_reader_and_is_told_once() -> None:
    told: list[object] = []
    made = PacketInbox(told.append, 10)

    async def reader() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await made.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        made.close()
    await made.aclose()
    assert told == [made]
    assert made.put(packet(1))  # whoever still holds it does no harm


@pytest.mark.trio
async def test_reading_is_a_checkpoint() -> None:
    made = PacketInbox(lambda _: None, 10)
    made.put(packet(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await made.receive()
    assert scope.cancelled_caught
    assert len(made) == 1  # and loses nothing
    with trio.testing.assert_checkpoints():
        await made.receive()
