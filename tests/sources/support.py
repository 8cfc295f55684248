"""What tests of sources share: waiting for states and conditions, always with a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from pyminuteman.sources.base import Source, SourceState

__all__ = ["keys", "reading", "settled", "until", "write"]


@asynccontextmanager
async def reading(source: Source, seconds: float = 30) -> AsyncIterator[AsyncIterator[SourceState]]:
    with trio.fail_after(seconds):
        async with source.states() as states:
            yield states


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await trio.sleep(0.005)


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
