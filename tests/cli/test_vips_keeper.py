"""Keeping a fake kernel equal to sources that the test speaks for, in this process: signals and all."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from errno import ESRCH
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from pyminuteman.cli.application import Application
from pyminuteman.cli.vips_keeper import Keeper
from pyminuteman.cli.vips_sources import Feeds
from pyminuteman.errors import ConfigurationError
from pyminuteman.health.backends import parse_check
from pyminuteman.health.checks import Check, CommandCheck, HTTPCheck, TCPCheck
from pyminuteman.health.hysteresis import CheckPolicy, InvalidCheckError
from pyminuteman.ipvs import Destination, IPVSTable, NotPermitted, Scope, Service, ServiceKey
from pyminuteman.sources.base import SourceError, SourceProblem, SourceState, SourceStatus
from pyminuteman.sources.document import plain_document
from pyminuteman.sources.options import parse_source
from pyminuteman.testing.fake_kernel import FakeKernel
from pyminuteman.vips.desired import DesiredTable
from pyminuteman.vips.model import VIP, Backend, VIPKey, VIPSettings

WEB, API = Service.tcp("11.0.0.1", 80), Service.tcp("11.0.0.2", 80)
FOREIGN = ["-A -t 12.0.0.1:80 -s rr", "-a -t 12.0.0.1:80 -r 10.9.9.9:80 -m -w 1"]


def vip(service: Service, *backends: int, drain: float = 0.0, weight: int = 1) -> VIP:
    key = VIPKey.tcp(service.key.address, service.key.port)
    return VIP(key, tuple(Backend(f"10.0.0.{n}", 8080, weight) for n in backends), VIPSettings(drain_seconds=drain))


def rows(service: Service, *backends: int, weight: int = 1) -> list[str]:
    place = f"{service.key.address}:{service.key.port}"
    return [f"-A -t {place} -s wlc", *(f"-a -t {place} -r 10.0.0.{n}:8080 -m -w {weight}" for n in backends)]


class Spoken:
    """A source whose states the test says."""

    def __init__(self, name: str = "spoken") -> None:
        self.name = name
        self.status = SourceStatus()
        self.opened = 0
        self.broken: Exception | None = None
        self._states: trio.MemorySendChannel[SourceState] | None = None
        self._last: SourceState | None = None

    def __call__(self) -> Spoken:
        return self

    @asynccontextmanager
    async def states(self) -> AsyncIterator[AsyncIterator[SourceState]]:
        if self.broken:
            raise self.broken
        self.opened += 1
        self._states, states = trio.open_memory_channel[SourceState](10)
        if self._last is not None:
            self._states.send_nowait(self._last)
            self._last = None
        try:
            yield states
        finally:
            self._states = None

    def say(self, *vips: VIP, problems: tuple[SourceProblem, ...] = ()) -> None:
        state = SourceState(vips, problems)
        self.status.good(trio.current_time())
        if self._states is None:
            self._last = state
        else:
            self._states.send_nowait(state)

    def end(self) -> None:
        assert self._states is not None
        self._states.close()

    def fail(self, reason: str) -> None:
        self.status.failed(trio.current_time(), reason)


class Setting:
    """A keeper on a fake kernel."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.fake = FakeKernel()
        self.fake.close = lambda: None  # type: ignore[method-assign]  # it outlives the keeper
        self.sources = [Spoken()]
        self.talk = self.data = ""
        self._capsys = capsys
        self.code: int | None = None

    def keeper(self, **options: Any) -> Keeper:
        application = Application(open_backend=lambda _netns: self.fake)
        self.last = Keeper(application, Feeds(self.sources), DesiredTable(), dice=Random(1), **options)  # noqa: S311 - of a test
        return self.last

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Keeper]:
        """Ends it by SIGTERM."""
        keeper = self.keeper(**options)
        self.talk = self.data = ""

        async def run() -> None:
            self.code = await keeper.run()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                await self.until(lambda: "scope: " in self.talk)
                yield keeper
                os.kill(os.getpid(), signal.SIGTERM)
        self.read()
        assert self.code == 0
        assert self.talk.endswith("ended; the kernel's table stays as it is\n")

    def read(self) -> None:
        out, err = self._capsys.readouterr()
        self.data += out
        self.talk += err

    async def until(self, condition: Callable[[], bool]) -> None:
        """For 20 s at most."""
        with trio.move_on_after(20):
            while True:
                self.read()
                if condition():
                    return
                await trio.sleep(0.01)
        pytest.fail(f"not so within 20 s\n{self.rules}\n{self.talk}")

    async def said(self, text: str) -> None:
        await self.until(lambda: text in self.talk)

    async def becomes(self, *rules: str) -> None:
        await self.until(lambda: self.rules == list(rules))

    @property
    def rules(self) -> list[str]:
        return IPVSTable(scope=Scope.everything(), backend=self.fake).export().splitlines()

    def load(self, *services: Service, backends: tuple[int, ...] = (1, 2)) -> None:
        wanted = {service: tuple(Destination(f"10.0.0.{n}", 8080) for n in backends) for service in services}
        IPVSTable(scope=Scope.services(service.key for service in services), backend=self.fake).converge(wanted)

    def load_foreign(self) -> None:
        foreign = Service.tcp("12.0.0.1", 80, scheduler="rr")
        IPVSTable(scope=Scope.services([foreign.key]), backend=self.fake).converge({foreign: (Destination("10.9.9.9", 80),)})


