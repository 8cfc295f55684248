"""Checks against real sockets and real processes."""

# ruff: noqa: ASYNC110, ASYNC240 - processes tell by files what they do, and nobody can be woken by that
from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from errno import EAGAIN
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyminuteman.capabilities import Privileges
from pyminuteman.health.checks import (
    OUTPUT_MAX_BYTES,
    Check,
    CheckFailed,
    CommandCheck,
    HTTPCheck,
    TCPCheck,
    refuse_itself,
)
from pyminuteman.health.hysteresis import InvalidCheckError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def loopback6() -> None:
    """Skips where there is no IPv6 on the loopback."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError as error:
        pytest.skip(f"no IPv6 on the loopback: {error}")


@asynccontextmanager
async def serving(answer: Callable[[trio.abc.Stream], Awaitable[Any]], tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Give each connection to ``answer``; yields the port."""

    async def handle(stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream
        try:
            await answer(secured)
        except trio.BrokenResourceError:
            pass  # the check hung up
        finally:
            await trio.aclose_forcefully(secured)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def says(answer: bytes, heard: list[bytes] | None = None) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    async def handle(stream: trio.abc.Stream) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += await stream.receive_some()
        if heard is not None:
            heard.append(request)
        await stream.send_all(answer)

    return handle


async def failure(check: Check, seconds: float = 10) -> str:
    """Why the check does not pass; it has to answer within so many seconds."""
    with trio.fail_after(seconds), pytest.raises(CheckFailed) as caught:
        await check.run()
    assert str(caught.value).isprintable()
    return str(caught.value)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# -- TCP ---------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_whoever_takes_connections_passes() -> None:
    async with serving(lambda stream: stream.receive_some()) as port:
        await TCPCheck("127.0.0.1", port).run()


@pytest.mark.usefixtures("loopback6")
@pytest.mark.trio
async def test_over_ipv6_likewise() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        await TCPCheck("::1", server.getsockname()[1]).run()


@pytest.mark.trio
async def test_where_nobody_listens_it_fails_and_says_where() -> None:
    port = closed_port()
    assert await failure(TCPCheck("127.0.0.1", port)) == f"127.0.0.1:{port}: Connection refused"


@pytest.mark.trio
async def test_a_listener_whose_queue_is_full_holds_the_check_until_its_deadline_and_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        with trio.move_on_after(0.3) as scope:
            await TCPCheck("127.0.0.1", server.getsockname()[1]).run()
        assert scope.cancelled_caught
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        for filler in fillers:
            filler.close()


@pytest.mark.trio
async def test_a_socket_that_is_connected_to_itself_is_nobody() -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        await sock.connect(sock.getsockname())
        with pytest.raises(CheckFailed, match="nobody listens"):
            refuse_itself(sock)


@pytest.mark.trio
async def test_when_it_is_we_who_have_no_free_port_the_backend_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_port(_self: object, _address: object) -> None:
        raise OSError(99, "Cannot assign requested address")

    with trio.socket.socket() as any_socket:
        monkeypatch.setattr(type(any_socket), "connect", no_port)
    with pytest.raises(OSError, match="Cannot assign"):
        await TCPCheck("127.0.0.1", 1).run()


@pytest.mark.parametrize(
    ("address", "port"), [("nonsense", 80), ("localhost", 80), ("10.0.0.1", 0), ("10.0.0.1", 65536), ("::", True)]
)
def test_an_address_or_port_that_is_none_is_refused(address: str, port: int) -> None:
    with pytest.raises(InvalidCheckError, match=r"nonsense|localhost|1 to 65535"):
        TCPCheck(address, port)


# -- HTTP --------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_an_expected_status_passes_and_the_request_is_plain() -> None:
    heard: list[bytes] = []
    async with serving(says(OK, heard)) as port:
        await HTTPCheck(address="127.0.0.1", port=port, path="/health?deep=1", host="web.example").run()
        await HTTPCheck(address="127.0.0.1", port=port).run()
    lines = heard[0].split(b"\r\n")
    assert lines[:2] == [b"GET /health?deep=1 HTTP/1.1", b"Host: web.example"]
    assert b"Connection: close" in lines
    assert heard[1].split(b"\r\n")[:2] == [b"GET / HTTP/1.1", b"Host: 127.0.0.1:%d" % port]


@pytest.mark.parametrize("status", [b"204 No Content", b"200", b"299 "])
@pytest.mark.trio
async def test_every_success_passes_with_or_without_a_phrase(status: bytes) -> None:
    async with serving(says(b"HTTP/1.0 " + status + b"\n\n")) as port:
        await HTTPCheck(address="127.0.0.1", port=port).run()


@pytest.mark.trio
async def test_statuses_that_are_named_pass_and_no_others() -> None:
    async with serving(says(b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n")) as port:
        await HTTPCheck(address="127.0.0.1", port=port, statuses=frozenset({302})).run()
        assert await failure(HTTPCheck(address="127.0.0.1", port=port)) == f"127.0.0.1:{port}/: answered 302"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 500 Oops\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 20", "closed within an answer"),
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks no HTTP/1: SSH-2.0-OpenSSH_9.2"),
        (b"HTTP/1.1 2000 OK\r\n", "speaks no HTTP/1"),
        (b"HTTP/2 200\r\n", "speaks no HTTP/1"),
        (b"\x1b]0;owned\x07\xff\r\n", "speaks no HTTP/1:  ]0;owned"),
        (b"x" * 100_000, "speaks no HTTP/1: " + "x" * 120),
    ],
)
@pytest.mark.trio
async def test_other_answers_fail_and_are_shown_without_control_characters(answer: bytes, reason: str) -> None:
    async with serving(says(answer)) as port:
        assert reason in await failure(HTTPCheck(address="127.0.0.1", port=port))


@pytest.mark.trio
async def test_a_server_that_resets_the_connection_fails() -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with serving(reset) as port:
        assert "reset" in (await failure(HTTPCheck(address="127.0.0.1", port=port))).lower()


@pytest.mark.trio
async def test_a_server_that_drips_is_cut_off_by_the_deadline() -> None:
    async def drip(stream: trio.abc.Stream) -> None:
        for byte in OK:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.2)

    async with serving(drip) as port:
        with trio.move_on_after(0.5) as scope:
            await HTTPCheck(address="127.0.0.1", port=port).run()
        assert scope.cancelled_caught


