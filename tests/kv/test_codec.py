"""What stores say, as bytes: there and back, what is on the wire, and nothing but an error for what no store writes."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyminuteman.kv.codec import PAYLOAD_MAX_BYTES, decode, encode
from pyminuteman.kv.crdt import State
from pyminuteman.kv.errors import RemoteStoreError
from pyminuteman.kv.messages import (
    BUCKETS,
    Buckets,
    Change,
    LogPart,
    LogWant,
    Message,
    Row,
    Rows,
    Same,
    SharedRow,
    SharedState,
    States,
    Summary,
    Want,
)
from pyminuteman.kv.operations import Kind, SharedKey
from tests.kv.support import EPOCH, actor, histories, node

nodes = st.integers(0, 300).map(node)
hashes = st.binary(min_size=8, max_size=8)
buckets = st.frozensets(st.integers(0, BUCKETS - 1), max_size=5).map(lambda some: tuple(sorted(some)))
keys = st.sampled_from(["a", "vips/tcp:11.0.0.1:80", "ü", "x" * 255])
numbers = st.integers(0, 5) | st.integers(0, 1 << 60)


@st.composite
def log_parts(draw: st.DrawFn) -> LogPart:
    low = at = draw(numbers)
    changes = []
    for key in draw(st.lists(keys, max_size=4, unique=True)):
        at += draw(st.integers(1, 300))
        changes.append(Change(at, key, draw(st.none() | st.binary(max_size=20))))
    high = at + draw(st.integers(0, 3))
    return LogPart(
        draw(nodes),
        EPOCH,
        draw(st.integers(1, 99)),
        low,
        high,
        high + draw(st.integers(0, 9)),
        tuple(changes),
        draw(st.sampled_from([0, 9])),
    )


@st.composite
def states(draw: st.DrawFn) -> States:
    some = []
    for name in draw(st.lists(keys, max_size=3, unique=True)):
        kind, whole, deltas = draw(histories())
        some.append(SharedState(SharedKey(kind, name), draw(st.sampled_from(whole + deltas))))
    return States(tuple(some))


bucket_hashes = st.binary(min_size=4 * BUCKETS, max_size=4 * BUCKETS)
rows = st.lists(st.builds(Row, nodes, numbers, numbers), max_size=5).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    log_parts(),
    states(),
    st.builds(Summary, hashes, hashes),
    st.just(Same()),
    st.builds(Buckets, bucket_hashes, bucket_hashes),
    st.builds(Rows, buckets, rows, buckets, st.lists(st.builds(SharedRow, hashes, hashes), max_size=5).map(tuple)),
    st.builds(Want, st.lists(st.builds(LogWant, nodes, numbers, numbers), max_size=5).map(tuple), st.lists(hashes).map(tuple)),
)


@given(messages)
def test_a_message_is_what_it_was(message: Message) -> None:
    assert decode(encode(message)) == message


@given(log_parts())
def test_an_owner_that_speaks_for_itself_is_not_named(part: LogPart) -> None:
    origin = actor(0)._replace(node=part.owner)
    short = encode(part, origin=origin)
    assert decode(short, origin=origin) == part
    assert len(encode(part)) >= len(short) + 18
    assert decode(encode(part, origin=actor(999)), origin=actor(999)) == part
    with pytest.raises(RemoteStoreError, match="whose log"):
        decode(short)


FIXED = [
    (
        LogPart(node(1), 9, 1, 300, 301, 301, (Change(301, "key", b"value"),)),
        f"01 99 01 cd012c 01 01 00 00 93 01 a36b6579 c40576616c7565 c410{bytes(node(1)).hex()} 09",
    ),
    (States((SharedState(SharedKey(Kind.FLAG, "f"), State({}, changed_at=5)),)), "01 92 02 91 93 03 a166 93 05 90 90"),
    (Summary(b"12345678", b"abcdefgh"), "01 93 03 c4083132333435363738 c4086162636465666768"),
    (Same(), "01 91 04"),
    (
        Want((LogWant(node(1), 9, 2),), (b"12345678",)),
        f"01 93 07 c420{bytes(node(1)).hex()}00000000000000090000000000000002 c4083132333435363738",
    ),
    (
        Rows((1, 2), (Row(node(1), 9, 2),), (), ()),
        f"01 95 06 c4020102 c420{bytes(node(1)).hex()}00000000000000090000000000000002 c400 c400",
    ),
]


@pytest.mark.parametrize(("message", "written"), FIXED, ids=lambda one: type(one).__name__)
def test_what_is_on_the_wire_does_not_change_by_accident(message: Message, written: str) -> None:
    assert encode(message).hex() == written.replace(" ", "")


def payload(*fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return b"\x01" + packed


BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "no message": b"\x01",
    "another version": b"\x02" + payload(4)[1:],
    "no list": b"\x01\x05",
    "an empty list": payload(),
    "a type that is no number": payload("4"),
    "trailing bytes": payload(4) + b"\0",
    "cut off": payload(3, b"12345678", b"12345678")[:-1],
    "a map": b"\x01\x81\x01\x02",
    "too few fields": payload(3, b"12345678"),
    "a hash too short": payload(3, b"1234567", b"12345678"),
    "buckets that are too few": payload(5, bytes(4), bytes(4 * BUCKETS)),
    "a bucket that there is not": payload(6, b"\x40", b"", b"", b""),
    "a bucket twice": payload(6, b"\x01\x01", b"", b"", b""),
    "rows cut off": payload(6, b"", bytes(31), b"", b""),
    "hashes cut off": payload(7, b"", bytes(7)),
    "a part without its owner": payload(1, 0, 1, 1, 0, 0, []),
    "a part without a base": payload(1, 0, 1, 0, 0, 0, [], bytes(16), 1),
    "a part whose owner is too short": payload(1, 0, 1, 1, 0, 0, [], bytes(15), 1),
    "a part with changes cut off": payload(1, 0, 1, 1, 0, 0, [1, "k"], bytes(16), 1),
    "a change beyond its part": payload(1, 0, 1, 1, 0, 0, [2, "k", b""], bytes(16), 1),
    "a change that is none": payload(1, 0, 1, 1, 0, 0, [0, "k", b""], bytes(16), 1),
    "a key twice": payload(1, 0, 2, 1, 0, 0, [1, "k", b"", 1, "k", b""], bytes(16), 1),
    "a key that is none": payload(1, 0, 1, 1, 0, 0, [1, "", b""], bytes(16), 1),
    "a value of text": payload(1, 0, 1, 1, 0, 0, [1, "k", "v"], bytes(16), 1),
    "a version below zero": payload(1, -1, 1, 1, 0, 0, [], bytes(16), 1),
    "an epoch beyond": payload(1, 0, 1, 1, 0, 0, [], bytes(16), 1 << 63),
    "a boolean for a number": payload(1, True, 1, 1, 0, 0, [], bytes(16), 1),
    "states that are no list": payload(2, b""),
    "a state of no kind": payload(2, [[9, "n", [0, [], []]]]),
    "a state of no name": payload(2, [[1, "", [0, [], []]]]),
    "a state that is broken": payload(2, [[1, "n", [0, []]]]),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_what_no_store_writes_is_refused(broken: bytes) -> None:
    with pytest.raises(RemoteStoreError):
        decode(broken)


def test_too_large_a_payload_is_refused_unread() -> None:
    with pytest.raises(RemoteStoreError, match="a payload of"):
        decode(b"\x01" + bytes(PAYLOAD_MAX_BYTES))


def test_claims_of_a_size_cost_nothing() -> None:
    for claim in (
        b"\x01\xdd\xff\xff\xff\xff",
        b"\x01\x92\x02\xdd\xff\xff\xff\xff",
        b"\x01\x92\x03\xc6\xff\xff\xff\xff",
        b"\x01" + b"\x91" * 5000,
    ):
        with pytest.raises(RemoteStoreError):
            decode(claim)


def test_a_type_that_is_not_known_is_no_error_nor_are_fields_behind_those_that_are() -> None:
    assert decode(payload(99, "whatever")) is None
    assert decode(payload(4, "more")) == Same()


@given(st.binary(max_size=60))
@example(b"")
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        message = decode(b"\x01" + data, origin=actor(1))
    except RemoteStoreError:
        return
    assert message is None or decode(encode(message)) is not None
