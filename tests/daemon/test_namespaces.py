"""Namespaces of a directory, each with a double of its kernel: real namespaces, for what is told apart is their inodes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from pyminuteman.daemon.ledger import Ledger
from pyminuteman.daemon.namespaces import Namespaces, Place, Serving
from pyminuteman.daemon.reconciler import Reconciler
from pyminuteman.daemon.reconciler_options import ReconcilerOptions
from pyminuteman.host.findings import Severity
from pyminuteman.host.namespace_directory import DIRECTORY, Look, check_namespaces, look
from pyminuteman.ipvs import DrainPolicy, IPVSTable, IPVSUnavailableError, Scope
from pyminuteman.vips.desired import DesiredState
from tests.daemon.test_reconciler import MANAGED, WEB, Kernel, state, until, vip
from tests.support.host_namespaces import Inside

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root: it takes CAP_SYS_ADMIN to make network namespaces")


@pytest.fixture
def blue() -> Iterator[Inside]:
    with Inside() as made:
        yield made


@pytest.fixture
def red() -> Iterator[Inside]:
    with Inside() as made:
        yield made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "netns"
    made.mkdir(mode=0o755)
    return made


def seen(directory: Path, known: Mapping[str, int] | None = None, most: int = 10) -> Look:
    """A look, after which nothing stays open."""
    found = look(directory, known or {}, most)
    for entry in found.entries.values():
        if entry.descriptor is not None:
            os.close(entry.descriptor)
    return found


def inode(namespace: Inside) -> int:
    return Path(namespace.path).stat().st_ino


# Entries


def test_a_file_that_holds_the_path_of_a_namespace_is_one(directory: Path, blue: Inside, red: Inside) -> None:
    (directory / "5cf1a2c4-blue").write_text(blue.path)
    (directory / "red").write_text(red.path + "\n")
    (directory / ".hidden").write_text("whatever")
    found = seen(directory)
    assert {name: entry.identity for name, entry in found.entries.items()} == {"5cf1a2c4-blue": inode(blue), "red": inode(red)}
    assert found.problems == {}
    again = seen(directory, {"red": inode(red)})
    assert again.entries["red"].descriptor is None, "what is known is not opened again"


def test_a_mounted_namespace_is_one(directory: Path, blue: Inside) -> None:
    (directory / "blue").touch()
    subprocess.run(["mount", "--bind", blue.path, directory / "blue"], check=True)
    try:
        found = seen(directory)
    finally:
        subprocess.run(["umount", directory / "blue"], check=True)
    assert (found.entries["blue"].identity, found.problems) == (inode(blue), {})
    assert "it is empty: half written, or a namespace that is mounted where" in seen(directory).problems["blue"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"run/netns/blue", "it does not hold one absolute path"),
        (b"/run/netns/blue\n/run/netns/red", "it does not hold one absolute path"),
        (b"/\xff", "it does not hold one absolute path"),
        (b"/\0", "it does not hold one absolute path"),
        (b"/" * 5000, "it does not hold one absolute path"),
        (b"/no/such", "/no/such: No such file or directory"),
        (b"/etc/passwd", "/etc/passwd is no network namespace"),
        (b"/proc/self/ns/mnt", "/proc/self/ns/mnt is a namespace, and none of the network"),
        (b"/proc/self/ns/net", "it is the network namespace of the host, which has the table anyway"),
    ],
)
def test_a_file_that_holds_anything_else_is_told(directory: Path, content: bytes, reason: str) -> None:
    (directory / "one").write_bytes(content)
    found = seen(directory)
    assert found.entries == {}
    assert found.problems.keys() == {"one"}
    assert found.problems["one"].startswith(reason)


def test_what_is_neither_is_told_and_keeps_nobody_out(directory: Path, blue: Inside) -> None:
    (directory / "blue").write_text(blue.path)
    (directory / "link").symlink_to(blue.path)
    (directory / "sub").mkdir()
    os.mkfifo(directory / "pipe")
    (directory / "same").write_text(blue.path)
    (directory / "a name\n").write_text(blue.path)
    found = seen(directory, {"blue": inode(blue)})
    assert found.entries.keys() == {"blue"}
    assert found.problems.keys() == {"link", "sub", "pipe", "same", "'a name\\n'"}
    assert found.problems["link"].startswith("it is a symbolic link, which is not followed")
    assert found.problems["same"] == "it is the network namespace of blue"
    assert (
        found.problems["sub"]
        == found.problems["pipe"]
        == "it is neither a network namespace nor a file that holds the path of one"
    )


def test_too_many_are_told_and_those_that_are_served_stay(directory: Path, blue: Inside, red: Inside) -> None:
    (directory / "blue").write_text(blue.path)
    (directory / "red").write_text(red.path)
    found = seen(directory, {"red": inode(red)}, most=1)
    assert found.entries.keys() == {"red"}
    assert found.problems == {DIRECTORY: f"{directory}: at most 1 namespaces are served: blue left out"}


def test_a_directory_that_anybody_may_write_to_is_not_believed(directory: Path, blue: Inside) -> None:
    (directory / "blue").write_text(blue.path)
    directory.chmod(0o777)
    found = seen(directory)
    assert found.entries == {}
    assert "anybody may write there" in found.problems[DIRECTORY]
    assert "cannot be read: No such file" in seen(directory / "none").problems[DIRECTORY]


def test_doctor_says_which_are_served_and_why_others_are_not(directory: Path, blue: Inside) -> None:
    (directory / "blue").write_text(blue.path)
    (directory / "old").write_text("/no/such")
    before = descriptors()
    served, old = check_namespaces(directory)
    assert descriptors() == before
    assert (served.ok, served.what) == (True, f"1 network namespaces of {directory} can be served")
    assert (old.id, old.severity, old.what) == (
        "namespaces.entry",
        Severity.WARNING,
        f"{directory}/old: /no/such: No such file or directory",
    )
    directory.chmod(0o777)
    assert [(one.id, one.severity) for one in check_namespaces(directory)] == [
        ("namespaces.served", Severity.INFO),
        ("namespaces.directory", Severity.ERROR),
    ]


# The keeper


class Node:
    """What a node is for it: what is desired, and whose reconcilers there are."""

    def __init__(self, wanted: DesiredState) -> None:
        self.wanted = wanted
        self.reconcilers: dict[str, Reconciler] = {}

    def admit(self, reconciler: Reconciler) -> None:
        self.reconcilers[reconciler.name] = reconciler
        reconciler.want(self.wanted)

    def dismiss(self, reconciler: Reconciler) -> None:
        del self.reconcilers[reconciler.name]


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Bench:
    """Namespaces at work. Kernels are by inode, as they are in the world."""

    def __init__(self, directory: Path, ledgers: Path, options: dict[str, Any]) -> None:
        self.told: list[tuple[str, str]] = []
        self.kernels: dict[int, Kernel] = {}
        self.ledgers = ledgers
        self.opened: list[str] = []
        self.stuck: dict[str, threading.Event] = {}
        self.broken: set[str] = set()
        self.unmade: set[str] = set()
        self.on_exit = options.pop("on_exit", "keep")
        self.node = Node(state(vip(2)))
        times = {"look_seconds": 0.05, "again_seconds": 0.05} | options
        self.namespaces = Namespaces(directory, make=self.make, ledgers=ledgers, tell=self.tell, **times)

    def tell(self, kind: str, text: str, data: Mapping[str, Any]) -> None:
        assert "namespace" in data
        self.told.append((kind, text))

    def texts(self, kind: str = "namespace") -> list[str]:
        return [text for one, text in self.told if one == kind]

    def make(self, place: Place) -> Serving:
        if place.name in self.unmade:
            raise OSError("no memory")
        kernel = self.kernels.setdefault(Path(place.path).stat().st_ino, Kernel())

        def open_table(scope: Scope, drain: DrainPolicy | None) -> IPVSTable:
            self.opened.append(place.name)
            if place.name in self.stuck:
                self.stuck[place.name].wait(30)
            if place.name in self.broken:
                raise IPVSUnavailableError("there is no IPVS in there")
            return IPVSTable(scope=scope, drain=drain, backend=kernel)

        options = ReconcilerOptions(managed=MANAGED, max_loss_percent=100.0, on_exit=self.on_exit)
        ledger = Ledger(place.ledger, boot="this")
        return Serving(
            Reconciler(place.name, open_table=open_table, ledger=ledger, options=options, tell=self.tell, limiter=place.limiter)
        )

    def has(self, namespace: Inside) -> bool:
        kernel = self.kernels.get(inode(namespace))
        return kernel is not None and WEB in {service.key for service in kernel.read()}


@asynccontextmanager
async def bench(directory: Path, **options: Any) -> AsyncIterator[Bench]:
    one = Bench(directory, directory.parent / "state", options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.namespaces.run, one.node)
        try:
            yield one
        finally:
            for event in one.stuck.values():
                event.set()
            nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_namespaces_that_come_get_the_table_and_those_that_go_keep_theirs(
    directory: Path, blue: Inside, red: Inside
) -> None:
    (directory / "blue").write_text(blue.path)
    async with bench(directory, on_exit="flush", forget_seconds=0.3) as one:
        await until(lambda: one.has(blue))
        (directory / "red").write_text(red.path)
        await until(lambda: one.has(red))
        assert one.node.reconcilers.keys() == {"blue", "red"}
        assert {path.name for path in one.ledgers.iterdir()} == {f"{inode(blue)}.json", f"{inode(red)}.json"}
        (directory / "blue").unlink()
        await until(lambda: one.node.reconcilers.keys() == {"red"})
        assert one.has(blue), "nothing is taken away in there"
        assert "blue: it has gone, and its table is left as it is" in one.texts()
        assert one.texts("sync_failed") == []
        await until(lambda: {path.name for path in one.ledgers.iterdir()} == {f"{inode(red)}.json"})
        one.node.reconcilers["red"].want(state(vip(1)))
        await until(lambda: one.node.reconcilers["red"].status.destinations == 1)
        open_before = descriptors()
    assert not one.has(red), "at its own end the daemon does with them as on_exit says"
    assert descriptors() < open_before


@pytest.mark.trio
async def test_another_namespace_of_the_same_name_starts_anew_and_the_same_one_goes_on(
    directory: Path, blue: Inside, red: Inside
) -> None:
    (directory / "one").write_text(blue.path)
    async with bench(directory) as one:
        await until(lambda: one.has(blue))
        first = one.node.reconcilers["one"]
        (directory / "new").write_text(red.path)
        (directory / "new").replace(directory / "one")
        await until(lambda: one.has(red))
        assert one.node.reconcilers["one"] is not first
        assert "new" not in one.node.reconcilers
        (directory / "one").unlink()
        await until(lambda: not one.node.reconcilers)
        (directory / "one").write_text(red.path)
        await until(lambda: "one" in one.node.reconcilers and one.node.reconcilers["one"].status.syncs_total > 0)
        assert one.node.reconcilers["one"].status.foreign == (), "by its ledger it knows what is its own"


@pytest.mark.trio
async def test_what_is_wrong_is_told_once_and_tried_until_it_is_right(directory: Path, blue: Inside) -> None:
    entry = directory / "blue"
    async with bench(directory) as one:
        entry.write_text("/no/such")
        await until(lambda: "blue: /no/such: No such file or directory" in one.texts())
        await trio.sleep(0.3)
        assert len(one.texts()) == 1
        (step,) = one.namespaces.status()
        assert (step.step, step.ok, step.reason) == ("namespaces", False, "blue: /no/such: No such file or directory")
        entry.write_text(blue.path)
        await until(lambda: one.has(blue))
        assert one.namespaces.status()[0].ok
        first = one.node.reconcilers["blue"]
        entry.write_text("")
        entry.write_text(blue.path)
        await trio.sleep(0.3)
        assert one.node.reconcilers["blue"] is first, "what is wrong for a moment ends nothing"
        entry.write_text("")
        await until(lambda: not one.node.reconcilers)


@pytest.mark.trio
async def test_a_directory_that_comes_later_is_found_and_one_that_cannot_be_read_ends_nothing(
    directory: Path, blue: Inside
) -> None:
    directory.rmdir()  # noqa: ASYNC240 - in memory, as all of this directory
    async with bench(directory) as one:
        await until(lambda: any("cannot be read: No such file" in text for text in one.texts()))
        directory.mkdir(mode=0o755)  # noqa: ASYNC240
        (directory / "blue").write_text(blue.path)
        await until(lambda: one.has(blue))
        directory.rename(directory.with_name("away"))  # noqa: ASYNC240
        await until(lambda: not one.namespaces.status()[0].ok)
        await trio.sleep(0.2)
        assert one.node.reconcilers.keys() == {"blue"}
        directory.with_name("away").rename(directory)
        await until(lambda: one.namespaces.status()[0].ok)


@pytest.mark.trio
async def test_one_that_cannot_be_made_is_told_and_tried_again(directory: Path, blue: Inside, red: Inside) -> None:
    (directory / "blue").write_text(blue.path)
    (directory / "red").write_text(red.path)
    async with bench(directory) as one:
        one.unmade.add("blue")
        await until(lambda: one.has(red) and "blue: no memory" in one.texts("sync_failed"))
        one.unmade.clear()
        await until(lambda: one.has(blue))


@pytest.mark.trio
async def test_one_that_is_stuck_or_broken_delays_nobody(directory: Path, blue: Inside, red: Inside) -> None:
    (directory / "blue").write_text(blue.path)
    async with bench(directory) as one:
        one.stuck["blue"] = threading.Event()
        await until(lambda: "blue" in one.opened)
        (directory / "red").write_text(red.path)
        await until(lambda: one.has(red))
        assert not one.has(blue)
        (directory / "blue").unlink()
        await until(lambda: any(text.startswith("blue: it has gone") for text in one.texts()))
        one.stuck.pop("blue").set()
        await until(lambda: "blue" not in one.node.reconcilers)
        one.broken.add("third")
        with Inside() as third:
            (directory / "third").write_text(third.path)
            await until(lambda: one.opened.count("third") > 1)
            assert "there is no IPVS in there" in one.node.reconcilers["third"].status.error
            assert len(one.texts("sync_failed")) == 1
            one.broken.clear()
            await until(lambda: one.has(third))
            await until(lambda: one.node.reconcilers["third"].status.error == "")
            (directory / "third").unlink()
            await until(lambda: "third" not in one.node.reconcilers)
