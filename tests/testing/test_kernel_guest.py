"""The guest kernel harness: each test boots guests of its own (0.6 s each), on any machine that can."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from pyminuteman.testing import guest_processes, kernel_guest, uml_registers
from pyminuteman.testing.kernel_guest import Guest, GuestUnavailableError, run_in_guest
from pyminuteman.testing.pytest_kernel import require_guest
from tests.support.guests import PACKAGE_ROOT, processes_of, wait_for
from tests.support.tools import missing

HARNESS = [sys.executable, "-m", "pyminuteman.testing.kernel_guest"]
PANIC = ["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"]


@pytest.fixture(autouse=True)
def guest(request: pytest.FixtureRequest) -> None:
    if "guest_not_needed" not in request.fixturenames:
        require_guest(request.config)


@pytest.fixture
def guest_not_needed() -> None:
    pass


def quick(command: list[str], **options: object) -> kernel_guest.CompletedGuest:
    """Run in a guest without modules, which boots in half the time."""
    return run_in_guest(command, **({"modules": ()} | options))  # type: ignore[arg-type]


def sh(script: str, **options: object) -> kernel_guest.CompletedGuest:
    return quick(["sh", "-c", script], **options)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -9 $$"], 128 + 9),
        (["/no/such/program"], 127),
    ],
)
def test_exit_code_is_the_commands(command: list[str], code: int) -> None:
    assert quick(command).returncode == code


def test_the_kernel_is_the_guests_and_has_ipvs() -> None:
    done = run_in_guest(
        [
            "sh",
            "-c",
            """uname -r; id -u; ipvsadm -A -f 1 -s mh; ipvsadm -S; cd /proc/sys/net
        echo $(cat netfilter/nf_conntrack_max ipv[46]/neigh/default/gc_thresh3); cut -d' ' -f1 /proc/modules""",
        ]
    )
    release, uid, rule, limits, *modules = done.stdout.decode().splitlines()
    assert release != os.uname().release
    assert uid == "0"
    assert rule == "-A -f 1 -s mh"
    assert limits == "262144 16384 16384"  # tables that all namespaces share: enough for many nodes
    schedulers = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"]
    wanted = {f"ip_vs_{name}" for name in schedulers} | {"veth", "dummy", "sch_netem", "xt_ipvs", "ip_vs_pe_sip"}
    assert wanted <= set(modules)


def test_the_kernel_loads_other_modules_when_asked_for_them() -> None:
    done = quick(["ip", "link", "add", "v0", "type", "vxlan", "id", "1", "dstport", "4789"])
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_module_that_uml_lacks_is_passed_over() -> None:
    done = sh("cut -d' ' -f1 /proc/modules", modules=["no_such_module", "dummy"])
    assert done.stdout.decode().split() == ["dummy"]


def test_streams_are_byte_exact_and_apart() -> None:
    script = "import sys; b = bytes(range(256)) * 400; sys.stdout.buffer.write(b); sys.stderr.buffer.write(b[::-1])"
    done = quick([sys.executable, "-c", script])
    every_byte = bytes(range(256)) * 400
    assert done.stdout == every_byte
    assert done.stderr == every_byte[::-1]


def test_nothing_is_lost_to_a_slow_reader() -> None:
    received = bytearray()

    def slowly(data: bytes) -> None:
        time.sleep(0.02)
        received.extend(data)

    assert Guest(["seq", "30000"], modules=()).run(slowly, slowly) == 0
    assert bytes(received) == b"".join(b"%d\n" % n for n in range(1, 30001))


def test_output_is_passed_on_while_the_command_runs() -> None:
    guest = Guest(["sh", "-c", "echo first; sleep 60"], modules=())
    assert guest.run(lambda data: guest.kill() if b"first" in data else None) == kernel_guest.DIED
    assert not guest.timed_out


def test_environment_is_exactly_what_was_given() -> None:
    env = {"PATH": "/usr/bin:/bin", "A": "two words\nand 'a line' \\ $HOME", "B.C": "é", "EMPTY": ""}
    done = quick(["env", "-0"], env=env)
    seen = dict(pair.split("=", 1) for pair in done.stdout.decode().rstrip("\0").split("\0"))
    assert seen.pop("MODPROBE_OPTIONS")
    assert seen == env


@pytest.mark.usefixtures("guest_not_needed")
def test_forwarded_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMM_SEED", "4")
    monkeypatch.setenv("HYPOTHESIS_PROFILE", "ci")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/secret")
    monkeypatch.setenv("PATH", "/opt/bin")
    env = kernel_guest.forwarded_environment(EXTRA="x")
    assert (env["PMM_SEED"], env["HYPOTHESIS_PROFILE"], env["EXTRA"]) == ("4", "ci", "x")
    assert env["PATH"].split(":")[0] == "/opt/bin"
    assert {"/usr/sbin", "/sbin"} <= set(env["PATH"].split(":"))
    assert "SSH_AUTH_SOCK" not in env


def test_the_terminal_has_the_size_it_is_told() -> None:
    env = kernel_guest.forwarded_environment(COLUMNS="77", LINES="33")
    assert sh("stty -F /dev/tty1 size", env=env).stdout == b"33 77\n"


def test_cwd_is_kept_and_writable_but_nothing_else_of_the_host(tmp_path: pathlib.Path) -> None:
    here, beside = tmp_path / "a b #,'\\x", tmp_path / "beside"
    here.mkdir()
    beside.mkdir()
    script = 'pwd; echo made >made; touch "$1/x" 2>&1; touch /etc/x 2>&1; touch /tmp/x && rm -f "$0"'
    (here / "victim").touch()
    done = quick(["sh", "-c", script, "victim", str(beside)], cwd=str(here), ro=[str(beside)])
    pwd, *refusals = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert pwd == str(here)
    assert [line.rsplit(": ", 1)[1] for line in refusals] == ["Read-only file system"] * 2
    assert sorted(p.name for p in here.iterdir()) == ["made"]
    assert list(beside.iterdir()) == []


def test_rw_replaces_cwd_as_what_can_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "inner").mkdir()
    done = sh("touch here; touch inner/there", cwd=str(tmp_path), rw=[str(tmp_path / "inner")])
    assert b"here" in done.stderr
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["there"]


def test_files_and_channel() -> None:
    guest = Guest(
        ["sh", "-c", "echo ready >/dev/tty3; read -r x </dev/tty3; cat /run/guest/note; echo $x"],
        modules=(),
        files={"note": b"n\n"},
    )
    out = bytearray()
    assert guest.run(out.extend, channel=lambda _: guest.send(b"words of the host\n")) == 0
    assert bytes(out) == b"n\nwords of the host\n"
    with pytest.raises(BrokenPipeError):
        guest.send(b"too late")


def test_out_of_time() -> None:
    start = time.perf_counter()
    guest = Guest(["sh", "-c", "echo begun; sleep 60"], modules=(), timeout=1.0)
    out = bytearray()
    assert guest.run(out.extend) == 124
    assert guest.timed_out
    assert bytes(out) == b"begun\n"
    assert time.perf_counter() - start < 10


def test_panic_is_125_with_its_trace() -> None:
    done = quick(PANIC)
    assert done.returncode == 125
    assert "Kernel panic - not syncing: sysrq triggered crash" in done.console
    assert "Call Trace" in done.console


def test_what_a_sink_raises_ends_the_guest_and_comes_out(run_base: pathlib.Path) -> None:
    def broken(_: bytes) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        Guest(["sh", "-c", "echo; sleep 60"], modules=()).run(broken)
    assert processes_of(run_base) == []
    assert list(run_base.iterdir()) == []


def test_killed_before_it_ran(run_base: pathlib.Path) -> None:
    guest = Guest(["sleep", "60"])
    guest.kill()
    assert guest.run() == 125
    assert list(run_base.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mem": "much"}, ValueError),
        ({"mem": "0G"}, ValueError),
        ({"rw": ["/"]}, ValueError),
        ({"rw": ["/etc/passwd"]}, NotADirectoryError),
        ({"cwd": "/no/such/directory"}, NotADirectoryError),
        ({"env": {"A": "\0"}}, ValueError),
    ],
)
@pytest.mark.usefixtures("guest_not_needed")
def test_impossible_guests(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Guest(["true"], **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("guest_not_needed")
def test_missing_uml_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMM_UML", "/nonexistent/linux.uml")
    with pytest.raises(GuestUnavailableError, match=r"/nonexistent/linux\.uml.*apt-get install .*user-mode-linux"):
        Guest(["true"]).run()


def test_missing_compiler_is_named_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml_registers, "needed", lambda: True)
    monkeypatch.setattr(uml_registers, "compiler", lambda: None)
    assert "no cc (try: apt-get" in (kernel_guest.available() or "")
    with pytest.raises(RuntimeError, match="no C compiler"):
        uml_registers.build(pathlib.Path("/nonexistent"))


@pytest.mark.usefixtures("guest_not_needed")
def test_register_library_replaces_ptrace_only(tmp_path: pathlib.Path) -> None:
    if uml_registers.compiler() is None:
        missing("a C compiler")
    library = ctypes.CDLL(str(uml_registers.build(tmp_path)), use_errno=True)
    unknown_process = 2**22 + 1  # above the largest process id
    assert library.ptrace(0x4205, unknown_process, ctypes.c_void_p(0x202), None) == -1
    assert os.strerror(ctypes.get_errno()) == "No such process"


def test_registers_survive_the_other_processes() -> None:
    """Vector registers of two processes and their threads, switched between some hundred times."""
    script = """if 1:
        import hashlib, os, threading
        def work():
            for _ in range(40):
                assert hashlib.sha256(b"x" * 100_000).hexdigest().startswith("d69e68988157"), "wrong"
                os.sched_yield()
            done.append(1)
        done = []
        child = os.fork()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        if not child: os._exit(len(done))
        assert (len(done), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) == (3, 3)
    """
    done = quick([sys.executable, "-W", "ignore", "-c", script])
    assert (done.returncode, done.stderr) == (0, b"")


class TestNothingIsLeft:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_after_a_signal_to_the_harness(self, run_base: pathlib.Path, number: int) -> None:
        with self.harness(run_base) as harness:
            harness.send_signal(number)
            assert harness.wait(10) == 128 + number
            assert processes_of(run_base) == []
            assert list(run_base.iterdir()) == []

    def test_after_kill_9_of_the_harness_and_a_sweep(self, run_base: pathlib.Path) -> None:
        with self.harness(run_base) as harness:
            (run_dir,) = map(str, run_base.iterdir())
            before = processes_of(run_base)
            assert guest_processes.sweep() == []  # it lives: not ours to touch
            assert min(before) in processes_of(run_base)
            harness.kill()
            harness.wait(10)
            wait_for(lambda: len(processes_of(run_base)) < len(before))  # the kernel went with it
            assert run_dir in kernel_guest.sweep()
            assert processes_of(run_base) == []
            assert list(run_base.iterdir()) == []

    def test_sweep_finds_processes_whose_directory_is_gone(self, run_base: pathlib.Path) -> None:
        mark = f"uml_dir={run_base}/pmm-guest-gone"
        stray = subprocess.Popen([sys.executable, "-c", "input()", mark], stdin=subprocess.PIPE, start_new_session=True)
        with stray:
            wait_for(lambda: processes_of(run_base))
            assert kernel_guest.sweep() == [f"{run_base}/pmm-guest-gone"]
            assert stray.wait(10) == -signal.SIGKILL

    @pytest.mark.usefixtures("guest_not_needed")
    def test_guests_keep_out_of_each_others_way(self, run_base: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        others = lambda: [(pid, 0, "") for pid in processes_of(run_base)]  # noqa: E731 (not of people who test now)
        monkeypatch.setattr(guest_processes, "_of_guests", others)
        cpus = sorted(os.sched_getaffinity(0))
        with self.harness(run_base, "--cpu", str(cpus[0])):
            assert {min(os.sched_getaffinity(pid)) for pid in processes_of(run_base)} == {cpus[0]}
            assert len(cpus) == 1 or guest_processes.free_cpu() != cpus[0]

    def test_sweep_spares_a_directory_about_to_be_locked(self, run_base: pathlib.Path) -> None:
        young, old = run_base / "pmm-guest-young", run_base / "pmm-guest-old"
        young.mkdir()
        old.mkdir()
        os.utime(old, (0, 0))
        assert kernel_guest.sweep() == [str(old)]
        assert young.exists()

    @pytest.mark.usefixtures("guest_not_needed")
    def test_a_session_of_ours_is_never_ended(self) -> None:
        with pytest.raises(ValueError, match="our own"):
            guest_processes.end_session(os.getsid(0))

    @staticmethod
    @contextlib.contextmanager
    def harness(run_base: pathlib.Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """The command line, with its guest up."""
        command = [*HARNESS, "--mem", "256M", *options, "--", "sh", "-c", "echo up; sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PACKAGE_ROOT, start_new_session=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            assert processes_of(run_base)
            try:
                yield process
            finally:
                process.kill()


class TestCommandLine:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": str(PACKAGE_ROOT)}
        return subprocess.run([*HARNESS, *arguments], env=env, capture_output=True, text=True, check=False, timeout=60)

    def test_code_and_streams(self) -> None:
        done = self.run("--", "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")

    def test_panic(self) -> None:
        done = self.run("--", *PANIC)
        assert done.returncode == 125
        assert "sysrq triggered crash" in done.stderr

    def test_out_of_time(self) -> None:
        done = self.run("--timeout", "0.5", "--", "sleep", "60")
        assert done.returncode == 124
        assert done.stderr == "kernel guest: out of time (0.5 s)\n"

    @pytest.mark.usefixtures("guest_not_needed")
    def test_a_mistake(self) -> None:
        done = self.run("--mem", "lots", "--", "true")
        assert done.returncode == 125
        assert "mem='lots'" in done.stderr


class TestNetworkNamespace:
    def python(self, script: str) -> None:
        env = kernel_guest.forwarded_environment(PYTHONPATH=str(PACKAGE_ROOT))
        done = run_in_guest([sys.executable, "-c", script], env=env, ro=[str(PACKAGE_ROOT)])
        assert done.returncode == 0, done.stderr.decode()

    def test_is_empty_and_has_a_loopback(self) -> None:
        self.python("""if 1:
            import socket, subprocess
            from pyminuteman.testing.kernel_guest import fresh_network_namespace
            def services(): return subprocess.check_output(["ipvsadm", "-S"])
            subprocess.check_call(["ipvsadm", "-A", "-f", "1"])
            assert services()
            for _ in range(3):
                fresh_network_namespace()
                assert services() == b""
                subprocess.check_call(["ipvsadm", "-A", "-f", "1"])
                server = socket.create_server(("127.0.0.1", 80))
                socket.create_connection(("127.0.0.1", 80), timeout=5)
        """)

    def test_probe_knows_a_kernel_with_ipvs_and_a_user_without_rights(self) -> None:
        self.python("""if 1:
            import os, subprocess
            from pyminuteman.testing.network_namespace import why_no_host_ipvs
            assert why_no_host_ipvs() is None, why_no_host_ipvs()
            assert subprocess.check_output(["ipvsadm", "-S"]) == b"", "the probe left a service"
            os.setuid(65534)
            assert "no right" in why_no_host_ipvs()
        """)

    def test_probe_knows_a_kernel_without_ipvs(self) -> None:
        env = kernel_guest.forwarded_environment(PYTHONPATH=str(PACKAGE_ROOT))
        script = "from pyminuteman.testing.network_namespace import why_no_host_ipvs as why; print(why())"
        # The module cannot be had: modprobe finds no directory of modules.
        env["PATH"] = "/nowhere"
        hide = 'umount -l /run/kmod/lib/modules; exec "$@"'
        done = run_in_guest(["/bin/sh", "-c", f"PATH=/bin; {hide}", "sh", sys.executable, "-c", script],
                            env=env, modules=["dummy"], ro=[str(PACKAGE_ROOT)])  # fmt: skip
        assert "has no IPVS" in done.stdout.decode(), done.stderr


def test_two_guests_at_once() -> None:
    codes: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: codes.update({n: sh(f"exit {n}").returncode})) for n in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {3: 3, 4: 4}
