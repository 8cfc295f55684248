"""Servers of which one leads, names of hosts, and silence: the parts that both sources share."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pyminuteman.http_client import HttpError, HttpOptions
from pyminuteman.sources.base import LatestState, SourceError, SourceState
from pyminuteman.sources.mesos_lookup import HostAddresses
from pyminuteman.sources.mesos_outage import OutageStatus, withdraw_when_silent
from pyminuteman.sources.mesos_servers import Servers, parse_json
from pyminuteman.testing.mesos_double import Fault, MesosDouble, open_mesos_double
from pyminuteman.vips.model import VIP, VIPKey

pytestmark = pytest.mark.trio

STATE = SourceState((VIP(VIPKey.tcp("11.0.0.1", 80)),))


async def get(servers: Servers) -> Any:
    with trio.fail_after(10):
        return await servers.json("GET", "/state", deadline_seconds=5)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/state", "each of the 2 servers says that another one leads"),  # a path: here
        ("//127.0.0.1:1/state", "says that 127.0.0.1:1 leads, which is none of the configured servers"),
        ("https://127.0.0.1/state", "says that 127.0.0.1:443 leads"),
        ("http://[::1]:5050/state", r"says that \[::1\]:5050 leads"),
        ("//127.0.0.1:99999/state", "redirects to '//127.0.0.1:99999/state', which is no URL"),
        ("http://[::1/state", "which is no URL"),
    ],
)
async def test_a_redirect_leads_to_servers_that_were_named_and_to_no_other(location: str, reason: str) -> None:
    one, other = MesosDouble(), MesosDouble()
    one.faults.extend([Fault(status=302, headers={"location": location})] * 2)
    async with open_mesos_double(one), open_mesos_double(other), Servers((one.url, other.url), HttpOptions()) as servers:
        with pytest.raises(SourceError, match=reason):
            await get(servers)
        assert str(servers) == other.url  # whom it asks the next time
        assert other.requests == []


async def test_the_server_that_answered_is_asked_again_and_the_next_one_after_a_failure() -> None:
    one, other = MesosDouble(), MesosDouble()
    one.state, other.state = 1, 2
    async with open_mesos_double(one), open_mesos_double(other), Servers((one.url, other.url), HttpOptions()) as servers:
        assert [await get(servers), await get(servers)] == [1, 1]
        for fault in (Fault(status=500), Fault(cut_after=0)):
            one.faults.append(fault)
            with pytest.raises(HttpError):
                await get(servers)
            assert await get(servers) == 2
            servers.try_next()
            assert await get(servers) == 1


async def test_a_token_goes_to_no_server_that_was_not_named(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    one, stranger = MesosDouble(), MesosDouble()
    async with open_mesos_double(one), open_mesos_double(stranger):
        one.leader = stranger.url
        async with Servers((one.url,), HttpOptions(token_file=token)) as servers:
            with pytest.raises(SourceError) as caught:
                await get(servers)
        assert "secret" not in str(caught.value)
        assert stranger.requests == []
        assert one.requests[0].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize("filler", [0, 1 << 20])
async def test_json_small_or_large_is_read_or_refused(filler: int) -> None:
    body = b" " * filler + b'{"a": [1]}'
    assert await parse_json(body, "here") == {"a": [1]}
    with pytest.raises(SourceError, match="here: the answer is no JSON"):
        await parse_json(body[:-1], "here")


# -- names of hosts ----------------------------------------------------------------------------------------------------


class Resolver(trio.abc.HostnameResolver):
    """Names and their addresses; a name with none is not known, and ``silent`` never answers."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, *_: Any, **__: Any) -> Any:
        host = host.decode()  # trio hands on what IDNA made of it
        self.asked.append(host)
        await trio.lowlevel.checkpoint()
        if host == "silent":
            await trio.sleep_forever()
        if not self.names.get(host):
            raise OSError(host)
        return [(10 if ":" in found else 2, 1, 6, "", (found, 0)) for found in self.names[host]]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


async def test_of_several_addresses_the_same_one_counts_in_whatever_order(autojump_clock: MockClock) -> None:
    resolver = Resolver({"a": ["fd00::1", "10.0.0.2", "10.0.0.10"], "b": ["fe80::1%eth0", "fd00::2"], "c": []})
    trio.socket.set_custom_hostname_resolver(resolver)
    hosts = HostAddresses()
    assert await hosts.look_up(["a", "b", "c", "a"]) == {"a": "10.0.0.2", "b": "fd00::2"}
    assert (hosts.several, hosts.failures) == (1, 1)
    resolver.names["a"].reverse()
    autojump_clock.jump(61)
    assert await hosts.look_up(["a"]) == {"a": "10.0.0.2"}


async def test_names_are_kept_for_a_minute_and_failures_for_ten_seconds(autojump_clock: MockClock) -> None:
    resolver = Resolver({"a": ["10.0.0.1"]})
    trio.socket.set_custom_hostname_resolver(resolver)
    hosts = HostAddresses()
    assert await hosts.look_up(["a", "b"]) == {"a": "10.0.0.1"}
    assert sorted(resolver.asked) == ["a", "b"]
    resolver.names["b"] = ["10.0.0.2"]
    assert await hosts.look_up(["a", "b"]) == {"a": "10.0.0.1"}
    autojump_clock.jump(11)
    assert await hosts.look_up(["a", "b"]) == {"a": "10.0.0.1", "b": "10.0.0.2"}
    assert sorted(resolver.asked) == ["a", "b", "b"]
    autojump_clock.jump(61)
    resolver.names = {}
    assert await hosts.look_up(["a"]) == {"a": "10.0.0.1"}  # better than none


async def test_nobody_waits_for_a_name_longer_than_the_deadline(autojump_clock: MockClock) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver({"a": ["10.0.0.1"]}))
    begun = trio.current_time()
    assert await HostAddresses(3.0).look_up(["silent", "a"]) == {"a": "10.0.0.1"}
    assert trio.current_time() - begun == 3.0
    assert autojump_clock.autojump_threshold == 0


# -- silence -----------------------------------------------------------------------------------------------------------


async def test_what_is_silent_is_withdrawn_once_and_each_time_anew(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    latest, status = LatestState(), OutageStatus()
    nursery.start_soon(withdraw_when_silent, latest, status, 60.0)
    assert autojump_clock.autojump_threshold == 0
    for withdrawals in (1, 2):
        latest.put(STATE)
        assert await anext(latest) == STATE
        good_at = trio.current_time()
        status.good(good_at)
        await trio.sleep(59.9)
        assert (status.withdrawn, status.reason) == ("", "")
        status.failed(trio.current_time(), "no answer")
        assert await anext(latest) == SourceState()
        assert trio.current_time() == pytest.approx(good_at + 60.0)
        assert status.reason == "all VIPs are withdrawn, for nothing good was heard for 60 s; no answer"
        await trio.sleep(100)
        status.failed(trio.current_time(), "refused")
        assert status.reason == "all VIPs are withdrawn, for nothing good was heard for 60 s; refused"
        assert status.counters["withdrawals"] == withdrawals
    nursery.cancel_scope.cancel()


async def test_good_answers_put_it_off(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    latest, status = LatestState(), OutageStatus()
    nursery.start_soon(withdraw_when_silent, latest, status, 60.0)
    assert autojump_clock.autojump_threshold == 0
    for _ in range(10):
        status.good(trio.current_time())
        await trio.sleep(50)
    assert "withdrawals" not in status.counters
    nursery.cancel_scope.cancel()
