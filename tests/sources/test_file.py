"""VIPs in files: what is written counts, what is wrong changes nothing, and nothing counts before it is whole."""

# ruff: noqa: S311 - dice that a seed replays
from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.sources import file as module
from pyminuteman.sources import inotify
from pyminuteman.sources.base import SourceError, SourceState
from pyminuteman.sources.file import FileSource, read_text_as
from pyminuteman.sources.inotify import Changes
from tests.sources.support import keys, reading, settled, until, write


def toml(*addresses: str, port: int = 80, scheduler: str = "wlc") -> str:
    return "\n".join(
        f'[[vip]]\nlisten = "tcp://{address}:{port}"\nscheduler = "{scheduler}"\n'
        f'  [[vip.backend]]\n  address = "10.0.0.5"\n  port = 8080\n'
        for address in addresses
    )


def schedulers(state: SourceState) -> dict[str, str]:
    return {str(vip.key).removeprefix("tcp://"): vip.settings.scheduler for vip in state.vips}


@pytest.mark.trio
async def test_a_file_is_followed_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "vips.toml"
    write(path, toml("11.0.0.1"))
    source = FileSource(path)
    assert source.name == f"file:{path}"
    async with reading(source) as states:
        assert keys(await anext(states)) == ["11.0.0.1:80"]
        assert source.status.reason == ""
        assert source.status.last_good_at is not None
        path.write_text(toml("11.0.0.2"))  # in place
        assert keys(await anext(states)) == ["11.0.0.2:80"]
        write(path, toml("11.0.0.3"))  # moved into place
        assert keys(await anext(states)) == ["11.0.0.3:80"]
        path.rename(tmp_path / "vips.toml~")  # as some editors do
        path.write_text(toml("11.0.0.4"))
        assert keys(await anext(states)) == ["11.0.0.4:80"]


@pytest.mark.trio
async def test_all_files_of_a_directory_count_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(toml("11.0.0.1"))
    (tmp_path / "b.json").write_text(json.dumps({"vip": [{"listen": "udp://11.0.0.2:53"}]}))
    for name in (".hidden.toml", "c.toml~", "d.toml.swp", "README", "e.rules"):
        (tmp_path / name).write_text("this is [ nothing")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.toml").write_text(toml("11.0.0.9"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        assert keys(await anext(states)) == ["11.0.0.1:80", "udp://11.0.0.2:53"]
        (tmp_path / "c.toml").write_text(toml("11.0.0.3"))
        assert keys(await anext(states)) == ["11.0.0.1:80", "11.0.0.3:80", "udp://11.0.0.2:53"]
        (tmp_path / "b.json").unlink()
        assert keys(await anext(states)) == ["11.0.0.1:80", "11.0.0.3:80"]
        (tmp_path / "a.toml").rename(tmp_path / "a.toml.off")
        assert keys(await anext(states)) == ["11.0.0.3:80"]
        (tmp_path / "c.toml").unlink()
        assert keys(await anext(states)) == []  # the directory is there, and empty: that is what is desired


