"""Documents that are pushed, over real sockets."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.options import parse_source
from pyminuteman.sources.push_server import PushLimits, PushServer
from tests.sources.support import keys, reading, until

HOST, JSON = ("Host", "localhost"), ("Content-Type", "application/json")
TOKEN = ("Authorization", "Bearer s3cret")


def document(*addresses: str, **more: object) -> bytes:
    return json.dumps({"vip": [{"listen": f"tcp://{address}:80", **more} for address in addresses]}).encode()


class Client:
    """One connection, of somebody who may say anything."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT)

    async def head(self, method: str, *headers: tuple[str, str], target: str = "/") -> None:
        await self.stream.send_all(self.http.send(h11.Request(method=method, target=target, headers=list(headers))) or b"")

    async def event(self) -> object:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self.http.receive_data(bytes(await self.stream.receive_some(65536)))
        return event

    async def answer(self) -> tuple[int, dict[str, object]]:
        with trio.fail_after(20):
            response = await self.event()
            assert isinstance(response, h11.Response), response
            body = b""
            while isinstance(event := await self.event(), h11.Data):
                body += event.data
        self.headers = {bytes(name): bytes(value) for name, value in response.headers}
        if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return response.status_code, json.loads(body or b"null")

    async def ask(self, method: str, *headers: tuple[str, str], body: bytes = b"", target: str = "/") -> tuple[int, dict]:  # type: ignore[type-arg]
        length = [("Content-Length", str(len(body)))] if method == "PUT" else []
        await self.head(method, *headers, *([] if HOST[0] in dict(headers) else [HOST]), *length, target=target)
        await self.stream.send_all(self.http.send(h11.Data(data=body)) or b"" if body else b"")
        self.http.send(h11.EndOfMessage())
        return await self.answer()

    async def is_closed(self) -> bool:
        with trio.fail_after(20):
            return await self.stream.receive_some(1) == b""


@asynccontextmanager
async def client_of(source: PushServer) -> AsyncIterator[Client]:
    await until(lambda: not source.status.failures)
    with trio.fail_after(20):
        while True:
            try:
                if isinstance(source.place, Path):
                    stream = await trio.open_unix_socket(str(source.place))
                else:
                    stream = await trio.open_tcp_stream(*source.place)
            except OSError:
                await trio.sleep(0.005)
            else:
                break
    async with stream:
        yield Client(stream)


def server(path: Path, **limits: float) -> PushServer:
    return PushServer(f"unix:{path}/push", limits=PushLimits(**limits), backoff=Backoff(0.01, 0.02))  # type: ignore[arg-type]


def tcp_server(path: Path, address: str = "127.0.0.1") -> PushServer:
    (path / "token").write_text("s3cret\n")
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    return PushServer(f"[{address}]:{port}" if ":" in address else f"{address}:{port}", path / "token")


@pytest.mark.trio
async def test_what_is_pushed_replaces_what_was_and_the_end_takes_the_socket_away(tmp_path: Path) -> None:
    source = server(tmp_path)
    async with reading(source) as states, client_of(source) as client:
        assert stat.S_IMODE((tmp_path / "push").stat().st_mode) == 0o660
        assert await client.ask("GET") == (200, {"vips": 0, "age_seconds": None})
        with trio.move_on_after(0.01) as scope:
            await anext(states)
        assert scope.cancelled_caught  # nothing was pushed, which is not the same as nothing
        good = {"changed": True, "vips": 2, "problems": [], "problems_total": 0}
        assert await client.ask("PUT", JSON, body=document("11.0.0.1", "11.0.0.2")) == (200, good)
        assert keys(await anext(states)) == ["11.0.0.1:80", "11.0.0.2:80"]
        assert await client.ask("PUT", JSON, body=document("11.0.0.2", "11.0.0.1")) == (200, {**good, "changed": False})
        assert await client.ask("PUT", body=document("11.0.0.3")) == (200, {**good, "vips": 1})
        assert keys(await anext(states)) == ["11.0.0.3:80"]
        status, told = await client.ask("GET")
        assert (status, told["vips"]) == (200, 1)
        assert 0 <= told["age_seconds"] < 30
        assert await client.ask("PUT", body=b"{}") == (200, {**good, "vips": 0})
        assert keys(await anext(states)) == []
    assert not (tmp_path / "push").exists()
    assert source.status.counters["connections"] == 1
    async with reading(source) as states:  # what was pushed stands for the next reader
        assert keys(await anext(states)) == []


