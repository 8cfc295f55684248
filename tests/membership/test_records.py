"""Records: what a node says of itself survives the way, and what no node says is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.membership.records import BODY_MAX_BYTES, VERSION_LAYOUT, EncodedRecord, Record, Version, unpack_endpoint
from tests.support.messages import encoded_records as any_encoded
from tests.support.messages import node_id, record, records


@given(records)
def test_a_record_comes_back_as_it_was(one: Record) -> None:
    assert Record.decode(one.encode()) == one


def test_its_bytes_stay_what_they_are() -> None:
    one = Record(
        id=node_id(1),
        epoch=9,
        version=2,
        name="a",
        endpoint=Endpoint("10.0.0.1", 80),
        addresses=("::1",),
        tags=(("k", "v"),),
        neighbours=(node_id(0),),
        keys=(b"kkkk",),
    )
    body = f"99 a161 c4060a0000010050 91a33a3a31 9192a16ba176 00 c410{'00' * 16} c400 91c4046b6b6b6b 920101"
    assert one.encode() == EncodedRecord(node_id(1), 9, 2, bytes.fromhex(body.replace(" ", "")))


@given(any_encoded, any_encoded)
def test_the_hash_tells_versions_apart_and_not_bodies(one: EncodedRecord, other: EncodedRecord) -> None:
    assert one.hash == one._replace(body=b"else").hash
    assert (one.hash == other.hash) == (one[:3] == other[:3])
    assert 0 <= one.hash < 2**64


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert EncodedRecord(node_id(1), 9, 2, b"").hash == 8928754958295446386


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "é" * 33}, "66 bytes of name: others take 64"),
        ({"addresses": ("::1",) * 17}, "17 addresses: others take 16"),
        ({"tags": (("k", "v"),) * 65}, "65 tags: others take 64"),
        ({"tags": (("k", "v" * 4096), ("l", "v" * 4096))}, r"a record of \d+ bytes: others take 8192"),
        ({"neighbours": tuple(map(node_id, range(65)))}, "65 neighbours: others take 64"),
        ({"accused": tuple(Version(node_id(number), 1, 1) for number in range(17))}, "17 accused: others take 16"),
        ({"keys": (b"kkkk",) * 17}, "17 keys: others take 16"),
    ],
)
def test_what_others_would_refuse_is_not_sent(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        record(**changes).encode()


def test_the_largest_that_a_node_may_say_fits() -> None:
    ids = tuple(sorted(node_id(number) for number in range(64)))
    one = record(
        name="n" * 64,
        addresses=("2001:db8:1111:2222:3333:4444:5555:6666",) * 16,
        tags=tuple((f"k{number:02}", "v" * 60) for number in range(64)),
        neighbours=ids,
        accused=tuple(Version(id_, 2**64 - 1, 2**64 - 1) for id_ in ids[:16]),
        keys=(b"kkkk",) * 16,
    )
    assert Record.decode(one.encode()) == one


FIELDS = msgpack.unpackb(record(tags=(("k", "v"),), keys=(b"kkkk",), addresses=("::1",)).encode().body)
NAME, ENDPOINT, ADDRESSES, TAGS, STATE, NEIGHBOURS, ACCUSED, KEYS, PROTOCOL = range(9)


def decode(body: bytes) -> Record:
    return Record.decode(EncodedRecord(node_id(1), 9, 2, body))


def test_fields_of_a_later_version_are_left_alone() -> None:
    assert decode(msgpack.packb([*FIELDS, "later", [1, 2]])) == decode(msgpack.packb(FIELDS))
    assert decode(msgpack.packb([*FIELDS[:PROTOCOL], [1, 2, "later"]])).protocol == (1, 2)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (NAME, ""),
        (NAME, "n" * 65),
        (NAME, "é" * 33),
        (NAME, b"name"),
        (NAME, None),
        (NAME, "x\x1b[31m"),
        (NAME, "x\x9b31m"),
        (TAGS, [["k", "a\nb"]]),
        (TAGS, [["\x7f", "v"]]),
        (ENDPOINT, "10.0.0.1:80"),
        (ENDPOINT, "abcdef"),
        (ENDPOINT, [10, 0, 0, 1, 0, 80]),
        (ENDPOINT, b""),
        (ENDPOINT, bytes(6)),
        (ENDPOINT, 6),
        (ADDRESSES, ["::1"] * 17),
        (ADDRESSES, [b"::1"]),
        (ADDRESSES, ["localhost"]),
        (ADDRESSES, ["a\0b"]),
        (ADDRESSES, "::1"),
        (TAGS, [["k"]]),
        (TAGS, [["k", "v", "w"]]),
        (TAGS, [["k", 1]]),
        (TAGS, ["kv"]),
        (TAGS, [["k", "v" * 4097]]),
        (TAGS, [["k", "v"]] * 65),
        (TAGS, [["k", "v"]] * 66),
        (TAGS, {"k": "v"}),
        (TAGS, {}),
        (STATE, 2),
        (STATE, -1),
        (STATE, True),
        (STATE, 1.0),
        (STATE, None),
        (NEIGHBOURS, bytes(15)),
        (NEIGHBOURS, bytes(32)),
        (NEIGHBOURS, node_id(2) + node_id(1)),
        (NEIGHBOURS, b"".join(sorted(map(node_id, range(65))))),
        (NEIGHBOURS, "x" * 16),
        (ACCUSED, [node_id(1)]),
        (ACCUSED, node_id(1)),
        (ACCUSED, bytes(33)),
        (ACCUSED, bytes(64)),
        (ACCUSED, b"".join(VERSION_LAYOUT.pack(node_id(number), 1, 1) for number in (2, 1))),
        (ACCUSED, b"".join(VERSION_LAYOUT.pack(node_id(number), 1, 1) for number in range(17))),
        (KEYS, [b""]),
        (KEYS, [bytes(17)]),
        (KEYS, ["kkkk"]),
        (KEYS, [b"kkkk"] * 17),
        (PROTOCOL, [2, 1]),
        (PROTOCOL, [0, 1]),
        (PROTOCOL, [1, 256]),
        (PROTOCOL, [True, True]),
        (PROTOCOL, [1.0, 2.0]),
        (PROTOCOL, [1]),
        (PROTOCOL, "12"),
        (PROTOCOL, msgpack.ExtType(1, b"")),
    ],
)
def test_what_no_node_says_is_refused(at: int, value: object) -> None:
    body = msgpack.packb([*FIELDS[:at], value, *FIELDS[at + 1 :]])
    with pytest.raises(RemoteProtocolError, match="record of 25000000"):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 3000,
        b"\xdd\xff\xff\xff\xff",
        msgpack.packb(FIELDS)[:-1],
        msgpack.packb(FIELDS) + b"\0",
        msgpack.packb(FIELDS[:-1]),
        msgpack.packb("record"),
        msgpack.packb([*FIELDS, {}]),
        msgpack.packb([*FIELDS, bytes(BODY_MAX_BYTES)]),
    ],
)
def test_what_is_no_record_at_all_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="record of 25000000"):
        decode(body)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for candidate in (body, b"\x99" + body):
        try:
            decode(candidate)
        except RemoteProtocolError:
            continue


@given(records, st.data())
def test_a_record_that_is_altered_is_read_or_refused(one: Record, data: st.DataObject) -> None:
    body = bytearray(one.encode().body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode(bytes(body))
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("10.0.0.1:1", True),
        ("223.255.255.255:65535", True),
        ("[fd00::1]:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("0.1.2.3:1", False),
        ("224.0.0.1:1", False),
        ("255.255.255.255:1", False),
        ("10.0.0.1:0", False),
        ("[::]:1", False),
        ("[ff02::1]:1", False),
    ],
)
def test_a_node_is_reached_at_the_address_of_one_host(text: str, fits: bool) -> None:
    endpoint = Endpoint.parse(text)
    if fits:
        assert unpack_endpoint(endpoint.packed) == endpoint
    else:
        with pytest.raises(ValueError, match="is no place to reach a node"):
            unpack_endpoint(endpoint.packed)