def certificate(directory: Path) -> Path:
    """A key and a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "backend")])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "backend.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + made.public_bytes(pem))
    return path


@pytest.mark.trio
async def test_https_trusts_whom_it_is_told_to_and_nobody_else(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    trusting = ssl.create_default_context(cafile=str(path))
    async with serving(says(OK), server) as port:
        await HTTPCheck(address="127.0.0.1", port=port, tls=trusting).run()
        strict = HTTPCheck(address="127.0.0.1", port=port, tls=ssl.create_default_context())
        assert "certificate verify failed" in await failure(strict)
        other = HTTPCheck(address="127.0.0.1", port=port, host="other.example", tls=trusting)
        assert "other.example" in await failure(other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "health"},
        {"path": "/a b"},
        {"path": "/\r\nX: y"},
        {"path": "/" + "x" * 2048},
        {"host": "a\r\nb"},
        {"host": "é"},
        {"statuses": frozenset()},
        {"statuses": frozenset({99})},
        {"port": 0},
    ],
)
def test_what_would_break_the_request_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidCheckError):
        HTTPCheck(**({"address": "127.0.0.1", "port": 80} | wrong))


# -- commands ----------------------------------------------------------------------------------------------------------


def script(text: str, **more: Any) -> CommandCheck:
    return CommandCheck(("/bin/sh", "-c", text), **more)


@pytest.mark.trio
async def test_a_command_that_ends_with_0_passes() -> None:
    await CommandCheck(("/bin/true",)).run()
    await script("exit 3", exit_codes=frozenset({2, 3})).run()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 7", "/bin/sh ended with 7"),
        ("echo 'disk full'; echo more; exit 1", "/bin/sh ended with 1: disk full"),
        ("echo 'no route' >&2; exit 1", "/bin/sh ended with 1: no route"),
        (r"printf '\033[31mred\n'; exit 1", "/bin/sh ended with 1:  [31mred"),
        ("kill -SEGV $$", "/bin/sh was ended by SIGSEGV"),
        ("kill -40 $$", "/bin/sh was ended by signal 40"),
    ],
)
@pytest.mark.trio
async def test_other_ends_fail_and_show_the_first_line_of_what_was_written(text: str, reason: str) -> None:
    assert await failure(script(text)) == reason


@pytest.mark.trio
async def test_a_command_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    assert await failure(CommandCheck((missing,))) == f"{missing} cannot be run: No such file or directory"
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert await failure(CommandCheck((str(plain),))) == f"{plain} cannot be run: Permission denied"


@pytest.mark.trio
async def test_no_shell_reads_the_arguments_and_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of ours")
    check = "import os, sys; print(sys.argv[1:], sorted(os.environ), os.getcwd(), sys.stdin.read()); sys.exit(1)"
    said = await failure(CommandCheck((sys.executable, "-c", check, "$HOME; reboot"), environment=(("PORT", "80"),)))
    assert said.replace("'LC_CTYPE', ", "").endswith("ended with 1: ['$HOME; reboot'] ['LANG', 'PATH', 'PORT'] /")
    assert "SECRET" not in said


@pytest.mark.trio
async def test_a_command_has_no_capability_and_gets_none() -> None:
    """Whoever we are: root, or one with some capabilities, ambient ones among them."""
    before = Privileges.now()
    said = await failure(script("grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs)' /proc/self/status | tr -s '\\n\\t ' ,; exit 1"))
    none = "0" * 16
    assert said.endswith(f"ended with 1: CapInh:,{none},CapPrm:,{none},CapEff:,{none},CapAmb:,{none},NoNewPrivs:,1,")
    assert Privileges.now() == before, "which is the command's affair alone"


def test_a_command_has_none_of_our_real_time_priority() -> None:
    script = (
        "import os, sys, trio; from pyminuteman.health.checks import CommandCheck; from pyminuteman.membership import be_realtime\n"
        "had = be_realtime()\nif not had.granted: sys.exit(had.reason)\n"
        "ask = 'import os, sys; sys.exit(os.sched_getparam(0).sched_priority)'\n"
        "trio.run(CommandCheck((sys.executable, '-c', ask)).run)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if "rtprio" in done.stderr:
        pytest.skip(f"there is no real-time priority to be had: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


@pytest.mark.trio
async def test_a_command_runs_where_a_filter_forbids_to_change_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a unit that has the priority of its service manager (CPUSchedulingPolicy=), and not of its own asking."""
    asked = []

    def refuse(*what: object) -> None:
        asked.append(what)
        raise PermissionError(1, "filtered")

    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: os.SCHED_FIFO)
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    await script("exit 0").run()
    assert len(asked) == 1


