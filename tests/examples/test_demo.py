"""The demo's pure parts, its client, and the way to its web page. The demo as a whole asserts itself (`make demo`; test_demo_live)."""

import contextlib
import http.client
import io
import json
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

from demo import launcher, load, stage
from demo.live import LiveScreen, rich_summary
from demo.page import PageServer
from demo.plain import PlainScreen, harm_of, plain_lines, summary_lines
from demo.processes import Channel
from demo.record import Record, Request, percentages, percentile, shares, sparkline, worst_deviation
from demo.relay import Relay
from demo.streams import Frames, frame
from rich.console import Console

HARM = {"failed": 2, "late": 3, "longest_seconds": 1.05, "begun_within_seconds": 0.31}
STEP = {
    "number": 1,
    "title": "tasks",
    "seconds": 4.5,
    "requests": 540,
    "failed": 0,
    "seen": ["shares: n1 50 %, n2 50 %", "back after 1.2 s"],
    "claims": ["one", "two"],
}
SUMMARY = {
    "ok": True,
    "reason": "",
    "seconds": 30.0,
    "requests": 540,
    "failed": 2,
    "harm": HARM,
    "weight_zero_seconds": 0.31,
    "gone_seconds": 1.0,
    "p50_ms": 1.3,
    "p99_ms": 9.9,
    "steps": [STEP],
}
ROW = {"name": "n1", "state": "alive", "table": {"n1": 1, "n2": 0}, "requests": 7, "share": 0.5}
TICK = {
    "event": "tick",
    "seconds": 61.0,
    "nodes": [ROW, ROW | {"name": "n2", "state": "down", "table": None, "share": 0.0}],
    "requests_so_far": 14,
    "failed_so_far": 1,
    "late_so_far": 2,
    "rate": 120.0,
    "p50": 1.0,
    "p99": 2.0,
}
EVENTS = [
    {"event": "place", "text": "booting"},
    {"event": "ready", "seconds": 2.0, "kernel": "6.1", "nodes": 5, "rate": 120},
    {"event": "page", "url": "http://127.0.0.1:1/"},
    {"event": "step", "number": 1, "total": 7, "title": "tasks"},
    {"event": "note", "text": "somebody"},
    {"event": "said", "node": "n0", "kind": "member_down", "text": "n3 is down"},
    {"event": "claim", "text": "it holds"},
    TICK,
    {"event": "step_end", "requests_so_far": 540, "failed_so_far": 0, **STEP},
]


def request(backend: str, *, started: float = 0.0, seconds: float = 0.001, error: str = "") -> list:
    return [started, seconds, backend, error]


def test_record_keeps_failures_apart() -> None:
    record = Record()
    record.add([request("n1"), request("n2", started=1.0, seconds=1.1), request("", started=2.0, seconds=2.0, error="reset")])
    assert [one.error for one in record.failures] == ["reset"]
    assert record.late == 1
    assert record.answered == {"n1": 1, "n2": 1}
    assert [one.backend for one in record.since(1.0)] == ["n2", ""]
    assert [one.backend for one in record.since(0.0, 1.0)] == ["n1"]


def test_shares_count_answers() -> None:
    record = Record()
    record.add([request("n1")] * 3 + [request("n2"), request("", error="reset")])
    assert shares(record.requests) == {"n1": 0.75, "n2": 0.25}
    assert shares([]) == {}


def test_deviation_counts_who_is_missing_and_who_should_not_be_there() -> None:
    expected = stage.as_equal_shares(["a", "b", "c", "d"])
    assert expected == {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}
    assert worst_deviation(expected, expected) == worst_deviation({}, {}) == 0
    assert worst_deviation({"a": 0.25, "b": 0.25, "c": 0.25}, expected) == 0.25
    assert worst_deviation({**expected, "a": 0.15, "gone": 0.1}, expected) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("started", "seconds", "excused"),
    [
        (9.999, 2.0, True),  # under way when the node died
        (10.3, 2.0, True),
        (10.32, 2.0, False),  # no kernel would choose the dead node any more
        (7.9, 2.0, False),  # over before
    ],
)
def test_what_a_panic_excuses(started: float, seconds: float, excused: bool) -> None:
    repair = stage.Repair(began=10.0, zero_seconds=0.31, gone_seconds=1.0)
    assert repair.excuses(Request(started, seconds, "", "no answer in time")) == excused


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_percentile(percent: float, value: float) -> None:
    assert (percentile([4, 1, 3, 2], percent), percentile([], percent)) == (value, 0)


