"""Each checker is believed because it finds the one thing that a stand-in does wrong, and nothing in one that does all right."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Delivered,
    Effect,
    MemberDown,
    MemberStatus,
    MemberSuspect,
    MemberUp,
    Notify,
    Received,
    Send,
)
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.records import Record
from pyminuteman.testing.checkers.resurrection import NoResurrection
from pyminuteman.testing.simulation import Story
from pyminuteman.testing.simulation.faults import CLEAN
from pyminuteman.testing.simulation.operations import (
    Cut,
    Heal,
    Kill,
    Leave,
    Multicast,
    Operation,
    Partition,
    Pause,
    Restart,
    SetTags,
    Start,
    Upgrade,
)
from pyminuteman.testing.simulation.runner import Outcome, run
from pyminuteman.testing.simulation.scenarios import Scenario
from tests.simulation.toy import ToyCore, peer_of

NODES = 5
FORMATION: tuple[Operation, ...] = tuple(Start(0.1 * host, host) for host in range(NODES))
EVERYTHING: tuple[tuple[Operation, ...], ...] = (
    (Multicast(0.0, 0, 1, 10), SetTags(0.1, 1, "a"), Multicast(0.2, 2, 2, 3000)),
    (Kill(2.5, (4,)),),
    (Start(0.0, 4), Restart(0.5, 3, disk=True), Restart(0.6, 2, disk=False)),
    (Pause(0.0, (1,), 0.3),),
    (Partition(0.0, ((0, 1), (2, 3, 4))), Heal(2.0)),
    (Cut(0.0, (0,), (1, 2)), Heal(2.0)),
    (Upgrade(0.0, 1, (1, 2)), Upgrade(0.5, 2, (1, 2))),
    (Leave(0.0, 0),),
)


def outcome_of(core: type[ToyCore], *acts: tuple[Operation, ...], story: Story | None = None) -> Outcome:
    config = replace(
        MembershipConfig.lan(), neighbor_retry_seconds=0.1, neighbor_retry_max_seconds=0.1, heal_interval_seconds=0.1
    )
    scenario = Scenario(1, "made up", NODES, config, CLEAN, (FORMATION, *acts))
    return run(scenario, core=core, story=story)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    outcome = outcome_of(ToyCore, *EVERYTHING)
    assert outcome.passed, outcome.report()


class TooManyLinks(ToyCore):
    @property
    def active_view(self) -> tuple[Peer, ...]:
        return super().active_view * 9


class LinkedToItself(ToyCore):
    @property
    def active_view(self) -> tuple[Peer, ...]:
        return (*super().active_view, peer_of(self.me))


class InBothViews(ToyCore):
    @property
    def passive_view(self) -> tuple[Peer, ...]:
        return self.active_view[:1]


class OneSidedLinks(ToyCore):
    @property
    def active_view(self) -> tuple[Peer, ...]:
        return super().active_view[1 if self.me.name == "n01" else 0 :]


class LinksKeptToTheDead(ToyCore):
    @property
    def active_view(self) -> tuple[Peer, ...]:
        return tuple(peer_of(member.record) for member in self.table.values() if member.status is not MemberStatus.LEFT)


class GraphInPieces(ToyCore):
    @property
    def active_view(self) -> tuple[Peer, ...]:
        mine = self.me.name in ("n01", "n02")
        return tuple(
            peer_of(member.record) for member in self.alive() if (member.record.name in ("n01", "n02")) == mine
        )  # fmt: skip


class NewsIgnored(ToyCore):
    def learn(self, record: object, sender: Peer | None, now: float) -> list[Effect]:
        del record, sender, now
        return []


class ChangesIgnored(ToyCore):
    def update(self, now: float, **changes: object) -> list[Effect]:
        super().update(now, tags={"a": "b"})
        del changes
        return []

    def news(self) -> tuple[object, ...]:  # type: ignore[override]
        self.me, mine = replace(self.me, version=1), self.me
        said = super().news()
        self.me = mine
        return said


class NoWayThere(ToyCore):
    def route_to(self, node: NodeId) -> tuple[NodeId, ...] | None:
        return None if self.me.name == "n01" else super().route_to(node)


class WaysThatAreNone(ToyCore):
    def route_to(self, node: NodeId) -> tuple[NodeId, ...] | None:
        return (self.me.id, self.me.id, node)


class DeathsUnnoticed(ToyCore):
    def judge(self, now: float) -> list[Effect]:
        del now
        return []


class DeathsNoticedLate(ToyCore):
    def judge(self, now: float) -> list[Effect]:
        return super().judge(now - 0.5)


class GivenUpAtOnce(ToyCore):
    def judge(self, now: float) -> list[Effect]:
        told = super().judge(now)
        for effect in tuple(told):
            if isinstance(effect, Notify) and isinstance(effect.notification, MemberSuspect):
                self.table[effect.notification.record.id].status = MemberStatus.DOWN
                told.append(Notify(MemberDown(effect.notification.record)))
        return told


class AlarmForNothing(ToyCore):
    cried = False

    def judge(self, now: float) -> list[Effect]:
        if not self.cried and self.me.name == "n02" and len(self.alive()) == NODES - 1:
            self.cried = True
            member = self.alive()[0]
            return [Notify(MemberSuspect(member.record)), Notify(MemberUp(member.record))]
        return super().judge(now)


class AlarmAboutNoNeighbour(AlarmForNothing):
    @property
    def active_view(self) -> tuple[Peer, ...]:
        return () if self.me.name == "n02" else super().active_view


class AlarmAboutNobody(ToyCore):
    cried = False

    def judge(self, now: float) -> list[Effect]:
        if not self.cried and self.alive():
            self.cried = True
            stranger = replace(self.alive()[0].record, id=NodeId(b"\1" * 16))
            return [Notify(MemberUp(stranger)), Notify(MemberSuspect(stranger))]
        return super().judge(now)


class SlowToForgive(ToyCore):
    def learn(self, record: object, sender: Peer | None, now: float) -> list[Effect]:
        member = None if sender is None else self.table.get(sender.id)
        if member is not None and member.status is MemberStatus.SUSPECT and now - member.since < 0.65:
            return []
        return super().learn(record, sender, now)  # type: ignore[arg-type]


class TheDeadComeBack(ToyCore):
    def judge(self, now: float) -> list[Effect]:
        told = super().judge(now)
        for member in self.table.values():
            if member.status is MemberStatus.DOWN and 0.1 < now - member.since < 0.2:
                told += [Notify(MemberUp(member.record)), Notify(MemberSuspect(member.record))]
        return told


class DeliveredTwice(ToyCore):
    def handle(self, event: Received, now: float) -> list[Effect]:
        told = super().handle(event, now)
        return told + [effect for effect in told if isinstance(effect, Notify) and isinstance(effect.notification, Delivered)]


class NotDelivered(ToyCore):
    def multicast(self, topic: str, payload: bytes, now: float, *, record_route: bool = False) -> list[Effect]:
        return super().multicast(topic, payload, now, record_route=record_route)[1:]


class PacketsOfNobody(ToyCore):
    def handle(self, event: Received, now: float) -> list[Effect]:
        return [
            Notify(replace(effect.notification, payload=b"0 no"))
            if isinstance(effect, Notify) and isinstance(effect.notification, Delivered)
            else effect
            for effect in super().handle(event, now)
        ]


class Restless(ToyCore):
    """Changes its mind only when nobody has touched the world for a while."""

    last = 0.0

    def judge(self, now: float) -> list[Effect]:
        told = super().judge(now)
        if self.me.name == "n01" and now - self.last > 0.4 and len(self.alive()) == NODES - 1:
            self.last = now
            told.append(Notify(MemberUp(self.alive()[0].record)))
        return told


class Breaks(ToyCore):
    def wake(self, now: float) -> list[Effect]:
        if self.alive():
            raise ZeroDivisionError
        return super().wake(now)


class TooLarge(ToyCore):
    def wake(self, now: float) -> list[Effect]:
        effects = super().wake(now)
        return [*effects, *(replace(effect, to=effect.to) for effect in effects if isinstance(effect, Send))]


WRONG: list[tuple[type[ToyCore], tuple[tuple[Operation, ...], ...], str]] = [
    (TooManyLinks, (), "in its active view, of 7"),
    (TooManyLinks, (), "has a node twice in its active view"),
    (LinkedToItself, (), "has itself in its active view"),
    (InBothViews, (), "in both views"),
    (OneSidedLinks, (), "which has none to it"),
    (LinksKeptToTheDead, ((Kill(0.0, (4,)),),), "which does not run"),
    (GraphInPieces, (), "the graph is in 2 pieces: n01 n02 | n03 n04 n05"),
    (NewsIgnored, (), "does not know"),
    (ChangesIgnored, ((SetTags(0.0, 1, "a"),),), "has an old record of n02"),
    (NoWayThere, (), "n01 has no route to"),
    (WaysThatAreNone, (), "that is none"),
    (DeathsUnnoticed, ((Kill(0.0, (4,)),),), "holds n05 for alive, which it cannot reach"),
    (DeathsUnnoticed, ((Kill(2.5, (4,)),),), "suspected n05, dead at"),
    (DeathsNoticedLate, ((Kill(2.5, (4,)),),), "only after"),
    (GivenUpAtOnce, ((Kill(2.5, (4,)),),), "gave n05 up 0.000 s after it suspected it"),
    (AlarmForNothing, (), "n02 suspected n01, which it has a link to"),
    (AlarmAboutNoNeighbour, (), "n02 suspected n01, which lives"),
    (AlarmAboutNobody, (), "holds somebody for alive who never lived"),
    (AlarmAboutNobody, (), "holds somebody for dead who never lived"),
    (SlowToForgive, ((Pause(0.0, (4,), 0.45), Multicast(1.5, 0, 1, 10)),), "suspected n05"),
    (TheDeadComeBack, ((Kill(0.0, (4,)), Multicast(2.0, 0, 1, 10)),), "holds n05 for alive, which ended at"),
    (DeliveredTwice, ((Multicast(0.0, 0, 1, 10),),), "got packet 1 twice"),
    (NotDelivered, ((Multicast(2.0, 0, 1, 10),),), "did not get packet 1, sent by n01"),
    (PacketsOfNobody, ((Multicast(0.0, 0, 1, 10),),), "got a packet that nobody sent"),
    (Restless, (), "was as it should be, but then n01 said MemberUp"),
    (Breaks, (), "raised ZeroDivisionError"),
]


@pytest.mark.parametrize(("core", "acts", "finding"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_wrong_is_found(core: type[ToyCore], acts: tuple[tuple[Operation, ...], ...], finding: str) -> None:
    outcome = outcome_of(core, *acts)
    assert any(finding in found for found in outcome.findings), outcome.report()


def test_a_report_says_how_to_replay() -> None:
    report = outcome_of(Breaks).report()
    assert "make simulate SEEDS=1\n" in report
    assert "python -m pyminuteman.testing.simulation --seed 1" in report
    assert "start n01" in report
    assert "test_checkers.py:" in report  # where it broke


@pytest.mark.parametrize(("suspected", "found"), [(9.9, False), (10.1, True)])
def test_who_was_given_up_for_a_partition_before_it_died_may_be_seen_once_more(suspected: float, *, found: bool) -> None:
    """Those who were with it need not know yet; what is known of a death is what was suspected after it."""
    record = Record(id=NodeId(b"\1" * 16), epoch=1, version=1, name="n01", endpoint=Endpoint("10.0.0.1", 1), neighbours=())
    life = SimpleNamespace(id=record.id, name="n01", ended_at=10.0, left_at=None)
    world = SimpleNamespace(truth=SimpleNamespace(life_of=lambda *_: life), config=MembershipConfig.lan())
    bounds = SimpleNamespace(down=lambda **_: 5.0)
    process = Mock()
    checker = NoResurrection(world, bounds)  # type: ignore[arg-type]
    for time, notification in (
        (suspected, MemberSuspect(record)),
        (10.5, MemberDown(record)),
        (10.6, MemberUp(record)),
    ):
        checker.notified(time, process, notification)  # type: ignore[arg-type]
    assert bool(checker.findings) is found
