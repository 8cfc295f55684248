"""The log of one owner: what others have of it is always some state that its owner was in, and never goes back."""

from __future__ import annotations

import random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyminuteman.kv import entries
from pyminuteman.kv.entries import GAPS_MAX, TOMBSTONES_KEPT, Log, cut
from pyminuteman.kv.messages import Change, LogPart
from tests.kv.support import EPOCH, node

OWNER = node(1)
KEYS = ["a", "b", "c", "d"]


def begun(**entries: bytes) -> Log:
    log = Log(OWNER, EPOCH, base=1)
    log.begin(sorted(entries.items()))
    return log


def empty(**settings: int) -> Log:
    return Log(OWNER, EPOCH, **{"base": 1, **settings})


def said(log: Log) -> dict[str, bytes]:
    return {key: value for key, (_, value) in log.entries.items()}


def written(log: Log, **changes: bytes | None) -> LogPart:
    part = log.write(changes.items())
    assert part is not None
    return part


def whole(log: Log, since: int = 0, part_bytes: int = 10**6) -> list[LogPart]:
    return list(log.since(since, part_bytes=part_bytes))


# -- writing -----------------------------------------------------------------------------------------------------------


def test_each_change_is_a_version_and_what_changes_nothing_is_none() -> None:
    log = begun(a=b"1")
    assert (log.version, log.base) == (2, 2)
    part = written(log, a=b"2", b=b"1", c=None)
    assert (part.low, part.high, part.final) == (2, 4, 4)
    assert part.changes == (Change(3, "a", b"2"), Change(4, "b", b"1"))
    assert log.write([("a", b"2"), ("c", None)]) is None
    assert said(log) == {"a": b"2", "b": b"1"}


def test_a_life_that_says_nothing_has_begun_all_the_same() -> None:
    other = empty()
    assert not other.complete
    (part,) = whole(begun())
    assert (part.low, part.high, part.changes) == (0, 1, ())
    assert other.receive(part) == set()
    assert other.complete


# -- receiving ---------------------------------------------------------------------------------------------------------


def test_parts_that_come_twice_or_late_change_nothing() -> None:
    log, other = begun(), empty()
    parts = [*whole(log), written(log, a=b"1"), written(log, a=None), written(log, b=b"2")]
    for part in parts:
        other.receive(part)
    for part in parts:
        assert other.receive(part) == set()
    assert said(other) == {"b": b"2"}


def test_what_comes_beyond_a_gap_counts_at_once_and_the_version_waits() -> None:
    log, other = begun(), empty()
    first = whole(log)[0]
    lost = written(log, a=b"1", b=b"1")
    late = written(log, a=None, c=b"1")
    other.receive(first)
    assert other.receive(late) == {"c"}
    assert (other.version, said(other)) == (1, {"c": b"1"})
    assert other.receive(lost) == {"b"}, "a was deleted later"
    assert (other.version, said(other)) == (log.version, said(log))


def test_what_the_whole_transfer_does_not_name_is_gone_and_not_before_its_end() -> None:
    log, other = begun(a=b"1", b=b"1", c=b"1"), empty()
    other.receive(whole(log)[0])
    written(log, b=b"2")
    for number in range(TOMBSTONES_KEPT + 1):
        written(log, x=b"%d" % number, **{f"y{number}": b""})
        written(log, **{f"y{number}": None})
    written(log, a=None)
    for number in range(TOMBSTONES_KEPT):
        written(log, **{f"z{number}": b""})
        written(log, **{f"z{number}": None})
    parts = whole(log, other.version, part_bytes=1)
    assert parts[0].low == 0, "a's deletion is forgotten, so all is said"
    assert len(parts) > 3
    for part in parts[:-1]:
        other.receive(part)
        assert {"a", "b"} <= set(other.entries), "nothing that stands is missing in between"
    assert "a" in other.receive(parts[-1])  # type: ignore[operator]
    assert said(other) == said(log)


def test_the_parts_of_a_transfer_may_come_in_any_order() -> None:
    log = begun(a=b"1", b=b"1", c=b"1")
    for number in range(5):
        log.write([(key, b"%d" % number) for key in KEYS])
    log.write([("a", None)])
    for seed in range(20):
        other = empty()
        parts = whole(log, part_bytes=1)
        random.Random(seed).shuffle(parts)  # noqa: S311 - reproducible
        for part in parts:
            other.receive(part)
        assert (said(other), other.version, other.complete) == (said(log), log.version, True)


def test_too_many_gaps_are_refused_and_the_repair_brings_it_all() -> None:
    log, other = begun(), empty()
    other.receive(whole(log)[0])
    parts = [written(log, **{f"k{number}": b""}) for number in range(2 * GAPS_MAX + 3)]
    taken = [other.receive(part) is not None for part in parts[1::2]]
    assert taken == [True] * GAPS_MAX + [False]
    for part in whole(log, other.version):
        other.receive(part)
    assert said(other) == said(log)


