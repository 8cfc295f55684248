"""The driver on a network in memory, in trio's jumping time: minutes of a cluster's life in a blink."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership import (
    Conflict,
    EpochTaken,
    InsecureError,
    Key,
    Keyring,
    KeyringError,
    LocalProtocolError,
    LocalStall,
    MemberDown,
    MemberLeft,
    Membership,
    MemberStatus,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    NoContactAnswered,
    Notification,
    Record,
    open_membership,
)
from pyminuteman.membership.codec import pack
from pyminuteman.membership.effects import Send
from pyminuteman.membership.keyring import PlainRing
from pyminuteman.membership.messages import Heartbeat, Multicast, PacketId, Peer, Records
from pyminuteman.membership.state_directory import StateDirectory
from pyminuteman.membership.stream_session import StreamSession
from pyminuteman.testing.memory_transport import MemoryNetwork

CONTACT = Endpoint("127.0.0.1", 1)


def in_jumping_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Time passes when nobody has anything to do."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        trio.run(partial(test, **fixtures), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


class Cluster:
    """Nodes on one network; the first one is everybody's contact."""

    def __init__(self, stack: AsyncExitStack, **network: Any) -> None:
        self.network = MemoryNetwork(**{"delay_seconds": (0.0002, 0.001), **network})
        self.nodes: list[Membership] = []
        self._stack = stack

    def arguments(self, number: int, **more: Any) -> dict[str, Any]:
        return {
            "name": f"node{number}",
            "transport": self.network.transport(Endpoint("127.0.0.1", number)),
            "contacts": [CONTACT],
            "rng": random.Random(number),  # noqa: S311 - reproducible
            **more,
        }

    async def add(self, count: int = 1, **more: Any) -> Membership:
        for _ in range(count):
            arguments = self.arguments(len(self.nodes) + 1, **more)
            self.nodes.append(await self._stack.enter_async_context(open_membership(**arguments)))
        return self.nodes[-1]

    async def settle(self, seconds: float = 20.0) -> None:
        """Wait until all see all."""
        await until(lambda: all(len(node.reachable) == len(self.nodes) for node in self.nodes), seconds)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no events
            await trio.sleep(0.01)


async def really(condition: Callable[[], object]) -> None:
    """As :func:`until`, for what a thread does: it takes time that does not jump."""
    for _ in range(200):
        with suppress(FileNotFoundError):
            if condition():
                return
        await trio.to_thread.run_sync(time.sleep, 0.05)
    raise TimeoutError


@asynccontextmanager
async def a_cluster(count: int, **more: Any) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        await cluster.add(count, **more)
        await cluster.settle()
        yield cluster


async def read(inbox: trio.abc.ReceiveChannel[Notification], kind: Any, seconds: float = 20.0) -> Any:
    """The next notification of a kind."""
    with trio.fail_after(seconds):
        async for notification in inbox:
            if isinstance(notification, kind):
                return notification
    raise AssertionError("it ended")


@in_jumping_time
async def test_all_see_all() -> None:
    async with a_cluster(8) as cluster:
        ids = {node.me.id for node in cluster.nodes}
        for node in cluster.nodes:
            assert node.reachable == ids
            members = node.members()
            assert set(members) == ids - {node.me.id}
            assert {member.status for member in members.values()} == {MemberStatus.ALIVE}
            assert 0 < len(node.active_view) <= 7
            for other in ids - {node.me.id}:
                route = node.route_to(other)
                assert route is not None
                assert route[-1] == other
            assert node.metrics()["internal_faults_total"] == 0
            assert node.metrics()["datagrams_received_total"] > 0


@in_jumping_time
async def test_one_that_falls_silent_is_suspect_then_down_and_then_back() -> None:
    async with a_cluster(6) as cluster:
        victim, *others = reversed(cluster.nodes)
        async with AsyncExitStack() as stack:
            inboxes = [stack.enter_context(node.notifications()) for node in others]
            cluster.network.isolate(victim.me.endpoint)
            for inbox in inboxes:
                assert (await read(inbox, MemberSuspect, 3)).record.id == victim.me.id
            for node, inbox in zip(others, inboxes, strict=True):
                assert (await read(inbox, MemberDown, 3)).record.id == victim.me.id
                assert node.members()[victim.me.id].status is MemberStatus.DOWN
                assert node.reachable == {other.me.id for other in others}
            cluster.network.mend()
            for inbox in inboxes:
                assert (await read(inbox, MemberUp, 60)).record.id == victim.me.id
            await cluster.settle(60)


