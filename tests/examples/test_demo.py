"""The demo's pure parts, and its two ends over loopback. The demo as a whole asserts itself: ``make demo``."""

import contextlib
import http.client
import io
import json
import pathlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))

from demo import launcher, load, network, scenario, stage
from demo.backend import Backend
from demo.live import LiveScreen, rich_summary
from demo.plain import PlainScreen, plain_lines, summary_lines
from demo.processes import Channel
from demo.record import Record, expected_shares, percentages, percentile, shares, sparkline, worst_deviation
from rich.console import Console

from pyminuteman.ipvs import Scope, format_table, parse_table

STEP = {
    "number": 1,
    "title": "load",
    "seconds": 4.5,
    "changes": [
        {"what": "load", "milliseconds": 3.14, "operations": []},
        {"what": "more", "milliseconds": 1.0, "operations": []},
    ],
    "requests": 540,
    "failed": 0,
    "shares": {"web": {"web1": 0.5, "web2": 0.5}},
    "seen": ["web: web1 50 %, web2 50 %", "api: api1 100 %"],
    "claims": ["one", "two"],
}
SUMMARY = {
    "ok": True,
    "reason": "",
    "seconds": 30.0,
    "requests": 540,
    "failed": 0,
    "p50_ms": 1.3,
    "p99_ms": 9.9,
    "steps": [STEP],
}
ROW = {"name": "web1", "address": "10.0.0.11:8080", "weight": 1, "state": "", "requests": 7, "share": 0.5, "active": 2}
TICK = {
    "event": "tick",
    "seconds": 61.0,
    "services": [
        {"name": "web", "address": "11.0.0.1:80", "rows": [ROW, ROW | {"name": "web2", "state": "deleted"}]},
        {"name": "", "address": "12.0.0.1:443", "rows": [ROW | {"name": "", "state": "foreign", "share": 0.0}]},
    ],
    "requests": 14,
    "failed": 1,
    "rate": 120.0,
    "p50": 1.0,
    "p99": 2.0,
}
EVENTS = [
    {"event": "place", "text": "booting"},
    {"event": "ready", "seconds": 2.0, "kernel": "6.1", "backends": 8, "rate": 120, "masquerade": "nft"},
    {"event": "step", "number": 1, "total": 7, "title": "load"},
    {"event": "change", "what": "load 3", "summary": "add 3 services", "milliseconds": 3.14, "operations": ["-A"]},
    {"event": "note", "text": "somebody"},
    {"event": "claim", "text": "it holds"},
    TICK,
    {"event": "step_end", "so_far": 540, **STEP},
]


def request(backend: str, *, service: str = "web", started: float = 0.0, seconds: float = 0.001, error: str = "") -> list:
    return [started, seconds, service, backend, error]


def test_record_keeps_failures_apart() -> None:
    record = Record()
    record.add([request("web1"), request("web2", started=1.0), request("", started=2.0, error="reset")])
    assert [one.error for one in record.failures] == ["reset"]
    assert record.answered == {("web", "web1"): 1, ("web", "web2"): 1}
    assert [one.backend for one in record.since(1.0)] == ["web2", ""]
    assert [one.backend for one in record.since(0.0, 1.0)] == ["web1"]


def test_shares_count_answers_of_one_service() -> None:
    record = Record()
    record.add([request("web1")] * 3 + [request("web2"), request("", error="reset"), request("api1", service="api")])
    assert shares(record.requests, "web") == {"web1": 0.75, "web2": 0.25}
    assert shares(record.requests, "shop") == {}


def test_deviation_counts_who_is_missing_and_who_should_not_be_there() -> None:
    expected = expected_shares({"a": 1, "b": 3, "gone": 0})
    assert expected == {"a": 0.25, "b": 0.75}
    assert worst_deviation(expected, expected) == worst_deviation({}, {}) == 0
    assert worst_deviation({"b": 0.75}, expected) == 0.25
    assert worst_deviation({"a": 0.25, "b": 0.65, "gone": 0.1}, expected) == pytest.approx(0.1)


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2), (75, 3), (99, 4), (100, 4)])
def test_percentile(percent: float, value: float) -> None:
    assert (percentile([4, 1, 3, 2], percent), percentile([], percent)) == (value, 0)


def test_words() -> None:
    assert (sparkline([0, 5, 10, 20], 10), sparkline([0, 0], 0)) == ("▁▅██", "▁▁")
    assert percentages({"web1": 1 / 3, "web2": 2 / 3}) == "web1 33 %, web2 67 %"


