"""Server-sent events: however a stream is cut, the same events come out, and what is too long costs itself alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.sources.sse import EventDecoder, ServerEvent


def decode(data: bytes, cuts: list[int], event_max: int = 1000) -> tuple[list[ServerEvent], int, int, float | None]:
    decoder = EventDecoder(event_max)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    found: list[ServerEvent] = []
    for one, other in pairwise(places):
        found += decoder.feed(data[one:other])
    return found, decoder.dropped, decoder.comments, decoder.retry_seconds


def events(data: bytes) -> list[ServerEvent]:
    return decode(data, [])[0]


def test_an_event_has_a_type_data_and_an_id() -> None:
    assert events(b"event: status_update_event\ndata: {}\nid: 7\n\n") == [ServerEvent("status_update_event", "{}", "7")]
    assert events(b"data:a\ndata: b\ndata\n\n") == [ServerEvent(data="a\nb\n")]


def test_the_id_stays_until_another_is_said_and_the_type_does_not() -> None:
    assert events(b"id: 1\nevent: x\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: \0\ndata: d\n\n") == [
        ServerEvent("x", "a", "1"),
        ServerEvent(data="b", id="1"),
        ServerEvent(data="c"),
        ServerEvent(data="d"),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_all_three_line_ends_end_a_line(end: bytes) -> None:
    assert events(end.join([b"data: a", b"data: b", b"", b"data: c", b"", b""])) == [
        ServerEvent(data="a\nb"),
        ServerEvent(data="c"),
    ]


def test_what_is_not_ended_by_an_empty_line_is_no_event() -> None:
    assert events(b"data: a\n") == []
    assert events(b"event: x\n\n") == []  # no data, no event


def test_comments_and_unknown_fields_say_nothing() -> None:
    assert decode(b": keep\n\r\nretry: 1500\nretry: soon\nfoo: bar\ndata: a\n\n", []) == ([ServerEvent(data="a")], 0, 1, 1.5)


def test_a_byte_order_mark_is_skipped_at_the_beginning_alone() -> None:
    assert events("\ufeffdata: a\n\n\ufeffdata: b\n\n".encode()) == [ServerEvent(data="a")]


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    assert events(b"data: \xff\n\n") == [ServerEvent(data="\ufffd")]


@pytest.mark.parametrize(
    "long", [b"data: " + b"x" * 60, b"x" * 60, b"data: " + b"x" * 30 + b"\ndata: " + b"x" * 30 + b"\ndata: y", b":" + b"x" * 60]
)
def test_what_is_too_long_is_dropped_with_its_event_alone(long: bytes) -> None:
    data = b"data: before\n\n" + long + b"\n\ndata: after\n\n"
    for cuts in ([], list(range(len(data)))):
        assert decode(data, cuts, 50)[:2] == ([ServerEvent(data="before"), ServerEvent(data="after")], 1)


PARTS = [
    b"data: a",
    b"data:",
    b"event: e",
    b"id: 1",
    b":",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    "ä".encode(),
    b"x" * 20,
    b"retry: 2",
    b"\xef\xbb\xbf",
]


@given(st.lists(st.sampled_from(PARTS), max_size=20), st.lists(st.integers(0, 200), max_size=20))
def test_any_split_gives_the_same_events(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    whole = decode(data, [], 30)
    assert decode(data, cuts, 30) == whole
    assert decode(data, list(range(len(data))), 30) == whole
