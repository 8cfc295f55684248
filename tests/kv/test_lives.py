"""Whose word counts, and until when."""

from __future__ import annotations

from pyminuteman.kv.lives import Lives, Presence
from tests.kv.support import EPOCH, node

ONE, OTHER = node(1), node(2)


def lives() -> Lives:
    return Lives(60.0)


def test_nothing_is_taken_of_a_life_that_the_membership_does_not_know() -> None:
    known = lives()
    assert not known.counts(ONE, EPOCH, 0.0)
    known.notice(ONE, EPOCH, Presence.ALIVE, 0.0)
    assert known.counts(ONE, EPOCH, 0.0)
    assert known.counts(ONE, EPOCH - 1, 0.0)
    assert not known.counts(ONE, EPOCH + 1, 0.0), "an epoch that somebody has made up"


def test_entries_outlive_an_owner_that_is_down_by_a_lease_and_one_that_left_not_at_all() -> None:
    known = lives()
    owners = [(ONE, EPOCH), (OTHER, EPOCH)]
    for owner, _ in owners:
        known.notice(owner, EPOCH, Presence.ALIVE, 0.0)
    known.notice(ONE, EPOCH, Presence.AWAY, 10.0)
    known.notice(ONE, EPOCH, Presence.AWAY, 40.0)
    known.notice(OTHER, EPOCH, Presence.LEFT, 10.0)
    assert known.lapsed(owners, 69.9) == [OTHER]
    assert known.lapsed(owners, 70.0) == [ONE, OTHER]
    assert known.counts(ONE, EPOCH, 69.9)
    assert not known.counts(ONE, EPOCH, 70.0)
    assert not known.counts(OTHER, EPOCH, 11.0)
    known.notice(ONE, EPOCH, Presence.ALIVE, 80.0)
    assert known.lapsed([(ONE, EPOCH)], 10**6) == []


def test_what_concerns_an_earlier_life_changes_nothing() -> None:
    known = lives()
    known.notice(ONE, EPOCH + 1, Presence.ALIVE, 0.0)
    known.notice(ONE, EPOCH, Presence.LEFT, 1.0)
    assert known.counts(ONE, EPOCH + 1, 2.0)


def test_a_later_life_that_says_nothing_ends_the_one_before_after_a_lease() -> None:
    known = lives()
    known.notice(ONE, EPOCH, Presence.ALIVE, 0.0)
    known.notice(ONE, EPOCH + 1, Presence.ALIVE, 100.0)
    assert known.lapsed([(ONE, EPOCH)], 159.0) == []
    assert known.lapsed([(ONE, EPOCH)], 160.0) == [ONE]


def test_a_later_life_is_known_without_its_presence_being_told() -> None:
    known = lives()
    known.notice(ONE, EPOCH, None, 0.0)
    assert known.counts(ONE, EPOCH, 0.0)
    known.notice(ONE, EPOCH + 1, None, 1.0)
    assert known.counts(ONE, EPOCH + 1, 1.0)
    known.notice(ONE, EPOCH + 1, Presence.AWAY, 10.0)
    known.notice(ONE, EPOCH + 2, None, 50.0)
    assert known.counts(ONE, EPOCH + 2, 69.0)
    assert not known.counts(ONE, EPOCH + 2, 70.0), "news of one that is away do not bring it back"


def test_what_was_on_disk_of_somebody_unknown_is_held_for_a_lease() -> None:
    known = lives()
    known.presume(ONE, 5.0)
    assert known.lapsed([(ONE, EPOCH), (OTHER, EPOCH)], 64.9) == []
    assert known.lapsed([(ONE, EPOCH), (OTHER, EPOCH)], 65.0) == [ONE], "the other has been unknown only since it was asked for"
    known.notice(ONE, EPOCH, Presence.ALIVE, 70.0)
    known.presume(ONE, 70.0)
    assert known.lapsed([(ONE, EPOCH)], 1000.0) == []


def test_whom_the_membership_forgets_is_unknown_again() -> None:
    known = lives()
    for owner in (ONE, OTHER):
        known.notice(owner, EPOCH, Presence.ALIVE, 0.0)
    known.forget({OTHER})
    assert not known.counts(ONE, EPOCH, 0.0)
    assert known.counts(OTHER, EPOCH, 0.0)