@pytest.mark.trio
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "line 1"),
        (b"\xff", "not UTF-8"),
        (b"[]", "expected a table"),
        (b"", "line 1"),
        (b'{"vips": []}', "did you mean 'vip'"),
        (b'{"vip": [{"listen": "nonsense"}]}', None),
    ],
)
async def test_a_document_that_cannot_be_read_changes_nothing(tmp_path: Path, body: bytes, reason: str | None) -> None:
    source = server(tmp_path)
    async with reading(source) as states, client_of(source) as client:
        if reason is None:  # the first of all, and nothing in it is right: that is not an empty one
            status, told = await client.ask("PUT", body=body)
            assert (status, "none of its VIPs is right" in told["error"]["message"]) == (400, True)
            return
        await client.ask("PUT", body=document("11.0.0.1"))
        assert keys(await anext(states)) == ["11.0.0.1:80"]
        status, told = await client.ask("PUT", body=body)
        assert status == 400
        assert reason in told["error"]["message"]
        assert source.status.failures == 1
        assert (await client.ask("GET"))[1]["vips"] == 1
        await client.ask("PUT", body=document("11.0.0.2"))
        assert keys(await anext(states)) == ["11.0.0.2:80"]
        assert (source.status.failures, source.status.counters["broken"]) == (0, 1)


@pytest.mark.trio
async def test_a_vip_that_is_wrong_stays_as_it_was(tmp_path: Path) -> None:
    source = server(tmp_path)
    async with reading(source) as states, client_of(source) as client:
        await client.ask("PUT", body=document("11.0.0.1", scheduler="rr"))
        old = (await anext(states)).vips[0]
        rows = json.loads(document("11.0.0.1", scheduler=7))["vip"] + json.loads(document("11.0.0.2"))["vip"]
        status, told = await client.ask("PUT", body=json.dumps({"vip": rows}).encode())
        assert (status, told["changed"], told["vips"], told["problems_total"]) == (200, True, 2, 1)
        assert told["problems"][0]["where"] == f"{source.name}: vip[0].scheduler"
        state = await anext(states)
        assert keys(state) == ["11.0.0.1:80", "11.0.0.2:80"]
        assert state.vips[0] == old


@pytest.mark.trio
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_on_tcp_the_token_is_asked_for_and_pages_of_others_are_refused(tmp_path: Path, address: str) -> None:
    source = tcp_server(tmp_path, address)
    body = document("11.0.0.1")
    async with reading(source) as states:
        for headers in ([], [("Authorization", "Bearer other")], [("Authorization", "Basic s3cret")], [("Authorization", "x")]):
            async with client_of(source) as client:
                assert (await client.ask("PUT", *headers, body=body))[0] == 401
                assert client.headers[b"www-authenticate"] == b"Bearer"
                assert await client.is_closed()
        refused = [
            ("Host", "evil.example"),
            ("Host", "10.0.0.1"),
            ("Host", "localhost.evil.example"),
            ("Origin", "http://localhost"),
        ]
        for header in refused:
            async with client_of(source) as client:
                assert (await client.ask("PUT", header, TOKEN, body=body))[0] == 403
        assert source.status.counters["unauthorized"] == 4
        assert source.status.counters["pushes"] == 0
        async with client_of(source) as client:
            for host in ("localhost:1", "127.0.0.1:1", "[::1]:1", "LOCALHOST"):
                assert (await client.ask("PUT", ("Host", host), TOKEN, body=body))[0] == 200
            assert keys(await anext(states)) == ["11.0.0.1:80"]
            (tmp_path / "token").write_text("another")  # it is read at each request
            assert (await client.ask("GET", TOKEN))[0] == 401
            (tmp_path / "token").unlink()
            assert (await client.ask("GET", TOKEN))[0] == 503


