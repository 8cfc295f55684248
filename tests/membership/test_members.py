"""What a member is held to be: the rules at the top of the module, one section each."""

from __future__ import annotations

import pytest

from pyminuteman.addresses import NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import MemberDown, MemberLeft, MemberStatus, MemberSuspect, MemberUp, PartitionSuspected
from pyminuteman.membership.members import Members
from pyminuteman.membership.steps import DownDue, OrphanDue, ReturnDue, Step
from pyminuteman.membership.views import ActiveView, Link
from tests.membership.support import CONFIG, START, make_boot, make_peer, make_record, newer, timers, told, told_of
from tests.support.messages import node_id

GRACE, DOWN_AFTER = CONFIG.orphan_grace_seconds, CONFIG.down_after_seconds
SETTLED = START + 60
"""Long after the grace for judging is over."""
NEIGHBOUR = 90
"""A node that we have a link to, and that nothing happens to."""


class Setting:
    """Members 1 to ``count`` in reach since START, as a node with a neighbour sees them."""

    def __init__(self, count: int = 1, config: MembershipConfig = CONFIG) -> None:
        self.active = ActiveView(config.active_view_size)
        self.members = Members(config, self.active)
        self.link(NEIGHBOUR, START)
        for number in range(1, count + 1):
            self.members.came(make_record(number), START)

    def link(self, number: int, now: float = SETTLED) -> None:
        self.active.add(Link(make_peer(number), make_boot(number), 0.15))
        self.members.neighbours_changed(now)

    def unlink(self, number: int, now: float = SETTLED) -> None:
        self.active.remove(node_id(number))
        self.members.neighbours_changed(now)

    def status(self, number: int = 1) -> MemberStatus | None:
        found = self.members.status(node_id(number))
        return None if found is None else found[0]

    def went(self, number: int = 1, now: float = SETTLED, *, accused: bool = False) -> list[Step]:
        return self.members.went(make_record(number), now, accused=accused)

    def judge_until_done(self, steps: list[Step], number: int = 1) -> tuple[list[Step], float]:
        """Let the timers of a member fire until none is set; returns all steps, and when the last one fired."""
        everything, last = list(steps), SETTLED
        while due := timers(steps):
            ((timer, last),) = due.items()
            assert isinstance(timer, OrphanDue | DownDue | ReturnDue)
            steps = self.members.judge(timer, make_record(number), last)
            everything += steps
        return everything, last

    def make_down(self, number: int = 1) -> float:
        """Have the member go down; returns when it did."""
        return self.judge_until_done(self.went(number, accused=True), number)[1]


# -- 1: in reach is alive ----------------------------------------------------------------------------------------------


def test_a_member_in_reach_is_alive_at_once() -> None:
    setting = Setting(0)
    assert told(setting.members.came(make_record(1), START)) == [MemberUp(make_record(1))]
    assert setting.members.status(node_id(1)) == (MemberStatus.ALIVE, START)
    assert setting.members.came(make_record(1), START + 1) == [], "told once"
    assert setting.members.reachable_count == 1


def test_a_suspect_that_comes_into_reach_is_alive_at_once_and_that_is_the_whole_refutation() -> None:
    setting = Setting()
    setting.went(accused=True)
    assert setting.status() is MemberStatus.SUSPECT
    assert told(setting.members.came(make_record(1), SETTLED + 0.1)) == [MemberUp(make_record(1))]
    assert setting.members.refuted == 1
    assert setting.members.unreachable == []
    assert setting.members.judge(DownDue(node_id(1), SETTLED), make_record(1), SETTLED + 60) == []


# -- 2: out of reach is suspect ----------------------------------------------------------------------------------------


def test_an_accused_member_out_of_reach_is_suspect_at_once() -> None:
    setting = Setting()
    steps = setting.went(accused=True)
    assert told(steps) == [MemberSuspect(make_record(1))]
    assert timers(steps) == {DownDue(node_id(1), SETTLED): SETTLED + DOWN_AFTER}
    assert setting.members.status(node_id(1)) == (MemberStatus.SUSPECT, SETTLED)


def test_an_unaccused_member_out_of_reach_has_its_grace_for_links_move() -> None:
    setting = Setting()
    steps = setting.went()
    assert timers(steps) == {OrphanDue(node_id(1), SETTLED): SETTLED + GRACE}
    assert told(steps) == []
    assert setting.status() is MemberStatus.ALIVE
    steps = setting.members.judge(OrphanDue(node_id(1), SETTLED), make_record(1), SETTLED + GRACE)
    assert told(steps) == [MemberSuspect(make_record(1))]


