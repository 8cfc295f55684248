"""The inotify wrapper on a real kernel: what it tells of a directory that changes, comes, goes and is replaced."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.sources import inotify as module
from pyminuteman.sources.base import SourceError
from pyminuteman.sources.inotify import Changes, DirectoryWatch, Event, Inotify, parse_events


def record(event: Event, padding: int = 0) -> bytes:
    name = os.fsencode(event.name)
    field = name + b"\0" * (padding + 1) if name else b""
    return struct.pack("=iIII", event.watch, event.mask, 0, len(field)) + field


names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=20)
events = st.builds(Event, st.integers(-1, 2**31 - 1), st.integers(0, 2**32 - 1), names)


@given(st.lists(st.tuples(events, st.integers(0, 15)), max_size=10))
def test_records_of_one_read(made: list[tuple[Event, int]]) -> None:
    assert list(parse_events(b"".join(record(event, padding) for event, padding in made))) == [event for event, _ in made]


@asynccontextmanager
async def watching(directory: Path) -> AsyncIterator[DirectoryWatch]:
    with trio.fail_after(20), DirectoryWatch(directory) as watch:
        assert watch.renew()
        yield watch


async def hear(watch: DirectoryWatch, seconds: float = 10) -> Changes:
    changes = await watch.wait(seconds, quiet_seconds=0.02)
    assert changes, "nothing was heard"
    return changes


@pytest.mark.trio
async def test_files_that_are_written_moved_and_removed_are_named(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch:
        assert not watch.renew()
        (tmp_path / "a").write_text("x")
        assert await hear(watch) == Changes(everything=False, names={"a"}, whole={"a"})
        (tmp_path / "a").rename(tmp_path / "b")
        assert await hear(watch) == Changes(everything=False, names={"a", "b"}, whole={"b"})
        (tmp_path / "b").unlink()
        (tmp_path / "c\udcff").symlink_to("nowhere")
        assert await hear(watch) == Changes(everything=False, names={"b", "c\udcff"}, whole=set())
        with (tmp_path / "d").open("w") as file:
            assert await hear(watch) == Changes(everything=False, names={"d"}, whole=set())
            file.write("x")
        assert await hear(watch) == Changes(everything=False, names={"d"}, whole={"d"})
        (tmp_path / "d").chmod(0o600)
        assert await hear(watch) == Changes(everything=False, names={"d"}, whole=set())


@pytest.mark.trio
async def test_a_file_that_is_begun_anew_after_it_was_closed_is_not_whole(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch:
        path = tmp_path / "a"
        path.write_text("x")
        path.unlink()
        with path.open("w"):
            assert await hear(watch) == Changes(everything=False, names={"a"}, whole=set())


@pytest.mark.trio
async def test_nothing_is_nothing_after_as_long_as_was_asked_for(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    async with watching(tmp_path) as watch:
        before = trio.current_time()
        assert not await watch.wait(5)
        assert trio.current_time() == pytest.approx(before + 5)


@pytest.mark.trio
async def test_a_burst_is_told_at_once_but_a_directory_without_rest_is_not_waited_out(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch, trio.open_nursery() as nursery:

        async def restless() -> None:
            for number in range(1_000_000):
                (tmp_path / f"f{number % 10}").write_text("x")
                await trio.sleep(0.002)

        nursery.start_soon(restless)
        before = trio.current_time()
        changes = await watch.wait(10, quiet_seconds=0.2, most_seconds=0.5)
        assert trio.current_time() - before < 5  # of 2000 seconds
        assert changes.names == {f"f{number}" for number in range(10)}
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_directory_that_is_not_there_is_heard_of_when_it_comes(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    with trio.fail_after(20), DirectoryWatch(directory) as watch:
        with pytest.raises(SourceError, match=r"/d: cannot be read: No such file or directory"):
            watch.renew()
        (tmp_path / "other").mkdir()
        assert not await watch.wait(0.05)
        directory.mkdir()
        assert (await hear(watch)).everything
        assert watch.renew()
        (directory / "a").write_text("x")
        assert (await hear(watch)).names == {"a"}


@pytest.mark.trio
async def test_a_directory_without_a_parent_is_waited_for_by_looking(tmp_path: Path) -> None:
    directory = tmp_path / "p" / "d"
    with trio.fail_after(20), DirectoryWatch(directory) as watch:
        with pytest.raises(SourceError):
            watch.renew()
        directory.mkdir(parents=True)
        assert not await watch.wait(0.05)
        assert watch.renew()
        (directory / "a").write_text("x")
        assert (await hear(watch)).names == {"a"}


@pytest.mark.trio
@pytest.mark.parametrize("how", ["renamed over", "removed and made anew", "link switched", "parent replaced"])
async def test_a_directory_that_is_replaced_is_heard_of_and_watched(tmp_path: Path, how: str) -> None:
    parent = tmp_path / "p"
    directory = parent / "d"
    other = tmp_path / "other"
    other.mkdir()
    parent.mkdir()
    if how == "link switched":
        (tmp_path / "first").mkdir()
        directory.symlink_to(tmp_path / "first")
    else:
        directory.mkdir()
    async with watching(directory) as watch:
        if how == "renamed over":
            other.rename(directory)
        elif how == "removed and made anew":
            directory.rmdir()
            directory.mkdir()
        elif how == "link switched":
            (tmp_path / "l").symlink_to(other)
            (tmp_path / "l").rename(directory)
        else:
            parent.rename(tmp_path / "old")
            directory.mkdir(parents=True)
        assert (await hear(watch)).everything
        assert watch.renew()
        (directory / "a").write_text("x")
        assert (await hear(watch)).names == {"a"}
        if how == "parent replaced":
            (tmp_path / "old" / "d" / "zz").write_text("x")
            assert not await watch.wait(0.05)


@pytest.fixture
def queued() -> int:
    """How many events the kernel keeps for a reader."""
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.mark.trio
async def test_when_the_queue_runs_over_everything_may_have_changed(tmp_path: Path, queued: int) -> None:
    if queued > 100_000:
        pytest.skip(f"fs.inotify.max_queued_events is {queued}: filling that queue takes too long")
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.touch()
    async with watching(tmp_path) as watch:
        for number in range(queued + 2):  # two in turn, for equal events in a row are one
            os.utime(paths[number % 2])
        changes = await hear(watch)
        assert changes.everything
        assert watch.overflows == 1
        (tmp_path / "c").write_text("x")
        assert await hear(watch) == Changes(everything=False, names={"c"}, whole={"c"})


@pytest.mark.trio
async def test_of_very_many_names_not_all_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NAMES_MAX", 5)
    async with watching(tmp_path) as watch:
        for number in range(10):
            (tmp_path / str(number)).touch()
        changes = await hear(watch)
        assert changes.everything
        assert len(changes.names) == 5


@pytest.mark.trio
@pytest.mark.parametrize(
    ("number", "said"), [(errno.EMFILE, "fs.inotify.max_user_instances"), (errno.ENOSPC, "max_user_watches")]
)
async def test_without_a_watch_it_says_what_to_raise_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    real = module.libc()

    class Libc:
        @staticmethod
        def inotify_init1(flags: int) -> int:
            return -1 if number == errno.EMFILE else int(real.inotify_init1(flags))

        @staticmethod
        def inotify_add_watch(*_: object) -> int:
            return -1

    monkeypatch.setattr(module, "libc", Libc)
    monkeypatch.setattr("ctypes.get_errno", lambda: number)
    with trio.fail_after(20), DirectoryWatch(tmp_path) as watch:
        assert watch.renew()
        assert said in watch.unwatched
        (tmp_path / "a").touch()
        assert not await watch.wait(0.01)
        with pytest.raises(OSError, match=said), contextlib.closing(Inotify()) as made:
            made.add(tmp_path, module.IN_CREATE)
        monkeypatch.undo()  # somebody else has given theirs back
        assert watch.renew()
        assert not watch.unwatched
        (tmp_path / "b").touch()
        assert (await hear(watch)).names == {"b"}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.trio
async def test_watches_are_given_back(tmp_path: Path) -> None:
    before = open_files()
    for _ in range(300):  # more than a user may have at once, by default
        with DirectoryWatch(tmp_path) as watch:
            watch.renew()
            assert not watch.unwatched
    made = Inotify()
    made.close()
    made.close()
    assert open_files() == before


@pytest.mark.trio
async def test_the_root_directory_has_no_other_above_it() -> None:
    with DirectoryWatch(Path("/")) as watch:
        assert watch.renew()
        assert not watch.renew()
