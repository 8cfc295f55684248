"""What a node says, in a store that does not take all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.entries import encode, head_of
from pyminuteman.daemon.voice import Voice, saying
from pyminuteman.kv import StoreLimits, open_store
from pyminuteman.kv.errors import StoreUnavailable
from pyminuteman.kv.store import Store
from pyminuteman.membership import open_membership
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.model import VIP, Backend, VIPKey, VIPName


def claim(number: int, backends: int = 1, name: str = "", source: str = "file") -> Claim:
    key = VIPKey.tcp(VIPName(name, "marathon") if name else f"11.0.{number // 250}.{number % 250 + 1}", 80)
    return Claim(VIP(key, tuple(Backend(f"10.0.0.{one}", 80) for one in range(1, backends + 1))), source)


class Log:
    """The events."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def tell(self, kind: str, text: str, data: Mapping[str, Any]) -> None:
        assert kind == "refused"
        assert data
        self.texts.append(text)


@asynccontextmanager
async def voice(**limits: int) -> AsyncIterator[tuple[Voice, Store, Log]]:
    async with (
        open_membership(name="n", bind=Endpoint("127.0.0.1", 0)) as membership,
        open_store(membership, limits=StoreLimits(**limits), alone_seconds=0.1) as store,
    ):
        log = Log()
        yield Voice(store, log.tell, ("vip/", "unhealthy/")), store, log


@pytest.mark.trio
async def test_what_is_too_large_hides_no_other_and_takes_its_backends_with_it() -> None:
    async with voice(value_max_bytes=100) as (one, store, log):
        good = [claim(number) for number in range(50)]
        bad = [claim(0, 3, name="/" + letter * 200) for letter in "xyz"]
        await store.put_own("other", b"1")
        for _ in range(2):
            assert await one.say(saying([*good[:25], *bad, *good[25:]]), {"unhealthy/10.0.0.1:80": b"it is down"}) == 60.0
            assert store.own() == encode(good) | {"unhealthy/10.0.0.1:80": b"it is down", "other": b"1"}
            assert set(one.untold) == {str(claim.vip.key) for claim in bad}
            assert [text.count("the limit is 100") for text in log.texts] == [1, 1, 1]
        assert await one.say(saying(good), {}) is None
        assert store.own() == encode(good) | {"other": b"1"}
        assert not one.untold
        await one.say(saying(bad), {})
        assert len(log.texts) == 6  # it was well in between
        assert store.own() == {"other": b"1"}


@pytest.mark.trio
async def test_when_there_is_no_more_room_what_comes_first_is_said_and_what_was_said_is_kept_true() -> None:
    async with voice(own_keys_max=10) as (one, store, log):
        first, second, third = claim(1, 4), claim(2, 6), claim(3)
        assert await one.say(saying([first, second, third]), {}) == 60.0
        assert set(store.own()) == set(list(encode([first, second]))[:10])
        assert set(one.untold) == {str(second.vip.key), str(third.vip.key)}
        assert len(log.texts) == 2
        heavier = VIP(first.vip.key, tuple(Backend(row.address, 80, 7) for row in first.vip.backends))
        assert await one.say(saying([Claim(heavier, "file"), second, third]), {}) == 60.0
        assert encode([Claim(heavier, "file")]).items() <= store.own().items()
        assert len(log.texts) == 2
        assert await one.say(saying([second, third]), {}) is None  # which makes room
        assert store.own() == encode([second, third])
        assert await one.say(saying([first, third]), {}) is None  # what goes, goes first


@pytest.mark.trio
async def test_thousands_that_there_is_no_room_for_cost_few_writes_and_few_words() -> None:
    async with voice(own_keys_max=1000) as (one, store, log):
        writes = 0
        change = store.change_own

        async def counted(changes: Mapping[str, bytes | None]) -> None:
            nonlocal writes
            writes += 1
            await change(changes)

        store.change_own = counted  # type: ignore[method-assign]
        claims = [claim(number) for number in range(6000)]
        await one.say(saying(claims), {})
        assert store.own() == encode(claims[:500])
        assert writes < 60
        assert len(one.untold) == 5500
        assert len(log.texts) == 21
        assert "5480 more" in log.texts[-1]


@pytest.mark.trio
async def test_what_cannot_be_written_down_hides_no_other_either() -> None:
    async with voice() as (one, store, log):
        half = Claim(VIP(VIPKey.tcp("11.0.9.9", 80)), "half of a pair: \ud800")
        await one.say(saying([half, claim(1)]), {})
        assert store.own() == encode([claim(1)])
        assert "11.0.9.9" in log.texts[0]


@pytest.mark.trio
async def test_a_store_that_is_out_of_reach_is_told_of_once_and_tried_again() -> None:
    async with voice() as (one, store, log):
        change = store.change_own

        async def away(_changes: Mapping[str, bytes | None]) -> None:
            raise StoreUnavailable("nobody answers")

        store.change_own = away  # type: ignore[method-assign]
        assert [await one.say(saying([claim(1)]), {}) for _ in range(3)] == [5.0] * 3
        assert log.texts == ["what this node says is not told: nobody answers"]
        store.change_own = change  # type: ignore[method-assign]
        assert await one.say(saying([claim(1)]), {}) is None
        assert head_of(claim(1)) in store.own()
