"""The census: what a newer record changes, who is in reach, and what we say of ourselves. Sections are the module's rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.membership.census import Census
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Conflict,
    EpochTaken,
    MemberDown,
    MemberLeft,
    MemberStatus,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    Send,
)
from pyminuteman.membership.members import Member
from pyminuteman.membership.messages import Probe, RecordRequest, Records, TableDigest, TableSummary
from pyminuteman.membership.records import EncodedRecord, MemberState, Record, Version
from pyminuteman.membership.steps import (
    Accused,
    Departed,
    DownDue,
    FlushDue,
    OrphanDue,
    Reborn,
    RefreshDue,
    ReturnDue,
    Step,
    Torn,
)
from pyminuteman.membership.views import ActiveView, Link
from tests.membership.support import (
    CONFIG,
    EPOCH,
    START,
    WALL_OFFSET,
    ids,
    make_boot,
    make_endpoint,
    make_peer,
    make_record,
    of_type,
    reached,
    said,
    seeded,
    timers,
    told,
    told_of,
    versions,
)
from tests.support.messages import node_id

SETTLED = START + 60
"""Long after the grace for judging is over."""


class Setting:
    """What node 0 knows, with links to ``neighbours`` that they claim too."""

    def __init__(self, *neighbours: int, config: MembershipConfig = CONFIG) -> None:
        self.active = ActiveView(config.active_view_size)
        self.counters: Counter[str] = Counter()
        self.census = Census(
            make_record(0),
            config=config,
            random=seeded(),
            active=self.active,
            counters=self.counters,
            wall_offset=WALL_OFFSET,
        )
        for number in neighbours:
            self.hear(number, [0], now=START)
            self.link(number, now=START)

    def link(self, number: int, *, epoch: int = EPOCH, now: float = SETTLED, joined: bool = False) -> list[Step]:
        peer = make_peer(number, epoch)
        self.active.add(Link(peer, make_boot(number, epoch), 0.2))
        return self.census.link_made(peer, now, joined=joined)

    def unlink(self, number: int, *, accuse: bool = False, now: float = SETTLED) -> list[Step]:
        link = self.active.remove(node_id(number))
        return self.census.link_lost(make_peer(number) if link is None else link.peer, now, accuse=accuse)

    def hear(
        self,
        number: int,
        neighbours: Iterable[int] = (),
        *,
        accused: Iterable[int] = (),
        sender: int = 1,
        now: float = SETTLED,
        **changes: Any,
    ) -> list[Step]:
        """The next record of that node comes; it accuses those in the version that is known.

        Its epoch and version follow what is known, unless they are given.
        """
        said = {node: self.census.table.record(node) for node in ids(*accused)}
        changes["accused"] = [Version(node, EPOCH, 1 if known is None else known.version) for node, known in said.items()]
        known = self.census.table.record(node_id(number))
        if known is not None:
            changes = {"epoch": known.epoch, "version": known.version + 1 if "epoch" not in changes else 1} | changes
        return self.take(make_record(number, neighbours=neighbours, **changes), sender=sender, now=now)

    def take(self, *records: Record | EncodedRecord, sender: int = 1, now: float = SETTLED) -> list[Step]:
        encoded = [record.encode() if isinstance(record, Record) else record for record in records]
        return self.census.on_records(encoded, make_peer(sender), now)

    def refresh(self, now: float = SETTLED) -> list[Step]:
        return self.census.refresh(now)

    def status(self, number: int) -> MemberStatus | None:
        found = self.census.members.status(node_id(number))
        return None if found is None else found[0]

    def flushed(self, now: float) -> dict[int, list[tuple[int, int]]]:
        """What goes to each neighbour, as (whose, version)."""
        names = {make_endpoint(number): number for number in range(100)}
        numbers = {node_id(number): number for number in range(100)}
        return {
            names[send.to]: [(numbers[record.id], record.version) for record in message.records]
            for send in of_type(self.census.flush(now, lambda _: False), Send)
            for message in send.messages
            if isinstance(message, Records)
        }


def ups(steps: Iterable[Step]) -> set[str]:
    return {up.record.name for up in told_of(steps, MemberUp)}


# -- 1: a newer record is stored, passed on, and looked at -------------------------------------------------------------


def test_a_newer_record_is_stored_and_passed_on_to_all_but_who_brought_it() -> None:
    setting = Setting(1, 2, 3)
    setting.flushed(SETTLED)
    steps = setting.hear(9, sender=1)
    assert timers(steps)[FlushDue()] == SETTLED + CONFIG.gossip_batch_seconds
    assert setting.census.table.record(node_id(9)) == make_record(9)
    assert setting.flushed(SETTLED + 1) == {2: [(9, 1)], 3: [(9, 1)]}
    assert setting.counters["records_new"] == 4


def test_a_record_known_already_is_counted_and_left_alone() -> None:
    setting = Setting(1, 2, 3)
    setting.flushed(SETTLED)
    setting.hear(9, sender=1)
    assert setting.take(make_record(9), sender=2) == []
    assert setting.counters["records_known"] == 1
    assert setting.flushed(SETTLED + 1) == {3: [(9, 1)]}, "and who sent it needs not be told"


def test_news_of_a_failure_and_of_a_goodbye_is_urgent() -> None:
    urgent = {FlushDue(): SETTLED + CONFIG.gossip_urgent_seconds}
    for changes in ({"accused": [9]}, {"state": MemberState.LEFT}):
        setting = Setting(1)
        setting.flushed(SETTLED)
        assert timers(setting.hear(5, **changes)) == urgent
    setting = Setting(1)
    setting.hear(5, accused=[9])
    setting.flushed(SETTLED)
    steps = setting.hear(5, accused=[9])
    assert timers(steps) == {FlushDue(): SETTLED + CONFIG.gossip_batch_seconds}, "the same accusation is no news"


def test_one_bad_record_does_not_spoil_the_others() -> None:
    setting = Setting(1)
    far = make_record(5, epoch=2**63)
    setting.take(EncodedRecord(node_id(4), EPOCH, 1, b"bad"), far, make_record(6))
    assert setting.counters["records_refused"] == 2
    assert node_id(6) in setting.census.table
    assert not {node_id(4), node_id(5)} & set(setting.census.table)


def test_a_new_accusation_sets_off_the_cascade_once() -> None:
    setting = Setting(1, 2)
    assert of_type(setting.hear(1, [0, 2], accused=[2]), Accused) == [Accused(node_id(2))]
    assert of_type(setting.hear(1, [0, 2], accused=[2]), Accused) == []
    assert of_type(setting.hear(1, [0, 2], accused=[2, 7]), Accused) == [Accused(node_id(7))]


def test_what_changed_about_a_member_is_told() -> None:
    setting = Setting(1)
    known = setting.census.table.record(node_id(1))
    assert known is not None
    for changes in (
        {"name": "else"},
        {"endpoint": make_endpoint(77)},
        {"addresses": ("::1",)},
        {"tags": (("a", "b"),)},
        {"keys": (b"kkkk",)},
        {"protocol": (1, 2)},
        {"epoch": known.epoch + 1},
    ):
        record = replace(known, version=known.version + 1, **changes)
        assert told(setting.take(record)) == [MemberUpdated(record, known)]
        known = record
    assert told(setting.take(replace(known, version=known.version + 1))) == []


def test_what_changed_about_one_never_seen_alive_is_not_told() -> None:
    setting = Setting(1)
    setting.hear(9)
    assert told(setting.hear(9, tags=(("a", "b"),))) == []


# -- 2: reach is what decides ------------------------------------------------------------------------------------------


def test_who_comes_into_reach_is_up_with_all_behind_it() -> None:
    setting = Setting(1)
    assert setting.census.alive() == {node_id(0), node_id(1)}
    for number, neighbours in ((5, [1, 6]), (6, [5, 7]), (7, [6])):
        assert told(setting.hear(number, neighbours)) == []
    steps = setting.hear(1, [0, 5])
    assert ups(steps) == {"n5", "n6", "n7"}
    assert setting.census.alive() == {node_id(number) for number in (0, 1, 5, 6, 7)}
    assert setting.census.routes.path(node_id(7)) == tuple(map(node_id, (0, 1, 5, 6, 7)))


def test_routes_follow_the_links() -> None:
    setting = Setting(1)
    setting.hear(5, [1])
    assert setting.census.routes.path(node_id(5)) is None
    setting.hear(1, [0, 5])
    assert setting.census.routes.path(node_id(5)) is not None


def accused_by_us(setting: Setting) -> tuple[NodeId, ...]:
    return tuple(version.id for version in setting.census.me.accused)


def lose(setting: Setting, number: int, *, accused: bool) -> list[Step]:
    """Nodes 1 and 5 are linked no more, as 1 says; then reach is computed anew."""
    steps = setting.hear(1, [0], accused=[number] if accused else [])
    (due,) = [due for timer, due in timers(steps).items() if timer == RefreshDue()]
    assert due > SETTLED
    return setting.refresh(due)


def with_one_behind() -> Setting:
    """Neighbours 1 and 2, and node 5 behind 1."""
    setting = Setting(1, 2)
    setting.hear(5, [1])
    setting.hear(1, [0, 5])
    assert setting.status(5) is MemberStatus.ALIVE
    return setting


def test_who_falls_out_of_reach_is_suspect_at_once_when_accused() -> None:
    setting = with_one_behind()
    steps = lose(setting, 5, accused=True)
    assert [notice.record.name for notice in told_of(steps, MemberSuspect)] == ["n5"]


def test_and_after_a_grace_when_not() -> None:
    setting = with_one_behind()
    steps = lose(setting, 5, accused=False)
    assert told(steps) == []
    ((timer, due),) = timers(steps).items()
    assert isinstance(timer, OrphanDue)
    assert [notice.record.name for notice in told_of(setting.census.judge(timer, due), MemberSuspect)] == ["n5"]


def test_a_suspect_goes_down_and_its_hash_is_not_counted_from_when_it_was_lost() -> None:
    setting = with_one_behind()
    before = setting.census.table.hash
    steps = lose(setting, 5, accused=True)
    assert setting.census.table.hash != before
    ((timer, due),) = timers(steps).items()
    assert isinstance(timer, DownDue)
    assert [notice.record.name for notice in told_of(setting.census.judge(timer, due), MemberDown)] == ["n5"]


def test_an_accusation_that_comes_after_the_loss_counts_too() -> None:
    setting = with_one_behind()
    lose(setting, 5, accused=False)
    steps = setting.hear(1, [0], accused=[5])
    assert [notice.record.name for notice in told_of(steps, MemberSuspect)] == ["n5"]


def test_an_accusation_of_one_that_has_spoken_since_counts_for_nothing() -> None:
    setting = with_one_behind()
    setting.hear(5, [1])
    before = versions(5, version=1)
    assert of_type(setting.take(make_record(1, neighbours=[0, 5], version=9, accused=before)), Accused) == []
    setting.hear(5, [1])
    lose(setting, 5, accused=False)
    late = make_record(2, neighbours=[0], version=9, accused=versions(5, version=2))
    assert told(setting.take(late)) == []
    assert told(setting.hear(1, [0, 5])) == [], "it was in reach all the time"
    assert node_id(5) in setting.census.reach


def test_an_accusation_by_one_out_of_reach_condemns_nobody() -> None:
    setting = with_one_behind()
    lose(setting, 5, accused=False)
    assert told(setting.hear(9, accused=[5])) == []
    assert setting.status(5) is MemberStatus.ALIVE


def test_claims_of_the_dead_do_not_bring_the_dead_back() -> None:
    setting = with_one_behind()
    setting.hear(6, [5])
    setting.hear(5, [1, 6])
    assert setting.status(6) is MemberStatus.ALIVE
    lose(setting, 5, accused=True)
    assert told(setting.hear(1, [0, 5])) == [], "a claim on 5 is nothing before 5 itself has spoken"
    assert ups(setting.hear(5, [1])) == {"n5"}


def test_one_that_was_down_and_is_claimed_again_comes_up_after_the_tables_were_compared() -> None:
    setting = with_one_behind()
    steps = lose(setting, 5, accused=False)
    while due := timers(steps):
        ((timer, now),) = due.items()
        assert isinstance(timer, OrphanDue | DownDue)
        steps = setting.census.judge(timer, now)
    assert setting.status(5) is MemberStatus.DOWN
    steps = setting.hear(1, [0, 5], now=SETTLED + 10)
    assert told(steps) == []
    ((timer, now),) = [(timer, now) for timer, now in timers(steps).items() if isinstance(timer, ReturnDue)]
    assert ups(setting.census.judge(timer, now)) == {"n5"}


def test_reach_is_recomputed_at_a_pace() -> None:
    setting = with_one_behind()
    setting.refresh(SETTLED)
    steps = setting.hear(1, [0], now=SETTLED)
    assert SETTLED + 0.002 <= timers(steps)[RefreshDue()] <= SETTLED + 0.003


def test_where_a_part_comes_off_and_nobody_accuses_it_somebody_should_see() -> None:
    setting = with_one_behind()
    setting.hear(6, [5])
    setting.hear(5, [1, 6])
    steps = lose(setting, 5, accused=False)
    assert of_type(steps, Torn) in ([Torn(node_id(5))], [Torn(node_id(6))])
    assert of_type(lose(with_one_behind(), 5, accused=True), Torn) == []


def test_what_was_said_of_a_member_before_it_came_back_does_not_condemn_it_the_next_time() -> None:
    setting = with_one_behind()
    lose(setting, 5, accused=True)
    setting.hear(1, [0, 5], accused=[5])
    assert ups(setting.hear(5, [1])) == {"n5"}
    setting.hear(5, [])
    assert told(setting.refresh(SETTLED + 1)) == [], "it has its grace"


def test_who_comes_in_while_reach_is_in_doubt_is_up_with_the_next_refresh() -> None:
    setting = with_one_behind()
    setting.hear(6, [2])
    setting.hear(1, [0])
    assert ups(setting.hear(2, [0, 6])) == set()
    assert ups(setting.refresh()) == {"n6"}


def test_who_left_is_told_and_is_no_contact_any_more() -> None:
    setting = with_one_behind()
    steps = setting.hear(5, state=MemberState.LEFT)
    assert [notice.record.name for notice in told_of(steps, MemberLeft)] == ["n5"]
    assert of_type(steps, Departed) == [Departed(node_id(5))]
    setting.refresh()
    assert setting.status(5) is MemberStatus.LEFT
    assert setting.census.alive() == {node_id(0), node_id(1), node_id(2)}
    assert ups(setting.hear(5, [1], epoch=EPOCH + 1)) == {"n5"}, "and a later life of it is a newcomer"


def test_who_died_and_is_back_already_is_not_accused() -> None:
    setting = Setting(1, 2)
    setting.hear(1, [], epoch=EPOCH + 1, version=1, sender=2)
    setting.unlink(1, accuse=True)
    assert accused_by_us(setting) == ()
    setting.unlink(2, accuse=True)
    assert accused_by_us(setting) == ids(2)


def test_who_left_and_claims_links_is_not_heard() -> None:
    setting = Setting(1)
    setting.hear(5, [1], state=MemberState.LEFT)
    assert node_id(5) not in setting.census.table


def test_who_says_that_it_left_is_not_up_whoever_claims_a_link_to_it() -> None:
    setting = Setting(1)
    setting.hear(5, [], state=MemberState.LEFT)
    assert told(setting.hear(1, [0, 5])) == []
    assert setting.status(5) is None


def test_who_is_forgotten_leaves_no_trace() -> None:
    setting = with_one_behind()
    lose(setting, 5, accused=True)
    later = SETTLED + CONFIG.forget_after_seconds + 1
    steps = setting.census.forget(later)
    assert of_type(steps, Departed) == [Departed(node_id(5))]
    assert len(timers(steps)) == 1, "and again"
    assert node_id(5) not in setting.census.table
    assert node_id(5) not in setting.census.all()
    assert setting.census.judge(OrphanDue(node_id(5), SETTLED), later) == []
    assert told_of(setting.hear(6, [1], name="n5", now=later), Conflict) == []
    assert of_type(setting.census.forget(later), Departed) == []


def test_all_are_told_with_what_they_are_held_to_be() -> None:
    setting = with_one_behind()
    setting.hear(9)
    lose(setting, 5, accused=True)
    found = setting.census.all()
    assert {node: member.status for node, member in found.items()} == {
        node_id(1): MemberStatus.ALIVE,
        node_id(2): MemberStatus.ALIVE,
        node_id(5): MemberStatus.SUSPECT,
    }
    record = setting.census.table.record(node_id(2))
    assert record is not None
    assert found[node_id(2)] == Member(record, MemberStatus.ALIVE, START)


# -- 3: our own record says which links we have ------------------------------------------------------------------------


def test_a_link_is_claimed_when_the_other_end_is_known_and_not_before() -> None:
    setting = Setting()
    setting.link(1)
    assert setting.census.me.neighbours == ()
    assert ups(setting.hear(1, [0])) == {"n1"}
    assert setting.census.me.neighbours == ids(1)


def test_a_link_to_a_life_that_we_have_no_record_of_is_not_claimed_on_its_former_one() -> None:
    setting = Setting()
    setting.hear(1, [0])
    setting.link(1, epoch=EPOCH + 1)
    assert setting.census.me.neighbours == ()
    setting.hear(1, [0], epoch=EPOCH + 1)
    assert setting.census.me.neighbours == ids(1)


def test_every_change_of_links_is_a_new_version() -> None:
    setting = Setting(1)
    version = setting.census.me.version
    setting.hear(2, [0])
    setting.link(2)
    assert (setting.census.me.version, setting.census.me.neighbours) == (version + 1, ids(1, 2))
    setting.unlink(2)
    assert (setting.census.me.version, setting.census.me.neighbours) == (version + 2, ids(1))


def test_a_new_neighbour_is_told_of_us_and_one_that_has_just_joined_of_everybody() -> None:
    setting = Setting(1)
    (ours,) = said(setting.link(2), Records, to=2)
    assert [record.id for record in ours.records] == [node_id(0)]
    (everything,) = said(setting.link(3, joined=True), Records, to=3)
    assert {record.id for record in everything.records} == {node_id(0), node_id(1)}


def test_a_dead_neighbour_is_accused_at_once_and_one_lost_otherwise_is_not() -> None:
    setting = Setting(1, 2)
    setting.flushed(SETTLED)
    steps = setting.unlink(2)
    assert accused_by_us(setting) == ()
    steps = setting.unlink(1, accuse=True)
    assert accused_by_us(setting) == ids(1)
    assert timers(steps)[FlushDue()] == SETTLED + CONFIG.gossip_urgent_seconds


def test_our_own_accusation_makes_who_is_out_of_reach_suspect() -> None:
    setting = Setting(1, 2)
    setting.unlink(1, accuse=True)
    assert setting.status(1) is MemberStatus.ALIVE, "until reach is known"
    assert [notice.record.name for notice in told_of(setting.refresh(), MemberSuspect)] == ["n1"]


def test_an_accusation_ends_when_the_accused_is_heard_or_has_had_its_time() -> None:
    setting = Setting(1, 2)
    setting.unlink(1, accuse=True)
    assert setting.census.heard_of(node_id(2), SETTLED) == []
    setting.census.heard_of(node_id(1), SETTLED + 1)
    assert accused_by_us(setting) == ()
    setting.census.link_lost(make_peer(1), SETTLED + 2, accuse=True)
    setting.census.publish(SETTLED + 11)
    assert accused_by_us(setting) == ids(1)
    setting.census.publish(SETTLED + 13)
    assert accused_by_us(setting) == ()


def test_an_accusation_ends_when_the_accused_is_back_in_reach_or_linked_again() -> None:
    setting = Setting(1, 2)
    setting.unlink(1, accuse=True)
    setting.refresh()
    assert setting.status(1) is MemberStatus.SUSPECT
    setting.hear(2, [0, 1])
    assert ups(setting.hear(1, [2])) == {"n1"}
    assert accused_by_us(setting) == ()
    setting.census.link_lost(make_peer(1), SETTLED + 2, accuse=True)
    setting.link(1, now=SETTLED + 3)
    assert accused_by_us(setting) == ()


def test_an_accusation_ends_with_a_newer_word_of_the_accused_though_it_is_out_of_reach() -> None:
    setting = Setting(1, 2)
    setting.unlink(1, accuse=True)
    setting.refresh()
    setting.census.publish(SETTLED)
    assert accused_by_us(setting) == ids(1)
    setting.hear(1, sender=2)
    setting.census.publish(SETTLED)
    assert accused_by_us(setting) == ()


def test_whose_record_never_came_is_not_accused_for_nobody_can_claim_a_link_with_it() -> None:
    setting = Setting(2)
    setting.link(1)
    setting.unlink(1, accuse=True)
    assert accused_by_us(setting) == ()


def test_no_more_than_sixteen_are_accused_the_latest() -> None:
    setting = Setting(1)
    for number in range(10, 30):
        setting.hear(number)
        setting.census.link_lost(make_peer(number), SETTLED, accuse=True)
    assert accused_by_us(setting) == ids(*range(14, 30))


def test_our_last_record_says_that_we_left_however_often_it_is_asked_for() -> None:
    setting = Setting(1)
    version = setting.census.me.version
    last = setting.census.goodbye()
    assert setting.census.goodbye() == last
    record = Record.decode(last)
    assert (record.state, record.neighbours, record.version) == (MemberState.LEFT, (), version + 1)


# -- 4: we refute ------------------------------------------------------------------------------------------------------


def test_who_accuses_us_hears_of_us_and_so_does_everybody() -> None:
    setting = Setting(1, 2)
    version = setting.census.me.version
    setting.flushed(SETTLED)
    steps = setting.hear(9, accused=[0])
    assert reached(steps, Probe) == {make_endpoint(9)}
    assert setting.census.me.version == version + 1
    assert timers(steps)[FlushDue()] == SETTLED + CONFIG.gossip_urgent_seconds
    assert setting.counters["refutations"] == 1
    assert of_type(steps, Accused) == []
    late = make_record(9, version=9, accused=versions(0, version=version))
    assert reached(setting.take(late), Probe) == set(), "we have said so already"
    assert setting.counters["refutations"] == 1, "once an accusation"


def test_what_is_said_in_our_name_within_our_life_is_outdone_by_the_next_version() -> None:
    setting = Setting(1)
    me = setting.census.me
    for forged in (replace(me, version=me.version + 100, tags=(("forged", ""),)), replace(me, tags=(("forged", ""),))):
        setting = Setting(1)
        setting.flushed(SETTLED)
        steps = setting.take(forged)
        ours = setting.census.me
        assert (ours.epoch, ours.version, ours.tags) == (EPOCH, forged.version + 1, ())
        assert timers(steps)[FlushDue()] == SETTLED + CONFIG.gossip_urgent_seconds
        assert told(steps) == []


def test_our_own_words_that_come_back_are_nothing() -> None:
    setting = Setting(1)
    old = setting.census.me
    setting.census.publish(SETTLED)
    assert setting.take(old, setting.census.me) == []
    assert setting.counters["outdone"] == 0


def test_a_later_life_in_our_name_is_outdone_by_a_still_later_one_and_told() -> None:
    setting = Setting(1)
    me = setting.census.me
    forged = replace(me, epoch=EPOCH + 7, name="somebody")
    steps = setting.take(forged)
    assert told_of(steps, EpochTaken) == [EpochTaken(EPOCH + 8)]
    assert told_of(steps, Conflict) == [Conflict(me, forged, "another process uses our id, or our state was lost")]
    assert of_type(steps, Reborn) == [Reborn(make_peer(0, EPOCH + 8))]
    assert (setting.census.me.epoch, setting.census.me.version, setting.census.me.name) == (EPOCH + 8, 1, "n0")


def test_a_goodbye_in_our_name_is_outdone_by_another_life_for_nothing_less_is_believed() -> None:
    setting = Setting(1)
    me = setting.census.me
    steps = setting.take(replace(me, version=me.version + 1, state=MemberState.LEFT, neighbours=()))
    assert told_of(steps, EpochTaken) == [EpochTaken(EPOCH + 1)]
    assert (setting.census.me.epoch, setting.census.me.state) == (EPOCH + 1, MemberState.ALIVE)
    assert setting.census.me.neighbours == ids(1)


@pytest.mark.parametrize(
    ("changes", "odd"),
    [
        ({"state": MemberState.LEFT, "neighbours": ()}, True),
        ({"epoch": EPOCH + 1, "version": 1}, True),
        ({"neighbours": ids(7)}, True),
        ({"tags": (("a", "b"),)}, False),
    ],
    ids=["left", "another life", "without us", "what it may say"],
)
def test_what_a_neighbour_would_hardly_say_of_itself_it_is_shown(changes: dict[str, Any], odd: bool) -> None:
    setting = Setting(1, 2)
    known = setting.census.table.record(node_id(1))
    assert known is not None
    record = replace(known, **({"version": 2} | changes))
    shown = said(setting.take(record, sender=2), Records, to=1)
    assert [message.records for message in shown] == ([(record.encode(),)] if odd else [])
    setting = Setting(1, 2)
    assert said(setting.take(record, sender=1), Records, to=1) == [], "it said so itself"


def test_a_neighbour_that_goes_under_another_epoch_is_still_the_neighbour() -> None:
    setting = Setting(1, 2)
    setting.hear(1, [0], epoch=EPOCH + 1, sender=1)
    setting.census.publish(SETTLED)
    assert setting.census.me.neighbours == ids(1, 2)
    assert make_peer(1, EPOCH + 1) in setting.active.peers()


def test_who_speaks_under_an_epoch_that_is_over_is_shown_what_goes_round_in_its_name() -> None:
    setting = Setting(1)
    known = setting.census.table.record(node_id(1))
    assert known is not None
    (shown,) = said(setting.census.correct(make_peer(1, EPOCH - 1)), Records, to=1)
    assert shown.records == (known.encode(),)
    assert setting.census.correct(make_peer(9)) == []


def test_two_processes_with_one_id_do_not_outbid_each_other_at_once() -> None:
    setting = Setting(1)
    setting.take(replace(setting.census.me, epoch=EPOCH + 7))
    assert setting.take(replace(setting.census.me, epoch=EPOCH + 9), now=SETTLED + 4.9) == []
    assert setting.census.me.epoch == EPOCH + 8
    steps = setting.take(replace(setting.census.me, epoch=EPOCH + 9), now=SETTLED + 5)
    assert told_of(steps, EpochTaken) == [EpochTaken(EPOCH + 10)]


def test_threat_6_what_is_beyond_reason_in_our_name_is_refused_and_outbids_nobody() -> None:
    setting = Setting(1)
    me = setting.census.me
    for forged in (replace(me, epoch=2**63), replace(me, version=me.version + 2**20 + 1)):
        assert setting.take(forged) == []
    assert setting.census.me == me
    assert setting.counters["records_refused"] == 2


def test_a_malformed_record_in_our_name_does_not_make_us_take_another_epoch() -> None:
    setting = Setting(1)
    assert setting.take(EncodedRecord(node_id(0), EPOCH + 5, 1, b"no record")) == []
    assert setting.census.me.epoch == EPOCH
    steps = setting.take(replace(setting.census.me, epoch=EPOCH + 6))
    assert told_of(steps, EpochTaken) == [EpochTaken(EPOCH + 7)], "nor wait before it takes a true one"


# -- names -------------------------------------------------------------------------------------------------------------


def test_two_living_members_with_one_name_are_a_conflict_told_once() -> None:
    setting = Setting(1)
    setting.hear(1, [0, 5])
    steps = setting.hear(5, [1], name="n1")
    (conflict,) = told_of(steps, Conflict)
    assert (conflict.record.id, conflict.other.id, conflict.reason) == (node_id(5), node_id(1), "both are called 'n1'")
    assert told_of(setting.hear(5, [1], name="n1", tags=(("a", "b"),)), Conflict) == []


def test_one_with_our_own_name_is_a_conflict() -> None:
    setting = Setting()
    setting.hear(1, [0], name="n0")
    (conflict,) = told_of(setting.link(1), Conflict)
    assert (conflict.record.id, conflict.other.id) == (node_id(1), node_id(0))


def test_the_name_of_one_that_is_gone_or_was_renamed_is_free() -> None:
    setting = with_one_behind()
    lose(setting, 5, accused=True)
    setting.hear(1, [0, 6])
    assert told_of(setting.hear(6, [1], name="n5"), Conflict) == []
    setting = with_one_behind()
    setting.hear(1, [0, 5, 6])
    setting.hear(5, [1], name="renamed")
    assert told_of(setting.hear(6, [1], name="n5"), Conflict) == []
    (conflict,) = told_of(setting.hear(6, [1], name="renamed"), Conflict)
    assert conflict.other.id == node_id(5)


# -- comparing tables --------------------------------------------------------------------------------------------------


def test_tables_that_stay_different_for_a_while_are_compared_and_those_that_agree_are_not() -> None:
    setting = Setting(1)
    ours, after = setting.census.table.hash, CONFIG.repair_after_seconds
    setting.census.compare(make_peer(1), ours, SETTLED)

    def compared(their_hash: int, now: float) -> bool:
        return bool(said(setting.census.compare(make_peer(1), their_hash, now), TableSummary, to=1))

    assert not compared(ours + 1, SETTLED)
    assert not compared(ours + 1, SETTLED + 0.9 * after)
    assert compared(ours + 1, SETTLED + 1.01 * after)
    assert not compared(ours + 1, SETTLED + 2 * after), "not at every heartbeat"
    assert compared(ours + 1, SETTLED + 6 * after)
    assert not compared(ours, SETTLED + 20 * after)
    assert not compared(ours + 1, SETTLED + 21 * after), "it starts afresh"
    assert setting.counters["repairs"] == 2


def test_a_new_neighbour_is_compared_with_sooner() -> None:
    setting = Setting(1)
    soon = START + 1.01 * CONFIG.repair_after_seconds / 3
    assert said(setting.census.compare(make_peer(1), 0, soon), TableSummary)
    setting = Setting(1)
    setting.unlink(1, now=START)
    assert not said(setting.census.compare(make_peer(1), 0, soon), TableSummary)


def test_a_summary_is_answered_with_what_we_have_where_it_differs() -> None:
    one, other = Setting(1), Setting(1)
    assert one.census.on_summary(other.census.table.summary(), make_peer(1)) == []
    other.hear(1, [0], tags=(("a", "b"),))
    (digest,) = said(one.census.on_summary(other.census.table.summary(), make_peer(1)), TableDigest, to=1)
    (request,) = said(one.census.on_digest(digest_of(other, one), make_peer(1), SETTLED), RecordRequest, to=1)
    assert request.ids == (node_id(1),)
    (records,) = said(other.census.on_digest(digest, make_peer(1), SETTLED), Records, to=1)
    assert [record.id for record in records.records] == [node_id(1)]
    assert other.counters["records_repaired"] == 1


def test_who_sees_that_its_word_does_not_count_says_it_anew_but_not_again_for_each_that_tells_it_so() -> None:
    ours, theirs = Setting(1), Setting(1)
    ours.census.publish(SETTLED, replace(ours.census.me, tags=(("a", "b"),)))
    known = ours.census.me.version
    theirs.census.table.exclude(ours.census.me.id)
    digest = theirs.census.table.digest_around(ours.census.me.id)
    assert len(digest.buckets) == 1
    for number, now in ((1, SETTLED), (2, SETTLED + 0.9 * CONFIG.repair_after_seconds)):
        (answer,) = said(ours.census.on_digest(digest, make_peer(number), now), Records, to=number)
        assert [(record.id, record.version) for record in answer.records] == [(ours.census.me.id, known + 1)]
    ours.census.on_digest(digest, make_peer(1), SETTLED + 1.1 * CONFIG.repair_after_seconds)
    assert ours.census.me.version == known + 2
    ours.census.on_digest(ours.census.table.digest_around(ours.census.me.id), make_peer(1), SETTLED + 60)
    assert ours.census.me.version == known + 2, "who counts it is not told anything"


def test_whose_word_is_void_is_shown_so_when_linked_again_and_when_another_counts_it() -> None:
    """It was frozen, and has not heard that it was taken for dead: without that it would say nothing new for long."""
    setting = Setting(1, 2)
    setting.unlink(1, accuse=True)
    setting.refresh()
    assert not setting.census.is_alive(node_id(1))
    known = setting.census.table.known(node_id(1))
    theirs = TableDigest(16, tuple(range(16)), (Version(known.id, known.epoch, known.version),))
    (digest,) = said(setting.census.on_digest(theirs, make_peer(2), SETTLED), TableDigest, to=1)
    assert node_id(1) not in {version.id for version in digest.versions}
    assert not said(setting.take(known, sender=2), TableDigest), "that could be answered by the same for ever"
    (digest,) = said(setting.link(1), TableDigest, to=1)
    assert node_id(1) not in {version.id for version in digest.versions}
    assert not setting.census.is_alive(node_id(1)), "not yet"
    steps = setting.hear(1, [0])
    assert setting.census.is_alive(node_id(1))
    assert not said(steps, TableDigest)
    assert not said(setting.census.on_digest(theirs, make_peer(2), SETTLED), TableDigest)


def digest_of(theirs: Setting, ours: Setting) -> TableDigest:
    (digest,) = said(theirs.census.on_summary(ours.census.table.summary(), make_peer(1)), TableDigest)
    return digest


def test_records_asked_for_are_sent_as_far_as_they_are_known() -> None:
    setting = Setting(1)
    (answer,) = said(setting.census.on_request(RecordRequest((node_id(1), node_id(9))), make_peer(3)), Records, to=3)
    assert [record.id for record in answer.records] == [node_id(1)]
    assert setting.census.on_request(RecordRequest((node_id(9),)), make_peer(3)) == []


# -- whom to ask -------------------------------------------------------------------------------------------------------


def test_candidates_are_members_in_reach_that_are_no_neighbours() -> None:
    setting = with_one_behind()
    setting.hear(9)
    assert setting.census.candidates(5) == [make_peer(5)]
    assert setting.census.candidates(0) == []


def test_who_watches_a_neighbour_too_is_asked_first_to_probe_it() -> None:
    setting = with_one_behind()
    setting.hear(5, [1, 2])
    setting.hear(1, [0, 5])
    setting.hear(2, [0, 5, 9])
    assert setting.census.watchers(node_id(1)) == [make_peer(5), make_peer(2)]
    assert setting.census.watchers(node_id(2)) == [make_peer(5), make_peer(1)], "9 is out of reach, and we need not be asked"
    assert set(setting.census.watchers(node_id(7))) == {make_peer(1), make_peer(2)}, "of one unknown yet, our neighbours"


def test_a_member_at_an_endpoint_is_one_in_reach() -> None:
    setting = Setting(1)
    setting.hear(9)
    assert setting.census.has_member_at(make_endpoint(1))
    assert setting.census.has_member_at(make_endpoint(0))
    assert not setting.census.has_member_at(make_endpoint(9))


# -- whatever comes ----------------------------------------------------------------------------------------------------

_numbers = st.integers(0, 4)
_news = st.tuples(
    _numbers,
    st.frozensets(_numbers, max_size=3),
    st.frozensets(_numbers, max_size=2),
    st.integers(0, 1),
    st.sampled_from([MemberState.ALIVE, MemberState.ALIVE, MemberState.LEFT]),
).map(
    lambda news: news if news[4] is MemberState.ALIVE else (news[0], frozenset(), frozenset(), *news[3:])
)  # else it is not heard


@given(st.lists(_news, max_size=8))
def test_whatever_is_heard_what_is_told_adds_up_to_what_is_held(heard: Sequence[tuple[Any, ...]]) -> None:
    setting, now = Setting(1, 2), SETTLED
    held = dict.fromkeys(map(node_id, (1, 2)), MemberStatus.ALIVE)
    due: dict[Any, float] = {}

    def note(steps: list[Step]) -> None:
        due.update(timers(steps))
        for notice in told(steps):
            for kind, status in (
                (MemberUp, MemberStatus.ALIVE),
                (MemberSuspect, MemberStatus.SUSPECT),
                (MemberDown, MemberStatus.DOWN),
                (MemberLeft, MemberStatus.LEFT),
            ):
                if isinstance(notice, kind):
                    assert held.get(notice.record.id) is not status, "told twice"
                    held[notice.record.id] = status

    for number, neighbours, accused, life, state in heard:
        known = setting.census.table.record(node_id(number)) or make_record(number)
        changes = {"epoch": known.epoch + 1, "version": 1} if life else {"epoch": known.epoch, "version": known.version + 1}
        record = make_record(
            number, neighbours=neighbours - {number}, accused=versions(*accused - {number}, version=2), state=state, **changes
        )
        if life and held.get(record.id) is MemberStatus.LEFT:
            held[record.id] = MemberStatus.DOWN  # a later life of one that left is a newcomer, which nobody has seen yet
        note(setting.take(record, now=now))
        now += 0.3
        while ready := [timer for timer, when in due.items() if when <= now]:
            timer = min(ready, key=due.__getitem__)
            when = due.pop(timer)
            if isinstance(timer, RefreshDue):
                note(setting.refresh(when))
            elif isinstance(timer, OrphanDue | DownDue | ReturnDue):
                note(setting.census.judge(timer, when))
        assert {node: member.status for node, member in setting.census.all().items()} == held
        assert setting.census.me.epoch >= EPOCH
        reach = set(setting.census.reach.nodes())
        living = {node for node, status in held.items() if status is MemberStatus.ALIVE}
        assert {encoded.id for encoded in setting.census.table.included_records()} <= reach | living