@in_jumping_time
async def test_who_leaves_has_left_and_is_not_down() -> None:
    async with a_cluster(4) as cluster:
        first = cluster.nodes[0]
        with first.notifications() as notifications:
            async with open_membership(**cluster.arguments(9)) as guest:
                assert (await read(notifications, MemberUp)).record.name == "node9"
            assert (await read(notifications, (MemberLeft, MemberSuspect))) == MemberLeft(first.members()[guest.me.id].record)
        assert first.members()[guest.me.id].status is MemberStatus.LEFT
        for call in (lambda: guest.multicast("topic", b""), lambda: trio.to_thread.run_sync(guest.update)):
            with pytest.raises(LocalProtocolError, match="left"):
                await call()


@in_jumping_time
async def test_who_is_cancelled_does_not_leave() -> None:
    async with a_cluster(3) as cluster:
        first = cluster.nodes[0]
        with first.notifications() as notifications, trio.CancelScope() as scope:
            async with open_membership(**cluster.arguments(9)):
                await read(notifications, MemberUp)
                before = trio.current_time()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() < before + 0.02  # and does not linger
        with first.notifications() as notifications:
            assert (await read(notifications, (MemberLeft, MemberSuspect))).record.name == "node9"


@in_jumping_time
async def test_an_error_of_the_block_comes_out_alone_and_the_node_leaves() -> None:
    async with a_cluster(2) as cluster:
        with cluster.nodes[0].notifications() as notifications:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with open_membership(**cluster.arguments(9)) as guest:
                    await guest.wait_joined()
                    raise ZeroDivisionError
            await read(notifications, MemberLeft)


@in_jumping_time
async def test_leaving_early_and_twice() -> None:
    async with a_cluster(2) as cluster, open_membership(**cluster.arguments(9)) as guest:
        await guest.wait_joined()
        await guest.leave()
        await guest.leave()
        assert cluster.nodes[0].members()[guest.me.id].status is MemberStatus.LEFT


@in_jumping_time
async def test_multicast_reaches_every_subscriber_once_whatever_its_size() -> None:
    async with a_cluster(6) as cluster, AsyncExitStack() as stack:
        inboxes = [stack.enter_context(node.subscribe("news")) for node in cluster.nodes[1:]]
        elsewhere = stack.enter_context(cluster.nodes[1].subscribe("other"))
        small, large = b"small", bytes(100_000)
        await cluster.nodes[0].multicast("news", small)
        await cluster.nodes[0].multicast("news", large, record_route=True)
        for inbox in inboxes:
            with trio.fail_after(10):
                packets = [await inbox.receive(), await inbox.receive()]
            assert {packet.payload for packet in packets} == {small, large}
            assert {packet.id.origin for packet in packets} == {cluster.nodes[0].me.id}
            assert {packet.route is None for packet in packets} == {True, False}
            assert inbox.dropped == 0
        await trio.sleep(2)
        assert not any(map(len, [*inboxes, elsewhere]))
        metrics = [node.metrics() for node in cluster.nodes]
        assert sum(numbers["bulk_sent_total"] for numbers in metrics) >= 5  # the large one does not fit in datagrams
        assert sum(numbers["bulk_failed_total"] for numbers in metrics) == 0


@in_jumping_time
async def test_unicast_reaches_its_receiver_alone_whatever_its_size() -> None:
    async with a_cluster(4) as cluster, AsyncExitStack() as stack:
        inboxes = [stack.enter_context(node.subscribe("news")) for node in cluster.nodes]
        sender, receiver = cluster.nodes[0].me, cluster.nodes[2].me
        for payload in (b"small", bytes(100_000)):
            await cluster.nodes[0].unicast(receiver.id, "news", payload)
            with trio.fail_after(10):
                packet = await inboxes[2].receive()
            assert (packet.id, packet.payload) == (PacketId(sender.id, sender.epoch, 0), payload)
        await cluster.nodes[0].unicast(NodeId(bytes(16)), "news", b"to nobody")
        await trio.sleep(2)
        assert not any(map(len, inboxes))


@in_jumping_time
async def test_what_cannot_be_sent() -> None:
    async with a_cluster(1) as cluster:
        with pytest.raises(LocalProtocolError, match="payload"):
            await cluster.nodes[0].multicast("news", bytes(2 * 1024 * 1024))
        with pytest.raises(LocalProtocolError, match="topic"):
            await cluster.nodes[0].multicast("", b"")


