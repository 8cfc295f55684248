"""The verbs that ask the daemon: against the real server of the API on a unix socket, with a node that is none behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.cli import exit_codes
from pyminuteman.cli.daemon_views import backend_lines, event_line, status_lines
from pyminuteman.daemon.api import NotNow, Reloaded
from pyminuteman.daemon.client_errors import DaemonForbidden
from pyminuteman.daemon.observed import KernelObserved, Mark
from tests.cli.conftest import Console
from tests.daemon.api.double import ME, ONE, OTHER, TWO, WALL, WEB, record
from tests.daemon.test_client import OK, Running, answering

ROOT = Path(__file__).parents[2]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path / "api.sock")
    yield found
    found.end()


@pytest.fixture
def verb(cli: Console, running: Running) -> Any:
    def call(*words: str, **extra: Any) -> Any:
        return cli(*words, "--socket", str(running.path), group="", **extra)

    return call


HELD = "0123456789abcdef"


def held(running: Running, *namespaces: str) -> None:
    found = tuple(
        KernelObserved(
            namespace=name, last_sync_at=WALL, held="9 of 9 destinations", held_id=HELD, held_services=("tcp 11.0.0.1:80",)
        )
        for name in namespaces
    )
    running.double.seen = replace(running.double.seen, kernels=found)


# Reading


def test_status_says_what_is_wrong_and_what_is_there(verb: Any) -> None:
    said = verb("status").stdout
    assert said.startswith("degraded: node one (00000000000000000000000000000001) of cluster test, at 10.0.0.1:61420\n")
    assert "  ! source_problem: source web: 1 left out, as" in said
    assert "members: 2 alive, 0 suspect, 1 down, 0 left\n" in said
    assert "  web    good     1 VIPs  1 s ago  file:/etc/minuteman/vips.d\n" in said
    assert "  empty  waiting  0 VIPs  never    push:\n" in said
    assert "  web: left out: web.toml: line 3: no address\n" in said
    assert "  this host  2 services  4 destinations  last sync 2026-11-28T" in said
    assert json.loads(verb("status", "-o", "json").stdout)["node"]["name"] == "one"


def test_status_says_what_is_held_back_and_what_to_do(verb: Any, running: Running) -> None:
    held(running, "", "it's")
    said = verb("status").stdout
    assert said.startswith("held: ")
    assert "held back, for it would take away 9 of 9 destinations:\n  tcp 11.0.0.1:80\n" in said
    assert "minuteman confirm --namespace ''\n" in said
    assert "minuteman confirm --namespace 'it'\"'\"'s'\n" in said


def test_why_a_backend_is_out(verb: Any, running: Running) -> None:
    mark = Mark("ann", WALL, "disk")
    running.double.seen = replace(
        running.double.seen, backend_drains={(None, ONE): mark}, weights={(WEB, TWO): (7, mark)}, node_drains={OTHER: mark}
    )
    said = verb("backends").stdout.splitlines()
    one = next(line for line in said if "10.0.0.1:8080" in line)
    two = next(line for line in said if "10.0.0.2:8080" in line)
    three = next(line for line in said if "10.0.0.3:8080" in line)
    assert "drained by ann at 2026-11-28T" in one
    assert one.endswith("(disk)")
    assert "its check says: refused, at 2026-" in two
    assert "weight 7 set by ann at" in two
    assert "  out  " in three
    assert any(line.startswith("refused: tcp://169.254.169.254:80, from web at two: ") for line in said)


def test_backends_of_one_vip_and_only_those_that_are_out(verb: Any) -> None:
    for name in ("tcp://11.0.0.1:80", "11.0.0.1:80"):
        found = json.loads(verb("backends", name, "-o", "json").stdout)
        assert [vip["vip"] for vip in found["vips"]] == ["tcp://11.0.0.1:80"]
        assert found["refused"] == []
    assert "tcp://11.0.0.1:80" not in verb("backends", "foo.marathon").stdout
    out = json.loads(verb("backends", "--out", "-o", "json").stdout)
    states = {row["state"] for vip in out["vips"] for row in vip["backends"]}
    assert "in" not in states
    assert states
    assert "10.0.0.1:8080" not in verb("backends", "--out").stdout
    assert "there is no VIP nonsense; see 'minuteman vips list'" in verb("backends", "nonsense", expect=1).stderr
    assert "refused: tcp://169.254.169.254:80" in verb("backends", "tcp://169.254.169.254:80").stdout


def test_vips_and_members(verb: Any, cli: Console, running: Running) -> None:
    said = verb("vips", "list").stdout.splitlines()
    assert said[0].split() == ["VIP", "ADDRESSES", "SCHEDULER", "IN", "HELD", "OUT", "SOURCES", "CLAIMED", "BY"]
    assert next(line for line in said if line.startswith("tcp://11.0.0.1:80 ")).split()[-2:] == ["web", "one"]
    assert len(json.loads(verb("vips", "list", "-o", "json").stdout)["vips"]) == 2
    cli("vips", "--netns", "/x", "list", "--socket", str(running.path), group="", expect=2)
    said = verb("members", "list").stdout.splitlines()
    assert [line.split()[:2] for line in said[1:]] == [["one*", "alive"], ["three", "down"], ["two", "alive"]]
    assert json.loads(verb("members", "list", "-o", "json").stdout)["members"][0]["me"]


def test_names_of_others_do_not_draw_on_the_terminal(verb: Any, running: Running) -> None:
    evil = record(ME, "one\x1b]0;x\x07\nINJECTED", "10.0.0.1")
    running.double.seen = replace(running.double.seen, me=evil, cluster="c\x1b[2J")
    for words in (["status"], ["members", "list"], ["backends"], ["vips", "list"]):
        said = verb(*words).stdout
        assert "\x1b" not in said
        assert "\nINJECTED" not in said
    assert "\x1b" not in event_line({"kind": "sync", "text": "a\x1b[2J\nb"})


# Changing


def test_draining_a_node_asks_and_shows_its_backends(verb: Any, cli: Console, running: Running) -> None:
    refused = verb("drain", "node", "two", "--reason", "disk", expect=2)
    assert "drain node two with 2 backends?" in refused.stderr
    assert "tcp://11.0.0.1:80 -> 10.0.0.2:8080 (" in refused.stderr
    assert running.double.done == []
    cli.interactive = True
    assert "not confirmed" in verb("drain", "node", "two", stdin="n\n", expect=2).stderr
    assert running.double.done == []
    assert verb("drain", "node", "two", "--reason", "disk", stdin="y\n").stdout == "done: drain node two with 2 backends\n"
    assert running.double.done == [("drain", OTHER, "root", "disk")]
    verb("drain", "node", str(OTHER).upper(), "--yes")
    verb("undrain", "node", "two")
    assert [one[0] for one in running.double.done] == ["drain", "drain", "undrain"]


def test_a_dry_run_changes_nothing(verb: Any, running: Running) -> None:
    held(running, "")
    assert verb("drain", "node", "two", "--dry-run").stdout == "would drain node two with 2 backends\n"
    plain = json.loads(verb("drain", "backend", "10.0.0.2:8080", "--dry-run", "-o", "json").stdout)
    assert plain["done"] is False
    assert plain["backends"] == [{"vip": "tcp://11.0.0.1:80", "address": "10.0.0.2", "port": 8080}]
    verb("undrain", "backend", "10.0.0.2:8080", "--dry-run")
    verb("weight", "10.0.0.2:8080", "3", "--dry-run")
    assert "held back: this host: tcp 11.0.0.1:80\n" in verb("confirm", "--dry-run").stdout
    assert running.double.done == []


def test_backends_and_weights(verb: Any, running: Running) -> None:
    verb("drain", "backend", "10.0.0.2:8080", "--vip", "11.0.0.1:80", "--reason", "slow")
    verb("undrain", "backend", "10.0.0.2:8080")
    verb("weight", "10.0.0.1:8080", "5", "--vip", "tcp://11.0.0.1:80", "--reason", "big")
    verb("weight", "10.0.0.1:8080", "--clear")
    assert running.double.done == [
        ("drain", (WEB, TWO), "root", "slow"),
        ("undrain", (None, TWO), "root", ""),
        ("weight", (WEB, ONE), 5, "root", "big"),
        ("clear", (None, ONE), "root", ""),
    ]


def test_the_last_backend_of_a_vip_is_asked_about(verb: Any, running: Running) -> None:
    for words in (["drain", "backend", "10.0.0.1:8080"], ["weight", "10.0.0.1:8080", "0"]):
        refused = verb(*words, expect=2)
        assert "tcp://11.0.0.1:80 -> 10.0.0.1:8080 (in): no other takes connections" in refused.stderr
        assert running.double.done == []
        verb(*words, "--yes")
        running.double.done.clear()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["drain", "node", "nobody"], 1, "there is no node nobody; see 'minuteman members list'"),
        (["undrain", "node", "nobody"], 1, 'there is no node "nobody"'),
        (["drain", "backend", "10.9.9.9:1"], 1, "there is no backend 10.9.9.9:1; see 'minuteman backends'"),
        (["undrain", "backend", "10.9.9.9:1"], 1, "there is no backend 10.9.9.9:1 behind any VIP"),
        (["drain", "backend", "10.0.0.2:8080", "--vip", "x"], 1, "there is no backend 10.0.0.2:8080 behind x"),
        (["drain", "backend", "10.0.0.2"], 2, "has no port"),
        (["drain", "backend", "web:80"], 2, "Invalid value"),
        (["weight", "10.0.0.2:8080"], 2, "give either a weight or --clear"),
        (["weight", "10.0.0.2:8080", "3", "--clear"], 2, "give either a weight or --clear"),
        (["weight", "10.0.0.2:8080", "65536"], 2, "65536"),
        (["weight", "10.0.0.2:8080", "3", "--reason", "a\nb"], 1, "control characters"),
        (["confirm", "--namespace", "blue"], 1, "the daemon has no network namespace 'blue'; it has ''"),
    ],
)
def test_what_cannot_be_done(verb: Any, running: Running, words: list[str], code: int, said: str) -> None:
    assert said in verb(*words, expect=code).stderr
    assert running.double.done == []


def test_two_nodes_of_one_name_are_told_apart_by_their_ids(verb: Any, running: Running) -> None:
    running.double.seen = replace(running.double.seen, me=record(ME, "two", "10.0.0.1"))
    assert f"2 nodes are called two; say which by its id: {ME}, {OTHER}" in verb("drain", "node", "two", expect=1).stderr


def test_confirm_shows_what_is_held_back_first(
    verb: Any, cli: Console, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verb("confirm").stderr == "nothing is held back\n"
    confirmed: list[str] = []

    async def confirm(namespace: str, identity: str) -> None:
        if identity != HELD:
            raise NotNow("something else is held back")
        confirmed.append(namespace)

    monkeypatch.setattr(running.double, "confirm", confirm)
    held(running, "", "blue")
    refused = verb("confirm", expect=2).stderr
    assert "blue: it takes away 9 of 9 destinations" in refused
    assert confirmed == []
    verb("confirm", "--namespace", "blue", "--yes")
    assert confirmed == ["blue"]
    cli.interactive = True
    plain = json.loads(verb("confirm", "-o", "json", stdin="y\n").stdout)
    assert [one["namespace"] for one in plain["confirmed"]] == ["", "blue"]
    assert confirmed == ["blue", "", "blue"]
    (kernel,) = [one for one in running.double.seen.kernels if one.namespace == "blue"]
    running.double.seen = replace(running.double.seen, kernels=(replace(kernel, held_id="0" * 16),))
    assert "something else is held back" in verb("confirm", "--yes", expect=1).stderr
    assert confirmed == ["blue", "", "blue"]


def test_reload_says_what_has_changed(verb: Any, monkeypatch: pytest.MonkeyPatch, running: Running) -> None:
    done = verb("reload")
    assert done.stdout == 'log.level: "info" -> "debug"\nnode.name: "" -> "x" (takes a restart)\n'
    assert done.stderr == "source: there is none\n"
    plain = json.loads(verb("reload", "-o", "json").stdout)
    assert (plain["changes"], plain["restart"]) == (['log.level: "info" -> "debug"'], ['node.name: "" -> "x"'])
    monkeypatch.setattr(running.double, "broken_configuration", "is none of debug, info")
    refused = verb("reload", expect=exit_codes.FAILED)
    assert "config.toml: line 3 (log.level): is none of debug, info" in refused.stderr
    assert "nothing was changed" in refused.stderr
    monkeypatch.setattr(running.double, "broken_configuration", "")

    async def reload() -> Reloaded:
        return Reloaded()

    monkeypatch.setattr(running.double, "reload", reload)
    assert verb("reload").stderr == "nothing has changed\n"


# Whether there is one


VERBS = [
    ["status"], ["backends"], ["vips", "list"], ["members", "list"], ["drain", "node", "x"], ["undrain", "backend", "10.0.0.1:1"],
    ["weight", "10.0.0.1:1", "1"], ["confirm"], ["reload"], ["watch"],
]  # fmt: skip


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_where_no_daemon_runs(cli: Console, tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "none.sock"
    assert f"no daemon runs here: there is no {path}" in cli(*words, "--socket", str(path), group="", expect=69).stderr
    monkeypatch.setenv("MINUTEMAN_SOCKET", str(path))
    assert str(path) in cli(*words, group="", expect=69).stderr

    def connect(*_: object) -> None:
        raise DaemonForbidden("not for this user")

    monkeypatch.setattr("pyminuteman.daemon.client.DaemonClient._exchange", connect)
    cli(*words, group="", expect=77)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"[]", "version None"), (b'{"version": 2}', "version 2"), (b'{"version": 1, "vips": 3}', "not of a shape")],
)
def test_a_daemon_of_another_release(cli: Console, tmp_path: Path, answer: bytes, said: str) -> None:
    thread = answering(tmp_path / "s", OK % (len(answer), answer))
    assert said in cli("backends", "--socket", str(tmp_path / "s"), group="", expect=69).stderr
    thread.join(5)


def test_a_verb_starts_without_what_it_does_not_need() -> None:
    script = "import sys; from pyminuteman.cli import main; main(['status', '--socket', '/nonexistent']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"trio", "rich", "starlette", "pyminuteman.cli.dump"} & set(done.stdout.split())


# Watching


def test_events_that_are_kept_and_their_kinds(verb: Any, running: Running) -> None:
    for kind in ("member_up", "sync", "member_down"):
        running.double.events.add(kind, f"of {kind}\x1b")
    said = verb("watch", "--since", "0", "--count", "2", "--kind", "member_up", "--kind", "member_down").stdout.splitlines()
    assert [line.split()[1:] for line in said] == [["member_up", "of", "member_up"], ["member_down", "of", "member_down"]]
    (line,) = verb("watch", "--since", "1", "--count", "1", "-o", "json").stdout.splitlines()
    assert json.loads(line)["kind"] == "sync"
    running.double.events.keep = 1
    running.tell("sync", "the only one that is kept")
    missed = verb("watch", "--since", "1", "--count", "1").stdout
    assert missed.split(maxsplit=2)[1:] == ["missed", "events 2 to 3 are not kept any more\n"]


class Watching:
    """``minuteman watch`` as a process."""

    def __init__(self, path: Path, *words: str) -> None:
        command = [sys.executable, "-m", "pyminuteman", "watch", "--socket", str(path), *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=30)
        return self.process.returncode, said


@pytest.fixture
def watching() -> Iterator[Any]:
    made: list[Watching] = []

    def start(*words: Any) -> Watching:
        made.append(Watching(*words))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_live_until_interrupted(running: Running, watching: Any) -> None:
    running.double.events.add("member_up", "first")
    watch = watching(running.path, "--since", "0")
    assert watch.line().rstrip().endswith("member_up      first")
    running.tell("member_down", "second")
    assert watch.line().rstrip().endswith("member_down    second")
    os.kill(watch.process.pid, signal.SIGINT)
    assert watch.end() == (0, "")


def test_a_restart_of_the_daemon_is_lived_through(tmp_path: Path, watching: Any) -> None:
    path = tmp_path / "api.sock"
    first = Running(path)
    first.double.events.add("sync", "a")
    watch = watching(path, "--since", "0")
    assert "  a" in watch.line().replace("sync", " ")
    first.end()
    second = Running(path, life="00000000000000bb", events=("b", "c", "d"))  # more than the first had
    try:
        assert [watch.line().rstrip()[-1] for _ in range(3)] == ["b", "c", "d"]
    finally:
        second.end()
    os.kill(watch.process.pid, signal.SIGINT)
    code, said = watch.end()
    assert code == 0
    assert "the daemon has ended; waiting up to 30 s for it to be back" in said
    assert "the daemon has started anew" in said


def test_a_daemon_that_does_not_come_back(tmp_path: Path, watching: Any) -> None:
    path = tmp_path / "api.sock"
    running = Running(path)
    running.double.events.add("sync", "a")
    watch = watching(path, "--since", "0", "--wait", "0.6")
    watch.line()
    running.end()
    code, said = watch.end()
    assert code == 69
    assert "no daemon" in said


# What is said of rare things


def test_rare_things_are_told_as_well() -> None:
    status: dict[str, Any] = {
        "state": "waiting", "node": {"name": "n", "id": "1", "endpoint": "e", "started_at": "t"}, "cluster": "c", "software": "s",
        "problems": [], "kernel": [], "members": {}, "sources": [], "host": [{"step": "dummy", "ok": False, "reason": "no right"}],
        "store": {"engine": "etcd", "ready": False, "entries": 0, "problem": "no leader"},
    }  # fmt: skip
    said = status_lines(status)
    assert "  ! no leader" in said
    assert "sources: none" in said
    assert "kernel: none" in said
    assert "  dummy  not ok  no right" in said
    vip = {"vip": "v", "name": "n", "addresses": [], "scheduler": "rr", "failed_open": ["all fail"], "backends": []}
    assert list(backend_lines({"vips": [vip], "refused": [], "conflicts": ["two say so"]})) == [
        "v at no address  rr",
        "  ! all are taken all the same: all fail",
        "  (no backends)",
        "conflict: two say so",
    ]