def test_words() -> None:
    assert (sparkline([0, 5, 10, 20], 10), sparkline([0, 0], 0)) == ("▁▅██", "▁▁")
    assert percentages({"n1": 1 / 3, "n2": 2 / 3}) == "n1 33 %, n2 67 %"
    assert (
        harm_of({"failed": 0, "late": 0, "longest_seconds": 0.0, "begun_within_seconds": 0.0}) == "none failed, none was late"
    )


def test_plain_lines_are_ascii_without_escapes() -> None:
    text = "\n".join(line for event in EVENTS for line in plain_lines(event))
    assert text.isascii()
    assert "\x1b" not in text
    assert "n0    n3 is down" in text
    assert "540 requests so far, 0 failed" in text
    assert "tick" not in text


def test_summary_ends_with_the_count() -> None:
    lines = summary_lines(SUMMARY)
    assert lines[-1] == ("540 requests: 2 failed, 3 late (answered after 1.1 s at most), all begun within 0.31 s of the panic")
    assert lines[1].split() == ["1", "tasks", "4.5", "540", "0"]
    assert "    back after 1.2 s" in lines
    assert summary_lines({**SUMMARY, "failed": 0, "harm": None})[-1] == "540 requests, 0 failed"
    assert summary_lines({**SUMMARY, "failed": 3})[-1] == "540 requests, 3 failed"  # one outside the repair


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("size", [(80, 24), (40, 5)])
def test_dashboard_draws(encoding: str, size: tuple[int, int]) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    console = Console(file=stream, force_terminal=True, width=size[0], height=size[1], legacy_windows=False)
    screen = LiveScreen(console)
    for event in EVENTS:
        screen.show(event)
    screen.close()
    screen.close()
    text = raw.getvalue().decode()
    screen.show(TICK)  # a guest that still talks does not draw over the shell
    stream.flush()
    assert raw.getvalue().decode() == text
    assert text.endswith("\x1b[?25h\x1b[?1049l")  # the cursor and the first screen are back
    if size == (80, 24):
        assert "1 failed" in text
        assert "2 late" in text
        assert "down" in text
        assert "its table: n1" in text
        assert "http://127.0.0.1:1/" in text
        assert ("█" in text) == (encoding == "utf-8")
    console.print(rich_summary(SUMMARY))


def test_show_joins_pieces_of_lines() -> None:
    out = io.StringIO()
    show = launcher.Show(PlainScreen(out))
    show.page_url = "http://127.0.0.1:1/"
    data = "".join(
        json.dumps(event) + "\n"
        for event in [*(one for one in EVENTS if one["event"] != "page"), {"event": "summary", **SUMMARY, "reason": "why"}]
    ).encode()
    for at in range(0, len(data), 7):
        show.feed(data[at : at + 7])
    assert out.getvalue().splitlines() == [line for event in EVENTS for line in plain_lines(event)]
    assert show.summary == SUMMARY | {"reason": "why"}
    assert show.reason == "why"


