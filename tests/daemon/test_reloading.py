"""What a reload makes count: a whole node that is made from a file, with a double of the kernel."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from pyminuteman.daemon import composition as make
from pyminuteman.daemon.api.subject import Reloaded
from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.daemon.config_file import load_config
from pyminuteman.daemon.events import EventLog
from pyminuteman.daemon.node import Node, NodeParts
from pyminuteman.daemon.reloading import Reloading
from pyminuteman.errors import ConfigurationError, MinutemanError
from pyminuteman.health.monitor import open_monitor
from pyminuteman.ipvs import IPVSTable
from pyminuteman.membership import Key, KeyringError, save_key_file
from pyminuteman.sources.push import PushSource
from pyminuteman.testing.fake_kernel import FakeKernel
from pyminuteman.vips.model import VIP, Backend, VIPKey

WEB = VIPKey.tcp("11.0.0.1", 80)


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """A reload sets the log of the process up."""
    log = logging.getLogger("pyminuteman")
    before = log.handlers[:], log.propagate, log.level
    yield
    log.handlers[:], log.propagate = before[:2]
    log.setLevel(before[2])


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    with trio.fail_after(seconds):
        while not true():  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.005)


class Files:
    """A configuration, and the files of VIPs that it names. Each section is replaced by saying it anew."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sections: dict[str, str] = {
            "node": f'bind = "127.0.0.1:0"\naddresses = ["10.0.0.1"]\nstate_directory = "{directory}"',
            "ipvs": 'managed = ["11.0.0.0/8"]\nmax_loss_percent = 100\ndrain_seconds = 0',
            "names": 'ipv6_range = ""',
            "health": 'check = ""',
            "api": f'socket = "{directory / "api.sock"}"',
        }
        self.sources: dict[str, str] = {}
        self.source("files")
        self.vips("files", WEB, 8080)

    def place(self, name: str) -> str:
        return f"file:{self.directory / name}.toml"

    def source(self, name: str, more: str = "", place: str = "") -> None:
        self.sources[name] = f'name = "{name}"\nplace = "{place or self.place(name)}"\n{more}'

    def vips(self, name: str, key: VIPKey | None, *ports: int) -> None:
        """Have a file say this; None: nothing that can be read."""
        rows = "".join(f'[[vip.backend]]\naddress = "10.0.0.1"\nport = {port}\n' for port in ports)
        text = "nonsense" if key is None else f'[[vip]]\nlisten = "{key}"\n{rows}'
        (self.directory / f"{name}.new").write_text(text)
        (self.directory / f"{name}.new").replace(self.directory / f"{name}.toml")

    def load(self) -> DaemonConfig:
        path = self.directory / "config.toml"
        text = "".join(f"[{name}]\n{body}\n" for name, body in self.sections.items())
        path.write_text(text + "".join(f"[[source]]\n{body}\n" for body in self.sources.values()))
        return load_config(path)


class Bench:
    """The node at work."""

    def __init__(self, files: Files, reloading: Reloading, kernel: FakeKernel) -> None:
        self.files, self.reloading, self.kernel, self.node = files, reloading, kernel, reloading.node

    async def reload(self) -> Reloaded:
        return await self.reloading.reload()

    def weights(self) -> dict[str, int]:
        """What the kernel has, by service and destination."""
        snapshot = self.kernel.read()
        return {
            f"{one.key.address}:{one.key.port} {row.port}": row.weight
            for one in snapshot
            for row in snapshot.destinations(one.key)
        }

    async def looked(self) -> None:
        """The kernel's table was read once more, and all is as desired."""
        before = self.node.reconcilers[""].status.syncs_total
        self.node.look_again()
        await until(lambda: self.node.reconcilers[""].status.syncs_total > before)


