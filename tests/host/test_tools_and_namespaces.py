"""Programs that are started for the kernel's sake, and work done in other namespaces: bounded, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyminuteman.capabilities import Capability, Privileges
from pyminuteman.host import tools
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.journal import namespace_id
from pyminuteman.host.namespaces import in_namespace
from tests.conftest import ROOT
from tests.support.host_namespaces import Inside, own_namespace
from tests.support.tools import missing, tool


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    with own_namespace():
        yield


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TIMEOUT_SECONDS", 0.1)
    answer = tools.run(["sleep", "60"])
    assert (answer.code, answer.ok, "did not end within 0.1 s" in answer.error) == (124, False, True)


def test_a_program_that_is_not_there() -> None:
    assert tools.run(["no-such-program"]) == tools.Answer(127, error="there is no no-such-program on this machine")


def test_what_a_program_says_is_one_line_of_some_length() -> None:
    answer = tools.run(["sh", "-c", "cat; printf 'a\\n%0500d\\n' 7 >&2; exit 3"], stdin="in")
    assert (answer.code, answer.output, len(answer.error), "\n" in answer.error) == (3, "in", 300, False)


def test_a_program_runs_in_the_namespace_that_is_named() -> None:
    with Inside() as there:
        said = tools.run(["readlink", "/proc/self/ns/net"], netns=there.path).output
        assert said.strip() == there.run(lambda: str(Path("/proc/thread-self/ns/net").readlink()))
        assert said != tools.run(["readlink", "/proc/self/ns/net"]).output


def test_our_threads_stay_where_they_are() -> None:
    mine = namespace_id(None)
    with Inside() as there:
        assert in_namespace(there.path, lambda: namespace_id(None)) == namespace_id(there.path) != mine
        assert namespace_id(None) == mine
        assert in_namespace(None, threading.get_native_id) == threading.get_native_id()


def test_what_is_raised_there_is_raised_here() -> None:
    def fail() -> None:
        raise KeyError("there")

    with Inside() as there, pytest.raises(KeyError, match="there"):
        in_namespace(there.path, fail)


@pytest.mark.parametrize("path", ["/no/such", "a\0b", "/proc/self/ns/mnt"])
def test_a_path_that_is_no_namespace(path: str) -> None:
    with pytest.raises(HostSetupError, match=r"cannot be (opened|entered)"):
        in_namespace(path, lambda: None)


def test_no_descriptor_is_left_behind() -> None:
    with Inside() as there:
        before = os.listdir("/proc/self/fd")  # noqa: PTH208
        for _ in range(20):
            in_namespace(there.path, lambda: None)
            tools.run(["true"], netns=there.path)
        assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_program_keeps_the_capability_of_one_who_is_not_root() -> None:
    """Without ambient capabilities it would lose them at its start."""
    if not Privileges.now().may(Capability.NET_ADMIN):
        missing("CAP_NET_ADMIN")
    work = "from pyminuteman.host.tools import run; print(run(['grep', 'CapEff', '/proc/self/status']).output)"
    command = [tool("setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+net_admin",
               "--ambient-caps=-all,+net_admin", sys.executable, "-c", work]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if "Permission denied" in done.stderr:
        pytest.skip("this Python may not be started by others than root")
    assert int(done.stdout.split()[1], 16) == 1 << Capability.NET_ADMIN, done.stderr


def test_the_thread_that_starts_a_program_keeps_its_rights_to_itself() -> None:
    def held() -> list[str]:
        return [line for line in Path("/proc/thread-self/status").read_text().splitlines() if line.startswith("Cap")]

    before = held()
    assert tools.run(["true"]).ok
    assert held() == before