@pytest.mark.trio
@pytest.mark.parametrize(
    ("method", "headers", "target", "status"),
    [
        ("PUT", [], "/", 411),
        ("PUT", [("Content-Length", "101")], "/", 413),
        ("PUT", [("Content-Length", "5"), ("Content-Type", "text/plain")], "/", 415),
        ("PUT", [("Content-Length", "5"), ("Content-Encoding", "gzip")], "/", 415),
        ("PUT", [("Content-Length", "5")], "/x", 404),
        ("GET", [], "/?x", 404),
        ("POST", [("Content-Length", "5")], "/", 405),
        ("DELETE", [], "/", 405),
        ("HEAD", [], "/", 405),
        ("GET", [("Origin", "null")], "/", 403),
        ("GET", [("X", "x" * 2000)], "/", 431),
    ],
)
async def test_what_cannot_be_is_refused_before_it_is_sent(
    tmp_path: Path, method: str, headers: list[tuple[str, str]], target: str, status: int
) -> None:
    source = server(tmp_path, document_bytes=100, header_bytes=1000)
    async with reading(source), client_of(source) as client:
        await client.head(method, HOST, *headers, target=target)
        assert (await client.answer())[0] == status
        assert source.status.counters["refused"] == 1
        assert source.status.last_good_at is None


@pytest.mark.trio
async def test_a_document_may_come_in_chunks_and_after_a_question(tmp_path: Path) -> None:
    source = server(tmp_path, document_bytes=100)
    async with reading(source) as states:
        async with client_of(source) as client:
            await client.head("PUT", HOST, ("Transfer-Encoding", "chunked"), ("Expect", "100-continue"))
            with trio.fail_after(20):
                event = await client.event()
            assert isinstance(event, h11.InformationalResponse)
            assert event.status_code == 100
            for piece in (document("11.0.0.1")[:9], document("11.0.0.1")[9:]):
                await client.stream.send_all(client.http.send(h11.Data(data=piece)) or b"")
            await client.stream.send_all(client.http.send(h11.EndOfMessage()) or b"")
            assert (await client.answer())[0] == 200
            assert keys(await anext(states)) == ["11.0.0.1:80"]
            await client.head("PUT", HOST, ("Content-Length", "101"), ("Expect", "100-continue"))
            assert (await client.answer())[0] == 413
        async with client_of(source) as client:
            await client.head("PUT", HOST, ("Transfer-Encoding", "chunked"))
            await client.stream.send_all(client.http.send(h11.Data(data=b" " * 101)) or b"")
            assert (await client.answer())[0] == 413
    assert source.held_bytes == 0


@pytest.mark.trio
async def test_more_than_may_be_held_at_a_time_is_told_to_come_again(tmp_path: Path) -> None:
    source = server(tmp_path, held_bytes=100)
    async with reading(source), client_of(source) as one, client_of(source) as two:
        await one.head("PUT", HOST, ("Content-Length", "90"))
        await one.stream.send_all(b" " * 80)
        await until(lambda: source.held_bytes == 80)
        assert (await two.ask("PUT", body=b"{" + b" " * 30 + b"}"))[0] == 503
        await one.stream.send_all(b"{}" + b" " * 8)
        assert (await one.answer())[0] == 200
    assert source.held_bytes == 0