def test_a_link_that_moved_within_the_grace_is_never_noticed() -> None:
    setting = Setting()
    setting.went()
    assert setting.members.came(make_record(1), SETTLED + GRACE / 2) == []
    assert setting.members.judge(OrphanDue(node_id(1), SETTLED), make_record(1), SETTLED + GRACE) == []
    assert setting.status() is MemberStatus.ALIVE


def test_each_time_out_of_reach_has_a_grace_of_its_own() -> None:
    setting = Setting()
    setting.went(now=SETTLED)
    setting.members.came(make_record(1), SETTLED + 0.1)
    setting.went(now=SETTLED + 0.2)
    assert setting.members.judge(OrphanDue(node_id(1), SETTLED), make_record(1), SETTLED + GRACE) == []
    assert setting.status() is MemberStatus.ALIVE


def test_an_accusation_within_the_grace_ends_it() -> None:
    setting = Setting()
    setting.went()
    assert told(setting.members.accused(make_record(1), SETTLED + 0.1)) == [MemberSuspect(make_record(1))]


def test_an_accusation_changes_nothing_while_the_member_is_in_reach_or_unknown_or_suspect_already() -> None:
    setting = Setting()
    assert setting.members.accused(make_record(1), SETTLED) == []
    assert setting.members.accused(make_record(2), SETTLED) == []
    setting.went(accused=True)
    assert setting.members.accused(make_record(1), SETTLED) == []
    assert setting.members.suspicions == 1


def test_who_is_out_of_reach_already_or_never_was_in_reach_cannot_go() -> None:
    setting = Setting()
    setting.went(accused=True)
    assert setting.went(accused=True) == []
    assert setting.went(2, accused=True) == []


# -- 3: a silent suspect is down ---------------------------------------------------------------------------------------


def test_a_suspect_that_stays_out_of_reach_is_down_after_the_time_given() -> None:
    setting = Setting()
    steps, when = setting.judge_until_done(setting.went())
    assert told(steps) == [MemberSuspect(make_record(1)), MemberDown(make_record(1))]
    assert when == pytest.approx(SETTLED + GRACE + DOWN_AFTER)
    assert setting.members.status(node_id(1)) == (MemberStatus.DOWN, when)
    assert (setting.members.suspicions, setting.members.downs) == (1, 1)


def test_the_time_of_a_former_suspicion_is_not_held_against_it() -> None:
    setting = Setting()
    setting.went(accused=True)
    setting.members.came(make_record(1), SETTLED + 0.1)
    setting.went(now=SETTLED + 0.2, accused=True)
    assert setting.members.judge(DownDue(node_id(1), SETTLED), make_record(1), SETTLED + DOWN_AFTER) == []
    assert setting.status() is MemberStatus.SUSPECT


@pytest.mark.parametrize("timer", [OrphanDue(node_id(9), 1.0), DownDue(node_id(9), 1.0), ReturnDue(node_id(9), 1.0)])
def test_a_stranger_is_not_judged(timer: OrphanDue | DownDue | ReturnDue) -> None:
    assert Setting().members.judge(timer, make_record(9), SETTLED) == []


# -- 4: a node that hears nobody judges nobody -------------------------------------------------------------------------


def test_without_neighbours_nobody_is_suspect_however_long_it_takes() -> None:
    setting = Setting()
    setting.unlink(NEIGHBOUR)
    steps, now = setting.went(accused=True), SETTLED
    for _ in range(40):
        assert told(steps) == []
        ((timer, now),) = timers(steps).items()
        steps = setting.members.judge(timer, make_record(1), now)
    assert now > SETTLED + DOWN_AFTER
    assert setting.status() is MemberStatus.ALIVE


def test_without_neighbours_no_suspect_goes_down() -> None:
    setting = Setting()
    steps = setting.went(accused=True)
    setting.unlink(NEIGHBOUR, SETTLED + 0.1)
    steps = setting.members.judge(DownDue(node_id(1), SETTLED), make_record(1), SETTLED + DOWN_AFTER)
    assert timers(steps) == {DownDue(node_id(1), SETTLED): SETTLED + 2 * DOWN_AFTER}
    assert setting.status() is MemberStatus.SUSPECT


