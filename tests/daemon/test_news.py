"""What has changed is told once the kernels have it, whole, in order and with its time; and a kernel that hangs silences nobody."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pyminuteman.daemon.news import KERNEL_SECONDS, News
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.model import VIP, Backend, VIPKey
from pyminuteman.vips.policy import Refusal, RefusalReason
from pyminuteman.vips.resolution import Reach

pytestmark = pytest.mark.trio

WEB = VIPKey.tcp("11.0.0.1", 80)
REFUSAL = Refusal(WEB, ("file", ""), "n1", RefusalReason.ADDRESS)


class Kernel:
    def __init__(self) -> None:
        self.has_caught_up = trio.Event()

    async def caught_up(self) -> None:
        await self.has_caught_up.wait()


class Listener:
    """A node's news, and what was told of it."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.told: list[tuple[str, float]] = []
        self.now = 100.0
        self.news = News(self._hear, lambda: [self.kernel], lambda: self.now)

    def _hear(self, kind: str, text: str, data: dict[str, Any], at: float) -> None:
        assert text
        assert data
        self.told.append((kind, at))


def states(backends: int = 40) -> list[DesiredState]:
    """Nothing; a VIP; one of its two hosts is suspect; it is down."""
    table = DesiredTable(own_addresses=["10.9.9.9"])
    nothing = table.refresh(lambda _: Reach.UP)
    hosts = ("10.0.0.1", "10.0.0.2")
    rows = tuple(Backend(host, 8000 + port, agent=host) for host in hosts for port in range(backends))
    table.put(WEB, [Claim(VIP(WEB, rows), "file", "n1")])

    def when(reach: Reach) -> DesiredState:
        return table.refresh(lambda agent: reach if agent == hosts[0] else Reach.UP)

    return [nothing, *map(when, (Reach.UP, Reach.SUSPECT, Reach.DOWN))]


async def test_the_kernels_come_first(nursery: trio.Nursery) -> None:
    listener = Listener()
    nothing, up, suspect, _ = states()
    nursery.start_soon(listener.news.run)
    listener.news.note(nothing, up, [REFUSAL])
    listener.now = 101.0
    listener.news.note(up, suspect, [])
    await wait_all_tasks_blocked()
    assert listener.told == []
    listener.now = 102.0
    listener.kernel.has_caught_up.set()
    await wait_all_tasks_blocked()
    assert listener.told == [("refused", 100.0), ("vip_added", 100.0), *[("backend_out", 101.0)] * 40]


async def test_a_kernel_that_hangs_silences_nobody(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    listener = Listener()
    nothing, up, *_ = states()
    nursery.start_soon(listener.news.run)
    listener.news.note(nothing, up, [])
    await trio.sleep(KERNEL_SECONDS - 0.1)
    assert listener.told == []
    await trio.sleep(0.2)
    assert listener.told == [("vip_added", 100.0)]
    assert autojump_clock.current_time() > KERNEL_SECONDS


async def test_nothing_is_nothing_to_tell(nursery: trio.Nursery) -> None:
    listener = Listener()
    nothing, up, *_ = states()
    nursery.start_soon(listener.news.run)
    listener.kernel.has_caught_up.set()
    listener.news.note(up, up, [])
    await wait_all_tasks_blocked()
    assert listener.told == []
    listener.news.note(up, up, [REFUSAL])
    await wait_all_tasks_blocked()
    assert listener.told == [("refused", 100.0)]
    listener.news.note(nothing, up, [])
    await wait_all_tasks_blocked()
    assert listener.told[1:] == [("vip_added", 100.0)]


async def test_others_have_their_turn_between_a_few_events(nursery: trio.Nursery) -> None:
    listener = Listener()
    _, up, suspect, _ = states()
    listener.kernel.has_caught_up.set()
    turns: list[int] = []

    async def other() -> None:
        while len(listener.told) < 40:
            turns.append(len(listener.told))
            await trio.lowlevel.checkpoint()

    nursery.start_soon(listener.news.run)
    listener.news.note(up, suspect, [])
    nursery.start_soon(other)
    await wait_all_tasks_blocked()
    assert any(0 < turn < 40 for turn in turns)
    assert len(listener.told) == 40


async def test_what_is_left_is_told_at_the_end() -> None:
    listener = Listener()
    nothing, up, suspect, down = states()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.news.run)
        for before, after in ((nothing, up), (up, suspect), (suspect, down)):
            listener.news.note(before, after, [])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [kind for kind, _ in listener.told] == ["vip_added", *["backend_out"] * 80]


async def test_of_very_many_changes_the_last_ones_are_told_as_one(nursery: trio.Nursery) -> None:
    listener = Listener()
    nothing, up, suspect, down = states(backends=1)
    listener.news.note(nothing, up, [])
    for _ in range(100):
        listener.news.note(up, suspect, [])
        listener.news.note(suspect, up, [REFUSAL])
    listener.news.note(up, down, [])
    nursery.start_soon(listener.news.run)
    listener.kernel.has_caught_up.set()
    await wait_all_tasks_blocked()
    kinds = [kind for kind, _ in listener.told]
    assert kinds.count("refused") == 100
    assert kinds[-1] == "backend_out"
    assert len(kinds) < 100 + 70