@pytest.mark.trio
@pytest.mark.parametrize("sent", [b"PUT / HT", b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"])
async def test_half_a_request_and_then_silence_ends_at_the_deadline(tmp_path: Path, sent: bytes) -> None:
    source = server(tmp_path, header_seconds=0.1, request_seconds=0.1)
    async with reading(source), client_of(source) as client:
        await client.stream.send_all(sent)
        assert (await client.stream.receive_some(12)) == b"HTTP/1.1 408"
        assert source.status.counters["timeouts"] == 1
        assert source.status.last_good_at is None
        async with client_of(source) as other:
            assert (await other.ask("PUT", body=b"{}"))[0] == 200


@pytest.mark.trio
async def test_who_asks_nothing_more_is_let_go_and_who_goes_midway_does_no_harm(tmp_path: Path) -> None:
    source = server(tmp_path, idle_seconds=0.05)
    async with reading(source), client_of(source) as client:
        assert (await client.ask("GET"))[0] == 200
        assert await client.is_closed()
        async with client_of(source) as gone:
            await gone.head("PUT", HOST, ("Content-Length", "10"))
        await until(lambda: source.status.counters["refused"] == 1)
        async with client_of(source) as other:
            await other.stream.send_all(b"nonsense\r\n\r\n")
            assert (await other.stream.receive_some(12)) == b"HTTP/1.1 400"


@pytest.mark.trio
async def test_connections_above_the_limit_are_turned_away(tmp_path: Path) -> None:
    source = server(tmp_path, connections=2)
    async with reading(source):
        async with AsyncExitStack() as stack:
            for _ in range(2):
                client = await stack.enter_async_context(client_of(source))
                assert (await client.ask("GET"))[0] == 200
            async with client_of(source) as third:
                assert (await third.answer())[0] == 503
                assert source.status.counters["turned_away"] == 1
            assert (await client.ask("GET"))[0] == 200
        await until(lambda: source.connections == 0)  # those two have gone
        async with client_of(source) as client:
            assert (await client.ask("GET"))[0] == 200


@pytest.mark.trio
async def test_a_socket_that_nobody_answers_on_is_replaced_and_anything_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "push"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    source = server(tmp_path)
    async with reading(source), client_of(source) as client:
        assert (await client.ask("GET"))[0] == 200
        other = server(tmp_path)
        async with reading(other):
            await until(lambda: other.status.failures > 1)
            assert other.status.reason == f"another process listens on {path}"
        assert (await client.ask("GET"))[0] == 200
        assert path.exists()
    path.write_text("mine")
    async with reading(source) as _:
        await until(lambda: source.status.failures > 1)
        assert source.status.reason.startswith(f"{path} is there, and is no socket: it is left alone")
        assert path.read_text() == "mine"
        path.unlink()
        async with client_of(source) as client:  # it tries again
            assert (await client.ask("GET"))[0] == 200
            assert source.status.reason == ""
            path.replace(tmp_path / "moved")
            path.write_text("another's")
    assert path.read_text() == "another's"


@pytest.mark.trio
async def test_why_it_cannot_listen_is_said(tmp_path: Path) -> None:
    source = server(tmp_path / "absent")
    async with reading(source):
        await until(lambda: source.status.failures > 0)
        assert source.status.reason == "it cannot listen: No such file or directory"
    for text, reason in (("", "is none"), ("a\nb", "is none"), (None, "cannot be read: No such file")):
        source = tcp_server(tmp_path)
        (tmp_path / "token").unlink() if text is None else (tmp_path / "token").write_text(text)
        async with reading(source):
            await until(lambda: source.status.failures > 0)  # noqa: B023 - called here
            assert reason in source.status.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("push:127.0.0.1:61422", "name a token-file"),
        ("push:0.0.0.0:61422?token-file=/t", "only loopback addresses are listened on"),
        ("push:[fd00::1]:61422?token-file=/t", "only loopback addresses are listened on"),
        ("push:127.0.0.1?token-file=/t", "it has no port"),
        ("push:localhost:61422?token-file=/t", "expected unix:/PATH, or as in 127.0.0.1:61422"),
        ("push:unix:", "the path of a socket has 1 to 107 bytes"),
        ("push:unix:/" + "x" * 107, "the path of a socket has 1 to 107 bytes"),
        ("push:unix:/x?tokenfile=/t", "did you mean 'token-file'?"),
        ("push:", "it says nothing after push:"),
    ],
)
def test_places_where_nothing_is_listened_on(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_source(text)
    assert reason in str(caught.value)


def test_its_name_has_no_options() -> None:
    assert parse_source("push:unix:/run/minuteman/push.sock").name == "push:unix:/run/minuteman/push.sock"
    assert parse_source("push:[::1]:61422?token-file=/t").name == "push:[::1]:61422"