@in_jumping_time
async def test_subscribers_who_sleep_lose_the_oldest() -> None:
    async with a_cluster(2) as cluster:
        with cluster.nodes[1].subscribe("news", size=2) as slow, cluster.nodes[1].subscribe("news") as fast:
            for number in range(5):
                await cluster.nodes[0].multicast("news", b"%d" % number)
                await trio.sleep(0.1)
            assert [slow.receive_nowait().payload for _ in range(2)] == [b"3", b"4"]
            assert slow.dropped == 3
            assert len(fast) == 5
            assert cluster.nodes[1].metrics()["multicast_unread_total"] == 3
        with pytest.raises(trio.ClosedResourceError):
            await slow.receive()


@in_jumping_time
async def test_tags_and_addresses() -> None:
    async with a_cluster(3, tags={"zone": "east"}, addresses=["10.0.0.1", "fd00:0::1"]) as cluster:
        changed, other = cluster.nodes[0], cluster.nodes[2]
        assert dict(other.members()[changed.me.id].record.tags) == {"zone": "east"}
        assert other.members()[changed.me.id].record.addresses == ("10.0.0.1", "fd00::1")
        with other.notifications() as notifications:
            changed.update(tags={"zone": "west", "rack": "7"})
            updated = await read(notifications, MemberUpdated)
            assert dict(updated.record.tags) == {"zone": "west", "rack": "7"}
            assert dict(updated.previous.tags) == {"zone": "east"}
            changed.update(addresses=[])
            assert (await read(notifications, MemberUpdated)).record.addresses == ()
        for wrong in ({"tags": {"": "x"}}, {"tags": {"x": "\n"}}, {"tags": {"x": "y" * 2000}}, {"addresses": ["nonsense"]}):
            with pytest.raises(ConfigurationError):
                changed.update(**wrong)


@in_jumping_time
async def test_two_of_one_name_are_a_conflict() -> None:
    async with a_cluster(2) as cluster:
        with cluster.nodes[0].notifications() as notifications:
            async with open_membership(**cluster.arguments(9, name="node2")):
                conflict = await read(notifications, Conflict)
                assert {conflict.record.endpoint.port, conflict.other.endpoint.port} == {2, 9}


@in_jumping_time
async def test_with_keys_and_without_the_right_one() -> None:
    key = Key.generate()
    async with a_cluster(3, keyring=None) as cluster:
        keyed = cluster.arguments(9, keyring=Keyring([key], cluster="minuteman"))
        async with open_membership(**keyed) as stranger:
            with pytest.raises(NoContactAnswered):
                await stranger.wait_joined(5)
            assert len(cluster.nodes[0].members()) == 2
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        for _ in range(3):
            await cluster.add(keyring=Keyring([key], cluster="minuteman"))
        await cluster.settle()
        assert cluster.nodes[0].me.keys == (key.id,)
        for wrong in (
            Keyring([Key.generate()], cluster="minuteman"),
            Keyring([key], cluster="another"),
            None,
        ):
            arguments = cluster.arguments(9, keyring=wrong)
            async with open_membership(**arguments) as stranger:
                with pytest.raises(NoContactAnswered, match="5 s"):
                    await stranger.wait_joined(5)
        refused = cluster.nodes[0].metrics()
        assert refused["refused_unknown_key_total"] > 0
        assert refused["refused_forged_total"] > 0
        assert refused["refused_format_total"] > 0
        assert len(cluster.nodes[0].reachable) == 3


@in_jumping_time
async def test_keys_are_changed_at_work_and_one_that_others_seal_with_is_held_on() -> None:
    old, new = Key.generate(), Key.generate()
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        for _ in range(3):
            await cluster.add(keyring=Keyring([old], cluster="minuteman"))
        await cluster.settle()
        for node in cluster.nodes:
            assert node.change_keys([old, new]) == ()
        assert cluster.nodes[0].change_keys([new]) == (old.id,)
        assert cluster.nodes[0].me.keys == (new.id, old.id)
        for node in cluster.nodes[1:]:
            node.change_keys([new])
        await cluster.settle()
        while cluster.nodes[0].change_keys([new]):  # noqa: ASYNC110 - until it has heard that the others seal with the new one
            await trio.sleep(0.1)
        assert cluster.nodes[0].me.keys == (new.id,)
        assert all(len(node.reachable) == 3 for node in cluster.nodes)
        await cluster.nodes[0].leave()
        with pytest.raises(LocalProtocolError, match="has left"):
            cluster.nodes[0].change_keys([new])
    async with a_cluster(1) as cluster:
        with pytest.raises(KeyringError, match="without keys"):
            cluster.nodes[0].change_keys([new])


