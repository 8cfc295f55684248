"""Streams: two ends that hold the key understand each other, however the bytes come; all else is refused without a word."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership.codec import STREAM_MAX_BYTES
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.membership.keyring import Key, Keyring, PlainRing
from pyminuteman.membership.stream_session import FrameReader, StreamSession

A, B = Key(b"a" * 32), Key(b"b" * 32)
Ring = Keyring | PlainRing
Make = Callable[[], Ring]


def sealed_ring() -> Keyring:
    return Keyring([A], cluster="test")


def plain_ring() -> PlainRing:
    return PlainRing(cluster="test")


both = pytest.mark.parametrize("ring", [sealed_ring, plain_ring])


def ends(ring: Make) -> tuple[StreamSession, StreamSession]:
    return StreamSession(ring(), server=False), StreamSession(ring(), server=True)


def connected(ring: Make) -> tuple[StreamSession, StreamSession]:
    client, server = ends(ring)
    assert client.feed(server.feed(client.client_hello())) == b""
    assert client.ready
    assert server.ready
    return client, server


def drained(session: StreamSession) -> list[bytes]:
    return list(iter(session.next, None))  # type: ignore[arg-type]


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """The bytes, cut as a network may cut them."""
    cuts = list(itertools.accumulate(sizes, initial=0))
    return [piece for start, end in itertools.pairwise([*cuts, len(data)]) if (piece := data[start:end])]


@both
@given(
    st.lists(st.binary(min_size=1, max_size=100), max_size=6),
    st.lists(st.binary(min_size=1, max_size=100), max_size=6),
    st.lists(st.integers(1, 40), max_size=20),
)
def test_payloads_arrive_in_order_both_ways_however_they_are_cut(
    ring: Make, sent: list[bytes], answered: list[bytes], sizes: list[int]
) -> None:
    client, server = ends(ring)
    answer = b""
    for piece in pieces(client.client_hello(), sizes):
        assert not answer
        answer += server.feed(piece)
    answer += b"".join(server.seal_frame(plain) for plain in answered)
    received = []
    for piece in pieces(answer, sizes):
        assert client.feed(piece) == b""
        received += drained(client)
    assert received == answered
    received = []
    for piece in pieces(b"".join(client.seal_frame(plain) for plain in sent), sizes):
        assert server.feed(piece) == b""
        received += drained(server)
    assert received == sent


@both
def test_each_end_learns_which_process_the_other_is(ring: Make) -> None:
    one, other = ring(), ring()
    client, server = StreamSession(one, server=False), StreamSession(other, server=True)
    assert client.peer_boot is server.peer_boot is None
    client.feed(server.feed(client.client_hello()))
    assert (client.peer_boot, server.peer_boot) == (other.boot, one.boot)


def test_a_stream_keeps_to_the_key_of_its_hello() -> None:
    client = StreamSession(Keyring([B, A], cluster="test"), server=False)
    server = StreamSession(Keyring([A, B], cluster="test"), server=True)
    client.feed(server.feed(client.client_hello()))
    server.feed(client.seal_frame(b"x"))
    assert server.next() == b"x"


def test_nothing_of_a_payload_is_in_the_clear() -> None:
    client, _ = connected(sealed_ring)
    assert b"secret" not in client.seal_frame(b"a secret " * 9)


# -- the server says nothing to whom it does not know ------------------------------------------------------------------


@pytest.mark.parametrize(
    "ring",
    [lambda: Keyring([B], cluster="test"), lambda: Keyring([A], cluster="else"), plain_ring],
    ids=["another key", "another cluster", "no key"],
)
def test_a_server_does_not_answer_strangers(ring: Make) -> None:
    server, client = StreamSession(sealed_ring(), server=True), StreamSession(ring(), server=False)
    with pytest.raises(RemoteProtocolError):
        server.feed(client.client_hello().ljust(57, b"\0"))
    assert not server.ready
    with pytest.raises(RemoteProtocolError):
        server.feed(b"")


@both
def test_a_server_does_not_answer_a_hello_that_is_cut_short_altered_or_too_long(ring: Make) -> None:
    _, server = ends(ring)
    hello = StreamSession(ring(), server=False).client_hello()
    for piece in itertools.batched(hello[:-1], 1) if hasattr(itertools, "batched") else ([byte] for byte in hello[:-1]):
        assert server.feed(bytes(piece)) == b""
    for bad in (hello + b"x", b"GET / HTTP/1.1\r\n".ljust(len(hello)), bytes(len(hello)), b"\xff" * 100):
        _, server = ends(ring)
        with pytest.raises(RemoteProtocolError):
            server.feed(bad)
        assert server.next() is None


def test_every_bit_of_a_hello_counts() -> None:
    ring = sealed_ring()
    hello = StreamSession(ring, server=False).client_hello()
    for bit in range(8 * len(hello)):
        altered = bytearray(hello)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            StreamSession(sealed_ring(), server=True).feed(bytes(altered))


@both
def test_a_hello_is_answered_once(ring: Make) -> None:
    ours, client = ring(), StreamSession(ring(), server=False)
    hello = client.client_hello()
    assert StreamSession(ours, server=True).feed(hello)
    with pytest.raises(RemoteProtocolError, match="a hello that does not open"):
        StreamSession(ours, server=True).feed(hello)


def test_frames_recorded_on_one_stream_do_not_open_on_another() -> None:
    client = StreamSession(sealed_ring(), server=False)
    hello = client.client_hello()
    first = StreamSession(sealed_ring(), server=True)
    client.feed(first.feed(hello))
    frame = client.seal_frame(b"once")
    # A server that has forgotten, or has just started, does answer the hello; but its random bytes are others.
    second = StreamSession(sealed_ring(), server=True)
    assert second.feed(hello)
    second.feed(frame)
    with pytest.raises(RemoteProtocolError, match="a frame that does not open"):
        second.next()


@both
def test_a_node_does_not_talk_to_itself(ring: Make) -> None:
    own = ring()
    with pytest.raises(RemoteProtocolError):
        StreamSession(own, server=True).feed(StreamSession(own, server=False).client_hello())
    assert own.counters["reflected"] == 1


def test_a_client_notices_a_server_without_the_key() -> None:
    client, server = ends(sealed_ring)
    answer = server.feed(client.client_hello())
    for bit in range(8 * len(answer)):
        altered = bytearray(answer)
        altered[bit // 8] ^= 1 << bit % 8
        fresh = StreamSession(Keyring([A], cluster="test", boot=b"c" * 12), server=False, entropy=lambda size: b"r" * size)
        fresh.client_hello()
        with pytest.raises(RemoteProtocolError, match="does not hold the key"):
            fresh.feed(bytes(altered))
        assert not fresh.ready


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["repeated", "left out", "swapped", "turned back", "altered"])
def test_frames_out_of_place_do_not_open(change: str) -> None:
    client, server = connected(sealed_ring)
    one, two = client.seal_frame(b"one"), client.seal_frame(b"two")
    received = {
        "repeated": one + one,
        "left out": two,
        "swapped": two + one,
        "turned back": server.seal_frame(b"one"),
        "altered": one[:-1] + bytes((one[-1] ^ 1,)),
    }[change]
    server.feed(received)
    with pytest.raises(RemoteProtocolError, match="a frame that does not open"):
        drained(server)
    assert not server.ready
    assert server.next() is None
    for step in (lambda: server.seal_frame(b"x"), lambda: server.feed(b"x")):
        with pytest.raises((LocalProtocolError, RemoteProtocolError)):
            step()


@both
def test_a_frame_may_be_as_large_as_a_payload_and_no_larger(ring: Make) -> None:
    client, server = connected(ring)
    largest = bytes(STREAM_MAX_BYTES)
    server.feed(client.seal_frame(largest))
    assert server.next() == largest
    for wrong in (b"", bytes(STREAM_MAX_BYTES + 1)):
        with pytest.raises(LocalProtocolError, match=rf"a frame of {len(wrong)} bytes"):
            client.seal_frame(wrong)


@both
@pytest.mark.parametrize("size", [0, STREAM_MAX_BYTES + 17, 2**32 - 1])
def test_a_length_out_of_range_is_refused_as_soon_as_it_is_read(ring: Make, size: int) -> None:
    client, server = connected(ring)
    server.feed(size.to_bytes(4, "big"))
    with pytest.raises(RemoteProtocolError, match=f"a frame of {size} bytes"):
        server.next()
    assert not server.ready
    assert client.ready


def test_a_connection_carries_a_bounded_number_of_frames() -> None:
    client, _ = connected(sealed_ring)
    client._sealed = 1 << 32
    with pytest.raises(LocalProtocolError, match="after 4294967296 others"):
        client.seal_frame(b"x")


@both
def test_steps_out_of_order_are_our_mistake(ring: Make) -> None:
    client, server = ends(ring)
    for session in (client, server):
        with pytest.raises(LocalProtocolError, match="no frames before both hellos"):
            session.seal_frame(b"x")
        assert session.next() is None
    with pytest.raises(LocalProtocolError, match="a client says hello"):
        server.client_hello()
    client.client_hello()
    with pytest.raises(LocalProtocolError, match="says it once"):
        client.client_hello()


@both
def test_a_client_that_has_not_said_hello_is_owed_nothing(ring: Make) -> None:
    client, _ = ends(ring)
    with pytest.raises(RemoteProtocolError, match="before the hello that they would answer"):
        client.feed(b"x")
    with pytest.raises(LocalProtocolError):
        client.client_hello()


def test_a_reader_keeps_what_is_not_yet_a_frame() -> None:
    reader = FrameReader(least=1, most=3)
    assert reader.next() is None
    reader.feed(b"\0\0\0")
    assert reader.next() is None
    reader.feed(b"\2a")
    assert reader.next() is None
    reader.feed(b"b\0\0\0\1c\0\0\0\4")
    assert reader.next() == b"ab"
    assert reader.next() == b"c"
    with pytest.raises(RemoteProtocolError, match="a frame of 4 bytes"):
        reader.next()
