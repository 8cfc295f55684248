"""The threats that the wire faces, each with the test that names it: numbers are rows of the list in docs/protocols/wire.md."""

from __future__ import annotations

import ast
import gc
import hmac
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

import pyminuteman.membership
from pyminuteman.membership import sealing
from pyminuteman.membership.codec import STREAM_MAX_BYTES, pack, unpack
from pyminuteman.membership.errors import KeyringError, RemoteProtocolError
from pyminuteman.membership.keyring import Key, Keyring, PlainRing
from pyminuteman.membership.messages import Heartbeat, Probe, Records
from pyminuteman.membership.records import EncodedRecord, Record
from pyminuteman.membership.sealing import COUNTER_MAX
from pyminuteman.membership.stream_session import StreamSession
from tests.support.messages import node_id, peer

A, B = Key(b"a" * 32), Key(b"b" * 32)
PAYLOAD = pack([Heartbeat(1, 2, 3, 4)], peer(), limit=1159)[0][0]


def ring(key: Key = A, cluster: str = "test", **settings: int) -> Keyring:
    return Keyring([key], cluster=cluster, **settings)


def refused(ours: Keyring | PlainRing, data: bytes) -> str:
    before = dict(ours.counters)
    assert ours.open(data) is None
    (reason,) = [name for name, count in ours.counters.items() if count != before[name]]
    return reason


def kept(step: Callable[[], object], times: int) -> int:
    """Bytes that stay allocated when something is done often."""
    step()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(times):
            step()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def peak(step: Callable[[], object]) -> int:
    """Bytes that are allocated at most while something is done, which is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# -- 1: forged or altered gossip ---------------------------------------------------------------------------------------


def test_row_1_every_bit_of_a_datagram_counts() -> None:
    sealed, ours = ring().seal(PAYLOAD), ring()
    for bit in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        assert ours.open(altered) is None, bit
    assert ours.open(sealed) is not None


def test_row_1_every_prefix_of_a_datagram_is_refused_and_every_byte_too_many() -> None:
    sealed, ours = ring().seal(PAYLOAD), ring()
    for end in range(len(sealed)):
        assert refused(ours, sealed[:end]) in {"size", "forged"}
    assert refused(ours, sealed + b"\0") == "forged"
    assert refused(ours, b"\0" + sealed) == "format"


@given(st.binary(max_size=1300))
def test_row_1_nobody_without_the_key_is_heard(data: bytes) -> None:
    ours = ring()
    for forged in (data, b"\xa1" + data, b"\xa1" + A.id + data, b"\xa1" + A.id + b"b" * 12 + b"\0" * 7 + b"\1" + data):
        assert ours.open(forged) is None


def test_row_1_the_key_of_others_opens_nothing() -> None:
    assert refused(ring(), ring(B).seal(PAYLOAD)) == "unknown_key"
    renamed = bytearray(ring(B).seal(PAYLOAD))
    renamed[1:5] = A.id
    assert refused(ring(), bytes(renamed)) == "forged"


def test_row_1_a_keyring_refuses_what_is_not_sealed_and_the_reverse() -> None:
    plain = PlainRing(cluster="test")
    assert refused(ring(), plain.seal(PAYLOAD)) == "format"
    assert refused(plain, ring().seal(PAYLOAD)) == "format"


def test_row_1_sealing_is_as_the_document_says() -> None:
    """The recipe of docs/protocols/wire.md, written once more with the standard library's HMAC."""
    sealed = Keyring([A], cluster="test", boot=b"twelve bytes").seal(PAYLOAD)
    extracted = hmac.digest(b"twelve bytes", b"a" * 32, "sha256")
    subkey = hmac.digest(extracted, b"pyminuteman datagram\0test\1", "sha256")
    assert (
        sealed[:25]
        == b"\xa1" + hmac.digest(b"a" * 32, b"pyminuteman key id", "sha256")[:4] + b"twelve bytes" + bytes(7) + b"\1"
    )
    assert AESGCM(subkey).decrypt(bytes(4) + sealed[17:25], sealed[25:], sealed[:25] + b"test") == PAYLOAD


# -- 2: replay ---------------------------------------------------------------------------------------------------------


