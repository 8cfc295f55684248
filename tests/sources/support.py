"""What tests of sources share: waiting for states and conditions, always with a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from pyminuteman.sources.base import Source, SourceState

__all__ = ["SOON", "comes_about", "keys", "reading", "settled", "states_of", "until", "write"]

SOON: Final = 10.0
"""Deadline, in seconds, for what takes some milliseconds."""


@asynccontextmanager
async def reading(source: Source, seconds: float = 30) -> AsyncIterator[AsyncIterator[SourceState]]:
    with trio.fail_after(seconds):
        async with source.states() as states:
            yield states


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await trio.sleep(0.005)


@asynccontextmanager
async def states_of(source: Source, seconds: float = SOON) -> AsyncIterator[Callable[[], Awaitable[SourceState]]]:
    """A reader of the source, which has a deadline for each state."""
    async with source.states() as states:

        async def following() -> SourceState:
            with trio.fail_after(seconds):
                return await anext(states)

        yield following


async def comes_about(condition: Callable[[], object], what: str) -> None:
    with trio.move_on_after(SOON):
        while not condition():  # noqa: ASYNC110 - nobody sets an event when a counter moves
            await trio.sleep(0.005)
        return
    pytest.fail(f"{what} did not come about within {SOON} s")


async def settled(
    states: AsyncIterator[SourceState], wanted: Callable[[SourceState], bool], seconds: float = 10
) -> SourceState:
    """The first state that is as wanted."""
    with trio.fail_after(seconds):
        while True:
            state = await anext(states)
            if wanted(state):
                return state


def keys(state: SourceState) -> list[str]:
    return [str(vip.key).removeprefix("tcp://") for vip in state.vips]


def write(path: Path, text: str | bytes) -> None:
    """As careful programs do: beside it, then moved into place."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(text.encode() if isinstance(text, str) else text)
    temporary.replace(path)
