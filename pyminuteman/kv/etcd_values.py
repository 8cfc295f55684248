"""Shared values as an etcd keeps them, and how they change. Pure.

An etcd puts all changes into one order, so none are made at the same time and nothing needs to be remembered of its writers: a value
is only its value. It is written as JSON, so that people can read it there: a register as base64, a counter as a number, a flag as
true, a set as a list of base64, a map as an object whose keys are ``KIND:NAME``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

from pyminuteman.kv.errors import InvalidKeyError, InvalidOperationError, RemoteStoreError
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
    check_key,
)

__all__ = ["COUNTER_MAX", "KINDS", "changed", "decode_value", "encode_value"]

COUNTER_MAX: Final = 1 << 62
"""A counter holds from minus this to this."""
KINDS: Final = {kind.name.lower(): kind for kind in Kind}


def changed(value: SharedValue | None, operations: Iterable[Operation]) -> SharedValue | None:
    """The value after operations that its kind knows, in order; None stands for no value, before and after.

    Raises:
        InvalidOperationError: A counter would leave its range.
    """
    for operation in operations:
        value = _applied(value, operation)
    return value


def _applied(value: SharedValue | None, operation: Operation) -> SharedValue | None:  # noqa: PLR0911 - a table
    match operation:
        case Assign(new):
            return new
        case Add(amount):
            total = (value if isinstance(value, int) else 0) + amount
            if abs(total) > COUNTER_MAX:
                raise InvalidOperationError(f"a counter holds from -{COUNTER_MAX} to {COUNTER_MAX}, not {total}")
            return total
        case Enable():
            return True
        case AddElement(element):
            return _elements(value) | {element}
        case RemoveElement(element):
            return (_elements(value) - {element}) or None
        case Disable() | Remove():
            return None
        case InMap(field, inner):
            fields = dict(value) if isinstance(value, Mapping) else {}
            new_value = _applied(fields.pop(field, None), inner)
            if new_value is not None:
                fields[field] = new_value
            return dict(sorted(fields.items())) or None
        case _:
            assert_never(operation)


def _elements(value: SharedValue | None) -> frozenset[bytes]:
    return value if isinstance(value, frozenset) else frozenset()


def encode_value(value: SharedValue) -> bytes:
    """As JSON; the same value always gives the same bytes."""
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: SharedValue) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, frozenset):
        return [base64.b64encode(element).decode() for element in sorted(value)]
    if isinstance(value, Mapping):
        return {str(field): _plain(inner) for field, inner in sorted(value.items())}
    return value


def decode_value(kind: Kind, data: bytes) -> SharedValue:
    """The inverse of :func:`encode_value`.

    Raises:
        RemoteStoreError: Somebody wrote what is none.
    """
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError):
        raise RemoteStoreError("a shared value is no JSON") from None
    return _read(kind, plain)


def _read(kind: Kind, plain: Any) -> SharedValue:
    match kind:
        case Kind.REGISTER:
            return _bytes(plain)
        case Kind.COUNTER if type(plain) is int and abs(plain) <= COUNTER_MAX:
            return int(plain)
        case Kind.FLAG if plain is True:
            return True
        case Kind.SET if isinstance(plain, list) and plain:
            return frozenset(_bytes(element) for element in plain)
        case Kind.MAP if isinstance(plain, dict) and plain:
            fields = {_field(text): inner for text, inner in plain.items()}
            return {field: _read(field.kind, inner) for field, inner in sorted(fields.items(), key=lambda one: one[0])}
        case _:
            raise RemoteStoreError(f"a shared value is no {kind.name.lower()}")


def _field(text: str) -> SharedKey:
    kind, _, name = text.partition(":")
    if kind not in KINDS or KINDS[kind] is Kind.MAP:
        raise RemoteStoreError(f"a field of a map is no KIND:NAME: {text!r:.60}")
    try:
        check_key(name)
    except (InvalidKeyError, UnicodeError):
        raise RemoteStoreError(f"a field of a map has no name: {text!r:.60}") from None
    return SharedKey(KINDS[kind], name)


def _bytes(plain: Any) -> bytes:
    try:
        return base64.b64decode(plain if isinstance(plain, str) else "*", validate=True)
    except (binascii.Error, ValueError):
        raise RemoteStoreError("a shared value holds what is no base64") from None
