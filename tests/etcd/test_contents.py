"""The copy of what is under a prefix: whatever comes late never replaces what is newer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.etcd.contents import PrefixContents
from pyminuteman.etcd.messages import Event, KeyValue


def put(key: bytes, revision: int, value: bytes = b"v") -> Event:
    return Event(key, revision, KeyValue(key, value, revision))


def gone(key: bytes, revision: int) -> Event:
    return Event(key, revision, None)


def filled(*items: KeyValue, revision: int = 10) -> PrefixContents:
    contents = PrefixContents()
    contents.replace(items, revision, 1)
    return contents


A, B = KeyValue(b"a", b"1", 3), KeyValue(b"b", b"2", 4)


def test_a_reading_replaces_everything_and_tells_what_differs() -> None:
    contents = PrefixContents()
    assert contents.revision == 0
    assert contents.replace([A, B], 10, 1) == {b"a", b"b"}
    assert dict(contents) == {b"a": A, b"b": B}
    newer = KeyValue(b"b", b"3", 11)
    assert contents.replace([newer], 12, 1) == {b"a", b"b"}
    assert dict(contents) == {b"b": newer}
    assert contents.replace([newer], 20, 1) == set()
    assert contents.revision == 20
    assert contents[b"b"] == newer
    assert len(contents) == 1


def test_the_history_moves_on_change_by_change() -> None:
    contents = filled(A, B)
    assert contents.follow([put(b"c", 11), gone(b"a", 12)], 12) == {b"a", b"c"}
    assert set(contents) == {b"b", b"c"}
    assert contents.revision == 12
    assert contents.follow([gone(b"x", 13)], 13) == {b"x"}


def test_what_has_been_told_already_changes_nothing() -> None:
    contents = filled(A, B)
    assert contents.follow([put(b"a", 9, b"old"), gone(b"b", 10)], 10) == set()
    assert contents[b"a"] == A
    assert contents.revision == 10


def test_what_we_wrote_is_there_before_the_history_tells_of_it() -> None:
    contents = filled(A)
    assert contents.ahead([put(b"a", 15, b"mine"), put(b"n", 15)]) == {b"a", b"n"}
    assert contents.revision == 10
    assert contents.follow([put(b"a", 14, b"before mine")], 14) == set()
    assert contents[b"a"].value == b"mine"
    assert contents.follow([put(b"a", 15, b"mine"), put(b"n", 15)], 15) == set()
    assert contents.follow([put(b"a", 16, b"after mine")], 16) == {b"a"}
    assert contents[b"a"].value == b"after mine"


def test_what_we_deleted_does_not_come_back_by_what_came_before() -> None:
    contents = filled(A)
    assert contents.ahead([gone(b"a", 15)]) == {b"a"}
    assert contents.follow([put(b"a", 14)], 14) == set()
    assert b"a" not in contents
    assert contents.follow([gone(b"a", 15), put(b"a", 16)], 16) == {b"a"}
    assert b"a" in contents


def test_ahead_is_not_behind() -> None:
    contents = filled(A)
    assert contents.ahead([put(b"a", 10, b"old")]) == set()
    contents.ahead([put(b"a", 15)])
    assert contents.ahead([gone(b"a", 14)]) == set()
    assert b"a" in contents


def test_a_reading_from_before_our_writes_does_not_undo_them() -> None:
    contents = filled(A, B)
    contents.ahead([put(b"a", 15, b"mine"), gone(b"b", 16)])
    assert contents.replace([A, B], 14, 1) == set()
    assert contents[b"a"].value == b"mine"
    assert b"b" not in contents
    newer = KeyValue(b"a", b"theirs", 17)
    assert contents.replace([newer], 17, 1) == {b"a"}
    assert contents.follow([put(b"b", 18)], 18) == {b"b"}


def test_revisions_of_another_cluster_say_nothing_about_ours() -> None:
    contents = filled(A)
    contents.ahead([put(b"a", 15, b"mine")])
    fresh = KeyValue(b"a", b"anew", 2)
    assert contents.replace([fresh], 2, 99) == {b"a"}
    assert contents.revision == 2
    assert contents.cluster_id == 99
    assert contents.follow([put(b"a", 3)], 3) == {b"a"}


_history = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans(), st.booleans()), max_size=20)


@given(_history, st.data())
def test_however_we_hear_of_it_we_end_where_the_history_does(
    changes: list[tuple[bytes, bool, bool]], data: st.DataObject
) -> None:
    """Some changes are ours and put in ahead at any moment; readings come in between; the watch tells all, some of it twice."""
    history = [
        put(key, at, str(at).encode()) if is_put else gone(key, at) for at, (key, is_put, _) in enumerate(changes, start=2)
    ]
    ours = [event for event, (_, _, is_ours) in zip(history, changes, strict=True) if is_ours]
    contents = PrefixContents()
    contents.replace([], 1, 1)
    while contents.revision < len(history) + 1:
        action = data.draw(st.sampled_from(["ahead", "follow", "read"]))
        if action == "ahead" and ours:
            contents.ahead([ours.pop(0)])
            continue
        to = data.draw(st.integers(contents.revision + 1, len(history) + 1))
        if action == "read":
            contents.replace(_state(history, to).values(), to, 1)
        else:
            contents.follow([event for event in history if contents.revision - 1 <= event.revision <= to], to)
    contents.ahead(ours)
    assert dict(contents) == _state(history, len(history) + 1)


def _state(history: list[Event], revision: int) -> dict[bytes, KeyValue]:
    state: dict[bytes, KeyValue] = {}
    for event in history:
        if event.revision <= revision:
            if event.item is None:
                state.pop(event.key, None)
            else:
                state[event.key] = event.item
    return state