def test_row_2_a_datagram_is_opened_once_in_whatever_order_they_come() -> None:
    ours, theirs = ring(), ring()
    sealed = [theirs.seal(b"%d" % number) for number in range(200)]
    for datagram in (*sealed[::3], *sealed[1::3], *sealed[2::3]):
        assert ours.open(datagram)
    assert [refused(ours, datagram) for datagram in sealed] == ["replayed"] * 200


def test_row_2_what_is_far_behind_is_refused() -> None:
    ours, theirs = ring(), ring()
    sealed = [theirs.seal(b"x") for _ in range(1100)]
    assert ours.open(sealed[1050])
    assert refused(ours, sealed[0]) == "stale"
    assert ours.open(sealed[1050 - 1023])


def test_row_2_our_own_datagrams_do_not_come_back() -> None:
    ours = ring()
    assert refused(ours, ours.seal(PAYLOAD)) == "reflected"
    plain = PlainRing(cluster="test")
    assert refused(plain, plain.seal(PAYLOAD)) == "reflected"


def test_row_2_a_change_of_keys_does_not_open_anything_again() -> None:
    ours, theirs = Keyring([A, B], cluster="test"), Keyring([A, B], cluster="test")
    first = theirs.seal(b"x")
    assert ours.open(first)
    theirs.use(B.id)
    assert ours.open(theirs.seal(b"y"))
    assert refused(ours, first) == "replayed"


def test_row_2_nobody_without_the_key_moves_a_window() -> None:
    ours, theirs = ring(), ring()
    honest = theirs.seal(b"x")
    ahead = bytearray(theirs.seal(b"y"))
    ahead[17:25] = (1 << 40).to_bytes(8, "big")
    assert refused(ours, bytes(ahead)) == "forged"
    assert ours.open(honest)


def test_row_2_a_recorded_stream_has_no_frames_accepted() -> None:
    client, server = StreamSession(ring(), server=False), StreamSession(ring(), server=True)
    hello = client.client_hello()
    client.feed(server.feed(hello))
    frames = client.seal_frame(PAYLOAD)
    amnesiac = StreamSession(ring(), server=True)
    amnesiac.feed(hello)
    amnesiac.feed(frames)
    with pytest.raises(RemoteProtocolError):
        amnesiac.next()


# -- 3: two clusters with one key --------------------------------------------------------------------------------------


def test_row_3_another_cluster_with_the_same_key_is_not_heard() -> None:
    assert refused(ring(cluster="one"), ring(cluster="two").seal(PAYLOAD)) == "forged"
    assert refused(PlainRing(cluster="one"), PlainRing(cluster="two").seal(PAYLOAD)) == "cluster"
    for one, two in ((ring(cluster="one"), ring(cluster="two")), (PlainRing(cluster="one"), PlainRing(cluster="two"))):
        with pytest.raises(RemoteProtocolError):
            StreamSession(one, server=True).feed(StreamSession(two, server=False).client_hello())


def test_row_3_a_longer_name_does_not_stand_for_a_shorter() -> None:
    for name in ("tes", "test1", "test\0", "Test"):
        assert refused(ring(), ring(cluster=name).seal(PAYLOAD)) == "forged"


# -- 4: bombs ----------------------------------------------------------------------------------------------------------

CLAIMS = {
    "a list of four thousand million": b"\x01\xdd\xff\xff\xff\xff",
    "a list of 65535": b"\x01\x92\x20\xdc\xff\xff",
    "lists of 512 in lists of 512": b"\x01" + b"\xdc\x02\x00" * 2000,
    "lists in lists": b"\x01" + b"\x91" * 8000,
    "a text of four thousand million": b"\x01\x92\x02\xdb\xff\xff\xff\xff",
    "bytes of four thousand million": b"\x01\x92\x23\xc6\xff\xff\xff\xff",
    "a map of four thousand million": b"\x01\xdf\xff\xff\xff\xff",
    "an extension of four thousand million": b"\x01\xc9\xff\xff\xff\xff\x01",
    "8,000 nils": b"\x01\xdc\x1f\x40" + b"\xc0" * 8000,
    "8,000 nils as messages": b"\x01" + b"\xc0" * 8000,
}


