"""Guests in QEMU: that they keep what `test_kernel_guest` shows of user-mode-linux. Each boots in three seconds or so, so each checks much."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from pyminuteman.testing import qemu_guest
from pyminuteman.testing.guest import GuestUnavailableError
from pyminuteman.testing.guest_processes import sweep
from pyminuteman.testing.qemu_guest import Guest, run_in_guest
from tests.support.guests import PACKAGE_ROOT, processes_of, wait_for

HARNESS = [sys.executable, "-m", "pyminuteman.testing.qemu_guest"]
EVERY_BYTE = bytes(range(256)) * 200


@pytest.fixture(autouse=True)
def guest(request: pytest.FixtureRequest) -> None:
    """Skip where there is none, unless QEMU is what was asked for."""
    if "guest_not_needed" in request.fixturenames:
        return
    if reason := qemu_guest.available():
        if request.config.getoption("--kernel") == "qemu":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture
def guest_not_needed() -> None:
    pass


def test_the_kernel_has_two_cpus_ipvs_and_nftables() -> None:
    script = """uname -rv; nproc; id -u
        ipvsadm -A -f 1 -s mh; ipvsadm -S
        echo 'table inet t { chain c { type nat hook postrouting priority 100; ct original ip daddr 11.0.0.1 masquerade; }; }' | nft -f -
        nft list tables
        cat /proc/sys/net/netfilter/nf_conntrack_max; ip link add v0 type vxlan id 1 dstport 4789 && echo loaded
        exit 7"""
    done = run_in_guest(["sh", "-c", script])
    release, *lines = done.stdout.decode().splitlines()
    assert "Debian" in release
    assert lines == ["2", "0", "-A -f 1 -s mh", "table inet t", "262144", "loaded"]
    assert (done.returncode, done.stderr) == (7, b"")


def test_streams_files_channel_and_environment(tmp_path: pathlib.Path) -> None:
    script = """import os, sys
        data = bytes(range(256)) * 200
        channel = open("/dev/ttyS3", "r+b", buffering=0)
        channel.write(b"ready\\n")
        heard = channel.readline()
        sys.stdout.buffer.write(data + heard + open("/run/guest/note", "rb").read())
        sys.stderr.buffer.write(data[::-1])
        print(os.environ["ODD"], os.getcwd(), os.get_terminal_size(1), os.cpu_count(), file=open("made", "w"))"""
    here = tmp_path / "a b #,'\\x"
    here.mkdir()
    env = {"PATH": "/usr/bin:/bin", "ODD": "two words\nand 'a line' \\ $HOME", "COLUMNS": "77", "LINES": "33"}
    out, err, said = bytearray(), bytearray(), bytearray()
    guest = Guest(
        [sys.executable, "-c", script.replace("\n        ", "\n")],
        cpus=1,
        modules=(),
        env=env,
        cwd=str(here),
        files={"note": b"n\n"},
    )

    def answer(data: bytes) -> None:
        said.extend(data)
        if said.endswith(b"\n"):
            guest.send(b"words of the host\n")

    def slowly(data: bytes) -> None:
        time.sleep(0.01)
        out.extend(data)

    assert guest.run(slowly, err.extend, answer) == 0
    assert bytes(out) == EVERY_BYTE + b"words of the host\nn\n"
    assert bytes(err) == EVERY_BYTE[::-1]
    assert (here / "made").read_text() == f"{env['ODD']} {here} os.terminal_size(columns=77, lines=33) 1\n"
    with pytest.raises(BrokenPipeError):
        guest.send(b"too late")


def test_only_what_was_named_can_be_written(tmp_path: pathlib.Path) -> None:
    for name in ("here", "there", "seen"):
        (tmp_path / name).mkdir()
    script = (
        'touch here; touch "$0/there"; cp /etc/hostname "$0/seen/x"; touch /etc/x /tmp/x; mount -o remount,rw /; touch /etc/x'
    )
    done = run_in_guest(
        ["sh", "-c", script, str(tmp_path)], modules=(), cwd=str(tmp_path / "here"), rw=[str(tmp_path / "there")], ro=[str(tmp_path / "seen")]
    )  # fmt: skip
    assert b"here" in done.stderr
    assert done.stderr.count(b"Read-only file system") >= 3
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not pathlib.Path("/etc/x").exists()


def test_a_panic_is_125_with_its_trace_and_leaves_nothing(run_base: pathlib.Path) -> None:
    done = run_in_guest(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"], modules=())
    assert done.returncode == 125
    assert "Kernel panic - not syncing: sysrq triggered crash" in done.console
    assert "Call Trace" in done.console
    assert (processes_of(run_base), list(run_base.iterdir())) == ([], [])


def test_out_of_time_by_the_command_line() -> None:
    command = [*HARNESS, "--timeout", "1.5", "--", "sleep", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PACKAGE_ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (124, "", "kernel guest: out of time (1.5 s)\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_harness_that_is_ended_takes_its_guest_along(run_base: pathlib.Path, number: int) -> None:
    command = [*HARNESS, "--mem", "512M", "--", "sh", "-c", "echo up; sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PACKAGE_ROOT, start_new_session=True) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == b"up\n"
        assert len(processes_of(run_base)) == 1
        harness.send_signal(number)
        assert harness.wait(10) == (128 + number if number == signal.SIGTERM else -number)
    wait_for(lambda: processes_of(run_base) == [])
    sweep()
    assert list(run_base.iterdir()) == []


@pytest.mark.usefixtures("guest_not_needed")
def test_what_is_missing_is_named_with_its_cure(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMM_QEMU_KERNEL", str(tmp_path))
    with pytest.raises(GuestUnavailableError, match=rf"no .*{tmp_path}/vmlinux, .*tools/install\.sh qemu"):
        Guest(["true"]).run()
    with pytest.raises(ValueError, match="cpus=0"):
        Guest(["true"], cpus=0)
    assert "PATH" in os.environ
