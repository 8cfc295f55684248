"""A cluster that is upgraded one node at a time: which version is written to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.membership import node_loop
from pyminuteman.membership.codec import unpack
from pyminuteman.membership.effects import Effect, MemberUp, MemberUpdated, Notify, Send
from pyminuteman.membership.keyring import PlainRing
from pyminuteman.membership.messages import Probe
from pyminuteman.membership.node_loop import NodeLoop
from pyminuteman.testing.memory_transport import MemoryNetwork
from tests.membership.support import make_node, make_record

THERE = Endpoint("10.0.0.2", 61420)


class Setting:
    def __init__(self) -> None:
        network = MemoryNetwork()
        self.there = network.transport(str(THERE))
        self.loop = NodeLoop(
            make_node(0),
            transport=network.transport("10.0.0.1:61420"),
            ring=PlainRing(cluster="test"),
            datagram_max_bytes=1200,
            notify=lambda _: None,
        )
        self.record = make_record(2, endpoint=THERE)

    def tell(self, *effects: Effect) -> None:
        async def perform() -> None:
            self.loop.perform(effects)

        trio.run(perform)

    def version_written(self) -> int | None:
        """What a probe to the other is written in; None when it is not sent."""

        async def perform() -> bytes | None:
            self.loop.perform([Send(THERE, (Probe(1),))])
            await trio.sleep(0.01)
            received = self.there.receive()
            return None if received is None else bytes(received)

        datagram = trio.run(perform)
        if datagram is None:
            return None
        opened = PlainRing(cluster="test").open(datagram)
        assert opened is not None
        assert unpack(opened.plain).messages == (Probe(1),)
        return opened.plain[0]


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(node_loop, "PROTOCOL_VERSIONS", (1, 2))
    return Setting()


def test_to_one_unknown_the_lowest_of_ours_is_written(setting: Setting) -> None:
    assert setting.version_written() == 1


def test_to_one_known_the_highest_that_both_speak(setting: Setting) -> None:
    setting.tell(Notify(MemberUp(replace(setting.record, protocol=(1, 3)))))
    assert setting.version_written() == 2
    rolled_back = replace(setting.record, protocol=(1, 1))
    setting.tell(Notify(MemberUpdated(rolled_back, setting.record)))
    assert setting.version_written() == 1


def test_to_one_that_speaks_as_we_do_the_highest(setting: Setting) -> None:
    setting.tell(Notify(MemberUp(replace(setting.record, protocol=(1, 2)))))
    assert setting.version_written() == 2


def test_what_is_noted_is_bounded(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_loop, "_PROTOCOLS_MAX", 2)
    for number in range(2, 9):
        setting.tell(Notify(MemberUp(make_record(number))))
    assert len(setting.loop._protocols) <= 2


def test_to_one_without_a_common_version_nothing_is_sent_and_it_is_counted(setting: Setting) -> None:
    setting.tell(Notify(MemberUp(replace(setting.record, protocol=(3, 4)))))
    assert setting.version_written() is None
    assert setting.loop.metrics()["messages_no_common_version_total"] == 1
