"""What an etcd is asked and what it answers, in the JSON of its gRPC gateway. Pure.

1. Keys and values are bytes here, and base64 in JSON.
2. Revisions, leases and counts are integers here; in JSON they are strings of digits, and left out when they are 0, as everything is
   that has the default of its protobuf type.
3. An answer of another form is refused with :class:`~pyminuteman.etcd.errors.EtcdAnswerInvalid`; it never passes for an empty one.

Sources: etcd 3.4, ``api/etcdserverpb/rpc.proto`` and ``mvccpb/kv.proto`` (the messages), "gRPC gateway" of its documentation (the
mapping), ``google/rpc/code.proto`` (status codes).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from pyminuteman.etcd.errors import EtcdAnswerInvalid, EtcdCompacted, EtcdError, EtcdRefused, EtcdUnavailable, LeaseGone

__all__ = [
    "UNAUTHENTICATED",
    "Compare",
    "Delete",
    "Event",
    "Get",
    "Header",
    "KeyValue",
    "LineSplitter",
    "Operation",
    "Put",
    "Range",
    "Transaction",
    "WatchAnswer",
    "is_unauthenticated",
    "lease_request",
    "prefix_end",
    "range_request",
    "read_keep_alive",
    "read_lease",
    "read_range",
    "read_refusal",
    "read_token",
    "read_transaction",
    "read_watch",
    "transaction_request",
    "watch_request",
]

Json: TypeAlias = dict[str, object]

UNAUTHENTICATED: Final = 16
"""Status code of gRPC: a token is missing, or has expired."""
_NOT_FOUND: Final = 5
_OUT_OF_RANGE: Final = 11
_TRANSIENT: Final = frozenset({1, 4, 13, 14})
"""CANCELLED, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE: of the moment or of one member, so worth asking the next one. INTERNAL is what
the gateway says when the member behind it goes away."""
_SERVER_ERROR: Final = 500
_INT64_MAX: Final = 2**63 - 1


# -- what is known --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key with its value. ``mod_revision`` is that of its last change; ``lease`` is what it lives under, 0 for none."""

    key: bytes
    value: bytes
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """With every answer: who gave it, and at which revision its store was."""

    cluster_id: int
    revision: int