@asynccontextmanager
async def bench(files: Files) -> AsyncIterator[Bench]:
    config, events, kernel = files.load(), EventLog(), FakeKernel()
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        membership = await stack.enter_async_context(make.membership_of(config))
        own = make.own_addresses(config, membership)
        reconciler = make.reconciler(
            config, tell=events.tell, open_table=lambda scope, drain: IPVSTable(scope=scope, drain=drain, backend=kernel)
        )
        node = Node(
            NodeParts(
                membership=membership,
                store=await stack.enter_async_context(make.store_of(config, membership)),
                outlook=(view := make.outlook(config, own)),
                monitor=await stack.enter_async_context(open_monitor()),
                reconcilers={"": reconciler},
                events=events,
                own_addresses=own,
            )
        )
        reloading = Reloading(config=config, load=files.load, node=node, set_policy=view.set_policy)
        reloading.begin()
        nursery.start_soon(node.run)
        with trio.fail_after(30):
            await node.ready.wait()
        yield Bench(files, reloading, kernel)
        nursery.cancel_scope.cancel()


ALL = {"11.0.0.1:80 8080": 1}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# -- nothing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_reloads_that_change_nothing_write_nothing(files: Files) -> None:
    files.source("more", 'publish = "all"\n[source.health]\ncheck = "tcp"\nfall = 9')
    files.vips("more", VIPKey.tcp("11.0.0.2", 80), 1, 2)
    async with bench(files) as one:
        await until(lambda: len(one.weights()) == 3)
        operations, said = one.kernel.operations, dict(one.node.store.own())
        feeds, version = list(one.node.feeds), one.node.membership.me
        for _ in range(30):
            reads = one.kernel.reads
            assert await one.reload() == Reloaded()
            await until(lambda reads=reads: one.kernel.reads > reads)  # type: ignore[misc]
        await one.looked()
        assert one.kernel.operations == operations
        assert dict(one.node.store.own()) == said
        assert list(one.node.feeds) == feeds
        assert one.node.membership.me == version
        assert one.node.events.counts["reload"] == 30