@pytest.mark.parametrize("stream", [False, True], ids=["datagram", "stream"])
@pytest.mark.parametrize("payload", CLAIMS.values(), ids=CLAIMS)
def test_row_4_a_claim_allocates_little_and_is_refused(payload: bytes, stream: bool) -> None:
    assert peak(lambda: unpack(payload, stream=stream)) < 6_000_000


@pytest.mark.parametrize("payload", CLAIMS.values(), ids=CLAIMS)
def test_row_4_so_is_one_in_a_record(payload: bytes) -> None:
    assert peak(lambda: Record.decode(EncodedRecord(node_id(1), 1, 1, payload[1:]))) < 1_000_000


def test_row_4_the_largest_payload_takes_a_bounded_multiple_of_its_size() -> None:
    size = STREAM_MAX_BYTES // 16  # an eighth of a second; the largest takes sixteen times as much of both
    payload = b"\x01\x92\x23\xc6" + size.to_bytes(4, "big") + bytes(size)
    tracemalloc.start()
    try:
        unpack(payload, stream=True)
        assert tracemalloc.get_traced_memory()[1] < 8 * size
    finally:
        tracemalloc.stop()


def test_row_4_bytes_left_behind_the_last_message_are_refused() -> None:
    for extra in (b"\0", b"\xc0", b"\xc1", b"\x91"):
        with pytest.raises(RemoteProtocolError):
            unpack(PAYLOAD + extra)


def test_row_4_size_is_checked_before_anything_is_decrypted() -> None:
    ours = ring()
    for size in (0, 1, 40, 9217, 65_507):
        assert refused(ours, b"\xa1" * size) == "size"


def test_row_4_a_frame_takes_no_more_memory_than_has_come() -> None:
    client, server = StreamSession(ring(), server=False), StreamSession(ring(), server=True)
    client.feed(server.feed(client.client_hello()))
    tracemalloc.start()
    try:
        server.feed(STREAM_MAX_BYTES.to_bytes(4, "big") + bytes(1000))
        assert server.next() is None
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


# -- 5: decompression bombs --------------------------------------------------------------------------------------------