def test_who_has_just_found_a_neighbour_waits_for_a_grace_before_it_judges() -> None:
    setting = Setting()
    setting.unlink(NEIGHBOUR, SETTLED)
    setting.link(NEIGHBOUR, SETTLED + 1)
    setting.link(91, SETTLED + 1.1)
    steps = setting.went(now=SETTLED + 1.2, accused=True)
    assert told(steps) == []
    assert timers(steps) == {OrphanDue(node_id(1), SETTLED + 1.2): SETTLED + 1 + GRACE}
    steps = setting.members.judge(OrphanDue(node_id(1), SETTLED + 1.2), make_record(1), SETTLED + 1 + GRACE)
    assert told(steps) == [MemberSuspect(make_record(1))]


# -- 5: a neighbour is judged by its link alone ------------------------------------------------------------------------


@pytest.mark.parametrize("accused", [False, True])
def test_a_neighbour_is_not_suspect_for_what_records_say(accused: bool) -> None:
    setting = Setting()
    setting.link(1)
    steps, now = setting.went(accused=accused), SETTLED
    for _ in range(10):
        assert told(steps) == []
        ((timer, now),) = timers(steps).items()
        steps = setting.members.judge(timer, make_record(1), now)
    assert setting.status() is MemberStatus.ALIVE
    setting.unlink(1, now)
    ((timer, now),) = timers(steps).items()
    assert told(setting.members.judge(timer, make_record(1), now)) == [MemberSuspect(make_record(1))]


def test_a_suspect_that_is_a_neighbour_by_now_does_not_go_down() -> None:
    setting = Setting()
    setting.went(accused=True)
    setting.link(1)
    steps = setting.members.judge(DownDue(node_id(1), SETTLED), make_record(1), SETTLED + DOWN_AFTER)
    assert timers(steps) == {DownDue(node_id(1), SETTLED): SETTLED + 2 * DOWN_AFTER}
    assert told(steps) == []


# -- 6: left is left ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accused", [False, True])
def test_who_has_left_is_neither_suspect_nor_tried_again(accused: bool) -> None:
    setting = Setting()
    assert told(setting.members.left(make_record(1), SETTLED)) == [MemberLeft(make_record(1))]
    assert setting.members.left(make_record(1), SETTLED + 1) == []
    assert setting.went(now=SETTLED + 1, accused=accused) == []
    assert setting.members.status(node_id(1)) == (MemberStatus.LEFT, SETTLED)
    assert setting.members.unreachable == []


def test_who_has_left_does_not_come_back_by_old_claims() -> None:
    setting = Setting()
    setting.members.left(make_record(1), SETTLED)
    setting.went()
    assert setting.members.came(make_record(1), SETTLED + 1) == []
    assert setting.status() is MemberStatus.LEFT


def test_a_suspect_may_turn_out_to_have_left() -> None:
    setting = Setting()
    setting.went(accused=True)
    assert told(setting.members.left(make_record(1), SETTLED + 0.1)) == [MemberLeft(make_record(1))]
    assert setting.members.unreachable == []
    assert setting.members.judge(DownDue(node_id(1), SETTLED), make_record(1), SETTLED + DOWN_AFTER) == []


def test_one_that_was_never_up_leaves_without_a_word() -> None:
    setting = Setting(0)
    assert setting.members.left(make_record(1), SETTLED) == []
    assert setting.status() is None


def test_a_later_life_of_one_that_left_is_a_newcomer() -> None:
    setting = Setting()
    setting.members.left(make_record(1), SETTLED)
    setting.members.returned(node_id(1))
    again = make_record(1, epoch=2_000_000_000)
    assert told(setting.members.came(again, SETTLED + 1)) == [MemberUp(again)]
    assert setting.members.refuted == 0


def test_a_later_life_of_one_that_did_not_leave_changes_nothing() -> None:
    setting = Setting()
    setting.members.returned(node_id(1))
    setting.members.returned(node_id(2))
    assert setting.members.status(node_id(1)) == (MemberStatus.ALIVE, START)
    assert setting.status(2) is None


# -- 7: one that was down comes back -----------------------------------------------------------------------------------


def test_one_that_was_down_and_has_something_new_to_say_is_up_at_once() -> None:
    setting = Setting()
    now = setting.make_down() + 1
    again = newer(make_record(1))
    assert told(setting.members.came(again, now)) == [MemberUp(again)]


def test_one_that_was_down_and_has_nothing_new_to_say_is_up_after_tables_were_compared() -> None:
    setting = Setting()
    now = setting.make_down() + 1
    steps = setting.members.came(make_record(1), now)
    assert told(steps) == []
    assert timers(steps) == {ReturnDue(node_id(1), now): now + CONFIG.repair_after_seconds}
    assert setting.status() is MemberStatus.DOWN
    steps, _ = setting.judge_until_done(steps)
    assert told(steps) == [MemberUp(make_record(1))]


