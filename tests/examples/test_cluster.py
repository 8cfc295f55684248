"""The example of a cluster: its script to the end, its picture on a terminal, its words about wrong ones."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "cluster.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_cluster", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses ask for it
    spec.loader.exec_module(module)
    return module


example = load()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *options]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


def test_a_script_from_its_first_to_its_last_step() -> None:
    script = "kill 3, wait 4, revive 3, settle, freeze 2, wait 3, thaw 2, settle, leave 1, wait 2"
    done = run("--nodes", "5", "--port", "21500", "--script", script)
    assert done.returncode == 0, done
    said = [line.split("  ", 1)[1] for line in done.stdout.splitlines()]
    wanted = [
        "all 5 see all, after ",
        "kill n3",
        "n3 is suspect: n",
        "n3 is down: all 4 others say so",
        "revive n3",
        "n3 runs",
        "all 5 see all, after ",
        "freeze n2",
        "n2 is down: all 4 others say so",
        "thaw n2",
        "all 5 see all, after ",
        "leave n1",
        "n1 is gone for good: all 4 others say so",
    ]
    rest = iter(said)
    for words in wanted:
        assert any(line.startswith(words) for line in rest), f"{words!r} is missing in {said}"
    assert not running("21500")


def test_steps() -> None:
    step = example.Step
    assert example.parse_script(" kill 1 ,wait 0.5,, settle", 3) == [step("kill", 1), step("wait", 0.5), step("settle", 0)]
    for wrong in ("kill", "kill 3", "kill -1", "kill 1.5", "kill one", "hug 1", "wait", "wait x", "settle 1", "kill 1 2"):
        with pytest.raises(
            ValueError, match="kill, freeze, thaw, leave, revive with a node from 0 to 2; wait with seconds; settle"
        ):
            example.parse_script(wrong, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--script", "hug 1"], "'hug 1' is no step"),
        (["--nodes", "1", "--script", ""], "not from 2 to 200"),
        (["--nodes", "50", "--port", "65500", "--script", ""], "no room for 50 ports"),
        ([], "give --script"),
    ],
)
def test_what_it_cannot_do(options: list[str], words: str) -> None:
    done = run(*options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_stopped_half_way_it_takes_its_nodes_along() -> None:
    command = [sys.executable, str(EXAMPLE), "--nodes", "3", "--port", "21520", "--script", "wait 600"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while "see all" not in process.stdout.readline():
                assert process.poll() is None
            assert len(running("21520")) == 3
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    assert process.returncode == 143
    assert not running("21520")


def test_keys_and_picture_on_a_terminal() -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
    command = [sys.executable, str(EXAMPLE), "--nodes", "3", "--port", "21540"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "110", "LINES": "30"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True) as process:
        os.close(slave)
        try:
            seen = Terminal(master)
            seen.wait("all 3 see all")
            os.write(master, b"1k")
            seen.wait("n1 is down: all 2 others say so")
            seen.wait("is gone")
            os.write(master, b"r")
            seen.wait("n1 is alive: all 2 others say so")
            os.write(master, b"f")
            seen.wait("freeze n1")
            seen.wait("frozen")
            os.write(master, b"q")
            seen.drain()
            assert process.wait(20) == 0
        finally:
            process.terminate()  # it takes its nodes along
    os.close(master)
    assert not running("21540")


class Terminal:
    def __init__(self, master: int) -> None:
        self.master = master
        self.text = ""

    def read(self) -> bool:
        if not select.select([self.master], [], [], 0.5)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
        return bool(data)

    def wait(self, words: str, seconds: float = 60.0) -> None:
        """Until something is shown that was not when the last wait ended."""
        deadline = time.perf_counter() + seconds
        while words not in self.text:
            assert time.perf_counter() < deadline, self.text[-2000:]
            assert self.read(), self.text[-2000:]
        self.text = self.text.rpartition(words)[2]

    def drain(self) -> None:
        while self.read():
            pass


def running(port: str) -> list[int]:
    """Nodes of the example that was given this port."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"members" in words and any(word.startswith(f"127.0.0.1:{port[:4]}".encode()) for word in words):
            found.append(int(path.parent.name))
    return found