@pytest.mark.trio
async def test_of_two_files_that_claim_a_vip_the_first_by_name_counts_until_it_goes(tmp_path: Path) -> None:
    write(tmp_path / "b.toml", toml("11.0.0.1", "11.0.0.2", scheduler="rr"))
    write(tmp_path / "c.toml", toml("11.0.0.1", scheduler="lc"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        state = await anext(states)
        assert schedulers(state) == {"11.0.0.1:80": "rr", "11.0.0.2:80": "rr"}
        assert [str(problem) for problem in state.problems] == [
            f"{tmp_path}/c.toml: tcp://11.0.0.1:80 is described in {tmp_path}/b.toml too, and that counts"
        ]
        write(tmp_path / "a.toml", toml("11.0.0.1", scheduler="sed"))
        assert schedulers(await anext(states)) == {"11.0.0.1:80": "sed", "11.0.0.2:80": "rr"}
        (tmp_path / "a.toml").unlink()
        (tmp_path / "b.toml").unlink()
        last = await settled(states, lambda state: not state.problems)
        assert schedulers(last) == {"11.0.0.1:80": "lc"}


@pytest.mark.trio
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[vip]\n", "line 1"),
        ("x = 1\n", "line 1 (x): unknown key 'x'; there are version, vip"),
        (b"\n\xff\xfe", "line 2: this is not UTF-8 text"),
        (b"\0", "line 1: this is not text: it has a zero byte"),
        ("a = " + "[" * 50_000, "nested too deeply"),
        ("x = " + "1" * 5_000, "Exceeds the limit"),
        ("vip = " + "0x" + "f" * 5_000, "line 1 (vip): vip (too long to show) is not a list"),
    ],
)
async def test_a_file_that_cannot_be_read_changes_nothing_and_the_others_go_on(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    broken = tmp_path / "a.toml"
    write(broken, toml("11.0.0.1"))
    write(tmp_path / "b.toml", toml("11.0.0.2"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        first = await anext(states)
        write(broken, text)
        state = await anext(states)
        assert state.vips == first.vips
        assert len(state.problems) == 1
        assert state.problems[0].where == str(broken)
        assert said in state.problems[0].reason
        assert source.status.reason.startswith(f"{broken}: ")
        assert said in source.status.reason
        assert source.status.reason.endswith("what it said before stands")
        assert source.status.failing_since is not None
        write(tmp_path / "b.toml", toml("11.0.0.3"))
        assert keys(await anext(states)) == ["11.0.0.1:80", "11.0.0.3:80"]
        write(broken, toml("11.0.0.4"))
        state = await anext(states)
        assert (keys(state), state.problems) == (["11.0.0.3:80", "11.0.0.4:80"], ())
        assert source.status.reason == ""
        assert source.status.failures == 0


@pytest.mark.trio
async def test_a_vip_that_is_wrong_stays_as_it_was_and_its_neighbours_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    write(path, toml("11.0.0.1", "11.0.0.2", "11.0.0.3"))
    source = FileSource(path)
    async with reading(source) as states:
        await anext(states)
        write(path, toml("11.0.0.1", scheduler="a b") + toml("11.0.0.2", scheduler="rr"))
        state = await anext(states)
        assert schedulers(state) == {"11.0.0.1:80": "wlc", "11.0.0.2:80": "rr"}
        assert [problem.where for problem in state.problems] == [f"{path}: line 1 (vip[0])"]
        assert "is not a name" in state.problems[0].reason
        write(path, toml("11.0.0.1").replace("listen", "lisen") + toml("11.0.0.9"))  # whose is it?
        state = await anext(states)
        assert schedulers(state) == {"11.0.0.1:80": "wlc", "11.0.0.2:80": "rr"}
        assert [str(problem) for problem in state.problems] == [
            f"{path}: line 2 (vip[0].lisen): unknown key 'lisen'; did you mean 'listen'?"
        ]


@pytest.mark.trio
async def test_nothing_is_told_before_every_file_could_be_read(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", "[[vip]")
    write(tmp_path / "b.toml", toml("11.0.0.2"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        await until(lambda: source.status.failures > 0)
        assert "a.toml: line 1" in source.status.reason
        assert source.status.reason.endswith("nothing counts until it can be read, or is gone")
        assert source.status.last_good_at is None
        with trio.move_on_after(0.3) as scope:
            await anext(states)
        assert scope.cancelled_caught
        write(tmp_path / "a.toml", toml("11.0.0.1"))
        assert keys(await anext(states)) == ["11.0.0.1:80", "11.0.0.2:80"]


@pytest.mark.trio
async def test_a_file_that_is_broken_from_the_start_holds_nobody_up_later(tmp_path: Path) -> None:
    write(tmp_path / "b.toml", toml("11.0.0.2"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        await anext(states)
        write(tmp_path / "a.toml", "[[vip]")
        assert (await anext(states)).problems[0].where == str(tmp_path / "a.toml")
        write(tmp_path / "b.toml", toml("11.0.0.3"))
        assert keys(await anext(states)) == ["11.0.0.3:80"]


@pytest.mark.trio
async def test_a_file_that_is_being_written_does_not_count_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.toml"
    whole = [f"11.0.0.{last}" for last in range(1, 21)]
    write(path, toml(*whole))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        assert len((await anext(states)).vips) == 20
        monkeypatch.setattr(module, "_SETTLE_SECONDS", 60.0)  # a slow machine is no slow writer
        with path.open("w") as file:
            for last, address in enumerate(whole):
                file.write(toml(address, scheduler="rr") + "\n")
                file.flush()
                write(tmp_path / "b.toml", toml("12.0.0.1", port=last + 1))  # something else happens all the while
                await trio.sleep(0.02)
                assert {vip.settings.scheduler for vip in (await anext(states)).vips} == {"wlc"}
        state = await anext(states)
        assert [vip.settings.scheduler for vip in state.vips] == ["rr"] * 20 + ["wlc"]


@pytest.mark.trio
async def test_a_file_that_is_moved_away_to_be_written_anew_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VANISH_SECONDS", 60.0)
    path = tmp_path / "a.toml"
    write(path, toml("11.0.0.1"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        await anext(states)
        looks = source.status.counters["looks"]
        path.unlink()
        await until(lambda: source.status.counters["looks"] > looks)  # it was seen to be missing
        path.write_text(toml("11.0.0.2"))
        assert keys(await anext(states)) == ["11.0.0.2:80"]


@pytest.mark.trio
async def test_a_directory_that_is_missing_is_waited_for_and_its_state_stands_when_it_goes(tmp_path: Path) -> None:
    directory = tmp_path / "vips.d"
    source = FileSource(directory)
    async with reading(source) as states:
        await until(lambda: source.status.failures > 0)
        assert source.status.reason == f"{directory}: there is no such file or directory"
        (tmp_path / "new").mkdir()
        write(tmp_path / "new" / "a.toml", toml("11.0.0.1"))
        (tmp_path / "new").rename(directory)
        assert keys(await anext(states)) == ["11.0.0.1:80"]
        assert source.status.reason == ""
        (tmp_path / "other").mkdir()
        write(tmp_path / "other" / "b.toml", toml("11.0.0.2"))
        directory.rename(tmp_path / "old")
        await until(lambda: source.status.failures > 0)
        assert source.status.reason == f"{directory}: there is no such file or directory"
        with trio.move_on_after(0.3) as scope:
            await anext(states)
        assert scope.cancelled_caught
        (tmp_path / "other").rename(directory)
        await settled(states, lambda state: keys(state) == ["11.0.0.2:80"])
        write(directory / "b.toml", toml("11.0.0.3"))  # and the new one is watched
        assert keys(await anext(states)) == ["11.0.0.3:80"]


@contextmanager
def somebody_else() -> Iterator[None]:
    """Who may not look into our directories; root may look into all."""
    ours = os.geteuid()
    if ours == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(ours)


@pytest.mark.trio
async def test_a_path_that_one_may_not_look_at_is_said_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNWATCHED_SECONDS", 0.05)
    path = tmp_path / "closed" / "vips.toml"
    path.parent.mkdir()
    write(path, toml("11.0.0.1"))
    path.parent.chmod(0)
    source = FileSource(path)
    async with reading(source) as states:
        with somebody_else():
            await until(lambda: source.status.failures > 1)
        assert source.status.reason.endswith("cannot be read: Permission denied")
        path.parent.chmod(0o700)
        assert keys(await anext(states)) == ["11.0.0.1:80"]


def test_a_path_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="it has a zero byte"):
        FileSource("/a\0b")


@pytest.mark.trio
async def test_links_that_are_switched_as_kubernetes_does_are_followed(tmp_path: Path) -> None:
    for release, address in (("1", "11.0.0.1"), ("2", "11.0.0.2")):
        (tmp_path / release).mkdir()
        (tmp_path / release / "vips.toml").write_text(toml(address))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "vips.toml").symlink_to("..data/vips.toml")
    source = FileSource(tmp_path / "vips.toml")
    async with reading(source) as states:
        assert keys(await anext(states)) == ["11.0.0.1:80"]
        (tmp_path / "..data_tmp").symlink_to("2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert keys(await anext(states)) == ["11.0.0.2:80"]


@pytest.mark.trio
async def test_what_the_kernel_does_not_tell_is_found_by_looking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "raise fs.inotify.max_user_instances")

    monkeypatch.setattr(inotify, "Inotify", none_left)
    monkeypatch.setattr(module, "_UNWATCHED_SECONDS", 0.05)
    write(tmp_path / "a.toml", toml("11.0.0.1"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        assert keys(await anext(states)) == ["11.0.0.1:80"]
        assert source.status.counters["watched"] == 0
        write(tmp_path / "a.toml", toml("11.0.0.2"))
        assert keys(await anext(states)) == ["11.0.0.2:80"]
        monkeypatch.undo()
        await until(lambda: source.status.counters["watched"] == 1)


@pytest.mark.trio
async def test_the_same_text_written_again_is_no_news(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    write(path, toml("11.0.0.1"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        await anext(states)
        counters = source.status.counters
        for _ in range(3):
            before = counters["files_read"]
            write(path, toml("11.0.0.1"))
            await until(lambda before=before: counters["files_read"] > before)  # type: ignore[misc]
        write(path, toml("11.0.0.1") + "# a remark\n")
        await until(lambda: counters["files_read"] == 5)
        assert counters["states"] == 1


@pytest.mark.trio
async def test_what_is_no_file_is_said_and_holds_nobody_up(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", toml("11.0.0.1"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        await anext(states)
        os.mkfifo(tmp_path / "f.toml")
        (tmp_path / "g.toml").mkdir()
        (tmp_path / "h.toml").symlink_to("h.toml")
        (tmp_path / "i.toml").symlink_to("nowhere")
        state = await settled(states, lambda state: len(state.problems) == 4)
        said = {problem.where.rpartition("/")[2]: problem.reason for problem in state.problems}
        assert said == {
            "f.toml": "is not a file",
            "g.toml": "cannot be read: Is a directory",
            "h.toml": "cannot be read: Too many levels of symbolic links",
            "i.toml": "cannot be read: No such file or directory",
        }
        assert "(and 3 more files)" in source.status.reason
        write(tmp_path / "i.toml", toml("11.0.0.2"))
        state = await settled(states, lambda state: len(state.problems) == 3)
        assert keys(state) == ["11.0.0.1:80", "11.0.0.2:80"]


@pytest.mark.trio
async def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.toml", toml("11.0.0.1"))
    source = FileSource(tmp_path)
    async with reading(source) as states:
        await anext(states)
        size = (tmp_path / "a.toml").stat().st_size
        monkeypatch.setattr(module, "FILE_MAX_BYTES", size)
        write(tmp_path / "b.toml", toml("11.0.0.2") + "#")
        state = await anext(states)
        assert state.problems[0].reason == f"it has {size + 1} bytes; at most {size} are read"
        assert keys(state) == ["11.0.0.1:80"]
        monkeypatch.setattr(module, "FILES_MAX", 2)
        write(tmp_path / "c.toml", "")
        await until(lambda: source.status.reason == f"{tmp_path}: there are 3 files; at most 2 are taken")
        (tmp_path / "c.toml").unlink()
        await until(lambda: "b.toml" in source.status.reason)
        monkeypatch.setattr(module, "VIPS_MAX", 2)
        write(tmp_path / "b.toml", toml("11.0.0.3")[:-1])
        assert keys(await settled(states, lambda state: not state.problems)) == ["11.0.0.1:80", "11.0.0.3:80"]
        monkeypatch.setattr(module, "VIPS_MAX", 1)
        write(tmp_path / "b.toml", toml("11.0.0.4"))
        await until(lambda: source.status.reason == f"{tmp_path}: there are 2 VIPs; at most 1 are taken")


@pytest.fixture
def at_first() -> Changes:
    return Changes(everything=True, names=set(), whole=set())


def test_a_file_that_goes_after_it_was_listed_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_first: Changes
) -> None:
    monkeypatch.setattr(FileSource, "_paths", lambda *_: [tmp_path / "gone.toml"])
    look = FileSource(tmp_path)._look(tmp_path, {}, at_first, 0.0)
    assert (look.contents, look.unsettled, look.files_read) == ({}, False, 0)


def test_a_directory_that_may_not_be_listed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_first: Changes) -> None:
    def refuse(_path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", refuse)  # root, as whom tests may run, may list them all
    with pytest.raises(SourceError) as caught:
        FileSource(tmp_path)._look(tmp_path, {}, at_first, 0.0)
    assert str(caught.value) == f"{tmp_path}: cannot be read: Permission denied"


def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_first: Changes
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(toml("11.0.0.1"))
    at_first.whole.add(path.name)
    source = FileSource(tmp_path)
    stamps = iter(range(100))
    monkeypatch.setattr(module, "_stamp", lambda _: (next(stamps),))
    during = source._look(tmp_path, {}, at_first, 0.0)
    assert during.unsettled
    assert during.again_seconds < 1
    monkeypatch.undo()
    after = source._look(tmp_path, during.contents, at_first, 0.0)
    assert (len(after.contents[str(path)].vips), after.unsettled) == (1, False)


@pytest.mark.trio
async def test_whatever_happened_the_same_files_give_the_same_state(tmp_path: Path) -> None:
    random = Random(7)
    source = FileSource(tmp_path)
    names = ["a.toml", "b.toml", "c.json", "d.toml"]
    async with reading(source) as states:
        assert keys(await anext(states)) == []
        for _ in range(60):
            path = tmp_path / random.choice(names)
            address = f"11.0.0.{random.randrange(6)}"
            match random.randrange(5):
                case 0:
                    path.unlink(missing_ok=True)
                case 1 if path.exists():
                    path.rename(tmp_path / f"{path.name}.off")
                case 2 if path.suffix == ".toml":
                    path.write_text(toml(address))
                case 3 if path.suffix == ".json":
                    write(path, json.dumps({"vip": [{"listen": f"tcp://{address}:80"}]}))
                case _:
                    (tmp_path / f"{path.name}.off").unlink(missing_ok=True)
            await trio.sleep(random.random() * 0.05)
        async with reading(FileSource(tmp_path)) as others:
            wanted = await anext(others)
        write(tmp_path / "e.toml", toml("12.0.0.1"))  # the last thing that happens, so that there is something to wait for
        await settled(states, lambda state: state.vips[:-1] == wanted.vips and keys(state)[-1] == "12.0.0.1:80")


@pytest.mark.trio
async def test_a_file_becomes_a_directory_and_a_file_again(tmp_path: Path) -> None:
    path = tmp_path / "vips.toml"
    write(path, toml("11.0.0.1"))
    source = FileSource(path)
    async with reading(source) as states:
        await anext(states)
        path.unlink()
        (tmp_path / "d").mkdir()
        write(tmp_path / "d" / "x.toml", toml("11.0.0.2"))
        (tmp_path / "d").rename(path)
        await settled(states, lambda state: keys(state) == ["11.0.0.2:80"])
        shutil.rmtree(path)
        write(path, toml("11.0.0.3"))
        await settled(states, lambda state: keys(state) == ["11.0.0.3:80"])


@pytest.mark.trio
async def test_the_reader_ends_it_at_once_even_in_the_middle_of_a_large_file(tmp_path: Path) -> None:
    write(tmp_path / "a.toml", toml(*(f"11.0.{high}.{low}" for high in range(20) for low in range(250))))
    source = FileSource(tmp_path)
    with trio.fail_after(10):
        async with source.states():
            await until(lambda: True)
        with pytest.raises(ZeroDivisionError):  # and what goes wrong in the block comes out as it is
            async with source.states():
                _ = 1 // 0


@pytest.mark.parametrize(
    ("name", "kind", "text", "count"),
    [
        ("a.toml", "", toml("11.0.0.1"), 1),
        ("a.json", "", '{"vip": []}', 0),
        ("a", "", ' \n{"vip": []}', 0),
        ("a", "", "", 0),
        ("a.conf", "", toml("11.0.0.1"), 1),
        ("a.conf", "json", '{"vip": [{"listen": "tcp://11.0.0.1:80"}]}', 1),
        ("a.json", "toml", toml("11.0.0.1"), 1),
    ],
)
def test_the_format_is_that_of_the_extension_or_of_the_looks(name: str, kind: str, text: str, count: int) -> None:
    assert len(read_text_as(kind, text, Path(name)).vips) == count


def test_errors_name_the_line_and_the_key() -> None:
    text = toml("11.0.0.1", "11.0.0.2").replace("port = 8080", "port = 0")
    reading = read_text_as("", text, Path("/x/a.toml"))
    assert [str(problem) for problem in reading.problems] == [
        "/x/a.toml: line 6 (vip[0].backend[0].port): port 0 is not a whole number from 1 to 65535",
        "/x/a.toml: line 13 (vip[1].backend[0].port): port 0 is not a whole number from 1 to 65535",
    ]
    with pytest.raises(ConfigurationError) as caught:
        read_text_as("", '{"vip": [],\n"wip": 1}', Path("/x/a.json"))
    assert str(caught.value) == "/x/a.json: line 2 (wip): unknown key 'wip'; did you mean 'vip'?"
