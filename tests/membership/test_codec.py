"""Messages to bytes and back: nothing is lost, nothing is too large, and nothing that no writer makes is read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership import codec
from pyminuteman.membership.codec import PROTOCOL_VERSIONS, STREAM_MAX_BYTES, Unpacked, agree, pack, unpack
from pyminuteman.membership.decoding import READERS
from pyminuteman.membership.encoding import CUTTERS, WRITERS
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.membership.messages import (
    Heartbeat,
    JoinDenied,
    Message,
    Multicast,
    MulticastAnnounce,
    MulticastRequest,
    PacketId,
    Peer,
    Probe,
    RecordRequest,
    Records,
    TableDigest,
    TableSummary,
)
from pyminuteman.membership.records import EncodedRecord, Version
from tests.conftest import ROOT
from tests.support.messages import BY_TYPE, FIXED, messages, node_id, peer, peers, record

LIMIT = 1159
"""A datagram of 1200 bytes, less what sealing adds."""
HEARTBEAT = Heartbeat(65535, 65535, 65535, 2**32 - 1)


def plain(*arrays: Any, version: int = 1) -> bytes:
    return bytes((version,)) + b"".join(map(msgpack.packb, arrays))


def joined(found: Iterable[Message]) -> list[Message]:
    """With the pieces of what was cut put together again."""
    whole: list[Message] = []
    for message in found:
        last = whole[-1] if whole else None
        match message, last:
            case Records(more), Records(records):
                whole[-1] = Records(records + more)
            case RecordRequest(more), RecordRequest(ids):
                whole[-1] = RecordRequest(ids + more)
            case (MulticastAnnounce(more), MulticastAnnounce(ids)) | (MulticastRequest(more), MulticastRequest(ids)):
                whole[-1] = type(message)(ids + more)
            case TableDigest(count, buckets, versions), TableDigest(same, before, held) if same == count:
                whole[-1] = TableDigest(count, before + buckets, held + versions)
            case _:
                whole.append(message)
    return whole


def roundtrip(said: Iterable[Message], sender: Peer | None, limit: int = LIMIT) -> tuple[list[Unpacked], list[Unpacked]]:
    datagrams, streams = pack(tuple(said), sender, limit=limit)
    assert all(len(datagram) <= limit for datagram in datagrams)
    assert all(len(stream) <= STREAM_MAX_BYTES for stream in streams)
    return [unpack(datagram) for datagram in datagrams], [unpack(stream, stream=True) for stream in streams]


@pytest.mark.parametrize("kind", BY_TYPE, ids=lambda kind: kind.__name__)
@given(data=st.data(), sender=st.none() | peers)
def test_every_message_comes_back_as_it_was(kind: type[Any], data: st.DataObject, sender: Peer | None) -> None:
    message = data.draw(BY_TYPE[kind])
    datagrams, streams = roundtrip([message], sender)
    assert joined(found for payload in datagrams + streams for found in payload.messages) == [message]
    assert {payload.sender for payload in datagrams + streams} == {sender}
    assert not any(payload.unknown for payload in datagrams + streams)
    assert len(datagrams) <= 8


@given(st.lists(messages, max_size=12), st.none() | peers, st.sampled_from([500, LIMIT, 8900]))
def test_several_go_in_one_datagram_in_order(said: list[Message], sender: Peer | None, limit: int) -> None:
    datagrams, streams = roundtrip(said, sender, limit)
    found = joined(message for payload in datagrams for message in payload.messages)
    large = joined(message for payload in streams for message in payload.messages)
    rest = joined(said)
    assert len(found) + len(large) >= len(rest)
    for message in found + large:
        assert message in rest or any(type(message) is type(other) for other in rest)
    if not streams:
        assert found == rest
    assert all(payload.messages for payload in datagrams + streams)


def test_nothing_said_is_nothing_sent() -> None:
    assert pack((), peer(), limit=LIMIT) == ([], [])


def test_every_type_of_message_has_a_writer_a_reader_and_a_strategy() -> None:
    kinds = set(get_args(Message))
    assert kinds == {*WRITERS, *CUTTERS} == set(BY_TYPE) == {type(message) for message, _ in FIXED}
    assert not WRITERS.keys() & CUTTERS.keys()
    assert len(READERS) == len(kinds)
    assert 0 not in READERS


def test_the_document_has_every_type() -> None:
    text = (ROOT / "docs/protocols/wire.md").read_text()
    named: dict[str, int] = {}
    for numbers, names in re.findall(r"^\| (\d+(?:, \d+)?) \| ([A-Z]\w+(?:, \w+)?) \|", text, re.MULTILINE):
        named |= zip(names.split(", "), map(int, numbers.split(", ")), strict=True)
    assert named == {type(message).__name__: int(text.split()[1], 16) for message, text in FIXED}
    assert set(named.values()) == set(READERS)


@pytest.mark.parametrize(
    ("message", "text"), FIXED, ids=lambda value: type(value).__name__ if not isinstance(value, str) else ""
)
def test_the_bytes_of_each_message_stay_what_they_are(message: Message, text: str) -> None:
    ((payload,), ()) = pack([message], None, limit=LIMIT)
    assert payload.hex() == "01" + text.replace(" ", "")
    assert unpack(payload) == Unpacked(None, (message,), 0)


def test_the_bytes_of_the_identity_stay_what_they_are() -> None:
    ((payload,), ()) = pack([Probe(7)], peer(), limit=LIMIT)
    assert (
        payload.hex(" ")
        == "01 94 00 c4 10 25 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01 ce 65 53 f1 01 c4 06 0a 00 00 01 ef ec 92 02 07"
    )


def test_a_heartbeat_takes_seventeen_bytes() -> None:
    ((payload,), ()) = pack([HEARTBEAT], None, limit=LIMIT)
    assert len(payload) == 17


# -- what is cut, and what goes over TCP -------------------------------------------------------------------------------


def encoded(number: int, size: int = 100) -> EncodedRecord:
    return EncodedRecord(node_id(number), 1_700_000_000, number, bytes(size))


def test_records_are_cut_while_eight_datagrams_hold_them() -> None:
    fitting = [encoded(number) for number in range(8 * 8)]  # 128 bytes each
    datagrams, streams = roundtrip([Records(tuple(fitting))], peer())
    assert (len(datagrams), streams) == (8, [])
    assert [found for payload in datagrams for found in payload.messages[0].records] == fitting  # type: ignore[union-attr]
    datagrams, streams = roundtrip([Records((*fitting, encoded(99)))], peer())
    assert (datagrams, len(streams)) == ([], 1)


def test_one_element_too_large_takes_all_to_tcp() -> None:
    said = Records((encoded(1), encoded(2, 1200)))
    datagrams, (payload,) = roundtrip([said], None)
    assert datagrams == []
    assert payload.messages == (said,)


def test_a_message_that_is_never_cut_goes_to_tcp() -> None:
    small, large = Probe(1), Multicast(PacketId(node_id(1), 1, 1), "kv", 32, bytes(2000))
    datagrams, streams = roundtrip([large, small], peer())
    assert [payload.messages for payload in datagrams] == [(small,)]
    assert [(payload.sender, payload.messages) for payload in streams] == [(peer(), (large,))]


def test_many_small_messages_are_no_more_than_a_reader_takes() -> None:
    datagrams, _ = roundtrip([Probe(number & 127) for number in range(200)], peer(), 9000 - 41)
    assert [len(payload.messages) for payload in datagrams] == [64, 64, 64, 8]


@pytest.mark.parametrize("count", [16, 256])
def test_a_digest_is_cut_between_its_buckets(count: int) -> None:
    held = sorted((Version(node_id(number), 1, number) for number in range(200)), key=lambda version: version.id)
    buckets = tuple(sorted({version.id[0] * count // 256 for version in held} | {0, count - 1}))
    datagrams, streams = roundtrip([TableDigest(count, buckets, tuple(held))], peer())
    assert 6 < len(datagrams) <= 8
    assert not streams
    for payload in datagrams:
        (part,) = payload.messages
        assert isinstance(part, TableDigest)
        whole = tuple(version for version in held if version.id[0] * count // 256 in part.buckets)
        assert part.versions == whole, "a bucket is in one part, whole"


def test_a_digest_whose_bucket_fits_no_datagram_goes_to_tcp() -> None:
    ids = [type(node_id(1))(b"\0" + number.to_bytes(15, "big")) for number in range(50)]
    said = TableDigest(16, (0, 1), tuple(Version(id_, 1, 1) for id_ in ids))
    datagrams, (payload,) = roundtrip([said], None)
    assert datagrams == []
    assert payload.messages == (said,)


def test_a_digest_with_a_version_outside_its_buckets_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match=r"25000000 is in none of the digest's buckets"):
        pack([TableDigest(16, (0,), (Version(node_id(1), 1, 1),))], None, limit=LIMIT)


def test_the_summary_of_a_large_table_fits_a_datagram() -> None:
    datagrams, streams = pack([TableSummary(bytes(1024))], peer(), limit=LIMIT)
    assert (len(datagrams), len(streams)) == (1, 0)


def test_tcp_takes_a_large_cluster_in_a_few_payloads() -> None:
    records = tuple(encoded(number, 1000) for number in range(20_000))
    datagrams, streams = roundtrip([Records(records)], peer())
    assert datagrams == []
    assert len(streams) == 2
    assert [one for payload in streams for part in payload.messages for one in part.records] == list(records)  # type: ignore[union-attr]
    held = tuple(Version(node_id(number), 1, 1) for number in range(20_000))
    _, (payload,) = roundtrip([TableDigest(256, tuple(range(256)), held)], peer())
    assert len(payload.messages[0].versions) == 20_000  # type: ignore[union-attr]


def test_what_is_too_large_even_for_tcp_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(
        LocalProtocolError, match=r"a message of 167772\d\d bytes is above the 16777216 that a payload may have"
    ):
        pack([Probe(1), Multicast(PacketId(node_id(1), 1, 1), "kv", 32, bytes(STREAM_MAX_BYTES))], None, limit=LIMIT)


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "version"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (2, 5), 3),
        ((2, 5), (1, 3), 3),
        ((1, 16), (1, 1), 1),
        ((1, 16), (16, 17), 16),
        ((1, 1), (2, 3), None),
        ((16, 17), (1, 15), None),
    ],
)
def test_two_nodes_speak_the_highest_version_that_they_share(mine: Any, theirs: Any, version: int | None) -> None:
    assert agree(mine, theirs) == version


def test_a_later_minor_version_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ((payload,), ()) = pack([HEARTBEAT], None, limit=LIMIT, version=15)
    assert payload[0] == 15
    assert unpack(payload).messages == (HEARTBEAT,)
    monkeypatch.setattr(codec, "PROTOCOL_VERSIONS", (16, 18))
    assert unpack(b"\x1f" + payload[1:]).messages == (HEARTBEAT,)
    for version in (15, 32):
        with pytest.raises(RemoteProtocolError, match=rf"protocol version {version}: this node speaks 16 to 18"):
            unpack(bytes((version,)) + payload[1:])


@pytest.mark.parametrize("version", [0, 16, 255])
def test_another_major_version_is_refused_with_the_reason(version: int) -> None:
    with pytest.raises(
        RemoteProtocolError, match=f"protocol version {version}: this node speaks 1 to 1, so one of us is to be"
    ):
        unpack(plain([2, 7], version=version))


def test_versions_fit_the_byte_of_a_payload() -> None:
    assert 1 <= PROTOCOL_VERSIONS[0] <= PROTOCOL_VERSIONS[1] <= 255


def test_messages_of_a_type_not_known_are_skipped_and_counted() -> None:
    later = [[127, "words", [1, 2, [3]], b"", None, -1.5], [6], [2, 7], [126, [[[]]]]]
    assert unpack(plain([0, *peer()[:2], peer().endpoint.packed], *later)) == Unpacked(peer(), (Probe(7),), 3)


@pytest.mark.parametrize("message", [message for message, _ in FIXED], ids=lambda message: type(message).__name__)
def test_fields_of_a_later_version_are_left_alone(message: Message) -> None:
    ((payload,), ()) = pack([message], None, limit=LIMIT)
    fields = msgpack.unpackb(payload[1:])
    assert unpack(plain([*fields, "later", [1]])).messages == (message,)


def test_fields_of_a_later_version_within_peers_and_records_are_left_alone() -> None:
    who = [peer().id, peer().epoch, peer().endpoint.packed, "later"]
    one = encoded(1)
    assert unpack(plain([0, *who], [17, 1, [who]], [32, [[*one, 8]]])).messages == (JoinDenied(1, (peer(),)), Records((one,)))


# -- what no writer makes ----------------------------------------------------------------------------------------------

ID = bytes(16)
PEER = [ID, 1, b"\x0a\0\0\1\0\1"]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\1", id="no message"),
        pytest.param(b"\1" * 9001, id="large"),
        pytest.param(b"\1\xc1", id="a byte that MessagePack does not have"),
        pytest.param(b"\1\x92\2", id="cut short"),
        pytest.param(plain([2, 7]) + b"\x92\2", id="the second cut short"),
        pytest.param(plain([2, 7]) + b"\xc1", id="the second no MessagePack"),
        pytest.param(plain(7), id="not a list"),
        pytest.param(plain([2, 7], 7), id="not a list behind one"),
        pytest.param(plain([]), id="no type"),
        pytest.param(plain(["2", 7]), id="type a text"),
        pytest.param(plain([True, 7]), id="type a boolean"),
        pytest.param(plain([2.0, 7]), id="type a float"),
        pytest.param(plain([-1, 7]), id="type negative"),
        pytest.param(plain([128, 7]), id="type too high"),
        pytest.param(plain({2: 7}), id="a map"),
        pytest.param(plain([127, {2: 7}]), id="a map in what is skipped"),
        pytest.param(plain([127, {}]), id="an empty map in what is skipped"),
        pytest.param(plain([127, msgpack.ExtType(1, b"")]), id="an extension in what is skipped"),
        pytest.param(plain([127, msgpack.Timestamp(1)]), id="a timestamp in what is skipped"),
        pytest.param(plain([127, "x" * 256]), id="a long text in what is skipped"),
        pytest.param(plain([127, [0] * 513]), id="a long list in what is skipped"),
        pytest.param(b"\1\x92\x7f\xa1\xff", id="a text that is not UTF-8"),
        pytest.param(b"\1\xdc\xff\xff" + b"\xc0" * 8000, id="a list that says it is longer than it may"),
        pytest.param(b"\1\xdd\xff\xff\xff\xff", id="a list of four thousand million"),
        pytest.param(b"\1" + b"\x91" * 3000, id="nested deeply"),
        pytest.param(b"\1" + b"\x91" * 3000 + b"\xc0", id="nested deeply and closed"),
        pytest.param(plain(*[[2, 7]] * 66), id="many messages"),
        pytest.param(plain([2, 7], [0, *PEER]), id="identity not first"),
        pytest.param(plain([0, *PEER], [0, *PEER]), id="identity twice"),
        pytest.param(plain([0, ID, 1]), id="identity without endpoint"),
        pytest.param(plain([0, ID[1:], 1, PEER[2]]), id="identity short"),
        pytest.param(plain([0, [0] * 16, 1, PEER[2]]), id="identity a list"),
        pytest.param(plain([0, "x" * 16, 1, PEER[2]]), id="identity a text"),
        pytest.param(plain([0, ID, -1, PEER[2]]), id="epoch negative"),
        pytest.param(plain([0, ID, True, PEER[2]]), id="epoch a boolean"),
        pytest.param(plain([0, ID, 1.0, PEER[2]]), id="epoch a float"),
        pytest.param(plain([0, ID, 1, "10.0.0.1:1"]), id="endpoint a text"),
        pytest.param(plain([0, ID, 1, b"\x0a\0\0\1\0"]), id="endpoint short"),
        pytest.param(plain([0, ID, 1, b"\x0a\0\0\1\0\0"]), id="port 0"),
        pytest.param(plain([0, ID, 1, b"\0\0\0\0\0\1"]), id="unspecified"),
        pytest.param(plain([0, ID, 1, b"\xe0\0\0\1\0\1"]), id="multicast"),
        pytest.param(plain([0, ID, 1, b"\xff" * 6]), id="broadcast"),
        pytest.param(plain([0, ID, 1, bytes(17) + b"\1"]), id="unspecified of IPv6"),
        pytest.param(plain([0, ID, 1, b"\xff\2" + bytes(13) + b"\1\0\1"]), id="multicast of IPv6"),
        pytest.param(plain([1, 65536, 0, 0, 0]), id="heartbeat number"),
        pytest.param(plain([1, 0, -1, 0, 0]), id="heartbeat echo"),
        pytest.param(plain([1, 0, 0, 65536, 0]), id="heartbeat held"),
        pytest.param(plain([1, 0, 0, 0, 2**32]), id="heartbeat hash"),
        pytest.param(plain([1, 0, 0, 0, True]), id="heartbeat boolean"),
        pytest.param(plain([1, 0, 0, 0]), id="heartbeat short"),
        pytest.param(plain([2]), id="probe without number"),
        pytest.param(plain([2, -1]), id="probe negative"),
        pytest.param(plain([4, 1, None]), id="target of none"),
        pytest.param(plain([17, 1, [PEER] * 129]), id="many peers"),
        pytest.param(plain([17, 1, PEER]), id="peers that are one"),
        pytest.param(plain([17, 1, ID]), id="peers bytes"),
        pytest.param(plain([18, PEER, 256]), id="time to live"),
        pytest.param(plain([19, 1, 3, 100]), id="priority"),
        pytest.param(plain([19, 1, True, 100]), id="priority a boolean"),
        pytest.param(plain([19, 1, 1, 0]), id="interval 0"),
        pytest.param(plain([19, 1, 1, 60_001]), id="interval long"),
        pytest.param(plain([20, 1, 1, 100, []]), id="accepted a number"),
        pytest.param(plain([21, 6, None]), id="reason"),
        pytest.param(plain([21, 0, False]), id="instead a boolean"),
        pytest.param(plain([32, [[ID, 1, 1, bytes(8193)]]]), id="record large"),
        pytest.param(plain([32, [[ID, 1, 2**64 - 1, "body"]]]), id="record a text"),
        pytest.param(plain([32, [[ID, 1]]]), id="record short"),
        pytest.param(plain([33, bytes(60)]), id="summary of 15"),
        pytest.param(plain([33, bytes(4 * 512)]), id="summary of 512"),
        pytest.param(plain([33, bytes(65)]), id="summary odd"),
        pytest.param(plain([34, 15, b"", b""]), id="digest of 15"),
        pytest.param(plain([34, 16, b"\x10", b""]), id="digest bucket"),
        pytest.param(plain([34, 16, b"\1\1", b""]), id="digest bucket twice"),
        pytest.param(plain([34, 16, b"\1", bytes(31)]), id="digest versions odd"),
        pytest.param(plain([34, 16, b"\1", bytes(32)]), id="digest version of another bucket"),
        pytest.param(plain([35, bytes(15)]), id="ids odd"),
        pytest.param(plain([35, "x" * 16]), id="ids a text"),
        pytest.param(plain([48, [ID, 1, 0], "kv", 1, b"", None]), id="packet number 0"),
        pytest.param(plain([48, [ID, 1, 1, 1], "kv", 1, b"", None]), id="packet id long"),
        pytest.param(plain([48, [ID, 1, 1], b"kv", 1, b"", None]), id="topic bytes"),
        pytest.param(plain([48, [ID, 1, 1], "é" * 128, 1, b"", None]), id="topic long"),
        pytest.param(plain([48, [ID, 1, 1], "kv", 256, b"", None]), id="packet time to live"),
        pytest.param(plain([48, [ID, 1, 1], "kv", 1, "payload", None]), id="payload a text"),
        pytest.param(plain([48, [ID, 1, 1], "kv", 1, b"", bytes(257 * 16)]), id="route long"),
        pytest.param(plain([49, bytes(32)]), id="announced number 0"),
        pytest.param(plain([49, bytes(24)]), id="announced odd"),
    ],
)
def test_what_no_writer_makes_is_refused_whole(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(payload)


def test_more_is_allowed_over_tcp() -> None:
    large = plain([48, [ID, 1, 1], "kv", 1, bytes(20_000), None])
    with pytest.raises(RemoteProtocolError, match="a payload of 20032 bytes"):
        unpack(large)
    assert len(unpack(large, stream=True).messages) == 1
    assert len(unpack(plain(*[[2, 7]] * 4096), stream=True).messages) == 4096
    with pytest.raises(RemoteProtocolError, match="more than 4096 messages"):
        unpack(plain(*[[2, 7]] * 4098), stream=True)
    with pytest.raises(RemoteProtocolError, match="a payload of 16777217 bytes"):
        unpack(b"\1" + bytes(STREAM_MAX_BYTES), stream=True)


@given(st.lists(messages, min_size=1, max_size=4), peers)
def test_a_payload_that_is_cut_short_is_refused_or_says_less(said: list[Message], sender: Peer) -> None:
    for payload in pack(said, sender, limit=LIMIT)[0]:
        whole = unpack(payload).messages
        for end in range(len(payload)):
            try:
                found = unpack(payload[:end])
            except RemoteProtocolError:
                continue
            assert found.sender == sender
            assert found.messages == whole[: len(found.messages)]


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(payload: bytes, stream: bool) -> None:
    for candidate in (payload, b"\1" + payload):
        try:
            unpack(candidate, stream=stream)
        except RemoteProtocolError:
            continue


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 3), inner, max_size=1),
    max_leaves=8,
)


@given(st.sampled_from([0, *READERS]), st.lists(values, max_size=6))
def test_any_fields_are_read_or_refused(kind: int, fields: list[Any]) -> None:
    try:
        unpack(plain([kind, *fields]))
    except RemoteProtocolError as error:
        text = str(error)
    else:
        text = ""
    assert len(text) < 200, "an error repeats little of what it refuses"


def test_a_usual_gossip_fits_a_datagram() -> None:
    news = Records(tuple(record(number).encode() for number in range(5)))
    assert [len(part) for part in pack([HEARTBEAT, news], peer(), limit=LIMIT)] == [1, 0]
