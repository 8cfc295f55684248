"""Answers that are made once for all who ask at about the same time, in a thread: large ones hold up no heartbeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import trio

from pyminuteman.daemon.api.answers import entity_tag

__all__ = ["Rendered"]

_THREADS: Final = 2


T = TypeVar("T")


class Rendered(Generic[T]):
    """One kind of answer.

    Args:
        observe: Takes the look at the node.
        make: Makes the body of it. Pure; runs in a thread.
        fresh_seconds: For how long an answer serves those who come after.
        version: While this is the same, that is; whatever changes it makes older answers useless.
    """

    def __init__(
        self,
        observe: Callable[[], Awaitable[T]],
        make: Callable[[T], bytes],
        *,
        fresh_seconds: float,
        version: Callable[[], object] = lambda: None,
    ) -> None:
        self._observe, self._make = observe, make
        self._fresh_seconds, self._version = fresh_seconds, version
        self._lock = trio.Lock()
        self._threads = trio.CapacityLimiter(_THREADS)
        self._answer: tuple[bytes, str] = b"", ""
        self._made_at = -float("inf")
        self._of: object = None

    async def get(self) -> tuple[bytes, str]:
        """The body and its ETag. Those who ask while one is being made wait for it, and take it only if it is fresh."""
        async with self._lock:
            version = self._version()
            if trio.current_time() - self._made_at >= self._fresh_seconds or version != self._of:
                began = trio.current_time()
                self._answer, self._made_at = (b"", ""), -float("inf")  # the old one makes room for the new
                seen = await self._observe()
                body = await trio.to_thread.run_sync(self._make, seen, limiter=self._threads, abandon_on_cancel=True)
                self._answer, self._made_at, self._of = (body, entity_tag(body)), began, version
            return self._answer
