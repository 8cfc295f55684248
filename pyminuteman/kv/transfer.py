"""A store as JSON, out and in: for backups, for moving to another engine, for people to read. With either engine.

The document, version 1; bytes are in base64, and everything is in order, so that two exports can be compared::

    {"format": "pyminuteman-store", "version": 1,
     "own": {"<owner, 32 hexadecimal digits>": {"<key>": "<base64>"}},
     "shared": [{"kind": "counter", "name": "connections", "value": 3}, ...]}

A register's value is base64, a counter's a number, a flag's true, a set's a list of base64, a map's a list like ``shared``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyminuteman.addresses import NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.kv.errors import InvalidKeyError
from pyminuteman.kv.operations import (
    AMOUNT_MAX,
    Add,
    AddElement,
    Assign,
    Enable,
    InMap,
    Kind,
    Operation,
    Remove,
    SharedKey,
    SharedValue,
    check_key,
)
from pyminuteman.kv.store import Store

__all__ = ["FORMAT_VERSION", "Imported", "export_store", "import_store"]

FORMAT_VERSION: Final = 1
_FORMAT: Final = "pyminuteman-store"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        own: Own entries of this node that were put.
        shared: Shared values that were set.
        others: Own entries of other nodes, left out: they are for their owners to say.
    """

    own: int
    shared: int
    others: int


def export_store(store: Store, prefix: str = "") -> str:
    """All entries and values whose keys begin so, as a text that ends with a newline."""
    own: dict[str, dict[str, str]] = {}
    for key, owner, value in store.entries(prefix):
        own.setdefault(str(owner), {})[key] = _text(value)
    document = {
        "format": _FORMAT,
        "version": FORMAT_VERSION,
        "own": dict(sorted(own.items())),
        "shared": _values(store.shared(prefix)),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


async def import_store(store: Store, text: str, *, owner: NodeId | None = None) -> Imported:
    """Put and set what an export holds. What is there besides stays; a value that is there already becomes the exported one.

    Args:
        store: Where to.
        text: As :func:`export_store` gave it.
        owner: Whose own entries to put as this node's; by default this node's own.

    Raises:
        ConfigurationError: Not such a document; the key says where. Nothing was changed.
        StoreError: As :meth:`~pyminuteman.kv.store.Store.change_own` and ``update`` raise it. What came before is done.
    """
    own, shared = _read(text)
    mine = own.pop(owner if owner is not None else store.me, {})
    if mine:
        await store.change_own(mine)
    for key, value in shared.items():
        await store.update(key, *_operations(key, value, store.read(key)))
    return Imported(len(mine), len(shared), sum(map(len, own.values())))


def _operations(key: SharedKey, value: SharedValue, present: SharedValue | None) -> list[Operation]:
    """What makes a value out of the present one."""
    if key.kind is Kind.COUNTER:
        return _additions((value if isinstance(value, int) else 0) - (present if isinstance(present, int) else 0))
    made: list[Operation] = [] if present is None else [Remove()]
    if isinstance(value, bytes):
        return [Assign(value)]
    if isinstance(value, frozenset):
        return [*made, *(AddElement(element) for element in sorted(value))]
    if isinstance(value, Mapping):
        for field, inner in value.items():
            made += [InMap(field, one) for one in _operations(field, inner, None) if not isinstance(one, InMap)]
        return made
    return [Enable()]


def _additions(amount: int) -> list[Operation]:
    sign = -1 if amount < 0 else 1
    whole, rest = divmod(abs(amount), AMOUNT_MAX)
    return [*([Add(sign * AMOUNT_MAX)] * whole), Add(sign * rest)]


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _values(values: Mapping[SharedKey, SharedValue]) -> list[dict[str, Any]]:
    return [{"kind": key.kind.name.lower(), "name": key.name, "value": _value(value)} for key, value in sorted(values.items())]


def _value(value: SharedValue) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, frozenset):
        return [_text(element) for element in sorted(value)]
    return _values(value) if isinstance(value, Mapping) else value


# -- reading -----------------------------------------------------------------------------------------------------------


def _read(text: str) -> tuple[dict[NodeId, dict[str, bytes | None]], dict[SharedKey, SharedValue]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(None, "", f"not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ConfigurationError(None, "format", f'not an export of a store, which has "format": "{_FORMAT}"')
    if document.get("version") != FORMAT_VERSION:
        raise ConfigurationError(None, "version", f"{document.get('version')!r:.40} is not {FORMAT_VERSION}")
    own: dict[NodeId, dict[str, bytes | None]] = {}
    for owner, entries in _dict(document.get("own"), "own").items():
        where = f"own.{owner}"
        try:
            node = NodeId.parse(owner)
        except ValueError as error:
            raise ConfigurationError(None, where, str(error)) from None
        own[node] = {}
        for key, value in _dict(entries, where).items():
            _check(key, where)
            own[node][key] = _bytes(value, f"{where}.{key}")
    return own, _read_values(document.get("shared"), "shared", tuple(Kind))


def _read_values(value: object, where: str, kinds: tuple[Kind, ...]) -> dict[SharedKey, SharedValue]:
    known = {kind.name.lower(): kind for kind in kinds}
    values: dict[SharedKey, SharedValue] = {}
    for number, row in enumerate(_list(value, where)):
        place = f"{where}[{number}]"
        row = _dict(row, place)  # noqa: PLW2901 - the same, of a known type
        if row.get("kind") not in known:
            raise ConfigurationError(None, f"{place}.kind", f"{row.get('kind')!r:.40} is none of {', '.join(known)}")
        _check(row.get("name"), f"{place}.name")
        key = SharedKey(known[row["kind"]], row["name"])
        values[key] = _read_value(key.kind, row.get("value"), f"{place}.value")
    return values


def _read_value(kind: Kind, value: object, where: str) -> SharedValue:
    match kind:
        case Kind.REGISTER:
            return _bytes(value, where)
        case Kind.COUNTER:
            if type(value) is not int or value.bit_length() > 62:  # noqa: PLR2004 - as counters go
                raise ConfigurationError(None, where, f"{value!r:.40} is not a whole number of up to 62 bits")
            return value
        case Kind.FLAG:
            if value is not True:
                raise ConfigurationError(None, where, f"{value!r:.40} is not true: a flag that is off is left out")
            return True
        case Kind.SET:
            return frozenset(_bytes(element, f"{where}[{number}]") for number, element in enumerate(_list(value, where)))
        case _:
            return _read_values(value, where, tuple(kind for kind in Kind if kind is not Kind.MAP))


def _check(key: Any, where: str) -> None:
    try:
        check_key(key)
    except InvalidKeyError as error:
        raise ConfigurationError(None, where, str(error)) from None


def _dict(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(None, where, "not an object")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigurationError(None, where, "not a list")
    return value


def _bytes(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise ConfigurationError(None, where, "not a text of base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(None, where, f"{value!r:.40} is not base64") from None