def test_what_lapsed_is_shown_again_only_as_new_as_it_was() -> None:
    log = begun(a=b"1")
    old = whole(log)
    written(log, a=None)
    back = empty(floor=log.version)
    for part in old:
        back.receive(part)
    assert not back.complete
    for part in whole(log, back.version):
        back.receive(part)
    assert back.complete
    assert said(back) == {}


def test_a_log_from_disk_remembers_no_deletion_so_who_lacks_one_gets_all() -> None:
    log = Log.restored(OWNER, EPOCH, 1, 5, {"a": (3, b"1")})
    assert (said(log), log.version, log.complete) == ({"a": b"1"}, 5, True)
    assert [part.low for part in whole(log, 4)] == [0]
    assert whole(log, 5) == []
    assert log.tombstones == 0


def test_tombstones_are_bounded_but_for_those_beyond_a_gap() -> None:
    log, other = begun(), empty()
    first = whole(log)[0]
    lost = written(log, **{f"k{number}": b"" for number in range(TOMBSTONES_KEPT + 10)})
    gone = written(log, **{f"k{number}": None for number in range(TOMBSTONES_KEPT + 10)})
    assert log.tombstones == TOMBSTONES_KEPT
    other.receive(first)
    other.receive(gone)
    assert other.tombstones == TOMBSTONES_KEPT + 10
    assert other.receive(lost) == set(), "none of them comes up"
    assert (other.tombstones, said(other)) == (TOMBSTONES_KEPT, {})


def test_what_a_part_adds_is_counted_before_it_is_taken() -> None:
    log = begun(a=b"1")
    part = LogPart(OWNER, EPOCH, 1, 2, 5, 5, (Change(3, "a", b"2"), Change(4, "b", b"1"), Change(5, "c", None)))
    assert log.growth(part) == 1
    assert log.growth(LogPart(OWNER, EPOCH, 1, 2, 4, 4, (Change(3, "a", None), Change(4, "b", b"1")))) == 0


@given(st.lists(st.tuples(st.text("ab", min_size=1, max_size=9), st.binary(max_size=9)), max_size=8), st.integers(1, 60))
def test_a_part_cut_and_put_together_again_is_the_same(rows: list[tuple[str, bytes]], size: int) -> None:
    changes = tuple(Change(number + 3, key, value) for number, (key, value) in enumerate(rows))
    part = LogPart(OWNER, EPOCH, 1, 2, 30, 30, changes)
    parts = list(cut(part, size))
    assert sum((one.changes for one in parts), ()) == changes
    assert [one.low for one in parts] == [2, *(one.high for one in parts[:-1])]
    assert parts[-1].high == 30
    assert {one.final for one in parts} == {30}


# -- against a model ---------------------------------------------------------------------------------------------------

steps = st.one_of(
    st.tuples(
        st.just("write"), st.dictionaries(st.sampled_from(KEYS), st.none() | st.binary(max_size=1), min_size=1, max_size=3)
    ),
    st.tuples(st.just("deliver"), st.integers(0, 99)),
    st.tuples(st.just("sync"), st.integers(0, 5)),
)


@pytest.mark.parametrize("tombstones", [0, 1, 2, TOMBSTONES_KEPT])
def test_a_follower_without_gaps_has_what_its_owner_said_at_that_version(tombstones: int) -> None:
    """Whatever is lost, late, doubled or cut, from the owner or from another follower."""
    with patch.object(entries, "TOMBSTONES_KEPT", tombstones):
        given_any_history()


@settings(max_examples=300)
@given(st.lists(steps, max_size=40))
def given_any_history(actions: list[tuple[str, object]]) -> None:
    log = begun()
    history = {log.version: said(log)}
    followers = [empty(), empty()]
    sent: list[LogPart] = whole(log)
    newest = [0, 0]
    for action, argument in actions:
        if action == "write":
            assert isinstance(argument, dict)
            for key, value in argument.items():
                part = log.write([(key, value)])
                history[log.version] = said(log)
                sent += [part] if part else []
        elif action == "deliver":
            assert isinstance(argument, int)
            followers[argument % 2].receive(sent[argument // 2 % len(sent)])
        else:
            assert isinstance(argument, int)
            to, source = followers[argument % 2], [log, followers[(argument + 1) % 2]][argument // 2 % 2]
            sent += list(source.since(to.version, part_bytes=1))[argument % 3 :]
            for part in source.since(to.version, part_bytes=1 + argument):
                to.receive(part)
        for number, follower in enumerate(followers):
            assert follower.version >= newest[number]
            newest[number] = follower.version
            if follower.consistent and follower.version:
                assert said(follower) == history[follower.version]
    for follower in followers:
        for part in whole(log, follower.version):
            follower.receive(part)
        assert said(follower) == said(log)