@in_jumping_time
async def test_garbage_is_counted_and_answered_by_nothing() -> None:
    async with a_cluster(1) as cluster:
        node = cluster.nodes[0]
        attacker = cluster.network.transport("127.0.0.1:99")
        ring = PlainRing(cluster="minuteman")
        attacker.send(b"garbage", CONTACT)
        attacker.send(ring.seal(b"\x01\xc1"), CONTACT)
        attacker.send(bytes(60_000), CONTACT)
        await trio.sleep(1)
        assert attacker.receive() is None
        numbers = node.metrics()
        assert numbers["datagrams_malformed_total"] == 1
        assert numbers["refused_size_total"] + numbers["refused_format_total"] == 2


@in_jumping_time
async def test_a_flood_stops_neither_heartbeats_nor_other_tasks() -> None:
    async with a_cluster(3) as cluster:
        victim = cluster.nodes[0]
        attacker = cluster.network.transport("127.0.0.1:99")
        cluster.network.delay_seconds = (0.0, 0.0)
        with cluster.nodes[1].notifications() as notifications:
            before = victim.metrics()["refused_format_total"]
            with trio.move_on_after(1):
                while True:
                    for _ in range(3000):
                        attacker.send(bytes(50), victim.me.endpoint)
                    await trio.sleep(0.02)
            assert victim.metrics()["refused_format_total"] - before > 100_000
            kinds = {type(notifications.receive_nowait()) for _ in range(len(notifications))}
        assert not {MemberSuspect, MemberDown} & kinds
        assert len(victim.reachable) == 3


@in_jumping_time
async def test_nonsense_over_tcp_from_a_holder_of_the_key() -> None:
    key = Key.generate()
    async with a_cluster(1, keyring=Keyring([key], cluster="minuteman")) as cluster:
        stream = await cluster.network.transport("127.0.0.1:99").connect(CONTACT)
        session = StreamSession(Keyring([key], cluster="minuteman"), server=False)
        await stream.send_all(session.client_hello())
        while not session.ready:
            session.feed(bytes(await stream.receive_some(100)))
        await stream.send_all(session.seal_frame(b"nonsense"))
        await trio.sleep(1)
        assert cluster.nodes[0].metrics()["datagrams_malformed_total"] == 1


@in_jumping_time
async def test_what_cannot_be_packed_is_a_fault_and_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with a_cluster(1) as cluster:
        huge = Multicast(PacketId(NodeId(bytes(16)), 1, 1), "news", 3, bytes(17 * 1024 * 1024))
        cluster.nodes[0]._loop.perform([Send(Endpoint("127.0.0.1", 9), (huge,))])
        assert cluster.nodes[0].metrics()["internal_faults_total"] == 1
        assert len(caplog.messages[0]) < 2000


@in_jumping_time
async def test_a_fault_of_the_core_is_said_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_cluster(2) as cluster:
        node = cluster.nodes[0]
        handle = node._node.handle

        def broken(event: Any, now: float) -> Any:
            if any(isinstance(message, Heartbeat) for message in event.messages):
                raise ZeroDivisionError
            return handle(event, now)

        monkeypatch.setattr(node._node, "handle", broken)
        await trio.sleep(3)
        assert node.metrics()["internal_faults_total"] > 10
        assert 0 < sum("please report" in record.message for record in caplog.records) <= 10


@in_jumping_time
async def test_a_stall_of_ours_is_told_and_nobody_is_blamed() -> None:
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    async with a_cluster(5) as cluster:
        with cluster.nodes[0].notifications() as notifications:
            clock.jump(3.0)  # no task runs, as if the machine were stopped
            await trio.sleep(5)
            kinds = [type(notifications.receive_nowait()) for _ in range(len(notifications))]
        assert LocalStall in kinds
        assert MemberDown not in kinds


@in_jumping_time
async def test_contacts_that_do_not_answer() -> None:
    network = MemoryNetwork()
    async with open_membership(name="lonely", transport=network.transport("127.0.0.1:1"), contacts=[CONTACT]) as node:
        with pytest.raises(NoContactAnswered, match="within 3 s"):
            await node.wait_joined(3)
        assert node.reachable == {node.me.id}
        assert node.members() == {}


@in_jumping_time
async def test_readers_see_the_end() -> None:
    async with a_cluster(1) as cluster:
        seen: list[object] = []
        arguments = cluster.arguments(9)
        async with trio.open_nursery() as nursery, open_membership(**arguments) as guest:
            inbox, packets = guest.notifications(), guest.subscribe("x")

            async def reader() -> None:
                seen.extend([notification async for notification in inbox])

            nursery.start_soon(reader)
            await guest.wait_joined()
        assert any(isinstance(notification, MemberUp) for notification in seen)
        with pytest.raises(trio.EndOfChannel):
            packets.receive_nowait()
        with pytest.raises(trio.EndOfChannel):
            await guest.notifications().receive()
        with pytest.raises(trio.EndOfChannel):
            await guest.subscribe("x").receive()
        inbox.close()
        packets.close()
        await packets.aclose()