def test_rules_file_fits_the_network() -> None:
    table = parse_table(scenario.RULES.read_text(encoding="utf-8"))
    assert {service.key.address for service in table} == set(network.VIPS.values())
    assert all(service.key in Scope.networks(network.VIP_NETWORK) for service in table)
    behind = {stage.BACKEND_NAMES[one.address] for destinations in table.values() for one in destinations}
    assert set(network.BACKENDS) - behind == {"web3", "web4"}
    rows = [line for line in scenario.RULES.read_text(encoding="utf-8").splitlines() if line.startswith("-")]
    assert format_table(table).splitlines() == rows  # as ipvsadm itself would have saved it


def test_plain_lines_are_ascii_without_escapes() -> None:
    text = "\n".join(line for event in EVENTS for line in plain_lines(event))
    assert text.isascii()
    assert "\x1b" not in text
    assert "add 3 services, 3.1 ms" in text
    assert "540 requests so far, 0 failed" in text
    assert "tick" not in text


def test_summary_ends_with_the_count() -> None:
    lines = summary_lines(SUMMARY)
    assert lines[-1] == "540 requests, 0 failed"
    assert lines[1].split() == ["1", "load", "3.1", "+", "1.0", "540", "0"]
    assert "    api: api1 100 %" in lines


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
        assert "deleted" in text
        assert ("█" in text) == (encoding == "utf-8")
    console.print(rich_summary(SUMMARY))


def test_show_joins_pieces_of_lines() -> None:
    out = io.StringIO()
    show = launcher.Show(PlainScreen(out))
    data = "".join(json.dumps(event) + "\n" for event in [*EVENTS, {"event": "summary", **SUMMARY, "reason": "why"}]).encode()
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
def serve() -> Iterator[Callable[[], tuple[int, Backend]]]:
    """Starts a backend on a port of loopback."""
    with contextlib.ExitStack() as stack:

        def start() -> tuple[int, Backend]:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            backend = Backend("web1", listener)
            stack.callback(backend.selector.close)
            over = threading.Event()

            def loop() -> None:
                while not over.is_set():
                    backend.turn(0.02)

            thread = threading.Thread(target=loop)
            thread.start()
            stack.callback(thread.join)
            stack.callback(over.set)
            return listener.getsockname()[1], backend

        yield start


def test_backend_speaks_http(serve: Callable[[], tuple[int, Backend]]) -> None:
    port, backend = serve()
    for path in ("/", "/slow/0.1"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"web1\n")
        connection.close()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as slow_typist:
        for part in (b"GET / HT", b"TP/1.1\r\n\r\n"):
            slow_typist.sendall(part)
        assert slow_typist.makefile("rb").read().endswith(b"\r\n\r\nweb1\n")
    socket.create_connection(("127.0.0.1", port), timeout=5).close()  # one who asks nothing
    assert backend.served == 3


def test_client_counts_answers_and_failures(serve: Callable[[], tuple[int, Backend]], monkeypatch: pytest.MonkeyPatch) -> None:
    port, _ = serve()
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        monkeypatch.setattr(load, "VIPS", {"web": "127.0.0.1", "api": "127.0.0.1"})
        monkeypatch.setattr(load, "DEADLINE_SECONDS", 0.3)
        client = load.Client(rate=50)
        client.stopping = True  # only what is asked for here
        monkeypatch.setattr(load, "VIP_PORT", port)
        client.start("web")
        client.start("web", slow_seconds=0.1)
        monkeypatch.setattr(load, "VIP_PORT", silent.getsockname()[1])
        client.start("api")
        with socket.create_server(("127.0.0.1", 0)) as closed:
            monkeypatch.setattr(load, "VIP_PORT", closed.getsockname()[1])
        client.start("api")
        while not client.idle:
            client.turn()
            client.give_up()
        client.selector.close()
    outcomes = sorted((service, backend, error) for _, _, service, backend, error in client.finished)
    assert outcomes == [
        ("api", "", "Connection refused"),
        ("api", "", "no answer in time"),
        ("web", "web1", ""),
        ("web", "web1", ""),
    ]


def test_client_keeps_its_rate(serve: Callable[[], tuple[int, Backend]], monkeypatch: pytest.MonkeyPatch) -> None:
    port, backend = serve()
    monkeypatch.setattr(load, "VIPS", dict.fromkeys(network.VIPS, "127.0.0.1"))
    monkeypatch.setattr(load, "VIP_PORT", port)
    client = load.Client(rate=200)
    while len(client.finished) < 50:
        client.turn()
    client.stopping = True
    while not client.idle:
        client.turn()
    client.selector.close()
    starts = sorted(row[0] for row in client.finished)
    assert starts[-1] - starts[0] >= 0.15  # 50 requests, 5 ms apart, less a burst of ten after a stall
    assert client.started == len(client.finished) == backend.served
    assert not any(row[4] for row in client.finished)


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
