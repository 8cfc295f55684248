"""Many checks at once, and what they say of each backend.

1. Of one backend no two checks run at a time, and each has a deadline. So a check that hangs holds up nobody else: those whose last
   check ran into its deadline have a lane of their own, and cannot use up the places of those that answer.
2. Only an answer, or a deadline that we were awake for, counts. When this process was stopped for a while, or could not ask (no free
   descriptor), the check is void: it is counted, and made again.
3. Whoever listens is told the latest state of each backend whose state changed. The monitor never waits for a reader, and what waits
   for one is at most one state a backend.
4. Targets that stay keep what is known of them. One whose check or policy has changed keeps its verdict, until the new one comes to
   another: how a backend is asked does not make it well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Generic, Self, TypeVar

import trio

from pyminuteman.health.checks import Check, CheckFailed
from pyminuteman.health.hysteresis import CheckPolicy, Hysteresis, InvalidCheckError

__all__ = ["Changes", "Health", "Monitor", "Target", "open_monitor"]

K = TypeVar("K", bound=Hashable)

_ASLEEP_SHARE: Final = 0.5
"""A deadline that we notice later than by this share of itself finds us, and not the backend, at fault."""
_CONCURRENCY_MAX: Final = 10_000
_COUNTERS: Final = ("checks", "passed", "failed", "timed_out", "void", "became_healthy", "became_unhealthy", "coalesced")


@dataclass(frozen=True, slots=True)
class Target:
    """What to ask of a backend, and how often."""

    check: Check
    policy: CheckPolicy = field(default_factory=CheckPolicy)


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a backend. Times are seconds of trio's clock."""

    healthy: bool
    confirmed: bool
    """Whether checks have decided that; until then it is the policy's guess."""
    since: float
    """When it became so."""
    reason: str = ""
    """Why the last check failed, or was void; empty when it passed."""
    checked_at: float | None = None
    """When the last check ended; None before the first."""
    took_seconds: float = 0.0
    """How long the last check took."""


class _Watched:
    """One target: what is known of it, and the scope that ends its checks."""

    def __init__(self, target: Target, dice: Random, now: float, before: Health | None) -> None:
        self.target = target
        self.scope = trio.CancelScope()
        self.hysteresis = Hysteresis(target.policy, dice, now)
        self.hung = False
        self.health = before or Health(self.hysteresis.healthy, confirmed=False, since=now)
        self.hysteresis.healthy, self.hysteresis.confirmed = self.health.healthy, self.health.confirmed

    def note(self, now: float, reason: str, took_seconds: float) -> bool:
        """Take down how things are; whether the state has changed, or been confirmed."""
        before, state = self.health, self.hysteresis
        changed = state.healthy != before.healthy
        since = now if changed else before.since
        self.health = Health(state.healthy, state.confirmed, since, reason, now, took_seconds)
        return changed or state.confirmed != before.confirmed