@pytest.mark.trio
async def test_what_does_not_read_changes_nothing(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        good = one.reloading.config
        files.sections["ipvs"] += "\naudit_seconds = 0.1"
        files.source("more")
        with pytest.raises(
            ConfigurationError, match=r"config.toml: line \d+ \(ipvs.audit_seconds\): .* is not a number from 1"
        ):
            await one.reload()
        assert (one.reloading.config, [feed.name for feed in one.node.feeds]) == (good, ["files"])
        event = one.node.events.since(0)[-1]
        assert (event.kind, "nothing was changed: " in event.text) == ("reload", True)
        files.sections["ipvs"] = files.sections["ipvs"].replace("audit_seconds = 0.1", "audit_seconds = 7")
        assert (await one.reload()).changes == ("source.more: added", "ipvs.audit_seconds: 60.0 -> 7.0")
        assert [feed.name for feed in one.node.feeds] == ["files", "more"]


@pytest.mark.trio
async def test_what_takes_a_restart_is_said_until_it_is_so_and_a_key_that_is_set_back_counts(files: Files) -> None:
    async with bench(files) as one:
        files.sections["node"] += '\nname = "web1"'
        files.sections["log"] = 'level = "error"'
        first = await one.reload()
        assert first.restart == ('node.name: "" -> "web1"',)
        assert first.changes == ('log.level: "info" -> "error"',)
        assert await one.reload() == Reloaded((), first.restart, first.remarks)
        files.sections["node"] = files.sections["node"].replace('\nname = "web1"', "")
        files.sections["log"] = ""
        assert await one.reload() == Reloaded(('log.level: "error" -> "info"',), (), first.remarks)


# -- sources ---------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_sources_come_and_go_and_those_that_stay_are_not_opened_again(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        first = one.node.feeds[0]
        reader = first.source
        files.source("more")
        files.vips("more", VIPKey.tcp("11.0.0.2", 80), 1)
        assert (await one.reload()).changes == ("source.more: added",)
        await until(lambda: one.weights() == {**ALL, "11.0.0.2:80 1": 1})
        assert (one.node.feeds[0], one.node.feeds[0].source) == (first, reader)
        del files.sources["more"]
        assert (await one.reload()).changes == ("source.more: removed",)
        await until(lambda: one.weights() == ALL)
        assert not any(b"11.0.0.2" in value or "11.0.0.2" in key for key, value in one.node.store.own().items())
        files.vips("more", VIPKey.tcp("11.0.0.2", 80), 2)  # nobody reads it any more
        files.vips("files", WEB, 8081)
        await until(lambda: one.weights() == {"11.0.0.1:80 8081": 1})
        assert (one.node.feeds[0], one.node.feeds[0].source) == (first, reader)


@pytest.mark.trio
async def test_a_source_that_is_read_elsewhere_keeps_its_state_until_it_has_spoken_there(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        operations = one.kernel.operations
        files.vips("other", None)
        files.source("files", place=files.place("other"))
        assert (await one.reload()).changes[0].startswith("source.files.place: ")
        await until(lambda: one.node.feeds[0].source.status.failures > 0)
        await one.reload()
        await one.looked()
        assert (one.weights(), one.kernel.operations) == (ALL, operations), "it fails there: what was read before stands"
        await until(lambda: one.node.events.counts["source_stale"] == 1)
        files.vips("files", WEB, 1)  # where it was read before
        files.vips("other", WEB, 8080, 8081)
        await until(lambda: one.weights() == {**ALL, "11.0.0.1:80 8081": 1})
        await until(lambda: one.node.events.counts["source_good"] == 1)
        files.source("files", place="push:")
        await one.reload()
        pushed = one.node.feeds[0].source
        assert isinstance(pushed, PushSource)
        await one.looked()
        assert len(one.weights()) == 2
        pushed.push([VIP(WEB, (Backend("10.0.0.1", 5),))])
        await until(lambda: one.weights() == {"11.0.0.1:80 5": 1})


@pytest.mark.trio
async def test_what_is_told_of_a_source_follows(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: bool(one.node.store.own()) and one.weights() == ALL)
        operations = one.kernel.operations
        files.source("files", 'publish = "none"')
        assert (await one.reload()).changes == ('source.files.publish: "all" -> "none"',)
        await until(lambda: not one.node.store.own())
        files.source("files", 'publish = "own"')
        await one.reload()
        await until(lambda: bool(one.node.store.own()))
        await one.looked()
        assert (one.weights(), one.kernel.operations) == (ALL, operations), "on this node it counted all the time"
        assert "vip_removed" not in one.node.events.counts


@pytest.mark.trio
async def test_when_a_silent_source_is_withdrawn_follows(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        files.vips("files", None)
        await until(lambda: one.node.feeds[0].source.status.failures > 0)
        await trio.sleep(1.1)
        files.source("files", 'on_silence = "withdraw"\nsilence_seconds = 1')
        assert len((await one.reload()).changes) == 2
        await until(lambda: one.weights() == {})
        files.source("files")
        await one.reload()
        await until(lambda: one.weights() == ALL)
        files.source("files", 'on_silence = "withdraw"\nsilence_seconds = 1')
        await one.reload()
        await until(lambda: one.weights() == {})
        files.vips("other", None)
        files.source("files", 'on_silence = "withdraw"\nsilence_seconds = 1', place=files.place("other"))
        await one.reload()
        await one.looked()
        assert one.weights() == {}, "what is withdrawn does not come back because it is read elsewhere"


# -- health ----------------------------------------------------------------------------------------------------------------


def script(directory: Path) -> Path:
    """A check of all, that fails while there is a file named as the port."""
    path = directory / "check"
    path.write_text(f'#!/bin/sh\ntest ! -e "{directory}/sick-$2"\n')
    path.chmod(0o755)
    return path


FAST = "interval_seconds = 0.05\nrise = 1\nfall = 1"


@pytest.mark.trio
async def test_each_source_has_its_backends_checked_as_it_says(files: Files) -> None:
    path = script(files.directory)
    for port in (8080, 1, 2):
        (files.directory / f"sick-{port}").touch()
    files.sections["health"] = f'check = "exec:{path}"\ntimeout_seconds = 30\n{FAST}'
    files.vips("files", WEB, 8080, 8082)
    files.source("more", '[source.health]\ncheck = ""')
    files.vips("more", VIPKey.tcp("11.0.0.2", 80), 1, 3)
    async with bench(files) as one:
        general = {"11.0.0.1:80 8080": 0, "11.0.0.1:80 8082": 1}
        await until(lambda: one.weights() == {**general, "11.0.0.2:80 1": 1, "11.0.0.2:80 3": 1})
        assert len(one.node.monitor.known()) == 2

        files.source("more", "[source.health]\nfall = 2")
        await one.reload()
        await until(lambda: one.weights() == {**general, "11.0.0.2:80 1": 0, "11.0.0.2:80 3": 1})
        files.sections["health"] = files.sections["health"].replace("fall = 1", "fall = 3")
        before = dict(one.node.monitor.known())
        assert (await one.reload()).changes == ("health.fall: 1 -> 3",)
        await one.looked()
        after = one.node.monitor.known()
        assert {key: health.healthy for key, health in after.items()} == {key: health.healthy for key, health in before.items()}
        (files.directory / "sick-8080").unlink()
        await until(lambda: one.weights()["11.0.0.1:80 8080"] == 1)

        files.sections["health"] = 'check = ""'
        files.source("more", '[source.health]\ncheck = ""')
        await one.reload()
        await until(lambda: set(one.weights().values()) == {1})
        assert not one.node.monitor.known()
        assert not any(key.startswith("unhealthy/") for key in one.node.store.own())


@pytest.mark.trio
async def test_of_two_sources_that_want_a_backend_the_first_that_has_it_checked_counts(files: Files) -> None:
    path = script(files.directory)
    files.vips("files", WEB, 8080)
    files.source("second", f'[source.health]\ncheck = "exec:{path}"\n{FAST}\ntimeout_seconds = 30')
    files.source("third", '[source.health]\ncheck = "tcp"')
    for name, address in (("second", "11.0.0.2"), ("third", "11.0.0.3")):
        files.vips(name, VIPKey.tcp(address, 80), 8080)
    async with bench(files) as one:
        await until(lambda: len(one.weights()) == 3)
        # By tcp nobody is there.
        await until(
            lambda: [(health.healthy, health.confirmed) for health in one.node.monitor.known().values()] == [(True, True)]
        )
        (files.directory / "sick-8080").touch()
        await until(lambda: any(key.startswith("unhealthy/") for key in one.node.store.own()))


# -- policy, ipvs, log, api, keys ------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_the_policy_follows(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        files.sections["policy"] = 'denied = ["11.0.0.1"]'
        assert (await one.reload()).changes == ('policy.denied: [] -> ["11.0.0.1"]',)
        await until(lambda: one.weights() == {})
        files.sections["policy"] = ""
        await one.reload()
        await until(lambda: one.weights() == ALL)


@pytest.mark.trio
async def test_how_the_table_is_kept_follows(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        reconciler = one.node.reconcilers[""]
        base = 'managed = ["11.0.0.0/8", "12.0.0.0/8"]'

        async def ipvs(more: str) -> None:
            files.sections["ipvs"] = f"{base}\n{more}"
            await one.reload()
            await one.looked()

        # max_loss_percent holds back, and lets go
        files.vips("files", WEB, 8080, 8081)
        await until(lambda: len(one.weights()) == 2)
        files.sections["ipvs"] = base + "\nmax_loss_percent = 10\ndrain_seconds = 0"
        await one.reload()
        files.vips("files", WEB, 8081)
        await until(lambda: reconciler.status.held is not None)
        assert len(one.weights()) == 2
        files.sections["ipvs"] = base + "\nmax_loss_percent = 100\ndrain_seconds = 0"
        await one.reload()
        await until(lambda: one.weights() == {"11.0.0.1:80 8081": 1})

        # drain_seconds
        await ipvs("max_loss_percent = 100\ndrain_seconds = 600")
        snapshot = one.kernel.read()
        ((key, row),) = [(service.key, row) for service in snapshot for row in snapshot.destinations(service.key)]
        one.kernel.connect(key, row, active=1)
        files.vips("files", WEB, 8082)
        await until(lambda: one.weights() == {"11.0.0.1:80 8081": 0, "11.0.0.1:80 8082": 1})
        await one.looked()
        assert reconciler.status.draining == 1
        one.kernel.connect(key, row, active=0)
        await until(lambda: one.weights() == {"11.0.0.1:80 8082": 1})

        # managed, exclude and adopt
        files.vips("files", VIPKey.tcp("12.0.0.1", 80), 1)
        await until(lambda: "12.0.0.1:80 1" in one.weights())
        await ipvs('max_loss_percent = 100\ndrain_seconds = 0\nexclude = ["12.0.0.0/8"]')
        files.vips("files", VIPKey.tcp("12.0.0.1", 80), 2)
        await one.looked()
        assert one.weights() == {"12.0.0.1:80 1": 1}, "somebody else's, come what may"
        await ipvs("max_loss_percent = 100\ndrain_seconds = 0")
        await until(lambda: one.weights() == {"12.0.0.1:80 2": 1})


@pytest.mark.trio
async def test_what_becomes_of_the_table_at_the_end_follows(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        files.sections["ipvs"] += '\non_exit = "flush"'
        await one.reload()
        kernel = one.kernel
    assert not kernel.services


@pytest.mark.trio
async def test_how_often_the_kernel_is_read_follows(files: Files) -> None:
    async with bench(files) as one:
        await until(lambda: one.weights() == ALL)
        files.sections["ipvs"] += "\naudit_seconds = 1"
        await one.reload()
        await one.looked()
        reads = one.kernel.reads
        await until(lambda: one.kernel.reads >= reads + 3)  # with 60 s between two, this would not come


@pytest.mark.trio
async def test_the_log_follows_and_remarks_are_in_it(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    async with bench(files) as one:
        files.sections["log"] = 'level = "warning"\nformat = "json"'
        files.sections["ipvs"] += '\nadopt = "everything"'
        done = await one.reload()
        assert logging.getLogger("pyminuteman").level == logging.WARNING
        (remark,) = done.remarks
        assert remark.startswith("ipvs.adopt: managed services that nobody wants are removed")
        assert f'"message": "configuration: {remark}"' in capsys.readouterr().err


class API:
    """Takes what it is given, or has broken files."""

    def __init__(self) -> None:
        self.broken = False
        self.taken: list[Any] = []

    def renewal(self, options: Any) -> Callable[[], None]:
        if self.broken:
            raise ConfigurationError("token", "", "holds no token")
        return lambda: self.taken.append(options)


@pytest.mark.trio
async def test_the_api_follows_and_a_broken_file_of_it_changes_nothing(files: Files) -> None:
    async with bench(files) as one:
        api = one.reloading.api = API()
        api.broken = True
        files.sections["api"] += '\nhosts = ["lb.example"]\nmetrics_labels = ["proto"]'
        files.source("more")
        with pytest.raises(ConfigurationError, match="holds no token"):
            await one.reload()
        assert ([feed.name for feed in one.node.feeds], api.taken) == (["files"], [])
        api.broken = False
        await one.reload()
        (options,) = api.taken
        assert (options.hosts, options.metrics_labels) == (("lb.example",), ("proto",))


@pytest.mark.trio
async def test_the_key_file_is_read_again(files: Files) -> None:
    path = files.directory / "keyring"
    old, new = Key.generate(), Key.generate()
    save_key_file(path, [old])
    files.sections["cluster"] = f'key_file = "{path}"'
    async with bench(files) as one:
        assert one.node.membership.me.keys == (old.id,)
        save_key_file(path, [old, new])
        assert (await one.reload()).changes == (f"cluster.key_file: holding {old.id.hex()}, {new.id.hex()}; the first seals",)
        save_key_file(path, [new])
        await one.reload()
        assert one.node.membership.me.keys == (new.id,)
        path.write_text("nonsense")
        files.source("more")
        with pytest.raises(KeyringError, match="line 1: not a key"):
            await one.reload()
        assert (one.node.membership.me.keys, len(one.node.feeds)) == ((new.id,), 1)
        await one.node.membership.leave()
        save_key_file(path, [new, old])
        with pytest.raises(MinutemanError, match="has left"):
            await one.reload()
        assert len(one.node.feeds) == 1


@pytest.mark.trio
async def test_two_reloads_at_once_take_turns(files: Files) -> None:
    async with bench(files) as one:
        files.source("more")
        found: list[Reloaded] = []

        async def reload() -> None:
            found.append(await one.reload())

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(reload)
        assert sorted(len(done.changes) for done in found) == [0, 0, 0, 0, 1]
        assert [feed.name for feed in one.node.feeds] == ["files", "more"]