@pytest.fixture
def setting(capsys: pytest.CaptureFixture[str]) -> Setting:
    return Setting(capsys)


@pytest.mark.trio
async def test_the_kernel_follows_the_source_and_what_is_others_stays(setting: Setting) -> None:
    setting.load_foreign()
    (source,) = setting.sources
    async with setting.running():
        source.say(vip(WEB, 1))
        await setting.becomes(*rows(WEB, 1), *FOREIGN)
        await setting.said("the table is as desired: 1 service")
        source.say(vip(WEB, 1, 2), vip(API, 3, 4))
        await setting.becomes(*rows(WEB, 1, 2), *rows(API, 3, 4), *FOREIGN)
        source.say(vip(WEB, 2, 3, 4))
        await setting.becomes(*rows(WEB, 2, 3, 4), *FOREIGN)
    assert setting.rules == [*rows(WEB, 2, 3, 4), *FOREIGN], "the end changes nothing"
    assert setting.data.splitlines()[:2] == rows(WEB, 1)
    assert "-D -t 11.0.0.2:80" in setting.data
    assert "add 1 service, add 1 destination: 2 of 2 operations done in" in setting.talk


@pytest.mark.trio
async def test_nothing_is_done_before_every_source_has_said_all(setting: Setting) -> None:
    one, two = setting.sources = [Spoken("one"), Spoken("two")]
    setting.load(WEB, API)
    before = setting.rules
    async with setting.running(scope=Scope.everything()):
        one.say(vip(WEB, 1, 2))
        two.fail("no route to host")
        await setting.said("two: no route to host\n")
        assert setting.rules == before
        two.say(vip(API, 1, 2, 3))
        await setting.becomes(*rows(WEB, 1, 2), *rows(API, 1, 2, 3))
        await setting.said("two: is read again")


@pytest.mark.trio
async def test_several_sources_are_joined_and_where_they_disagree_that_is_said(setting: Setting) -> None:
    one, two = setting.sources = [Spoken("one"), Spoken("two")]
    async with setting.running():
        one.say(vip(WEB, 1))
        two.say(vip(WEB, 2, drain=9))
        await setting.becomes(*rows(WEB, 1, 2))
        await setting.said("tcp://11.0.0.1:80: settings: ")


