"""The client of the command line: against the real server in a thread, and against what is no daemon."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import trio

from pyminuteman.cli.exit_codes import FAILED, NOT_PERMITTED, UNAVAILABLE, code_for
from pyminuteman.daemon.api import Api, ApiOptions, open_api
from pyminuteman.daemon.api.http_server import ServerLimits
from pyminuteman.daemon.client import DaemonClient
from pyminuteman.daemon.client_errors import DaemonForbidden, DaemonRefused, DaemonUnreachable
from tests.daemon.api.double import OTHER, Double, Log


class Running:
    """The API in a thread, and what the test may tell it from outside."""

    def __init__(
        self, path: Path, limits: ServerLimits | None = None, *, life: str = "0" * 16, events: Sequence[str] = ()
    ) -> None:
        self.path, self.double = path, Double(events=Log(life=life))
        for text in events:
            self.double.events.add("sync", text)
        self._limits = limits
        self._started: Queue[tuple[Api, trio.lowlevel.TrioToken, trio.Event]] = Queue()
        self.thread = threading.Thread(target=trio.run, args=(self._serve,))
        self.thread.start()
        self.api, self.token, self._end = self._started.get(timeout=10)

    async def _serve(self) -> None:
        async with open_api(self.double, ApiOptions(socket=self.path), server_limits=self._limits) as api:
            end = trio.Event()
            self._started.put((api, trio.lowlevel.current_trio_token(), end))
            await end.wait()

    def tell(self, *words: Any) -> None:
        self.token.run_sync_soon(self.double.events.add, *words)

    def end(self) -> None:
        if self.thread.is_alive():
            self.token.run_sync_soon(self._end.set)
        self.thread.join(timeout=10)
        assert not self.thread.is_alive()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path / "api.sock")
    yield found
    found.end()


def test_it_asks_and_has_things_done(running: Running) -> None:
    with DaemonClient(running.path) as client:
        assert client.get("/v1/status")["node"]["name"] == "one"
        assert client.get("/v1/events", {"format": "json", "since": "0"})["events"] == []
        assert "minuteman_build_info" in client.text("/metrics")
        assert client.post("/v1/drain", {"node": "two", "reason": "disk"})["done"]
        assert client.post("/v1/reload")["changes"] == ['log.level: "info" -> "debug"']
        assert client.push("pushed", {"vip": []})["vips"] == 0
        assert running.api.metrics()["connections_total"] == 1
    assert running.double.done[0] == ("drain", OTHER, "root", "disk")


def test_what_the_daemon_says_no_to(running: Running) -> None:
    with DaemonClient(running.path) as client:
        with pytest.raises(DaemonRefused, match='there is no node "nobody"; see /v1/members') as caught:
            client.post("/v1/drain", {"node": "nobody"})
        assert (caught.value.status, caught.value.code, code_for(caught.value)) == (404, "no_such_node", FAILED)
        with pytest.raises(DaemonRefused):
            client.push("a/b", {})
        assert client.get("/v1/status")  # the connection is still good


def test_events_as_they_happen_until_the_daemon_ends(running: Running) -> None:
    with DaemonClient(running.path) as client:
        running.double.events.add("member_up", "before")  # nobody else looks at the log yet
        found = client.events(since=0, life="0" * 16)
        assert next(found) == {"kind": "hello", "life": "0" * 16, "id": 0, "oldest": 1, "newest": 1}
        assert next(found)["text"] == "before"
        running.tell("member_down", "two")
        event = next(found)
        assert (event["id"], event["kind"], event["text"]) == (2, "member_down", "two")
        running.end()
        assert list(found) == []


def test_a_connection_that_was_closed_meanwhile_is_made_anew(tmp_path: Path) -> None:
    running = Running(tmp_path / "api.sock", ServerLimits(idle_seconds=0.05))
    try:
        with DaemonClient(running.path) as client:
            client.get("/v1/status")
            while running.api.metrics()["connections_open"]:
                threading.Event().wait(0.01)
            assert client.get("/v1/status")["version"] == 1
    finally:
        running.end()


def test_where_no_daemon_runs(tmp_path: Path) -> None:
    with DaemonClient(tmp_path / "api.sock") as client, pytest.raises(DaemonUnreachable, match="no daemon runs here") as caught:
        client.get("/v1/status")
    assert code_for(caught.value) == UNAVAILABLE
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
        with DaemonClient(tmp_path / "dead.sock") as client, pytest.raises(DaemonUnreachable, match="no daemon listens"):
            client.post("/v1/reload")
    with DaemonClient(tmp_path / ("x" * 200)) as client, pytest.raises(DaemonUnreachable, match="cannot be reached"):
        client.get("/")


def answering(path: Path, *answers: bytes) -> threading.Thread:
    """Something that answers with these bytes, a connection each, and closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(5)

    def serve() -> None:
        with listener:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"", DaemonUnreachable, "broke off"),
        (b"SSH-2.0\r\n", DaemonUnreachable, "broke off"),
        (OK % (2, b"no"), DaemonUnreachable, "is no minuteman"),
        (OK % (9, b"no"), DaemonUnreachable, "broke off"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", DaemonForbidden, "run this as root"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n[]", DaemonRefused, "it answered 500"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, answer: bytes, error: type[Exception], said: str) -> None:
    thread = answering(tmp_path / "s", answer)
    with DaemonClient(tmp_path / "s", timeout_seconds=2) as client, pytest.raises(error, match=said):
        client.get("/v1/status")
    thread.join(5)


def test_a_change_is_not_made_twice(tmp_path: Path) -> None:
    thread = answering(tmp_path / "s", OK % (2, b"{}") + b"", b"")
    with DaemonClient(tmp_path / "s", timeout_seconds=2) as client:
        client.get("/v1/status")
        with pytest.raises(DaemonUnreachable, match="it may have been done all the same"):
            client.post("/v1/reload")
        with pytest.raises(DaemonUnreachable, match="ask again"):
            client.get("/v1/status")
    thread.join(5)


def test_no_permission_is_not_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pyminuteman.daemon.client._UnixConnection.connect", connect)
    with DaemonClient(tmp_path / "s") as client, pytest.raises(DaemonForbidden, match="as root, or as a member") as caught:
        client.get("/v1/status")
    assert code_for(caught.value) == NOT_PERMITTED


def test_a_verb_starts_at_once() -> None:
    code = "import pyminuteman.daemon.client, sys; print(*[name for name in ('trio', 'httpx2', 'starlette') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_stream_that_breaks_off_is_said_so(tmp_path: Path) -> None:
    chunk = b'id: 1\nevent: sync\ndata: {"id": 1, "kind": "sync"}\n\n'
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    for number, (rest, said) in enumerate(
        ((b"0\r\n\r\n", "ended without a word"), (b"5\r\nid", "ended without a word|broke off"))
    ):
        path = tmp_path / f"s{number}"
        thread = answering(path, head + b"%x\r\n%b\r\n" % (len(chunk), chunk) + rest)
        with DaemonClient(path, timeout_seconds=2) as client:
            found = client.events()
            assert next(found)["kind"] == "sync"
            with pytest.raises(DaemonUnreachable, match=said):
                next(found)
        thread.join(5)


def test_an_answer_of_unknown_length_is_not_read(tmp_path: Path) -> None:
    thread = answering(tmp_path / "s", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n")
    with (
        DaemonClient(tmp_path / "s", timeout_seconds=2) as client,
        pytest.raises(DaemonUnreachable, match="how long its answer is"),
    ):
        client.get("/v1/status")
    thread.join(5)