@dataclass(frozen=True, slots=True)
class Range:
    """Keys with their values, in the order of the keys; ``more`` when there are others after the last one."""

    header: Header
    items: tuple[KeyValue, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One change: the key, the revision, and what is there now; None where it was deleted."""

    key: bytes
    revision: int
    item: KeyValue | None


@dataclass(frozen=True, slots=True)
class WatchAnswer:
    """One message of a watch: that it began (``created``), changes, or that it has ended.

    ``compact_revision`` is above 0 when it ended because the history from the revision asked for is gone.
    """

    header: Header
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    reason: str = ""
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Transaction:
    """Whether all comparisons held, and what the operations of that branch found: a Range for a Get, None for others."""

    header: Header
    succeeded: bool
    found: tuple[Range | None, ...]


# -- what is asked --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compare:
    """The key was last changed at this revision; 0: it is not there."""

    key: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key, under a lease or (0) under none."""

    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, or all from ``key`` up to and without ``end``."""

    key: bytes
    end: bytes = b""


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key, or all from ``key`` up to and without ``end``."""

    key: bytes
    end: bytes = b""


Operation: TypeAlias = Put | Delete | Get


def prefix_end(prefix: bytes) -> bytes:
    """Where the keys with a prefix end: the least key after all of them. A zero byte, "to the end of all keys", when there is none.

    (``clientv3.GetPrefixRangeEnd``)
    """
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"


def range_request(key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0) -> Json:
    """Read a key, or all from ``key`` up to and without ``end``: at most ``limit``, as things were at ``revision`` (0: now)."""
    return _without_defaults(key=_encode(key), range_end=_encode(end), limit=str(limit), revision=str(revision))


def transaction_request(compare: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()) -> Json:
    """If all comparisons hold do the one, else the other; all of it or nothing."""
    return {
        "compare": [
            {"target": "MOD", "result": "EQUAL", "key": _encode(one.key), "mod_revision": str(one.mod_revision)}
            for one in compare
        ],
        "success": [_operation(one) for one in success],
        "failure": [_operation(one) for one in failure],
    }


def watch_request(key: bytes, end: bytes, start_revision: int) -> Json:
    """Tell of every change from ``start_revision`` (1 or more) on."""
    asked = _without_defaults(key=_encode(key), range_end=_encode(end), start_revision=str(start_revision))
    return {"create_request": asked}


def lease_request(lease: int, ttl_seconds: int = 0) -> Json:
    """Grant this lease for a time; or, without one, keep it alive or revoke it."""
    return _without_defaults(ID=str(lease), TTL=str(ttl_seconds))


def _operation(operation: Operation) -> Json:
    match operation:
        case Put(key, value, lease):
            return {"request_put": _without_defaults(key=_encode(key), value=_encode(value), lease=str(lease))}
        case Delete(key, end):
            return {"request_delete_range": _without_defaults(key=_encode(key), range_end=_encode(end))}
        case Get(key, end):
            return {"request_range": range_request(key, end)}
        case _:
            assert_never(operation)


def _without_defaults(**fields: str) -> Json:
    return {name: value for name, value in fields.items() if value not in {"", "0"}}


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- what is answered -----------------------------------------------------------------------------------------------------


def read_range(answer: object) -> Range:
    """The answer to ``/v3/kv/range``.

    Raises:
        EtcdAnswerInvalid: It is none. So for the others below.
    """
    fields = _object(answer, "an answer")
    items = tuple(_key_value(item) for item in _list(fields, "kvs"))
    return Range(_header(fields), items, _flag(fields, "more"))


def read_transaction(answer: object) -> Transaction:
    """The answer to ``/v3/kv/txn``."""
    fields = _object(answer, "an answer")
    header = _header(fields)
    found: list[Range | None] = []
    for response in _list(fields, "responses"):
        one = _object(response, "a response").get("response_range")
        found.append(None if one is None else read_range({"header": fields["header"], **_object(one, "response_range")}))
    return Transaction(header, _flag(fields, "succeeded"), tuple(found))


def read_watch(message: object) -> WatchAnswer:
    """One message of the stream of ``/v3/watch``.

    Raises:
        EtcdError: It says that the watch has failed: as :func:`read_refusal` has it.
    """
    fields = _object(message, "a message of a watch")
    if "error" in fields:
        raise _refusal(_object(fields["error"], "error"), 0)
    result = _object(fields.get("result"), "result")
    return WatchAnswer(
        _header(result),
        _flag(result, "created"),
        _flag(result, "canceled"),
        _number(result, "compact_revision"),
        _text(result, "cancel_reason"),
        tuple(_event(event) for event in _list(result, "events")),
    )


def read_lease(answer: object) -> int:
    """The answer to ``/v3/lease/grant``: for how many seconds it holds. A server may give more than was asked for."""
    fields = _object(answer, "an answer")
    if _text(fields, "error"):
        raise EtcdRefused(_text(fields, "error"), 0)
    seconds = _number(fields, "TTL")
    if seconds < 1:
        raise EtcdAnswerInvalid("it grants a lease without a time")
    return seconds


def read_keep_alive(message: object) -> int:
    """One message of the stream of ``/v3/lease/keepalive``: for how many seconds more the lease holds; 0 when it is gone."""
    fields = _object(message, "a message")
    if "error" in fields:
        raise _refusal(_object(fields["error"], "error"), 0)
    return _number(_object(fields.get("result"), "result"), "TTL")


def read_token(answer: object) -> str:
    """The answer to ``/v3/auth/authenticate``."""
    token = _text(_object(answer, "an answer"), "token")
    if not token:
        raise EtcdAnswerInvalid("it authenticates without a token")
    return token


def read_refusal(status: int, body: str) -> EtcdError:
    """What an answer with an HTTP status of 400 and above says."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    return _refusal(document if isinstance(document, dict) else {}, status)


def is_unauthenticated(error: EtcdError) -> bool:
    """Whether it asks for a token, or for a newer one."""
    return isinstance(error, EtcdRefused) and (error.code == UNAUTHENTICATED or "user name is empty" in str(error))


def _refusal(fields: Mapping[str, object], status: int) -> EtcdError:
    code = fields.get("code", fields.get("grpc_code"))
    text = fields.get("error") or fields.get("message")
    if not isinstance(text, str) or isinstance(code, bool) or not isinstance(code, int):
        if status >= _SERVER_ERROR:  # a proxy in between, or a member that is starting
            return EtcdUnavailable(f"it answered {status}")
        return EtcdAnswerInvalid(f"it answered {status}, as no etcd with the API v3 (3.4 or later) does")
    if code == _OUT_OF_RANGE and "compacted" in text:
        return EtcdCompacted(text)
    if code == _NOT_FOUND and "lease" in text:
        return LeaseGone(text)
    return EtcdUnavailable(text) if code in _TRANSIENT else EtcdRefused(text, code)


def _header(fields: Mapping[str, object]) -> Header:
    header = _object(fields.get("header"), "header")
    cluster_id, revision = _digits(header, "cluster_id", 2**64 - 1), _number(header, "revision")
    return Header(cluster_id, revision)


def _key_value(document: object) -> KeyValue:
    fields = _object(document, "a key")
    return KeyValue(_bytes(fields, "key"), _bytes(fields, "value"), _number(fields, "mod_revision"), _number(fields, "lease"))


def _event(document: object) -> Event:
    fields = _object(document, "an event")
    item = _key_value(fields.get("kv"))
    kind = fields.get("type", "PUT")
    if kind not in {"PUT", "DELETE"}:
        raise EtcdAnswerInvalid(f"there is no event {kind!r}")
    return Event(item.key, item.mod_revision, item if kind == "PUT" else None)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise EtcdAnswerInvalid(f"{what} is no JSON object")
    return value


def _list(fields: Mapping[str, object], name: str) -> list[object]:
    value = fields.get(name, [])
    if not isinstance(value, list):
        raise EtcdAnswerInvalid(f"{name} is no list")
    return value


def _flag(fields: Mapping[str, object], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise EtcdAnswerInvalid(f"{name} is neither true nor false")
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise EtcdAnswerInvalid(f"{name} is no text")
    return value


def _number(fields: Mapping[str, object], name: str) -> int:
    return _digits(fields, name, _INT64_MAX)


def _digits(fields: Mapping[str, object], name: str, most: int) -> int:
    value = fields.get(name, 0)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(most)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise EtcdAnswerInvalid(f"{name} is no number from 0 to {most}")
    return value


def _bytes(fields: Mapping[str, object], name: str) -> bytes:
    try:
        return base64.b64decode(_text(fields, name), validate=True)
    except (binascii.Error, ValueError):
        raise EtcdAnswerInvalid(f"{name} is no base64") from None


class LineSplitter:
    """Lines out of a stream that comes in pieces: each message of a watch is one line of JSON."""

    def __init__(self, most: int) -> None:
        """Take lines of up to ``most`` bytes."""
        self._most = most
        self._begun = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes, without their ends; empty ones are left out.

        Raises:
            EtcdAnswerInvalid: A line is too long.
        """
        first, *others = piece.split(b"\n")
        self._begun += first
        lines = []
        for other in others:
            lines.append(bytes(self._begun))
            self._begun = bytearray(other)
        if max(map(len, (*lines, self._begun))) > self._most:
            raise EtcdAnswerInvalid(f"a message has more than {self._most} bytes")
        return [line for line in lines if line.strip()]