@pytest.mark.trio
async def test_a_command_that_cannot_be_deprived_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError(1, "the kernel refuses to set capabilities")

    monkeypatch.setattr("pyminuteman.health.checks.give_up_all", refuse)
    with pytest.raises(PermissionError, match="refuses to set"):
        await script(f"touch {tmp_path}/run").run()
    assert not (tmp_path / "run").exists()


@pytest.mark.trio
async def test_without_room_for_a_thread_the_backend_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(OSError, match="can't start new thread") as caught:
        await script("exit 0").run()
    assert caught.value.errno == EAGAIN


@pytest.mark.trio
async def test_what_writes_without_end_is_killed_long_before_the_deadline() -> None:
    assert await failure(CommandCheck(("/usr/bin/yes",))) == f"/usr/bin/yes wrote more than {OUTPUT_MAX_BYTES} bytes"


def children() -> set[str]:
    """The processes that this one has to bury, zombies included."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


async def gone(pid: int) -> None:
    """Wait until there is no such process, for 10 s at most."""
    with trio.fail_after(10):
        while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
            await trio.sleep(0.01)


async def pid_in(path: Path) -> int:
    """The number that a process writes there, for 10 s at most."""
    with trio.fail_after(10):
        while not (path.exists() and path.read_text().endswith("\n")):
            await trio.sleep(0.01)
    return int(path.read_text())


@pytest.mark.trio
async def test_at_its_deadline_a_command_is_killed_with_its_children_though_they_ignore_signals(tmp_path: Path) -> None:
    pids = [tmp_path / name for name in ("leader", "child")]
    text = (
        f"trap '' TERM INT HUP; echo $$ >{pids[0]}; (trap '' TERM; echo $BASHPID >{pids[1]}; while :; do sleep 1; done) & wait"
    )
    check = CommandCheck(("/bin/bash", "-c", text))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check.run)
        found = [await pid_in(path) for path in pids]
        before = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - before < 2
    assert not Path(f"/proc/{found[0]}").exists(), "reaped, and no zombie"
    await gone(found[1])


@pytest.mark.trio
async def test_children_that_stay_behind_are_killed_and_do_not_hold_the_check_up(tmp_path: Path) -> None:
    path = tmp_path / "child"
    with trio.fail_after(10):
        await CommandCheck(
            ("/bin/bash", "-c", f"(echo $BASHPID >{path}; exec sleep 1000) & while ! test -s {path}; do :; done")
        ).run()
    await gone(await pid_in(path))


@pytest.mark.trio
async def test_a_stopped_command_is_killed_too() -> None:
    with trio.move_on_after(0.3) as scope:
        await script("kill -STOP $$").run()
    assert scope.cancelled_caught


@pytest.mark.trio
async def test_checks_leave_no_descriptor_and_no_child_behind() -> None:
    others = children()  # other tests' kernels, for one
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for text in ("exit 0", "exit 1", "sleep 9"):
        with trio.move_on_after(0.2), pytest.raises(CheckFailed) if text == "exit 1" else trio.CancelScope():
            await script(text).run()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert children() <= others


@pytest.mark.trio
async def test_without_room_for_a_process_the_backend_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_words: Any, **_more: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", none_left)
    with pytest.raises(OSError, match="temporarily unavailable"):
        await script("exit 0").run()


@pytest.mark.trio
async def test_without_a_free_descriptor_the_backend_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        await script("sleep 1000").run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": ()},
        {"command": ("true",)},
        {"command": ("/bin/true", "a\0b")},
        {"environment": (("A=B", "c"),)},
        {"environment": (("", "c"),)},
        {"exit_codes": frozenset()},
        {"exit_codes": frozenset({256})},
    ],
)
def test_a_command_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidCheckError):
        CommandCheck(**({"command": ("/bin/true",)} | wrong))


def test_equal_checks_are_equal() -> None:
    assert TCPCheck("::0001", 1) == TCPCheck("::1", 1)
    assert HTTPCheck(address="10.0.0.1", port=1) != HTTPCheck(address="10.0.0.1", port=1, path="/x")
