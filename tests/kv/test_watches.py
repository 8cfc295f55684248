"""Readers of changes: each has a bounded set, and nobody waits for them."""

from __future__ import annotations

import pytest
import trio

from pyminuteman.kv.operations import SharedKey
from pyminuteman.kv.store import Changes
from pyminuteman.kv.watches import Watches

FLAG = SharedKey.flag("vips/f")
pytestmark = pytest.mark.trio


async def test_a_reader_gets_what_begins_with_its_prefix() -> None:
    watches = Watches(10)
    with watches.watch("vips/") as one, watches.watch("") as other:
        for watch in (one, other):
            assert await anext(watch) == Changes(everything=True)
        watches.put({"vips/a", "x"}, {FLAG, SharedKey.flag("x")})
        assert await anext(one) == Changes(frozenset({"vips/a"}), frozenset({FLAG}))
        assert await anext(other) == Changes(frozenset({"vips/a", "x"}), frozenset({FLAG, SharedKey.flag("x")}))


async def test_a_reader_waits_for_what_concerns_it() -> None:
    watches = Watches(10)
    got: list[Changes] = []

    async def read(task_status: trio.TaskStatus[None]) -> None:
        with watches.watch("a") as watch:
            task_status.started()
            async for changes in watch:
                got.append(changes)  # noqa: PERF401 - while it goes on

    async with trio.open_nursery() as nursery:
        await nursery.start(read)
        await trio.testing.wait_all_tasks_blocked()
        watches.put({"b"}, ())
        await trio.testing.wait_all_tasks_blocked()
        assert got == [Changes(everything=True)]
        watches.put({"a1"}, ())
        watches.put({"a2"}, ())
        await trio.testing.wait_all_tasks_blocked()
        watches.put_everything()
        watches.put({"a3"}, ())
        watches.end()
    assert got[1:] == [Changes(frozenset({"a1", "a2"})), Changes(everything=True)]


async def test_too_many_keys_become_everything_and_are_counted() -> None:
    watches = Watches(2)
    with watches.watch("") as watch:
        await anext(watch)
        watches.put({"a"}, {FLAG})
        watches.put({"b"}, ())
        watches.put({"c"}, ())
        assert watches.overflows == 1
        assert await anext(watch) == Changes(everything=True)


async def test_who_watches_an_ended_store_sees_it_once() -> None:
    watches = Watches(2)
    watches.end()
    with watches.watch("") as watch:
        assert [changes async for changes in watch] == [Changes(everything=True)]
