"""``minuteman members run``: real processes on the loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.membership import Key, save_key_file
from tests.support.members import COMMAND, NodeProcess
from tests.support.tools import needs, root

Start = Callable[..., NodeProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[NodeProcess] = []

    def make(*options: str, contact: NodeProcess | None = None, bind: str = "127.0.0.1:0", **more: Any) -> NodeProcess:
        contacts = [] if contact is None else ["--contact", contact.me["address"]]
        started.append(NodeProcess(["--bind", bind, *contacts, *options], **more))
        return started[-1]

    yield make
    for node in started:
        node.kill()


def run(*options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=30, check=False, **more)


def rss_mb(node: NodeProcess) -> float:
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def test_a_node_says_that_it_is_up_and_what_it_sees(start: Start) -> None:
    before = time.time_ns()
    one = start("--name", "one")
    assert list(one.me) == ["time_ns", "event", "node", "name", "address"]
    assert before < one.me["time_ns"] < time.time_ns()
    assert one.me["name"] == "one"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", one.me["address"])
    two = start("--name", "two", "--tag", "zone=east", "--address", "10.0.0.7", contact=one)
    up = one.wait_event("up", two.id)
    assert (up["name"], up["address"]) == ("two", two.me["address"])
    two.wait_event("up", one.id)
    state = one.state()
    assert state["active_view"] == [two.id]
    assert state["passive_view"] == []
    assert state["members"] == {
        node.id: {"name": name, "status": "alive", "address": node.me["address"]} for node, name in ((one, "one"), (two, "two"))
    }
    assert state["metrics"]["members_alive"] == 1
    assert state["metrics"]["internal_faults_total"] == 0
    two.end()
    one.wait_event("left", two.id)
    assert not [event for event in one.events if event["event"] in {"suspect", "down"}]
    one.end(signal.SIGINT)
    assert one.talk == two.talk == ""


def test_what_is_killed_is_suspect_then_down(start: Start) -> None:
    one = start("--name", "one")
    two, three = (start("--name", name, contact=one) for name in ("two", "three"))
    for node in (one, two):
        node.wait_members(3)
    three.process.kill()
    for node in (one, two):
        node.wait_event("suspect", three.id)
        node.wait_event("down", three.id)
    assert one.state()["members"][three.id]["status"] == "down"


def test_two_of_one_name(start: Start) -> None:
    one = start("--name", "twin")
    two = start("--name", "twin", contact=one)
    conflict = one.wait_for(lambda event: event["event"] == "conflict", "conflict")
    assert {conflict["node"], conflict["other"]} == {one.id, two.id}
    assert "twin" in conflict["reason"]


def test_text_for_people(start: Start) -> None:
    one = start("--name", "one")
    command = [sys.executable, "-m", "pyminuteman", "members", "run", "--name", "two", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--contact", one.me["address"]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()
        _, talk = process.communicate(timeout=20)
    assert process.returncode == 0
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  up        two  127\.0\.0\.1:\d+  [0-9a-f]{8}\n", lines[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}  up        one  127\.0\.0\.1:\d+  [0-9a-f]{8}\n", lines[1])
    assert re.match(r"minuteman: two \([0-9a-f]{32}\) in cluster minuteman, epoch \d+, no keys; reached at 127", talk)


def test_the_state_directory(start: Start, tmp_path: Path) -> None:
    directory = str(tmp_path / "state")
    one = start("--state-dir", directory)
    epoch = one.state()["epoch"]
    assert "another process" in run("--bind", "127.0.0.1:0", "--state-dir", directory).stderr
    one.end()
    again = start("--state-dir", directory)
    assert again.id == one.id
    assert again.state()["epoch"] > epoch


def wait_talk(node: NodeProcess, text: str) -> None:
    """Until the node has said so, for 20 s at most: what it says comes after what the others see of it."""
    for _ in range(1000):
        if text in node.talk:
            return
        time.sleep(0.02)
    pytest.fail(f"not said: {text!r}, but {node.talk!r}")


def test_keys_are_read_again_and_rotated(start: Start, tmp_path: Path) -> None:
    old, new = Key.generate(), Key.generate()
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        save_key_file(path, [old])
    one = start("--name", "one", "--key-file", str(paths[0]))
    two = start("--name", "two", "--key-file", str(paths[1]), contact=one)
    one.wait_event("up", two.id)

    def change_one(node: NodeProcess, keys: list[Key]) -> None:
        """Change its file, and wait until the other one sees which keys it holds now."""
        other, path = (two, paths[0]) if node is one else (one, paths[1])
        save_key_file(path, keys)
        after = len(other.events)
        node.process.send_signal(signal.SIGHUP)
        other.wait_event("updated", node.id, after=after)

    def change(keys: list[Key]) -> None:
        for node in (one, two):
            change_one(node, keys)

    change([old, new])
    change([new, old])
    change([new])
    wait_talk(one, f"holding the keys {new}; the first seals")
    newer = Key.generate()
    change([new, newer])
    change_one(one, [newer])  # too early: the other one still seals with the key that is gone from the file
    wait_talk(one, f"{new} is not in the file, but others still seal with it")
    one.wait_members(2)
    change_one(two, [newer])
    change_one(one, [newer])
    one.wait_members(2)
    one.process.send_signal(signal.SIGHUP)
    save_key_file(paths[0], [Key.generate()])
    paths[0].write_text("nonsense")
    one.process.send_signal(signal.SIGHUP)
    wait_talk(one, "line 1: not a key")
    one.wait_members(2)
    assert "nonsense" not in one.talk
    stranger = start("--name", "stranger", contact=one)

    def refused(state: dict[str, Any]) -> int:
        return sum(count for name, count in state["metrics"].items() if name.startswith("refused_"))

    before = refused(one.state())
    one.wait_state(lambda state: refused(state) >= before + 2)
    assert len(stranger.state()["members"]) == 1
    stranger.process.send_signal(signal.SIGHUP)
    stranger.end()
    assert "started without one" in stranger.talk


def test_a_reader_that_goes_away_ends_the_node_in_good_order(start: Start) -> None:
    one = start("--name", "one")
    read, write = os.pipe()
    two = start("--name", "two", contact=one, stdout=write)
    os.close(write)
    up = one.wait_for(lambda event: event["name"] == "two", "two")
    os.close(read)
    assert two.process.wait(20) == 141
    one.wait_event("left", up["node"])


def test_a_reader_that_sleeps_does_not_stop_the_node(start: Start) -> None:
    one = start("--name", "one")
    read, write = os.pipe()
    two = start("--name", "two", contact=one, stdout=write)
    os.close(write)
    up = one.wait_for(lambda event: event["name"] == "two", "two")
    for _ in range(60):  # lines of 2 kB each: more than a pipe holds
        two.process.send_signal(signal.SIGUSR1)
        time.sleep(0.02)
    # Heard of for longer than it takes to be suspect and then down: five heartbeats a second and their answers.
    before = one.state()["metrics"]["datagrams_received_total"]
    one.wait_state(lambda state: state["metrics"]["datagrams_received_total"] >= before + 20)
    assert one.wait_members(2)
    assert [event["event"] for event in one.events if event["node"] == up["node"]] == ["up"]
    with os.fdopen(read) as stream:
        two.process.terminate()
        assert json.loads(stream.readline())["event"] == "up"
        assert two.process.wait(20) == 0


def test_the_second_signal_is_now(start: Start) -> None:
    one = start()
    one.process.send_signal(signal.SIGTERM)
    one.process.send_signal(signal.SIGINT)  # another one, for two of a kind may arrive as one
    assert one.process.wait(10) == 130


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "Missing option '--bind'"),
        (["--bind", "nonsense"], 2, "'nonsense' is not an IP address; accepted are 10.0.0.1:61420"),
        (["--bind", "127.0.0.1:70000"], 2, "'70000' is not a port (0 to 65535)"),
        (["--bind", "127.0.0.1:0", "--contact", "somewhere:1"], 2, "Invalid value for '--contact'"),
        (["--bind", "127.0.0.1:0", "--tag", "zone"], 2, "'zone' is not NAME=VALUE, as in zone=east"),
        (["--bind", "127.0.0.1:0", "--profile", "moon"], 2, "is not one of 'lan', 'wan', 'local'"),
        (["--bind", "127.0.0.1:0", "--priority", "high"], 2, "is not one of 'normal', 'realtime'"),
        (["--bind", "127.0.0.1:0", "-o", "xml"], 2, "is not one of 'text', 'json'"),
        (["--bind", "0.0.0.0:0"], 78, "give --key-file, or say --insecure and mean it"),
        (["--bind", "fe80::1"], 78, "bind: fe80::1 is link-local"),
        (["--bind", "127.0.0.1:0", "--advertise", "::"], 78, "advertise: :: means every address"),
        (["--bind", "127.0.0.1:0", "--dual-stack"], 78, "dual_stack: it goes with an address of [::]"),
        (["--bind", "127.0.0.1:0", "--key-file", "/nowhere"], 78, "--key-file: /nowhere: cannot be read"),
        (["--bind", "127.0.0.1:0", "--state-dir", "/dev/null/x"], 78, "/dev/null/x: cannot be used as the state directory"),
        (["--bind", "127.0.0.1:0", "--name", ""], 78, "name: '' is not 1 to 64 bytes"),
        (["--bind", "127.0.0.1:0", "--name", "x\x1b[31m"], 78, "name: "),
        (["--bind", "127.0.0.1:0", "--cluster", ""], 78, "cluster: '' is not a name"),
        (["--bind", "127.0.0.1:0", "--address", "10.0.0"], 78, "addresses: '10.0.0' is not an IP address"),
        (["--bind", "127.0.0.1:0", "--tag", "x=" + "y" * 2000], 78, "at most 1024 are allowed"),
        (["--bind", "192.0.2.1:1", "--insecure"], 1, "cannot listen on 192.0.2.1:1: Cannot assign requested address"),
    ],
)
def test_bad_input_is_told_what_is_accepted(options: list[str], code: int, words: str) -> None:
    done = run(*options)
    assert done.returncode == code, done
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


def test_a_taken_port(start: Start) -> None:
    one = start()
    done = run("--bind", one.me["address"])
    assert done.returncode == 1
    assert f"cannot listen on {one.me['address']}: Address already in use" in done.stderr


def test_real_time_priority_or_a_reason(start: Start) -> None:
    one = start("--priority", "realtime")
    if os.sched_getscheduler(one.process.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO:
        assert one.talk == ""
    else:
        assert "at normal priority, for real-time priority is" in one.talk


@needs(root())  # else there is nothing to give up
def test_real_time_priority_refused() -> None:
    script = (
        "import os, resource; from pyminuteman.membership.priority import take_realtime_priority; "
        "resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0)); os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        "print(take_realtime_priority())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "granted=False, reason='not permitted" in done.stdout


def test_it_is_small_and_imports_nothing_to_draw_with(start: Start) -> None:
    one = start()
    two = start(contact=one)
    one.wait_event("up", two.id)
    assert rss_mb(one) <= 45
    script = (
        "import sys; from pyminuteman.cli import main; main(['members', 'run', '--bind', 'fe80::1', '-o', 'json']); "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    modules = set(done.stdout.split())
    assert {"trio", "pyminuteman.membership.trio_driver"} <= modules
    assert not {"rich", "asyncio", "pyminuteman.ipvs._native", "pyminuteman.testing"} & modules


def test_help_does_not_load_the_membership() -> None:
    script = "import sys; from pyminuteman.cli import main; main(['members', 'run', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert '"event": "suspect"' in done.stdout
    assert "trio" not in done.stdout.splitlines()[-1].split()
