"""RecordIO: however a stream is cut, the same records come out; and what is no RecordIO ends it with a reason."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.sources.base import SourceError
from pyminuteman.sources.recordio import HEADER_MAX_BYTES, RecordDecoder, RecordError, encode_record


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at those places, which are taken modulo its length."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[one:other] for one, other in pairwise(places)]


def decode(data: bytes, cuts: list[int], record_max: int = 1000) -> tuple[list[bytes], str]:
    """The records, and why there were no more."""
    decoder = RecordDecoder(record_max)
    found: list[bytes] = []
    try:
        for piece in pieces(data, cuts):
            found.extend(decoder.feed(piece))
    except RecordError as error:
        return found, str(error)
    return found, ""


def test_records_come_out_as_they_went_in() -> None:
    decoder = RecordDecoder()
    assert list(decoder.feed(b'5\nhello11\n{"a": "\xc3\xa4"}')) == [b"hello", b'{"a": "\xc3\xa4"}']


def test_a_stream_may_end_between_records_only() -> None:
    decoder = RecordDecoder()
    assert decoder.is_between
    for byte in b"3\nab":
        assert list(decoder.feed(bytes((byte,)))) == []
        assert not decoder.is_between
    assert list(decoder.feed(b"c")) == [b"abc"]
    assert decoder.is_between


def test_an_empty_record_says_nothing() -> None:
    decoder = RecordDecoder()
    assert list(decoder.feed(b"0\n1\na0\n")) == [b"a"]
    assert decoder.is_between


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>\n", "b'<html>' is not the length of a record"),
        (b"\n", "b'' is not the length"),
        (b"-1\n", "is not the length"),
        (b" 1\n", "is not the length"),
        (b"1\r\n", "is not the length"),
        (b"HTTP/1.1 502 Bad Gateway", "12 digits at most"),
        (b"1" * (HEADER_MAX_BYTES + 1), "12 digits at most"),
        (b"1001\n", "a record of 1001 bytes is longer than 1000"),
        (b"999999999999\n", "is longer than 1000"),
    ],
)
def test_what_is_no_record_ends_the_stream_with_a_reason(data: bytes, reason: str) -> None:
    decoder = RecordDecoder(1000)
    records = decoder.feed(b"2\nok" + data)
    assert next(records) == b"ok"
    with pytest.raises(RecordError) as caught:
        list(records)
    assert reason in str(caught.value)
    assert isinstance(caught.value, SourceError)
    with pytest.raises(RecordError):
        list(decoder.feed(b"2\nok"))
    assert not decoder.is_between


def test_the_longest_length_that_is_read_has_as_many_digits_as_allowed() -> None:
    assert decode(b"000000000002\nok", []) == ([b"ok"], "")


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_any_split_gives_the_same_records(records: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(encode_record, records))
    assert decode(data, cuts) == (records, "")


@given(
    st.lists(st.sampled_from([b"1\na", b"3\nabc", b"\n", b"7", b"x", b"12\n", b"0\n", b"9999\n"]), max_size=12),
    st.lists(st.integers(0, 60)),
)
def test_any_bytes_in_any_split_give_the_same_records_and_the_same_end(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    assert decode(data, cuts) == decode(data, []) == decode(data, list(range(len(data))))


@given(st.binary(max_size=200))
def test_nothing_but_a_record_error_comes_of_any_bytes(data: bytes) -> None:
    found, reason = decode(data, [])
    assert sum(map(len, found)) <= len(data)
    assert reason == "" or "record" in reason
