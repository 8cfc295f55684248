"""VIPs of a Consul, spoken to over HTTP: a stand-in with the oddities of the original (there is none to be had for tests)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.http_client import HttpOptions
from pyminuteman.sources import consul as consul_module
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import SourceState
from pyminuteman.sources.consul import ConsulOptions, ConsulSource
from pyminuteman.sources.options import parse_source
from pyminuteman.testing import consul_double
from pyminuteman.testing.consul_double import ConsulDouble

PATIENCE = 30.0
TAG = "minuteman.vip=tcp://11.0.0.1:80"
QUICK: dict[str, Any] = {"pause_seconds": 0.01, "settle_seconds": 0.0}


@pytest.fixture
async def consul() -> AsyncIterator[ConsulDouble]:
    async with ConsulDouble().serving() as double:
        yield double


def source_of(consul: ConsulDouble, http: HttpOptions | None = None, **options: Any) -> ConsulSource:
    http = HttpOptions(timeout_seconds=2.0) if http is None else http
    return ConsulSource(consul.url, ConsulOptions(**(QUICK | options)), http, random=Random(1), backoff=Backoff(0.02, 0.1))  # noqa: S311


def shown(state: SourceState) -> dict[str, list[str]]:
    return {str(vip.key): [f"{backend.address}*{backend.weight}" for backend in vip.backends] for vip in state.vips}


async def following(states: AsyncIterator[SourceState]) -> dict[str, list[str]]:
    with trio.fail_after(PATIENCE):
        return shown(await anext(states))


async def eventually(condition: Any) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await trio.sleep(0.005)


@asynccontextmanager
async def settled(consul: ConsulDouble, source: ConsulSource, queries: int) -> AsyncIterator[AsyncIterator[SourceState]]:
    """Its first state was read, and so many blocking queries are open."""
    async with source.states() as states:
        await following(states)
        await eventually(lambda: consul.waiting == queries)
        yield states


@pytest.mark.trio
async def test_services_that_claim_vips_are_found_and_followed(consul: ConsulDouble) -> None:
    first = consul.register("web", "10.0.0.1", tags=(TAG,), weights=(10, 1))
    consul.register("db", "10.0.0.9")
    source = source_of(consul)
    async with source.states() as states:
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*10"]}
        consul.register("web", "10.0.0.2", tags=(TAG,))
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*10", "10.0.0.2*1"]}
        consul.set_status("web", first, "critical")
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.2*1"]}
        consul.deregister("web", "web-10.0.0.2-8080")
        assert await following(states) == {"tcp://11.0.0.1:80": []}, "registered, and none passes"
        consul.deregister("web", first)
        assert await following(states) == {}
        assert source.status.counters["services"] == 0
        consul.register("dns", "10.0.0.3", 53, tags=("minuteman.vip=udp://dns:53",))
        assert await following(states) == {"udp://dns@consul:53": ["10.0.0.3*1"]}
        assert not [path for path, _ in consul.requests if path.endswith("/db")]
    assert source.status.reason == ""


@pytest.mark.trio
async def test_those_that_fail_their_checks_are_kept_where_that_is_wanted(consul: ConsulDouble) -> None:
    first = consul.register("web", "10.0.0.1", tags=(TAG,), weights=(10, 3))
    async with source_of(consul, keep_critical=True).states() as states:
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*10"]}
        consul.set_status("web", first, "warning")
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*3"]}
        consul.set_status("web", first, "critical")
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*0"]}
    assert all("passing" not in query for _, query in consul.requests)


@pytest.mark.trio
async def test_mapped_services_need_neither_tags_nor_the_catalog(consul: ConsulDouble) -> None:
    consul.register("a/b ü", "10.0.0.1", tags=("minuteman.vip=tcp://11.0.0.66:80",))
    services = {"a/b ü": "tcp://11.0.0.1:80", "none": {"listen": "tcp://11.0.0.2:80", "scheduler": "rr"}}
    async with source_of(consul, services=services, tags=False, datacenter="east").states() as states:
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1"], "tcp://11.0.0.2:80": []}
    assert {path for path, _ in consul.requests} == {"/v1/health/service/a/b ü", "/v1/health/service/none"}
    assert all(query["dc"] == "east" for _, query in consul.requests)


@pytest.mark.trio
async def test_queries_block_and_quiet_costs_nothing(consul: ConsulDouble) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    async with settled(consul, source_of(consul), 2):
        asked = len(consul.requests)
        with trio.move_on_after(0.3):
            await eventually(lambda: len(consul.requests) > asked)
        assert len(consul.requests) == asked
        assert all(query["wait"] == "300s" for _, query in consul.requests if "index" in query)


@pytest.mark.trio
async def test_answers_without_changes_are_no_news(consul: ConsulDouble) -> None:
    """Others change under higher indexes, and waits run out under the same."""
    consul.register("web", "10.0.0.1", tags=(TAG,))
    source = source_of(consul, wait_seconds=1.0)
    async with settled(consul, source, 2) as states:
        for _ in range(3):
            seen = source.status.counters["unchanged"]
            consul.stir()
            await eventually(lambda seen=seen: source.status.counters["unchanged"] >= seen + 2)
        asked = len(consul.requests)
        await eventually(lambda: len(consul.requests) >= asked + 4)
        assert source.status.counters["states"] == 1
        assert source.status.counters["index_resets"] == 0
        consul.register("web", "10.0.0.2", tags=(TAG,))
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1", "10.0.0.2*1"]}


@pytest.mark.trio
async def test_an_index_that_goes_back_is_begun_anew(consul: ConsulDouble) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    source = source_of(consul)
    async with settled(consul, source, 2) as states:
        consul.restore(3)
        await eventually(lambda: source.status.counters["index_resets"] == 2)
        await eventually(lambda: consul.waiting == 2)
        consul.register("web", "10.0.0.2", tags=(TAG,))
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1", "10.0.0.2*1"]}


@pytest.mark.trio
async def test_without_an_index_it_is_polled_and_not_run_over(consul: ConsulDouble) -> None:
    consul.sends_index = False
    consul.register("web", "10.0.0.1", tags=(TAG,))
    source = source_of(consul)
    async with source.states() as states:
        await following(states)
        begun = len(consul.requests)
        with trio.move_on_after(0.7):
            await eventually(lambda: len(consul.requests) > begun + 2)
        assert len(consul.requests) <= begun + 2
        consul.register("web", "10.0.0.2", tags=(TAG,))
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1", "10.0.0.2*1"]}


@pytest.mark.parametrize(
    "refusal", [(500, "No cluster leader"), (503, ""), (429, "Your IP is issuing too many concurrent connections")]
)
@pytest.mark.trio
async def test_while_it_refuses_the_last_state_stands_and_the_reason_is_told(
    consul: ConsulDouble, refusal: tuple[int, str]
) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    source = source_of(consul)
    async with settled(consul, source, 2) as states:
        consul.refusal, consul.broken = refusal, 8
        consul.stir()
        await eventually(lambda: source.status.failures >= 2)
        assert f"answered {refusal[0]}" in source.status.reason
        assert refusal[1] in source.status.reason
        await eventually(lambda: consul.broken == 0)
        await eventually(lambda: source.status.failures == 0)
        assert source.status.counters["states"] == 1
        consul.register("web", "10.0.0.2", tags=(TAG,))
        assert len((await following(states))["tcp://11.0.0.1:80"]) == 2


@pytest.mark.trio
async def test_there_is_no_state_before_all_could_be_read(consul: ConsulDouble) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    consul.register("api", "10.0.0.2", tags=("minuteman.vip=tcp://11.0.0.2:80",))
    consul.broken = 5
    source = source_of(consul)
    async with source.states() as states:
        assert set(await following(states)) == {"tcp://11.0.0.1:80", "tcp://11.0.0.2:80"}
    assert source.status.counters["failures"] == 5


@pytest.mark.trio
async def test_an_answer_that_breaks_off_is_no_answer(consul: ConsulDouble) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    consul.cut = 3
    source = source_of(consul)
    async with source.states() as states:
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1"]}
    assert source.status.counters["failures"] == 3


@pytest.mark.trio
async def test_a_slow_body_is_read_and_one_that_is_too_slow_given_up(consul: ConsulDouble) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    consul.chunk_seconds = 0.01
    async with source_of(consul).states() as states:
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1"]}
    consul.chunk_seconds = 0.15
    source = source_of(consul, HttpOptions(timeout_seconds=0.2))
    async with source.states():
        await eventually(lambda: source.status.failures >= 1)
        assert "no whole answer in time" in source.status.reason


@pytest.mark.trio
async def test_what_is_no_consul_is_told(consul: ConsulDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul, "_catalog", lambda: ["surprise"])
    source = source_of(consul)
    async with source.states():
        await eventually(lambda: source.status.failures >= 2)
        assert source.status.reason == "catalog: the catalog is no JSON object, as it is in what a Consul answers"
        monkeypatch.setattr(consul, "_catalog", lambda: None)
        monkeypatch.setattr(consul_double.json, "dumps", lambda _data: "{")
        await eventually(lambda: "no JSON:" in source.status.reason)


@pytest.mark.trio
async def test_a_token_is_shown_and_renewed(consul: ConsulDouble, tmp_path: Path) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    consul.token = "right"  # noqa: S105
    token = tmp_path / "token"
    token.write_text("wrong\n")
    source = source_of(consul, HttpOptions(token_file=token, timeout_seconds=2.0))
    async with source.states() as states:
        await eventually(lambda: source.status.failures >= 2)
        assert "answered 403: ACL not found" in source.status.reason
        assert "wrong" not in source.status.reason
        token.write_text("right\n")
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1"]}


@pytest.mark.trio
async def test_a_service_that_comes_later_and_cannot_be_read_holds_up_no_others(
    consul: ConsulDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG,))
    source = source_of(consul)
    plain = consul._health
    monkeypatch.setattr(consul, "_health", lambda name, *, passing: {} if name == "api" else plain(name, passing=passing))
    async with settled(consul, source, 2) as states:
        consul.register("api", "10.0.0.2", tags=("minuteman.vip=tcp://11.0.0.2:80",))
        await eventually(lambda: "service api" in source.status.reason)
        consul.register("web", "10.0.0.3", tags=(TAG,))
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1", "10.0.0.3*1"]}
        assert source.status.failures > 0
        monkeypatch.undo()
        assert set(await following(states)) == {"tcp://11.0.0.1:80", "tcp://11.0.0.2:80"}
        await eventually(lambda: source.status.failures == 0)


@pytest.mark.trio
async def test_more_services_than_are_watched_are_told(consul: ConsulDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_module, "SERVICES_MAX", 2)
    for number, name in enumerate("abc", start=1):
        consul.register(name, "10.0.0.1", tags=(f"minuteman.vip=tcp://11.0.0.{number}:80",))
    async with source_of(consul, services={"z": "tcp://11.0.0.9:80"}).states() as states:
        with trio.fail_after(PATIENCE):
            state = await anext(states)
        assert set(shown(state)) == {"tcp://11.0.0.1:80", "tcp://11.0.0.9:80"}
        assert [problem.where for problem in state.problems] == ["service b", "service c"]


@pytest.mark.trio
async def test_more_than_a_hundred_queries_are_open_at_once(consul: ConsulDouble) -> None:
    for number in range(110):
        consul.register(f"s{number}", "10.0.0.1", tags=(f"minuteman.vip=tcp://11.0.0.{number}:80",))
    async with settled(consul, source_of(consul), 111) as states:
        consul.register("s109", "10.0.0.2", tags=("minuteman.vip=tcp://11.0.0.109:80",))
        assert len((await following(states))["tcp://11.0.0.109:80"]) == 2


@pytest.mark.trio
async def test_a_large_answer_is_read_as_a_small_one(consul: ConsulDouble) -> None:
    consul.register("web", "10.0.0.1", tags=(TAG, *(f"{number:0100}" for number in range(1000))))
    async with source_of(consul).states() as states:
        assert await following(states) == {"tcp://11.0.0.1:80": ["10.0.0.1*1"]}


@pytest.mark.trio
async def test_problems_of_instances_are_in_the_state(consul: ConsulDouble) -> None:
    consul.register("web", "db.example", tags=(TAG,))
    async with source_of(consul).states() as states:
        with trio.fail_after(PATIENCE):
            state = await anext(states)
    assert shown(state) == {"tcp://11.0.0.1:80": []}
    assert "is no IP address" in state.problems[0].reason


def test_options_are_checked() -> None:
    for wrong in ({"wait_seconds": 0}, {"wait_seconds": 601}, {"pause_seconds": -1}, {"settle_seconds": 61}, {"tags": False}):
        with pytest.raises(ConfigurationError):
            ConsulOptions(**wrong)


def test_it_is_named_on_the_command_line() -> None:
    words = "services=web=tcp://11.0.0.1:80,dns=udp://dns:53&tags=no&critical=keep&agents=yes&datacenter=east&wait=30"
    source = parse_source(f"consul:http://127.0.0.1:8500?{words}")
    assert isinstance(source, ConsulSource)
    assert source.options == ConsulOptions(
        services={"web": "tcp://11.0.0.1:80", "dns": "udp://dns:53"},
        tags=False,
        keep_critical=True,
        with_agents=True,
        datacenter="east",
        wait_seconds=30.0,
    )
    for wrong in (
        "services=web",
        "services=web=",
        "services=a=x,a=y",
        "wait=0",
        "critical=drop",
        "service=web=tcp://11.0.0.1:80",
    ):
        with pytest.raises(ConfigurationError):
            parse_source(f"consul:http://127.0.0.1:8500?{wrong}")


def test_its_name_has_no_secrets() -> None:
    assert ConsulSource("http://user:secret@127.0.0.1:8500").name == "consul:http://127.0.0.1:8500"