def test_an_old_claim_that_is_gone_again_by_then_brings_nobody_up() -> None:
    setting = Setting()
    now = setting.make_down() + 1
    setting.members.came(make_record(1), now)
    assert told(setting.went(now=now + 0.1, accused=True)) == []
    assert setting.members.judge(ReturnDue(node_id(1), now), make_record(1), now + 1) == []
    assert setting.status() is MemberStatus.DOWN
    assert setting.members.downs == 1


def test_each_return_waits_for_itself() -> None:
    setting = Setting()
    now = setting.make_down() + 1
    setting.members.came(make_record(1), now)
    setting.went(now=now + 0.1)
    setting.members.came(make_record(1), now + 0.2)
    assert setting.members.judge(ReturnDue(node_id(1), now), make_record(1), now + 0.3) == []
    steps = setting.members.judge(ReturnDue(node_id(1), now + 0.2), make_record(1), now + 0.5)
    assert told(steps) == [MemberUp(make_record(1))]


def test_a_newer_word_while_its_return_is_in_doubt_ends_the_doubt() -> None:
    setting = Setting()
    now = setting.make_down() + 1
    setting.members.came(make_record(1), now)
    again = newer(make_record(1))
    assert told(setting.members.came(again, now + 0.1)) == [MemberUp(again)]
    assert setting.members.judge(ReturnDue(node_id(1), now), again, now + 1) == []


# -- 8: forgotten, and never announced ---------------------------------------------------------------------------------


def test_one_that_never_was_in_reach_is_tried_but_never_announced() -> None:
    setting = Setting(0)
    setting.members.learned(node_id(1), START)
    setting.members.learned(node_id(1), START + 1)
    assert setting.status() is None
    assert setting.members.unreachable == [node_id(1)]
    assert setting.members.accused(make_record(1), SETTLED) == []
    assert sum(setting.members.count().values()) == 0
    assert told(setting.members.came(make_record(1), SETTLED)) == [MemberUp(make_record(1))]
    assert setting.members.unreachable == []


def test_a_member_out_of_reach_is_forgotten_after_its_time_and_not_before() -> None:
    setting = Setting(2)
    setting.went(accused=True)
    forgotten_at = SETTLED + CONFIG.forget_after_seconds
    assert setting.members.to_forget(forgotten_at) == []
    assert setting.members.to_forget(forgotten_at + 1) == [node_id(1)]
    setting.members.forget(node_id(1))
    setting.members.forget(node_id(1))
    assert setting.status() is None
    assert setting.members.unreachable == []


def test_who_has_left_is_forgotten_too() -> None:
    setting = Setting()
    setting.members.left(make_record(1), SETTLED)
    setting.went()
    assert setting.members.to_forget(SETTLED + CONFIG.forget_after_seconds + 1) == [node_id(1)]


def test_members_are_counted_by_what_they_are() -> None:
    setting = Setting(4)
    setting.make_down(1)
    setting.went(2, accused=True)
    setting.members.left(make_record(3), SETTLED)
    assert setting.members.count() == {"alive": 1, "suspect": 1, "down": 1, "left": 1}


# -- many at once ------------------------------------------------------------------------------------------------------


def partitions(setting: Setting, numbers: range, now: float = SETTLED) -> list[PartitionSuspected]:
    steps: list[Step] = []
    gone: list[NodeId] = []
    for number in numbers:
        gone.append(node_id(number))
        steps += setting.went(number, now, accused=True)
    return told_of(steps, PartitionSuspected)


def test_a_third_of_the_members_gone_at_once_is_more_likely_the_network() -> None:
    assert partitions(Setting(8), range(1, 4)) == [PartitionSuspected(unreachable=3, reachable=6)]


@pytest.mark.parametrize(("count", "gone"), [(2, 2), (20, 5)], ids=["two of three", "five of twenty-one"])
def test_few_members_gone_are_deaths(count: int, gone: int) -> None:
    assert partitions(Setting(count), range(1, gone + 1)) == []


def test_a_growing_partition_is_told_again_only_when_it_has_more_than_doubled() -> None:
    assert [told.unreachable for told in partitions(Setting(9), range(1, 10))] == [3, 7]


def test_a_second_partition_is_told_after_the_first_has_healed() -> None:
    setting = Setting(6)
    assert len(partitions(setting, range(1, 4))) == 1
    for number in (1, 2, 3):
        setting.members.came(make_record(number), SETTLED + 1)
    assert len(partitions(setting, range(1, 4), SETTLED + 2)) == 1