@pytest.mark.trio
async def test_a_source_that_fails_keeps_its_last_good_state(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(audit_seconds=0.05):
        source.say(vip(WEB, 1))
        await setting.becomes(*rows(WEB, 1))
        source.fail("it is gone")
        await setting.said("spoken: it is gone; what was last read stands")
        await setting.until(lambda: setting.fake.reads > 20)
        assert setting.rules == rows(WEB, 1)
        source.say(vip(WEB, 1), problems=(SourceProblem("vip[1]", "has no port"),))
        await setting.said("spoken: left out: vip[1]: has no port")
    assert setting.talk.count("it is gone") == setting.talk.count("has no port") == 1


@pytest.mark.trio
async def test_a_start_that_finds_all_as_desired_writes_nothing(setting: Setting) -> None:
    (source,) = setting.sources
    setting.load(WEB)
    before = setting.fake.operations
    async with setting.running():
        source.say(vip(WEB, 1, 2, drain=30))
        await setting.said("the table was as desired: 1 service")
    assert setting.fake.operations == before
    assert setting.data == ""


@pytest.mark.trio
async def test_what_others_change_is_put_right_at_the_next_audit_or_when_told_to_look(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(audit_seconds=0.1):
        source.say(vip(WEB, 1))
        await setting.becomes(*rows(WEB, 1))
        setting.fake.services.clear()
        await setting.becomes(*rows(WEB, 1))
    async with setting.running(audit_seconds=3600):
        source.say(vip(WEB, 1))
        await setting.said("the table was as desired")
        setting.fake.services.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        await setting.becomes(*rows(WEB, 1))


@pytest.mark.trio
async def test_between_two_audits_a_change_costs_no_reading(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(audit_seconds=3600):
        source.say(vip(WEB, 1))
        await setting.said("the table is as desired")
        reads = setting.fake.reads
        for backends in ((1, 2), (1, 2, 3), (2, 3)):
            source.say(vip(WEB, *backends))
        await setting.until(lambda: "-d -t 11.0.0.1:80 -r 10.0.0.1:8080" in setting.data)
        assert setting.fake.reads == reads
        assert setting.rules == rows(WEB, 2, 3)
        setting.fake.services.clear()
        source.say(vip(WEB, 1, 2, 3))
        await setting.becomes(*rows(WEB, 1, 2, 3))  # what is remembered and not there shows at once when it is in the way


@pytest.mark.trio
async def test_audits_come_however_often_the_sources_change(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(audit_seconds=0.3, scope=Scope.networks("11.0.0.0/8"), yes=True):
        source.say(vip(WEB, 1))
        await setting.becomes(*rows(WEB, 1))
        setting.load(API)
        with trio.fail_after(20):
            weight = 1
            while API.key.packed in setting.fake.services:
                weight = 3 - weight
                source.say(vip(WEB, 1, weight=weight))
                await trio.sleep(0.02)


@pytest.mark.trio
async def test_nothing_is_held_back_by_memory_alone(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(audit_seconds=3600):
        source.say(vip(WEB, 1, 2, 3, 4, 5))
        await setting.becomes(*rows(WEB, 1, 2, 3, 4, 5))
        setting.load(WEB)
        source.say(vip(WEB, 1, 2, weight=7))
        await setting.becomes(*rows(WEB, 1, 2, weight=7))
    assert "held back" not in setting.talk


@pytest.mark.trio
async def test_what_would_lose_too_much_is_held_back_until_it_is_confirmed(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(audit_seconds=0.05) as keeper:
        source.say(vip(WEB, 1, 2), vip(API, 1, 2))
        await setting.becomes(*rows(WEB, 1, 2), *rows(API, 1, 2))
        os.kill(os.getpid(), signal.SIGUSR1)
        await setting.said("nothing is held back")
        source.say(vip(WEB, 1), vip(Service.tcp("11.0.0.3", 80), 1))
        await setting.said("held back: 3 of 4 destinations (75 %) would be lost, more than 50 %; nothing was changed")
        await setting.until(lambda: setting.fake.reads > 20)
        assert setting.rules == [*rows(WEB, 1, 2), *rows(API, 1, 2)], "not even what would be added"
        assert setting.talk.count("held back: ") == 1
        assert "  tcp 11.0.0.2:80: 2 fewer\n" in setting.talk
        assert f"kill -USR1 {os.getpid()}" in setting.talk
        source.say(vip(WEB, 1))
        os.kill(os.getpid(), signal.SIGUSR1)
        await setting.said("confirmed: 3 of 4 destinations (75 %) may be lost")
        await setting.becomes(*rows(WEB, 1))
        await setting.until(lambda: keeper.confirmed is None)
        source.say(vip(WEB))
        await setting.said("held back: 1 of 1 destination (100 %)")


@pytest.mark.trio
async def test_what_was_confirmed_is_that_loss_and_no_other(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running():
        source.say(vip(WEB, 1, 2, 3, 4))
        await setting.becomes(*rows(WEB, 1, 2, 3, 4))
        source.say(vip(WEB, 1))
        await setting.said("held back: 3 of 4")
        setting.last.confirmed = setting.last.held
        source.say()
        await setting.said("held back: 4 of 4")
        assert setting.rules == rows(WEB, 1, 2, 3, 4)


@pytest.mark.trio
async def test_of_many_losses_a_screenful_is_said(setting: Setting) -> None:
    (source,) = setting.sources
    setting.load(*(Service.tcp(f"11.0.1.{n}", 80) for n in range(1, 31)))
    async with setting.running(scope=Scope.everything()):
        source.say()
        await setting.said("held back: 60 of 60 destinations (100 %)")
        await setting.said("  tcp 11.0.1.20:80: 2 fewer\n  and 10 services more\n")


@pytest.mark.trio
async def test_with_yes_nothing_is_held_back(setting: Setting) -> None:
    (source,) = setting.sources
    setting.load(WEB, API)
    async with setting.running(scope=Scope.networks("11.0.0.0/8"), yes=True):
        source.say()
        await setting.becomes()


@pytest.mark.trio
async def test_a_backend_that_goes_drains_for_as_long_as_its_vip_says(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running():
        source.say(vip(WEB, 1, 2, drain=600), vip(API, 1, 2))
        await setting.becomes(*rows(WEB, 1, 2), *rows(API, 1, 2))
        setting.fake.connect(WEB.key, Destination("10.0.0.2", 8080), 1)
        setting.fake.connect(API.key, Destination("10.0.0.2", 8080), 1)
        source.say(vip(WEB, 1, drain=600), vip(API, 1))
        await setting.becomes(*rows(WEB, 1), rows(WEB, 2, weight=0)[1], *rows(API, 1))
        setting.fake.connect(WEB.key, Destination("10.0.0.2", 8080), 0)
        await setting.becomes(*rows(WEB, 1), *rows(API, 1))


@pytest.mark.trio
async def test_a_vip_that_goes_drains_too_and_comes_back_at_once(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(most_loss_percent=100):
        source.say(vip(WEB, 1, drain=600))
        await setting.becomes(*rows(WEB, 1))
        setting.fake.connect(WEB.key, Destination("10.0.0.1", 8080), 1)
        source.say()
        await setting.becomes(*rows(WEB, 1, weight=0))
        source.say(vip(WEB, 1, drain=600))
        await setting.becomes(*rows(WEB, 1))


@pytest.mark.trio
async def test_services_that_no_source_ever_named_drain_as_the_option_says(setting: Setting) -> None:
    (source,) = setting.sources
    setting.load(WEB, API)
    setting.fake.connect(API.key, Destination("10.0.0.1", 8080), 1)
    async with setting.running(scope=Scope.everything(), drain_seconds=600):
        source.say(vip(WEB, 1, 2))
        await setting.becomes(*rows(WEB, 1, 2), *rows(API, 1, weight=0))


@pytest.mark.trio
async def test_what_is_outside_the_scope_is_left_out_and_said(setting: Setting) -> None:
    (source,) = setting.sources
    setting.load_foreign()
    async with setting.running(scope=Scope.networks("11.0.0.0/31"), audit_seconds=0.05):
        source.say(vip(WEB, 1), vip(API, 1))
        await setting.becomes(*rows(WEB, 1), *FOREIGN)
        await setting.said("left out: tcp 11.0.0.2:80 is not in scope (11.0.0.0/31)")
        await setting.until(lambda: setting.fake.reads > 20)
    assert setting.talk.count("left out") == 1


@pytest.mark.trio
async def test_when_the_kernel_refuses_the_rest_is_done_and_that_is_tried_again(setting: Setting) -> None:
    (source,) = setting.sources
    key = VIPKey.tcp("11.0.0.2", 80)
    async with setting.running():
        source.say(vip(WEB, 1), VIP(key, (Backend("10.0.0.1", 8080),), VIPSettings(scheduler="nonesuch")))
        await setting.said("failed: -A -t 11.0.0.2:80 -s nonesuch: No such file or directory")
        assert setting.rules == rows(WEB, 1)
        setting.fake.schedulers.add(b"nonesuch")
        await setting.until(lambda: "-A -t 11.0.0.2:80 -s nonesuch" in setting.rules)


@pytest.mark.trio
async def test_an_opponent_who_never_stops_is_said_and_outlasted(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running():
        source.say(vip(WEB, 1))
        await setting.becomes(*rows(WEB, 1))
        for nth in range(3):
            setting.fake.fail(nth, ESRCH)
        source.say(vip(WEB, 1, 2))
        await setting.said("after 3 attempts")
        await setting.becomes(*rows(WEB, 1, 2))


@pytest.mark.trio
async def test_when_the_table_cannot_be_read_that_is_said_and_tried_again(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running():
        source.say(vip(WEB, 1))
        await setting.becomes(*rows(WEB, 1))
        setting.fake.denied = True
        source.say(vip(WEB, 1, 2))
        await setting.said("failed: ")
        assert "CAP_NET_ADMIN" in setting.talk
        setting.fake.denied = False
        await setting.becomes(*rows(WEB, 1, 2))


@pytest.mark.trio
async def test_without_the_right_to_the_table_it_does_not_even_start(setting: Setting) -> None:
    setting.fake.denied = True
    with pytest.raises(NotPermitted):
        await setting.keeper().run()


@pytest.mark.trio
async def test_a_source_that_cannot_be_opened_ends_it_with_an_error_that_has_a_text(setting: Setting) -> None:
    setting.sources[0].broken = ConfigurationError(None, "--source", "needs another extra")
    with pytest.raises(ConfigurationError, match="needs another extra"):
        await setting.keeper().run()


@pytest.mark.trio
async def test_told_to_look_again_it_opens_those_that_fail_anew_and_no_others(setting: Setting) -> None:
    one, two = setting.sources = [Spoken("one"), Spoken("two")]
    async with setting.running() as keeper:
        one.say(vip(WEB, 1))
        two.say(vip(API, 1))
        await setting.becomes(*rows(WEB, 1), *rows(API, 1))
        two.fail("401 Unauthorized")
        await setting.said("two: 401 Unauthorized")
        os.kill(os.getpid(), signal.SIGHUP)
        await setting.until(lambda: two.opened == 2)
        assert one.opened == 1
        assert setting.rules == [*rows(WEB, 1), *rows(API, 1)]
        two.say(vip(API, 1, 2))
        await setting.becomes(*rows(WEB, 1), *rows(API, 1, 2))

        def refuse() -> Spoken:
            raise SourceError("its certificate cannot be read")

        keeper.feeds._factories = [one, refuse]
        two.fail("again")
        os.kill(os.getpid(), signal.SIGHUP)
        await setting.said("two: its certificate cannot be read; it is read as before")
        await setting.until(lambda: two.opened == 3)


@pytest.mark.trio
async def test_a_source_that_ends_is_opened_again_and_not_in_a_hurry(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running():
        source.say(vip(WEB, 1))
        await setting.becomes(*rows(WEB, 1))
        began = trio.current_time()
        source.end()
        await setting.until(lambda: source.opened == 2)
        assert trio.current_time() - began >= 0.9
        source.say(vip(WEB, 1, 2))
        await setting.becomes(*rows(WEB, 1, 2))


@pytest.mark.trio
async def test_as_json_it_is_a_line_a_change(setting: Setting) -> None:
    (source,) = setting.sources
    async with setting.running(as_json=True):
        source.say(vip(WEB, 1, drain=600))
        await setting.becomes(*rows(WEB, 1))
        setting.fake.connect(ServiceKey.tcp("11.0.0.1", 80), Destination("10.0.0.1", 8080), 1)
        source.say(vip(WEB, 2, drain=600))
        await setting.until(lambda: setting.data.count("\n") == 2)
    first, second = map(json.loads, setting.data.splitlines())
    assert first["elapsed_seconds"] >= 0
    assert (first["version"], first["done"], first["failed"], first["draining"]) == (1, rows(WEB, 1), [], [])
    assert second["done"] == [rows(WEB, 2)[1], rows(WEB, 1, weight=0)[1].replace("-a", "-e")]
    assert second["draining"] == [{"service": "tcp 11.0.0.1:80", "destination": "10.0.0.1:8080"}]


# -- health ------------------------------------------------------------------------------------------------------------

QUICK = CheckPolicy(interval_seconds=0.05, undecided_interval_seconds=0.05, timeout_seconds=5, rise=2, fall=2)


def local(key: VIPKey, *ports: int) -> VIP:
    return VIP(key, tuple(Backend("127.0.0.1", port) for port in ports))


@pytest.mark.trio
async def test_a_backend_that_fails_its_check_gets_weight_0_and_its_weight_back(setting: Setting) -> None:
    (source,) = setting.sources
    with ExitStack() as stack:
        one, two = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        stack.callback(two.close)
        first, second = sorted((one.getsockname()[1], two.getsockname()[1]))
        gone = one.getsockname()[1]

        def weights(service: str = "-t 11.0.0.1:80") -> dict[int, int]:
            found = re.findall(
                rf"-a {service} -r 127\.0\.0\.1:(\d+) -g -w (\d)|-a {service} -r 127\.0\.0\.1:(\d+) -m -w (\d)",
                "\n".join(setting.rules),
            )
            return {int(a or c): int(b or d) for a, b, c, d in found}

        async with setting.running(check=parse_check("tcp"), check_policy=QUICK):
            source.say(local(VIPKey.tcp("11.0.0.1", 80), first, second), local(VIPKey.udp("11.0.0.1", 80), first, second))
            await setting.until(lambda: weights() == {first: 1, second: 1})
            one.close()
            await setting.until(lambda: weights()[gone] == 0)
            assert sum(weights().values()) == 1
            assert weights("-u 11.0.0.1:80") == {first: 1, second: 1}, "UDP is not checked"
            await setting.said(f"127.0.0.1:{gone} is unhealthy: 127.0.0.1:{gone}: Connection refused")
            two.close()
            await setting.said("fails open")
            await setting.until(lambda: weights() == {first: 1, second: 1})
            stack.enter_context(socket.create_server(("127.0.0.1", gone)))
            await setting.said(f"127.0.0.1:{gone} is healthy again")
            await setting.until(lambda: weights()[gone] == 1 and sum(weights().values()) == 1)


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("tcp", TCPCheck("10.0.0.5", 80)),
        ("http", HTTPCheck(address="10.0.0.5", port=80)),
        ("http:/health?x=1", HTTPCheck(address="10.0.0.5", port=80, path="/health?x=1")),
        ("exec:/bin/check", CommandCheck(("/bin/check", "10.0.0.5", "80"))),
    ],
)
def test_a_check_is_written_by_its_kind(text: str, check: Check) -> None:
    assert parse_check(text)(Backend("10.0.0.5", 80)) == check


@pytest.mark.parametrize("text", ["", "tcp:80", "icmp", "http:health", "exec:check", "exec:"])
def test_a_check_that_is_none_is_refused_before_there_is_a_backend(text: str) -> None:
    with pytest.raises(InvalidCheckError):
        parse_check(text)


@pytest.mark.trio
async def test_what_is_pushed_is_followed_and_a_broken_push_changes_nothing(setting: Setting, tmp_path: Path) -> None:
    path = tmp_path / "push.sock"
    setting.sources = [partial(parse_source, f"push:unix:{path}")]  # type: ignore[list-item]  # as of --source

    async def push(body: bytes) -> bytes:
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(
                b"PUT / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            return (await stream.receive_some(12)).removeprefix(b"HTTP/1.1 ")

    def document(*vips: VIP) -> bytes:
        return json.dumps(plain_document(SourceState(vips))).encode()

    setting.load(WEB)
    before = setting.rules
    async with setting.running(audit_seconds=0.05):
        await setting.until(path.is_socket)
        await setting.until(lambda: setting.fake.reads > 1)
        assert setting.rules == before  # nothing was pushed yet
        assert await push(document(vip(WEB, 1), vip(API, 2))) == b"200"
        await setting.becomes(*rows(WEB, 1), *rows(API, 2))
        assert await push(b"{") == b"400"
        await setting.said("what was last read stands")
        reads = setting.fake.reads
        await setting.until(lambda: setting.fake.reads > reads + 5)
        assert setting.rules == [*rows(WEB, 1), *rows(API, 2)]
        assert await push(document(vip(WEB, 1, 3), vip(API, 2))) == b"200"
        await setting.becomes(*rows(WEB, 1, 3), *rows(API, 2))
    assert not path.exists()