class Changes(Generic[K]):
    """What changed since it was last asked: :meth:`receive`, or ``async for``. Close it, or use ``with``, to be told no more.

    Attributes:
        coalesced: States that a later one replaced because they were not read in time.
    """

    def __init__(self, readers: set[Changes[K]]) -> None:
        self.coalesced = 0
        self._pending: dict[K, Health] = {}
        self._wake, self._woken = trio.open_memory_channel[None](1)
        self._readers = readers
        readers.add(self)

    def put(self, key: K, health: Health) -> bool:
        """For the monitor; False when an older state of the same backend was still unread."""
        fresh = self._pending.pop(key, None) is None
        self.coalesced += not fresh
        self._pending[key] = health
        with suppress(trio.WouldBlock):  # then the reader is woken already
            self._wake.send_nowait(None)
        return fresh

    async def receive(self) -> Mapping[K, Health]:
        """The states of all backends that changed since the last call; waits for one at least.

        Raises:
            trio.ClosedResourceError: You closed it.
        """
        while True:
            await self._woken.receive()
            if self._pending:
                pending, self._pending = self._pending, {}
                return pending

    def forget(self, key: K) -> None:
        """For the monitor: that target is no more."""
        self._pending.pop(key, None)

    def close(self) -> None:
        """Be told no more. A second call does nothing."""
        self._readers.discard(self)
        self._wake.close()
        self._woken.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Mapping[K, Health]:
        return await self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Monitor(Generic[K]):
    """Checks its targets for as long as it is open; get one from :func:`open_monitor`. ``K`` is what you tell backends apart by."""

    def __init__(self, nursery: trio.Nursery, dice: Random, concurrency: int) -> None:
        """Check in ``nursery``; see :func:`open_monitor`."""
        self._nursery = nursery
        self._dice = dice
        self._lanes = {hung: trio.CapacityLimiter(concurrency) for hung in (False, True)}
        self._watched: dict[K, _Watched] = {}
        self._readers: set[Changes[K]] = set()
        self._counts = dict.fromkeys(_COUNTERS, 0)

    def watch(self, targets: Mapping[K, Target]) -> None:
        """Check these from now on, and no others."""
        before: dict[K, Health] = {}
        for key in [key for key, watched in self._watched.items() if targets.get(key) != watched.target]:
            watched = self._watched.pop(key)
            watched.scope.cancel()
            if key in targets:
                before[key] = watched.health
                continue
            for reader in self._readers:
                reader.forget(key)
        now = trio.current_time()
        for key, target in targets.items():
            if key not in self._watched:
                self._watched[key] = watched = _Watched(target, self._dice, now, before.get(key))
                self._nursery.start_soon(self._keep_checking, key, watched)

    def health(self, key: K) -> Health | None:
        """What is known of a backend; None when it is not checked."""
        watched = self._watched.get(key)
        return None if watched is None else watched.health

    def known(self) -> dict[K, Health]:
        """What is known of all backends that are checked, at this moment."""
        return {key: watched.health for key, watched in self._watched.items()}

    def effective_weight(self, key: K, weight: int) -> int:
        """The weight as configured, and 0 when the backend is unhealthy. One that is not checked keeps its weight."""
        watched = self._watched.get(key)
        return 0 if watched is not None and not watched.health.healthy else weight

    def changes(self) -> Changes[K]:
        """Be told, from now on, of each backend that becomes healthy or unhealthy, or is first confirmed to be what it was taken for."""
        return Changes(self._readers)

    def metrics(self) -> dict[str, float]:
        """How many there are, and what has happened since the start (``_total``)."""
        states = [watched.health for watched in self._watched.values()]
        return {
            "targets": len(states),
            "healthy": sum(state.healthy for state in states),
            "unconfirmed": sum(not state.confirmed for state in states),
            "running": sum(lane.borrowed_tokens for lane in self._lanes.values()),
            "waiting": sum(lane.statistics().tasks_waiting for lane in self._lanes.values()),
            **{f"{name}_total": count for name, count in self._counts.items()},
        }

    async def _keep_checking(self, key: K, watched: _Watched) -> None:
        with watched.scope:
            while True:
                await trio.sleep_until(watched.hysteresis.due)
                async with self._lanes[watched.hung]:
                    passed, reason, took = await self._ask(watched.target)
                watched.hung = passed is False and took >= watched.target.policy.timeout_seconds
                self._judge(key, watched, passed, reason, took)

    async def _ask(self, target: Target) -> tuple[bool | None, str, float]:
        """Whether the check passed (None: it was void), why not, and how long it took."""
        limit, began = target.policy.timeout_seconds, trio.current_time()
        passed: bool | None = True
        reason = ""
        with trio.move_on_after(limit) as scope:
            try:
                await target.check.run()
            except CheckFailed as error:
                passed, reason = False, str(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is not the backend's; the next check may do better
                passed, reason = None, f"the check could not be made: {type(error).__name__}: {error}"
        took = trio.current_time() - began
        if scope.cancelled_caught:
            if took > limit * (1 + _ASLEEP_SHARE):
                return None, f"this process did not run for {took - limit:.1f} s", took
            passed, reason = False, f"no answer within {limit:g} s"
            self._counts["timed_out"] += 1
        return passed, reason, took

    def _judge(self, key: K, watched: _Watched, passed: bool | None, reason: str, took: float) -> None:
        if self._watched.get(key) is not watched:
            return  # its answer came together with the news that nobody asks any more
        now, state = trio.current_time(), watched.hysteresis
        counts = self._counts
        counts["checks"] += 1
        counts["void" if passed is None else "passed" if passed else "failed"] += 1
        if passed is None:
            state.postpone(now)
        elif state.record(passed, now):
            counts["became_healthy" if passed else "became_unhealthy"] += 1
        if watched.note(now, reason, took):
            for reader in self._readers:
                counts["coalesced"] += not reader.put(key, watched.health)


@asynccontextmanager
async def open_monitor(*, concurrency: int = 64, dice: Random | None = None) -> AsyncIterator[Monitor[Any]]:
    """A monitor, without targets yet; it ends, and every check with it, when the context does.

    Tell type checkers what you tell backends apart by: ``monitor: Monitor[str]`` before.

    Args:
        concurrency: Checks that may run at a time, 1 to 10,000; and as many again whose last one ran into its deadline. Each takes a
            descriptor, those of commands three and a process.
        dice: For the jitter of intervals.

    Raises:
        InvalidCheckError: ``concurrency`` is out of its range.
    """
    if not 1 <= concurrency <= _CONCURRENCY_MAX:
        raise InvalidCheckError(f"concurrency {concurrency!r} is not a number from 1 to {_CONCURRENCY_MAX}")
    async with trio.open_nursery() as nursery:
        try:
            yield Monitor(nursery, Random() if dice is None else dice, concurrency)  # noqa: S311 - jitter, no secret
        finally:
            nursery.cancel_scope.cancel()
