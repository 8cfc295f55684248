"""States from code."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from pyminuteman.sources.base import SourceError, SourceState
from pyminuteman.sources.push import PushSource
from pyminuteman.vips.model import VIP, VIPKey, VIPSettings
from tests.sources.support import reading

ONE, TWO = VIP(VIPKey.tcp("11.0.0.1", 1)), VIP(VIPKey.tcp("11.0.0.1", 2))


@pytest.mark.trio
async def test_what_is_pushed_is_told_to_every_reader_who_is_there_or_comes() -> None:
    source = PushSource()
    async with reading(source) as states, reading(source) as others:
        with trio.move_on_after(0.01) as scope:
            await anext(states)
        assert scope.cancelled_caught  # nothing is desired yet, which is not the same as that nothing is desired
        assert source.status.last_good_at is None
        assert source.push([TWO, ONE])
        assert not source.push([ONE, TWO])
        assert await anext(states) == await anext(others) == SourceState((ONE, TWO))
        assert source.push(SourceState())
        assert await anext(states) == SourceState()
        async with reading(source) as late:
            assert await anext(late) == SourceState()
    assert source.push([ONE])
    assert source.status.counters == {"pushes": 4, "states": 3}


@pytest.mark.trio
async def test_two_vips_with_one_key_are_refused_and_change_nothing() -> None:
    source = PushSource("push:api")
    source.push([ONE])
    with pytest.raises(SourceError, match=r"push:api tcp://11.0.0.1:1: it is described twice"):
        source.push([ONE, VIP(ONE.key, settings=VIPSettings("rr"))])
    async with reading(source) as states:
        assert await anext(states) == SourceState((ONE,))


@pytest.mark.trio
async def test_readers_are_not_without_number() -> None:

    source = PushSource()
    async with AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(source.states())
        with pytest.raises(SourceError, match="16 readers already"):
            await stack.enter_async_context(source.states())
    async with source.states():
        pass