def test_row_5_nothing_is_ever_decompressed() -> None:
    """There is no compression in this protocol, hence no bomb. If somebody adds it, this fails until the bomb is thought of."""
    imported = set()
    for path in Path(pyminuteman.membership.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert not imported & {
        "zlib",
        "gzip",
        "bz2",
        "lzma",
        "zstandard",
        "lz4",
        "brotli",
        "snappy",
        "zipfile",
        "tarfile",
        "compression",
    }
    assert "msgpack" in imported


# -- 6: counters at their end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counter", [0, COUNTER_MAX + 1, 2**63, 2**64 - 1])
def test_row_6_a_counter_out_of_range_is_refused_even_with_the_key(counter: int) -> None:
    header = b"\xa1" + A.id + b"b" * 12 + counter.to_bytes(8, "big")
    subkey = A.derive(b"b" * 12, b"pyminuteman datagram\0test")
    assert refused(ring(), header + subkey.encrypt(bytes(4) + header[17:], PAYLOAD, header + b"test")) == "counter"


def test_row_6_one_process_at_the_end_of_its_counter_silences_only_itself() -> None:
    ours, mad, sane = ring(), ring(next_counter=COUNTER_MAX), ring()
    assert ours.open(mad.seal(b"x"))
    assert ours.open(sane.seal(b"x"))


def test_row_6_the_highest_epoch_and_version_are_read_as_any_others() -> None:
    """Whether to believe them is for the node: here they must only not break anything."""
    top = 2**64 - 1
    said = Records((EncodedRecord(node_id(1), top, top, b""),))
    assert unpack(pack([said], None, limit=1159)[0][0]).messages == (said,)
    with pytest.raises(RemoteProtocolError):
        unpack(b"\x01" + msgpack.packb([32, [[node_id(1), -1, 1, b""]]]))


# -- 7: tables that grow -----------------------------------------------------------------------------------------------


def test_row_7_forged_datagrams_leave_nothing_behind() -> None:
    ours, number = ring(), 0

    def forge() -> None:
        nonlocal number
        number += 1
        assert ours.open(b"\xa1" + A.id + number.to_bytes(12, "big") + bytes(7) + b"\1" + bytes(60)) is None

    assert kept(forge, 2000) < 3000
    assert ours.counters["forged"] == number
    assert len(ours._datagrams._windows) == 0


def test_row_7_senders_with_the_key_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_CIPHERS_MAX", 10)
    ours = ring(senders_max=10)

    def restart() -> None:
        assert ours.open(ring().seal(b"x"))

    for _ in range(20):
        restart()
    assert kept(restart, 200) < 20_000
    assert len(ours._datagrams._windows) == 10


def test_row_7_caches_of_addresses_are_bounded() -> None:
    from pyminuteman.membership import encoding, records  # noqa: PLC0415 - only their caches

    assert records.unpack_endpoint.cache_parameters()["maxsize"] == 4096
    assert encoding._endpoint.cache_parameters()["maxsize"] == 4096


# -- 8: amplification --------------------------------------------------------------------------------------------------


def test_row_8_a_stream_server_says_nothing_before_the_key_was_shown() -> None:
    for data in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", bytes(56), b"\xa2" + A.id + bytes(51)):
        assert StreamSession(ring(), server=True).feed(data) == b""
    for data in (bytes(57), b"\xa2" + A.id + bytes(52), bytes(5000)):
        with pytest.raises(RemoteProtocolError):
            StreamSession(ring(), server=True).feed(data)


def test_row_8_the_answer_to_a_hello_is_smaller_than_the_hello() -> None:
    hello = StreamSession(ring(), server=False).client_hello()
    answer = StreamSession(ring(), server=True).feed(hello)
    assert (len(hello), len(answer)) == (57, 44)


@pytest.mark.parametrize("address", [bytes(4), b"\xff" * 4, b"\xe0\0\0\1", bytes(16), b"\xff\2" + bytes(14)])
def test_row_8_no_peer_has_us_send_to_many(address: bytes) -> None:
    for endpoint in (address + b"\0\1", b"\x0a\0\0\1\0\0"):
        with pytest.raises(RemoteProtocolError, match="no place to reach a node"):
            unpack(b"\x01" + msgpack.packb([0, bytes(16), 1, endpoint]))


# -- 10: floods --------------------------------------------------------------------------------------------------------


def test_row_10_a_hello_that_never_ends_is_cut() -> None:
    server = StreamSession(ring(), server=True)
    for _ in range(56):
        assert server.feed(b"x") == b""
    with pytest.raises(RemoteProtocolError):
        server.feed(b"x")


def test_row_10_a_connection_before_its_hello_takes_little() -> None:
    ours = ring()
    sessions = []

    def connect() -> None:
        session = StreamSession(ours, server=True)
        session.feed(bytes(56))
        sessions.append(session)

    assert kept(connect, 100) < 100 * 2500


# -- 13: speaking for others -------------------------------------------------------------------------------------------


def test_row_13_a_record_is_the_owners_as_far_as_a_shared_key_tells() -> None:
    """Whoever holds the key is trusted (wire.md says so); what is checked here is that an id cannot be claimed by accident."""
    payload = pack([Probe(1)], peer(1), limit=1159)[0][0]
    assert unpack(payload).sender == peer(1)
    ours = ring()
    opened = ours.open(ring().seal(payload))
    assert opened is not None
    assert opened.boot != ours.boot, "who sent it is known by process, whatever id it claims"


# -- 17: keys in sight -------------------------------------------------------------------------------------------------


def test_row_17_no_error_and_no_counter_shows_a_key() -> None:
    ours = Keyring([A, B], cluster="test")
    texts = [repr(ours.counters), repr(ours.key_ids), repr(A)]
    for step in (lambda: ours.remove(A.id), lambda: ours.use(b"none"), lambda: Keyring([A, A], cluster="test")):
        with pytest.raises(KeyringError) as caught:
            step()
        texts += [str(caught.value), repr(caught.value)]
    for text in texts:
        assert A.text not in text
        assert "a" * 8 not in text
        assert "61" * 8 not in text
