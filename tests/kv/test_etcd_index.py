"""Where entries and values lie in an etcd, and what is known of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.etcd.messages import KeyValue
from pyminuteman.kv.errors import RemoteStoreError
from pyminuteman.kv.etcd_index import StoreIndex, StoreKeys
from pyminuteman.kv.etcd_values import encode_value
from pyminuteman.kv.operations import SharedKey
from pyminuteman.kv.store import Entry

KEYS = StoreKeys("/s/")
ONE, TWO = NodeId(b"\1" * 16), NodeId(b"\2" * 16)


def index_of(found: dict[bytes, bytes]) -> StoreIndex:
    index = StoreIndex(KEYS)
    change(index, found)
    return index


def change(index: StoreIndex, found: dict[bytes, bytes], gone: tuple[bytes, ...] = ()) -> tuple[set[str], set[SharedKey]]:
    return index.change([*found, *gone], {key: KeyValue(key, value, 1) for key, value in found.items()})


def test_keys_are_such_as_people_can_read() -> None:
    assert KEYS.own(ONE, "vips/a/b") == b"/s/own/" + b"01" * 16 + b"/vips/a/b"
    assert KEYS.own(ONE, "ü").startswith(KEYS.of_owner(ONE))
    assert KEYS.life(ONE) == b"/s/lives/" + b"01" * 16
    assert KEYS.shared(SharedKey.set("a/b")) == b"/s/shared/set/a/b"


@given(st.text(min_size=1, max_size=9).filter(str.isprintable))
def test_keys_are_read_as_they_are_written(name: str) -> None:
    assert KEYS.read(KEYS.own(TWO, name)) == (TWO, name)
    for kind in (SharedKey.flag, SharedKey.map):
        assert KEYS.read(KEYS.shared(kind(name))) == kind(name)
    assert KEYS.read(KEYS.life(ONE)) is None


@pytest.mark.parametrize(
    "key", [b"", b"own", b"own/xyz/a", b"own/" + b"01" * 16, b"own/" + b"01" * 16 + b"/", b"shared/set/", b"shared/bag/a", b"else/a",
            b"lives/x", b"own/" + b"01" * 16 + b"/\xff", b"own/" + b"01" * 16 + b"/" + b"x" * 256]
)  # fmt: skip
def test_other_keys_are_not_ours(key: bytes) -> None:
    with pytest.raises(RemoteStoreError):
        KEYS.read(b"/s/" + key)


def test_entries_are_found_by_owner_key_and_prefix_in_order() -> None:
    index = index_of(
        {KEYS.own(TWO, "b"): b"2b", KEYS.own(ONE, "b"): b"1b", KEYS.own(ONE, "a/x"): b"1a", KEYS.life(ONE): b"x:1"}
    )
    assert index.get(ONE, "b") == b"1b"
    assert index.get(TWO, "a/x") is None
    assert index.get(TWO, "none") is None
    assert list(index.get_all("b").items()) == [(ONE, b"1b"), (TWO, b"2b")]
    assert index.entries("") == [Entry("a/x", ONE, b"1a"), Entry("b", ONE, b"1b"), Entry("b", TWO, b"2b")]
    assert index.entries("a/") == [Entry("a/x", ONE, b"1a")]
    assert index.entries("c") == []
    assert index.entries_count == 3


def test_changes_name_what_they_concern() -> None:
    index = index_of({KEYS.own(ONE, "a"): b"1"})
    counter = SharedKey.counter("c")
    assert change(index, {KEYS.own(ONE, "a"): b"2", KEYS.shared(counter): b"3"}) == ({"a"}, {counter})
    assert (index.get(ONE, "a"), index.read(counter), index.entries_count) == (b"2", 3, 1)
    assert change(index, {}, (KEYS.own(ONE, "a"), KEYS.shared(counter), KEYS.own(TWO, "a"))) == ({"a"}, {counter})
    assert (index.get(ONE, "a"), index.read(counter), index.entries_count) == (None, None, 0)
    assert index.entries("") == []
    assert change(index, {KEYS.own(TWO, "z"): b""}) == ({"z"}, set())
    assert index.entries("") == [Entry("z", TWO, b"")]


def test_one_of_two_owners_may_go() -> None:
    index = index_of({KEYS.own(ONE, "a"): b"1", KEYS.own(TWO, "a"): b"2"})
    change(index, {}, (KEYS.own(ONE, "a"),))
    assert index.entries("") == [Entry("a", TWO, b"2")]


def test_shared_values_are_found_by_prefix_in_order() -> None:
    found: dict[SharedKey, object] = {SharedKey.flag("a"): True, SharedKey.counter("b"): 1, SharedKey.counter("a"): 2}
    index = index_of({KEYS.shared(key): encode_value(value) for key, value in found.items()})  # type: ignore[arg-type]
    assert list(index.shared("")) == [SharedKey.counter("a"), SharedKey.counter("b"), SharedKey.flag("a")]
    assert index.shared("a") == {SharedKey.counter("a"): 2, SharedKey.flag("a"): True}
    assert index.shared_count == 3


def test_what_cannot_be_read_is_left_alone_and_counted() -> None:
    flag = SharedKey.flag("f")
    index = index_of({KEYS.shared(flag): b"true", b"/s/what": b""})
    assert index.invalid == 1
    change(index, {KEYS.shared(flag): b"nonsense"})
    assert index.invalid == 2
    assert index.read(flag) is None
