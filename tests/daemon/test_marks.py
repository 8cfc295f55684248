"""Operators' marks in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.daemon import marks
from pyminuteman.daemon.entries import FAULTS_KEPT
from pyminuteman.daemon.marks import Marks, read_marks
from pyminuteman.daemon.observed import Mark, rfc3339
from pyminuteman.kv import Assign, GossipStore, SharedKey, open_store
from pyminuteman.membership import open_membership
from pyminuteman.vips.model import BackendKey, InvalidVIPError, VIPKey, VIPName
from pyminuteman.vips.resolution import Target
from tests.support.hostile import nearly

NODE = NodeId(b"n" * 16)
BACKEND = BackendKey("10.0.0.1", 8080)
WEB = VIPKey.tcp("11.0.0.1", 80)
LONG = VIPKey.tcp(VIPName("/" + "x" * 200, "y" * 200), 80)
TARGETS: list[Target] = [(None, BACKEND), (WEB, BACKEND), (LONG, BackendKey("fd00::1", 1))]


@asynccontextmanager
async def opened() -> AsyncIterator[GossipStore]:
    async with (
        open_membership(name="a", bind=Endpoint("127.0.0.1", 0)) as membership,
        open_store(membership, alone_seconds=0.01) as store,
    ):
        yield store


@pytest.mark.trio
async def test_marks_are_read_as_they_were_laid_down_and_gone_when_removed() -> None:
    async with opened() as store:
        await marks.drain(store, NODE, by="ann", reason="disk", at=5.0)
        for target in TARGETS:
            await marks.drain(store, target, by="ann", reason="", at=6.0)
            await marks.set_weight(store, target, 7, by="bob", reason="hot", at=7.0)
        found = read_marks(store.shared())
        assert found.malformed == 0
        assert found.node_drains == {NODE: Mark("ann", 5.0, "disk")}
        assert found.backend_drains == {target: Mark("ann", 6.0) for target in TARGETS}
        assert found.weights == {target: (7, Mark("bob", 7.0, "hot")) for target in TARGETS}
        await marks.undrain(store, NODE, by="cid", reason="new disk", at=8.0)
        for target in TARGETS:
            await marks.undrain(store, target, by="cid", reason="", at=8.0)
            await marks.clear_weight(store, target, by="cid", reason="", at=9.0)
        found = read_marks(store.shared())
        assert (found.node_drains, found.backend_drains, found.weights, found.malformed) == ({}, {}, {}, 0)
        undone = [(NODE, Mark("cid", 8.0, "new disk"))]
        undone += [(target, Mark("cid", at)) for target in TARGETS for at in (8.0, 9.0)]
        assert sorted(found.undone.values(), key=str) == sorted(undone, key=str)
        await marks.drain(store, NODE, by="ann", reason="", at=9.5)
        assert read_marks(store.shared()).node_drains == {NODE: Mark("ann", 9.5)}


@pytest.mark.trio
async def test_what_is_not_there_is_not_undone_and_nothing_is_undone_twice() -> None:
    async with opened() as store:
        await marks.undrain(store, NODE, by="ann", reason="", at=1.0)
        await marks.clear_weight(store, TARGETS[0], by="ann", reason="", at=1.0)
        assert store.shared() == {}
        await marks.drain(store, NODE, by="ann", reason="", at=2.0)
        for by in ("bob", "cid"):
            await marks.undrain(store, NODE, by=by, reason="", at=3.0)
        assert list(read_marks(store.shared()).undone.values()) == [(NODE, Mark("bob", 3.0))]
        key = SharedKey.register("weight/10.0.0.1/8080/*")
        await store.update(key, Assign(b"what nobody can read"))
        await marks.clear_weight(store, TARGETS[0], by="ann", reason="", at=4.0)
        assert read_marks(store.shared()).malformed == 0


@pytest.mark.trio
async def test_what_was_undone_is_forgotten_in_time_and_what_stands_is_not() -> None:
    async with opened() as store:
        for number in range(1, 4):
            target = (None, BackendKey("10.0.0.1", number))
            await marks.drain(store, target, by="ann", reason="", at=1.0)
            await marks.undrain(store, target, by="ann", reason="", at=float(number))
        await marks.drain(store, NODE, by="ann", reason="", at=1.0)
        await marks.forget(store, before=3.0)
        found = read_marks(store.shared())
        assert list(found.undone.values()) == [((None, BackendKey("10.0.0.1", 3)), Mark("ann", 3.0))]
        assert found.node_drains == {NODE: Mark("ann", 1.0)}


def test_what_marks_come_to() -> None:
    mark = Mark("ann", 1.0)
    found = Marks({NODE: mark}, {(None, BACKEND): mark}, {(WEB, BACKEND): (3, mark)})
    adjustments = found.adjustments(lambda node: ["10.0.0.9"] if node == NODE else [], frozenset({(None, BACKEND)}))
    assert adjustments.drained_agents == {"10.0.0.9"}
    assert adjustments.drained == adjustments.unhealthy == {(None, BACKEND)}
    assert adjustments.weights == {(WEB, BACKEND): 3}


GOOD = [6, "11.0.0.1", 80]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("drain/node/zz", ["a", 1.0, "", None, None, 1]),
        ("drain/node/" + "00" * 16, 5),
        ("drain/node/" + "00" * 16, ["a", "x", "", None, None, 1]),
        ("drain/node/" + "00" * 16, [1, 1.0, "", None, None, 1]),
        ("drain/backend/10.0.0.1/8080/*", ["a", 1.0, "", None, None, 1]),
        ("drain/backend/10.0.0.1/8080/*", ["a", 1.0, "", None, [GOOD, "10.0.0.1", 8080], 1]),
        ("drain/backend/10.0.0.1/8080/*", ["a", 1.0, "", None, [[6], "10.0.0.1", 8080], 1]),
        ("drain/node/" + "AB" * 16, ["a", 1.0, "", None, None, 1]),
        ("drain/node/" + "00" * 16, ["a", float("nan"), "", None, None, 1]),
        ("drain/node/" + "00" * 16, ["a", float("inf"), "", None, None, 1]),
        ("drain/node/" + "00" * 16, ["a", -1, "", None, None, 1]),
        ("drain/node/" + "00" * 16, ["a", 253_402_300_800, "", None, None, 1]),
        ("drain/node/" + "00" * 16, ["a", 1.0, "x" * 10_000, None, None, 1]),
        ("drain/backend/5/x/*", ["a", 1.0, "", None, [None, 5, "x"], 1]),
        ("drain/backend/10.0.0.1/0/*", ["a", 1.0, "", None, [None, "10.0.0.1", 0], 1]),
        ("drain/backend/FD00::1/80/*", ["a", 1.0, "", None, [None, "FD00::1", 80], 1]),
        ("drain/backend/10.0.0.1/80/tcp://5:80", ["a", 1.0, "", None, [[6, 5, 80], "10.0.0.1", 80], 1]),
        ("drain/backend/10.0.0.1/80/tcp:///a@5:80", ["a", 1.0, "", None, [[6, ["/a", 5], 80], "10.0.0.1", 80], 1]),
        ("weight/10.0.0.1/8080/*", ["a", 1.0, "", None, [None, "10.0.0.1", 8080], 1]),
        ("weight/10.0.0.1/8080/*", ["a", 1.0, "", 70000, [None, "10.0.0.1", 8080], 1]),
        ("weight/10.0.0.1/8080/*", ["a", 1.0, "", True, [None, "10.0.0.1", 8080], 1]),
        ("weight/10.0.0.1/8080/*", ["a", 1.0, "", 7, [None, "10.0.0.1", 8080], 1, 1]),
        ("weight/10.0.0.1/8080/*", ["a", 1.0, "", None, [None, "10.0.0.1", 80], 1, True]),
        ("drain/node/" + "00" * 16, ["a", 1.0, "", None, None, 1, True, True]),
    ],
)
def test_a_mark_that_is_none_does_not_count(name: str, plain: object) -> None:
    found = read_marks({SharedKey.register(name): msgpack.packb(plain)})
    assert replace(found, faults=()) == Marks(malformed=1)
    assert [key for key, _ in found.faults] == [name]


MARK = ["ann", 1.0, "hot", 7, [GOOD, "10.0.0.1", 8080], 1]
NAMED_MARK = ["ann", 1.0, "hot", 7, [[6, ["/a", "b"], 80], "10.0.0.1", 8080], 1]


@pytest.mark.parametrize(
    "name",
    ["drain/node/" + "00" * 16]
    + [f"{kind}/10.0.0.1/8080/{vip}" for kind in ("drain/backend", "weight") for vip in ("*", WEB, "tcp:///a@b:80")],
)
def test_no_field_of_others_raises_anything(name: str) -> None:
    samples = [MARK, NAMED_MARK, [*MARK, True], [*NAMED_MARK, True]]
    for plain in chain(samples, *map(nearly, samples)):
        found = read_marks({SharedKey.register(name): msgpack.packb(plain)})
        undone = [mark for _, mark in found.undone.values()]
        laid = [
            *undone,
            *found.node_drains.values(),
            *found.backend_drains.values(),
            *(mark for _, mark in found.weights.values()),
        ]
        assert len(laid) + found.malformed == 1, plain
        assert all(rfc3339(mark.at) for mark in laid), plain
        assert found.adjustments(lambda _node: (), frozenset()), plain


def test_the_last_moment_that_has_a_text_is_read() -> None:
    name = "drain/node/" + "00" * 16
    value = msgpack.packb(["ä" * 500, 253_402_300_799.9999, "\U0001f600" * 500, None, None, 1])
    (mark,) = read_marks({SharedKey.register(name): value}).node_drains.values()
    assert rfc3339(mark.at).startswith("9999-12-31T23:59:59.")


@pytest.mark.trio
@pytest.mark.parametrize("weight", [-1, 65536, True, 1.5])
async def test_a_weight_that_nobody_would_read_is_not_written(weight: int) -> None:
    async with opened() as store:
        with pytest.raises(InvalidVIPError, match="is not a weight"):
            await marks.set_weight(store, (None, BACKEND), weight, by="bob", reason="", at=7.0)
        assert store.shared() == {}


def test_other_values_are_no_marks() -> None:
    assert read_marks({SharedKey.flag("drain/node/x"): True, SharedKey.register("else"): b""}) == Marks()
    assert read_marks({SharedKey.register("drain/node/x"): 5}) == Marks(malformed=1, faults=(("drain/node/x", "no register"),))
    many = read_marks({SharedKey.register(f"drain/node/{number}"): 5 for number in range(FAULTS_KEPT + 5)})
    assert (many.malformed, len(many.faults)) == (FAULTS_KEPT + 5, FAULTS_KEPT)


@given(st.binary(max_size=60))
def test_no_bytes_raise(value: bytes) -> None:
    read_marks({SharedKey.register("weight/10.0.0.1/8080/*"): value, SharedKey.register("drain/node/" + "00" * 16): value})