@in_jumping_time
async def test_the_state_directory_keeps_id_epoch_and_members(tmp_path: Path) -> None:
    async with a_cluster(3) as cluster:
        async with open_membership(**cluster.arguments(9, state_directory=tmp_path)) as guest:
            await until(lambda: len(guest.reachable) == 4)
            first = guest.me
            with pytest.raises(ConfigurationError, match="another process"):
                async with open_membership(**cluster.arguments(10, state_directory=tmp_path)):
                    pass
        async with open_membership(**cluster.arguments(9, state_directory=tmp_path, contacts=[])) as guest:
            assert guest.me.id == first.id
            assert guest.me.epoch > first.epoch
            await until(lambda: len(guest.reachable) == 4)  # by the members it knew: it was given no contact
            assert cluster.nodes[0].members()[first.id].record.epoch == guest.me.epoch
    with StateDirectory(tmp_path) as state:
        assert {peer.endpoint.port for peer in state.known_members()} == {1, 2, 3}


@in_jumping_time
async def test_members_are_stored_while_it_runs_and_after_a_cancellation(tmp_path: Path) -> None:
    async with a_cluster(2) as cluster:
        with trio.CancelScope() as scope:
            async with open_membership(**cluster.arguments(9, state_directory=tmp_path)) as guest:
                await until(lambda: len(guest.reachable) == 3)
                await trio.sleep(40)
                await really(lambda: '"address": "127.0.0.1:2"' in (tmp_path / "members.json").read_text())
                async with open_membership(**cluster.arguments(3)):
                    await until(lambda: len(guest.reachable) == 4)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert '"address": "127.0.0.1:3"' in (tmp_path / "members.json").read_text()


@in_jumping_time
async def test_a_later_epoch_of_ours_is_outdone_and_stored(tmp_path: Path) -> None:
    async with a_cluster(2) as cluster, open_membership(**cluster.arguments(9, state_directory=tmp_path)) as guest:
        await guest.wait_joined()
        me = guest.me
        ahead = Record(id=me.id, epoch=me.epoch + 100, version=1, name="ghost", endpoint=Endpoint("127.0.0.1", 77))
        ghost = cluster.network.transport("127.0.0.1:77")
        other = Peer(NodeId(bytes(16)), me.epoch, ghost.advertised)
        with guest.notifications() as notifications:
            ring = PlainRing(cluster="minuteman")
            for plain in pack([Records((ahead.encode(),))], other, limit=1000)[0]:
                ghost.send(ring.seal(plain), guest.me.endpoint)
            assert (await read(notifications, EpochTaken)).epoch == me.epoch + 101
            assert guest.me.epoch == me.epoch + 101
            await really(lambda: str(me.epoch + 101) in (tmp_path / "identity.json").read_text())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "x\n"}, "name"),
        ({"tags": {"x": "y" * 5000}}, "tags_max_bytes"),
        ({"tags": {str(number): "" for number in range(70)}}, "at most 64"),
        ({"addresses": ["1.2.3"]}, "not an IP address"),
        ({"addresses": [f"10.0.0.{number}" for number in range(20)]}, "at most 16"),
        ({"transport": None}, "say where to listen"),
        ({"transport": None, "bind": Endpoint("fe80::1", 1)}, "link-local"),
        ({"cluster": ""}, "cluster"),
    ],
)
@in_jumping_time
async def test_arguments_that_are_refused(more: dict[str, Any], words: str) -> None:
    arguments = {"name": "x", "transport": MemoryNetwork().transport("127.0.0.1:1"), **more}
    with pytest.raises(ConfigurationError, match=words):
        async with open_membership(**arguments):
            pass


@in_jumping_time
async def test_without_a_key_only_on_the_loopback() -> None:
    network = MemoryNetwork()
    with pytest.raises(InsecureError, match=r"10\.0\.0\.1:1"):
        async with open_membership(name="x", transport=network.transport("10.0.0.1:1")):
            pass
    async with open_membership(name="x", transport=network.transport("10.0.0.1:1"), insecure=True) as node:
        assert node.me.endpoint == Endpoint("10.0.0.1", 1)


@in_jumping_time
async def test_the_epoch_follows_the_wall_and_every_life_has_its_own_id() -> None:
    async with a_cluster(2) as cluster:
        assert cluster.nodes[0].me.id != cluster.nodes[1].me.id
        assert cluster.nodes[0].me.epoch > 1_700_000_000
