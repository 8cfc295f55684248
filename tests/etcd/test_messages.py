"""What is asked of an etcd and what it answers: bytes and numbers here, base64 and strings of digits there."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.etcd.errors import (
    EtcdAnswerInvalid,
    EtcdCompacted,
    EtcdError,
    EtcdRefused,
    EtcdUnavailable,
    LeaseGone,
)
from pyminuteman.etcd.messages import (
    Compare,
    Delete,
    Event,
    Get,
    Header,
    KeyValue,
    LineSplitter,
    Put,
    Range,
    is_unauthenticated,
    lease_request,
    prefix_end,
    range_request,
    read_keep_alive,
    read_lease,
    read_range,
    read_refusal,
    read_token,
    read_transaction,
    read_watch,
    transaction_request,
    watch_request,
)

HEADER = {"cluster_id": "14841639068965178418", "member_id": "10276657743932975437", "revision": "7", "raft_term": "2"}
HERE = Header(14841639068965178418, 7)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def kv(key: bytes, value: bytes = b"", **more: str) -> dict[str, str]:
    return {"key": b64(key), "mod_revision": "5", **({"value": b64(value)} if value else {}), **more}


# -- asking ---------------------------------------------------------------------------------------------------------------


def test_what_has_its_default_is_left_out() -> None:
    assert range_request(b"a") == {"key": "YQ=="}
    assert range_request(b"a", b"b", limit=5, revision=9) == {"key": "YQ==", "range_end": "Yg==", "limit": "5", "revision": "9"}
    assert watch_request(b"a", b"b", 3) == {"create_request": {"key": "YQ==", "range_end": "Yg==", "start_revision": "3"}}
    assert lease_request(12) == {"ID": "12"}
    assert lease_request(12, 60) == {"ID": "12", "TTL": "60"}


def test_a_transaction_compares_revisions_also_with_none() -> None:
    request = transaction_request([Compare(b"k", 0)], [Put(b"k", b"v", 4), Delete(b"a", b"b")], [Get(b"k")])
    assert request == {
        "compare": [{"target": "MOD", "result": "EQUAL", "key": "aw==", "mod_revision": "0"}],
        "success": [
            {"request_put": {"key": "aw==", "value": "dg==", "lease": "4"}},
            {"request_delete_range": {"key": "YQ==", "range_end": "Yg=="}},
        ],
        "failure": [{"request_range": {"key": "aw=="}}],
    }


@given(st.binary(max_size=4), st.binary(max_size=6))
def test_all_keys_with_a_prefix_and_no_others_lie_before_its_end(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)
    inside = key >= prefix and (end == b"\0" or key < end)
    assert inside == key.startswith(prefix)


# -- answers --------------------------------------------------------------------------------------------------------------


def test_a_range_is_read() -> None:
    answer = {"header": HEADER, "kvs": [kv(b"a", b"x", lease="3"), kv(b"b")], "more": True, "count": "9"}
    assert read_range(answer) == Range(HERE, (KeyValue(b"a", b"x", 5, 3), KeyValue(b"b", b"", 5)), more=True)
    assert read_range({"header": HEADER}) == Range(HERE, (), more=False)


def test_a_transaction_is_read() -> None:
    found = read_transaction(
        {
            "header": HEADER,
            "succeeded": True,
            "responses": [
                {"response_put": {"header": {}}},
                {"response_range": {"header": {"revision": "7"}, "kvs": [kv(b"a")]}},
            ],
        }
    )
    assert found.header == HERE
    assert found.succeeded
    assert found.found[0] is None
    assert found.found[1] is not None
    assert found.found[1].items == (KeyValue(b"a", b"", 5),)
    assert not read_transaction({"header": HEADER}).succeeded


def test_a_transaction_whose_inner_header_is_empty_has_that_of_the_answer() -> None:
    found = read_transaction({"header": HEADER, "responses": [{"response_range": {"kvs": [kv(b"a")]}}]}).found[0]
    assert found is not None
    assert found.header == HERE


def test_messages_of_a_watch_are_read() -> None:
    begun = read_watch({"result": {"header": HEADER, "created": True}})
    assert (begun.header, begun.created, begun.events) == (HERE, True, ())
    changes = read_watch(
        {
            "result": {
                "header": HEADER,
                "events": [{"kv": kv(b"a", b"x")}, {"type": "DELETE", "kv": kv(b"b")}, {"type": "PUT", "kv": kv(b"c")}],
            }
        }
    )
    assert changes.events == (
        Event(b"a", 5, KeyValue(b"a", b"x", 5)),
        Event(b"b", 5, None),
        Event(b"c", 5, KeyValue(b"c", b"", 5)),
    )
    ended = read_watch({"result": {"header": HEADER, "canceled": True, "compact_revision": "4", "cancel_reason": "gone"}})
    assert (ended.canceled, ended.compact_revision, ended.reason) == (True, 4, "gone")


def test_a_watch_without_a_leader_fails_as_unavailable() -> None:
    with pytest.raises(EtcdUnavailable, match="no leader"):
        read_watch({"error": {"grpc_code": 14, "http_code": 503, "message": "etcdserver: no leader", "http_status": "x"}})


def test_leases_are_read() -> None:
    assert read_lease({"header": HEADER, "ID": "12", "TTL": "60"}) == 60
    assert read_keep_alive({"result": {"header": HEADER, "ID": "12", "TTL": "60"}}) == 60
    assert read_keep_alive({"result": {"header": HEADER, "ID": "12"}}) == 0
    with pytest.raises(EtcdUnavailable):
        read_keep_alive({"error": {"grpc_code": 14, "message": "no leader"}})
    with pytest.raises(EtcdRefused, match="too much"):
        read_lease({"header": HEADER, "error": "too much"})
    with pytest.raises(EtcdAnswerInvalid):
        read_lease({"header": HEADER, "ID": "12"})


def test_a_token_is_read() -> None:
    assert read_token({"header": HEADER, "token": "abc.1"}) == "abc.1"
    with pytest.raises(EtcdAnswerInvalid):
        read_token({"header": HEADER})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "etcdserver: mvcc: required revision has been compacted", "code": 11}, EtcdCompacted),
        (400, {"error": "etcdserver: mvcc: required revision is a future revision", "code": 11}, EtcdRefused),
        (404, {"error": "etcdserver: requested lease not found", "code": 5}, LeaseGone),
        (404, {"error": "etcdserver: something else not found", "code": 5}, EtcdRefused),
        (503, {"error": "etcdserver: no leader", "code": 14}, EtcdUnavailable),
        (500, {"error": "transport is closing", "message": "transport is closing", "code": 13}, EtcdUnavailable),
        (403, {"error": "etcdserver: permission denied", "code": 7}, EtcdRefused),
        (403, {"message": "etcdserver: permission denied", "grpc_code": 7}, EtcdRefused),
        (503, "<html>try later</html>", EtcdUnavailable),
        (500, ["?"], EtcdUnavailable),
        (404, "404 page not found", EtcdAnswerInvalid),
        (400, {"error": 3, "code": 7}, EtcdAnswerInvalid),
        (400, {"error": "text", "code": True}, EtcdAnswerInvalid),
        (400, {"error": "text"}, EtcdAnswerInvalid),
    ],
)
def test_each_refusal_becomes_the_error_that_says_what_to_do(status: int, body: object, kind: type[EtcdError]) -> None:
    found = read_refusal(status, body if isinstance(body, str) else json.dumps(body))
    assert type(found) is kind


def test_a_refusal_nested_too_deeply_is_one_all_the_same() -> None:
    assert isinstance(read_refusal(400, "[" * 100_000), EtcdAnswerInvalid)


def test_whoever_must_say_who_they_are_is_told_from_whoever_may_not() -> None:
    assert is_unauthenticated(EtcdRefused("etcdserver: invalid auth token", 16))
    assert is_unauthenticated(EtcdRefused("etcdserver: user name is empty", 3))
    assert not is_unauthenticated(EtcdRefused("etcdserver: permission denied", 7))
    assert not is_unauthenticated(EtcdUnavailable("etcdserver: no leader"))


def test_an_error_says_at_which_member_once() -> None:
    error = EtcdUnavailable("no leader")
    assert str(error) == "no leader"
    error.endpoint = "http://127.0.0.1:2379"
    assert str(error) == "http://127.0.0.1:2379: no leader"
    known = EtcdUnavailable("http://127.0.0.1:2379/v3/watch: broken")
    known.endpoint = "http://127.0.0.1:2379"
    assert str(known) == "http://127.0.0.1:2379/v3/watch: broken"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"header": []},
        {"header": {"revision": "-1"}},
        {"header": {"revision": "x"}},
        {"header": {"revision": 1.5}},
        {"header": {"revision": True}},
        {"header": {"revision": "9" * 5000}},
        {"header": {"revision": str(2**63)}},
        {"header": HEADER, "kvs": {}},
        {"header": HEADER, "kvs": [3]},
        {"header": HEADER, "kvs": [{"key": 3}]},
        {"header": HEADER, "kvs": [{"key": "*"}]},
        {"header": HEADER, "kvs": [{"key": "ü"}]},
        {"header": HEADER, "more": "yes"},
    ],
)
def test_an_answer_of_another_form_never_passes_for_an_empty_one(answer: object) -> None:
    with pytest.raises(EtcdAnswerInvalid):
        read_range(answer)


@pytest.mark.parametrize(
    "message",
    [3, {}, {"result": 3}, {"error": 3}, {"result": {"header": HEADER, "events": [{"type": "PAT", "kv": kv(b"a")}]}}],
)
def test_a_message_of_another_form_is_refused(message: object) -> None:
    with pytest.raises(EtcdAnswerInvalid):
        read_watch(message)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["7", "YQ==", "DELETE"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["header", "result", "error", "kvs", "kv", "events", "revision", "key", "responses", "response_range", "TTL"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_json)
def test_whatever_comes_is_read_or_refused_as_one_of_our_errors(answer: Any) -> None:
    for read in (read_range, read_transaction, read_watch, read_lease, read_keep_alive, read_token):
        with suppress(EtcdError):
            read(answer)


# -- lines ----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=8).filter(lambda line: b"\n" not in line and line.strip()), max_size=6), st.data())
def test_lines_come_out_the_same_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    splitter, found = LineSplitter(8), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += splitter.feed(stream[:size])
        stream = stream[size:]
    assert found == lines


def test_a_line_without_an_end_is_given_up_in_time() -> None:
    splitter = LineSplitter(10)
    splitter.feed(b"x" * 10)
    with pytest.raises(EtcdAnswerInvalid, match="more than 10 bytes"):
        splitter.feed(b"x")
    with pytest.raises(EtcdAnswerInvalid):
        LineSplitter(10).feed(b"ok\n" + b"x" * 11 + b"\n")


def test_empty_lines_are_no_messages() -> None:
    assert LineSplitter(10).feed(b"\n \r\na\n") == [b"a"]