def test_failed_claim_fails_the_demo(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> None:
    show = launcher.Show(PlainScreen())
    show.summary, show.reason = SUMMARY, "step 1: claimed that all is well; but it is not"
    assert launcher._report(show, 0, tmp_path / "summary.json") == 1
    assert "FAILED: step 1: claimed that all is well" in capsys.readouterr().err
    assert json.loads((tmp_path / "summary.json").read_text()) == SUMMARY


def test_inside_that_ends_without_a_word_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher._report(launcher.Show(PlainScreen()), 0, None) == 1
    assert launcher._report(launcher.Show(PlainScreen()), 125, None) == 125
    assert "without a summary" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--seconds-per-step", "0"], ["--rate", "many"], ["--rate", "10"], ["--kernel", "other"], ["extra"]]
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        launcher.main(words)
    assert "demo: error" in capsys.readouterr().err


def test_nowhere_to_run_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PMM_UML", "no-such-program")
    assert launcher.main(["--plain", "--kernel", "guest"]) == 69
    assert "apt-get install" in capsys.readouterr().err


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Starts a server on a port of loopback that gives this answer, byte for byte, to each request."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_answer_all, args=(listener, answer))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return listener.getsockname()[1]

        yield start


def _answer_all(listener: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            if connection.recv(4096):
                connection.sendall(answer)


GOOD = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nn1"


@pytest.mark.parametrize(
    ("answer", "backend", "error"),
    [
        (GOOD, "n1", ""),
        (GOOD[:30], "", "half an answer"),
        (b"", "", "half an answer"),
        (b"HTTP/1.0 503 No\r\n\r\nn1", "", "half an answer"),
    ],
)
def test_client_tells_what_became_of_a_request(serve: Callable[..., int], answer: bytes, backend: str, error: str) -> None:
    client = load.Client(50, ("127.0.0.1", serve(answer)))
    client.stopping = True  # only what is asked for here
    client.start()
    while not client.idle:
        client.turn()
    client.selector.close()
    assert [row[2:] for row in client.finished] == [(backend, error)]


def test_client_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "DEADLINE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
        closed.close()
        for port, error in ((silent.getsockname()[1], "no answer in time"), (free, "Connection refused")):
            client = load.Client(50, ("127.0.0.1", port))
            client.stopping = True
            client.start()
            while not client.idle:
                client.turn()
                client.give_up()
            client.selector.close()
            assert [row[2:] for row in client.finished] == [("", error)]


def test_client_blames_no_request_for_its_own_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr(load, "now", lambda: at[0])
    monkeypatch.setattr(load, "REPORT_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = load.Client(50, silent.getsockname()[:2])
        client.stopping = True
        client.start()
        for _ in range(24):  # 2.4 s in short turns count, and 30 s at once do not
            client.turn()
            at[0] += 0.1
        client.turn()
        at[0] += 30.0
        client.turn()
        client.give_up()
        assert not client.idle
        at[0] += 0.2
        client.turn()
        client.give_up()
        assert client.idle
        client.selector.close()


def test_client_keeps_its_rate(serve: Callable[..., int]) -> None:
    client = load.Client(200, ("127.0.0.1", serve(GOOD)))
    while len(client.finished) < 50:
        client.turn()
    client.stopping = True
    while not client.idle:
        client.turn()
    client.selector.close()
    starts = sorted(row[0] for row in client.finished)
    assert starts[-1] - starts[0] >= 0.15  # 50 requests, 5 ms apart, less a burst of ten after a stall
    assert client.started == len(client.finished)
    assert not any(row[3] for row in client.finished)


def test_frames_come_in_any_pieces() -> None:
    data = frame(1, b"one") + frame(0, b"") + frame(70000, b"x" * 60000)
    frames = Frames()
    found = [one for at in range(0, len(data), 7) for one in frames.feed(data[at : at + 7])]
    assert found == [(1, b"one"), (0, b""), (70000, b"x" * 60000)]


@pytest.fixture
def way(tmp_path: pathlib.Path) -> Iterator[tuple[PageServer, socket.socket]]:
    """The two ends of the way to the page of n0, and the socket at which its daemon would listen."""
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "n0"))
        listener.listen()
        relay = Relay(theirs.fileno(), {"n0": tmp_path / "n0", "n1": tmp_path / "n1"})
        server = PageServer(ours.sendall, ("n0", "n1"))

        def hand_on() -> None:
            while data := ours.recv(65536):
                server.feed(data)

        threads = [threading.Thread(target=relay.run), threading.Thread(target=hand_on)]
        for thread in threads:
            thread.start()
        yield server, listener
        server.close()
        ours.shutdown(socket.SHUT_WR)  # the relay ends
        threads[0].join()
        theirs.close()  # and with it the other
        threads[1].join()
        ours.close()


def test_page_is_passed_on_byte_for_byte(way: tuple[PageServer, socket.socket]) -> None:
    server, listener = way
    body = os.urandom(300_000)
    asked = []

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    daemon = threading.Thread(target=answer)
    daemon.start()
    reader = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    reader.request("GET", "/n0/v1/status?x=1", headers={"If-None-Match": '"a"', "Cookie": "no"})
    assert reader.getresponse().read() == body
    reader.close()
    daemon.join()
    assert asked[0].startswith(b"GET /v1/status?x=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
    assert b'If-None-Match: "a"' in asked[0]
    assert b"Cookie" not in asked[0]


def test_a_stream_comes_as_it_is_said_and_ends_with_its_reader(way: tuple[PageServer, socket.socket]) -> None:
    server, listener = way
    reader = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    reader.request("GET", "/n0/v1/events")
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(20)
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        response = reader.getresponse()
        for number in range(3):
            connection.sendall(b"data: %d\n" % number)
            assert response.readline() == b"data: %d\n" % number
        response.close()
        reader.close()
        with pytest.raises(OSError, match=r"[Bb]roken pipe|reset"):
            _say_on(connection)


def _say_on(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(b"data: more\n")
        threading.Event().wait(0.01)


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", "/n0", "", 404),
        ("GET", "/n7/", "", 404),
        ("GET", "/", "", 302),
        ("GET", "/n1/", "", 502),  # its daemon does not run
        ("GET", "/n0/", "evil.example", 421),
        ("POST", "/n0/v1/drain", "", 501),
        ("PUT", "/n0/v1/sources/x", "", 501),
    ],
)
def test_what_is_not_passed_on(way: tuple[PageServer, socket.socket], method: str, path: str, host: str, status: int) -> None:
    server, listener = way
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    assert response.status == status
    assert response.headers["Location"] == ("/n0/" if status == 302 else None)
    response.read()
    connection.close()
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


INSIDE = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from demo.relay import Relay
print(json.dumps({"event": "ready", "seconds": 1, "kernel": "6.1", "nodes": 5, "rate": 1}), flush=True)
Relay(int(sys.argv[sys.argv.index("--channel") + 1]), {"n0": Path(sys.argv[2])}).run()
"""


def test_on_this_kernel_the_inside_is_a_process_and_its_page_is_reached_likewise(tmp_path: pathlib.Path) -> None:
    out = io.StringIO()
    show = launcher.Show(PlainScreen(out))
    seen = []

    def ask() -> None:
        while not show.page_url:
            threading.Event().wait(0.01)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "n0"))
            listener.listen()
            daemon = threading.Thread(target=_answer_all, args=(listener, GOOD))
            daemon.start()
            port = int(show.page_url.rstrip("/").rpartition(":")[2])
            reader = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            reader.request("GET", "/n0/")
            seen.append(reader.getresponse().read())
            reader.close()
            listener.shutdown(socket.SHUT_RDWR)
            daemon.join()
        os.kill(int(child.read_text()), signal.SIGTERM)

    child = tmp_path / "pid"
    script = f"import os; open({str(child)!r}, 'w').write(str(os.getpid()))" + INSIDE
    examples = str(pathlib.Path(launcher.__file__).parents[1])
    asking = threading.Thread(target=ask)
    asking.start()
    code = launcher._on_host([sys.executable, "-c", script, examples, str(tmp_path / "n0")], 0, show)
    asking.join()
    assert seen == [b"n1"]
    assert code == -signal.SIGTERM
    assert "see each other after 1.0 s" in out.getvalue()
    assert show.page_url in out.getvalue()


def test_page_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert launcher.main(["--plain", "--kernel", "guest", "--page-port", port]) == 69
    assert "cannot be had for the web page" in capsys.readouterr().err


def test_channel_joins_and_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"a": 1}\n{"b"')
        channel = Channel(ours)
        assert channel.wait() == {"a": 1}
        theirs.sendall(b": 2}\n")
        theirs.shutdown(socket.SHUT_WR)
        assert channel.wait() == {"b": 2}
        with pytest.raises(EOFError):
            channel.wait()


def test_readme_shows_the_run_that_the_page_about_the_demo_has() -> None:
    root = pathlib.Path(launcher.__file__).parents[2]
    run = (root / "docs/demo.md").read_text(encoding="utf-8").partition("## A run")[2]
    block = (root / "README.md").read_text(encoding="utf-8").partition("## The demo")[2].split("```\n")[1]
    *steps, total = [line for line in block.splitlines() if line]
    assert "\n".join(steps) in "\n".join(line for line in run.splitlines() if line)
    assert total in run
    assert steps[0] == "[3/5] an operator drains n2"
