"""Shared values as an etcd keeps them: what is written is read again, and each operation does what its kind has it do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.kv.errors import InvalidOperationError, RemoteStoreError
from pyminuteman.kv.etcd_values import COUNTER_MAX, changed, decode_value, encode_value
from pyminuteman.kv.operations import (
    Add,
    AddElement,
    Assign,
    Disable,
    Enable,
    InMap,
    Kind,
    Operation,
    Remove,
    RemoveElement,
    SharedKey,
    SharedValue,
)

COUNTER, FLAG = SharedKey.counter("c"), SharedKey.flag("f")


@pytest.mark.parametrize(
    ("before", "operations", "after"),
    [
        (None, [Assign(b"x"), Assign(b"y")], b"y"),
        (b"x", [Remove()], None),
        (None, [Add(3), Add(-5)], -2),
        (7, [Add(-7)], 0),
        (7, [Remove()], None),
        (None, [Enable(), Enable()], True),
        (True, [Disable()], None),
        (None, [Disable()], None),
        (None, [AddElement(b"a"), AddElement(b"b"), RemoveElement(b"a")], frozenset({b"b"})),
        (frozenset({b"a"}), [RemoveElement(b"a")], None),
        (None, [RemoveElement(b"a")], None),
        (frozenset({b"a"}), [Remove()], None),
        (None, [InMap(COUNTER, Add(1)), InMap(COUNTER, Add(2)), InMap(FLAG, Enable())], {COUNTER: 3, FLAG: True}),
        ({COUNTER: 3, FLAG: True}, [InMap(FLAG, Disable())], {COUNTER: 3}),
        ({COUNTER: 3}, [InMap(COUNTER, Remove())], None),
        (None, [InMap(COUNTER, Remove())], None),
        ({COUNTER: 3}, [Remove()], None),
        (b"x", [], b"x"),
    ],
)
def test_operations_do_what_the_kind_has_them_do(
    before: SharedValue | None, operations: list[Operation], after: SharedValue | None
) -> None:
    assert changed(before, operations) == after


def test_a_counter_stays_in_its_range() -> None:
    full = changed(COUNTER_MAX - 1, [Add(1)])
    assert full == COUNTER_MAX
    for value, amount in ((full, 1), (-COUNTER_MAX, -1)):
        with pytest.raises(InvalidOperationError):
            changed(value, [Add(amount)])
    with pytest.raises(InvalidOperationError):
        changed({COUNTER: full}, [InMap(COUNTER, Add(1))])


_names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
_plain: dict[Kind, st.SearchStrategy[SharedValue]] = {
    Kind.REGISTER: st.binary(max_size=8),
    Kind.COUNTER: st.integers(-COUNTER_MAX, COUNTER_MAX),
    Kind.FLAG: st.just(True),
    Kind.SET: st.frozensets(st.binary(max_size=4), min_size=1, max_size=4),
}
_fields = st.one_of(
    [st.tuples(_names.map(lambda name, kind=kind: SharedKey(kind, name)), values) for kind, values in _plain.items()]
)
_values = st.one_of(
    [st.tuples(st.just(kind), values) for kind, values in _plain.items()]
    + [st.tuples(st.just(Kind.MAP), st.lists(_fields, min_size=1, max_size=4).map(dict))]
)


@given(_values)
def test_what_is_written_is_read_again(value: tuple[Kind, SharedValue]) -> None:
    kind, written = value
    encoded = encode_value(written)
    assert decode_value(kind, encoded) == written
    assert encode_value(decode_value(kind, encoded)) == encoded


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Kind.REGISTER, b"{"),
        (Kind.REGISTER, b"[" * 100_000),
        (Kind.REGISTER, b"3"),
        (Kind.REGISTER, b'"*"'),
        (Kind.COUNTER, b'"3"'),
        (Kind.COUNTER, b"true"),
        (Kind.COUNTER, b"1.5"),
        (Kind.COUNTER, str(COUNTER_MAX + 1).encode()),
        (Kind.FLAG, b"false"),
        (Kind.FLAG, b"1"),
        (Kind.SET, b"[]"),
        (Kind.SET, b"{}"),
        (Kind.SET, b"[3]"),
        (Kind.MAP, b"{}"),
        (Kind.MAP, b"[]"),
        (Kind.MAP, b'{"flag":true}'),
        (Kind.MAP, b'{"flag:":true}'),
        (Kind.MAP, b'{"flag:\\n":true}'),
        (Kind.MAP, b'{"flag:\\ud800":true}'),
        (Kind.MAP, b'{"map:m":{}}'),
        (Kind.MAP, b'{"flag:f":false}'),
    ],
)
def test_what_is_none_is_refused(kind: Kind, data: bytes) -> None:
    with pytest.raises(RemoteStoreError):
        decode_value(kind, data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("YQ=="),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["flag:f", "set:s", "counter:c"]), inner),
    max_leaves=6,
)


@given(st.sampled_from(list(Kind)), _json)
def test_whatever_is_there_is_read_or_refused(kind: Kind, plain: object) -> None:
    try:
        value = decode_value(kind, json.dumps(plain).encode())
    except RemoteStoreError:
        return
    assert decode_value(kind, encode_value(value)) == value
