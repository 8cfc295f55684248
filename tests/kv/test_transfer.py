"""Exports that are none: what is wrong is named, and nothing is changed. (Those that are right are in the contract of stores.)"""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.kv.operations import AMOUNT_MAX, Add, InMap, Kind, SharedKey
from pyminuteman.kv.store import Store
from pyminuteman.kv.transfer import _operations, import_store

UNTOUCHED = cast("Store", None)
OWNER = "00" * 16


def document(**changes: Any) -> dict[str, Any]:
    return {"format": "pyminuteman-store", "version": 1, "own": {}, "shared": [], **changes}


def shared(kind: object, value: object, name: object = "n") -> dict[str, Any]:
    return document(shared=[{"kind": kind, "name": name, "value": value}])


BROKEN: dict[str, tuple[Any, str]] = {
    "a list": ([], "format: not an export of a store"),
    "another format": (document(format="x"), "format: not an export of a store"),
    "a later version": (document(version=2), "version: 2 is not 1"),
    "own entries that are a list": (document(own=[]), "own: not an object"),
    "an owner that is none": (document(own={"x": {}}), "own.x: 'x' is not a node id"),
    "entries that are a list": (document(own={OWNER: []}), f"own.{OWNER}: not an object"),
    "a key that is none": (document(own={OWNER: {"": ""}}), "'' is not a key"),
    "a value of a number": (document(own={OWNER: {"k": 1}}), f"own.{OWNER}.k: not a text of base64"),
    "a value not in base64": (document(own={OWNER: {"k": "%"}}), "'%' is not base64"),
    "shared values that are an object": (document(shared={}), "shared: not a list"),
    "a shared value that is none": (document(shared=[1]), r"shared\[0\]: not an object"),
    "an unknown kind": (shared("heap", 1), r"shared\[0\].kind: 'heap' is none of register, counter, flag, set, map"),
    "a name that is none": (shared("flag", True, name=5), r"shared\[0\].name: 5 is not a key"),
    "a register of a number": (shared("register", 1), r"shared\[0\].value: not a text"),
    "a counter of a text": (shared("counter", "1"), "'1' is not a whole number"),
    "a counter too large": (shared("counter", 1 << 63), "is not a whole number of up to 62 bits"),
    "a flag that is off": (shared("flag", False), "False is not true"),
    "a set of numbers": (shared("set", [1]), r"shared\[0\].value\[0\]: not a text"),
    "a map in a map": (
        shared("map", [{"kind": "map", "name": "m", "value": []}]),
        r"shared\[0\].value\[0\].kind: 'map' is none of register, counter, flag, set$",
    ),
}


@pytest.mark.trio
@pytest.mark.parametrize(("broken", "text"), BROKEN.values(), ids=BROKEN)
async def test_what_is_wrong_with_a_document_is_named(broken: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        await import_store(UNTOUCHED, json.dumps(broken))


@pytest.mark.trio
@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
async def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not JSON"):
        await import_store(UNTOUCHED, text)


def test_a_counter_is_brought_to_its_value_however_far_it_is() -> None:
    for there, wanted in ((None, 5), (7, -3), (0, 3 * AMOUNT_MAX + 1), (-AMOUNT_MAX, AMOUNT_MAX)):
        additions = _operations(SharedKey.counter("c"), wanted, there)
        assert (there or 0) + sum(one.amount for one in additions if isinstance(one, Add)) == wanted
    fields = _operations(SharedKey.map("m"), {SharedKey.counter("c"): 2}, {SharedKey.counter("c"): 1})
    assert [type(one).__name__ for one in fields] == ["Remove", "InMap"]
    assert fields[1] == InMap(SharedKey(Kind.COUNTER, "c"), Add(2))
