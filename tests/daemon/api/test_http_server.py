"""The server's limits, with clients that want too much, say too little, or take nothing."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from pyminuteman.daemon.api import Api, ApiOptions, open_api
from pyminuteman.daemon.api.guard import GuardLimits
from pyminuteman.daemon.api.http_server import HttpServer, ServerLimits
from pyminuteman.errors import ConfigurationError
from tests.daemon.api.double import Double, observation
from tests.daemon.api.wire import answered, http, read_until, until

SOON = ServerLimits(
    head_seconds=0.2, idle_seconds=0.2, body_seconds=0.2, send_seconds=0.2, end_seconds=0.2, linger_seconds=0.05, connections=4
)


@asynccontextmanager
async def opened(
    tmp_path: Path,
    double: Double | None = None,
    limits: ServerLimits | None = None,
    guard: GuardLimits | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Path, Api]]:
    path = tmp_path / "api.sock"
    double = Double() if double is None else double
    async with open_api(double, ApiOptions(socket=path, **options), server_limits=limits, guard_limits=guard) as api:
        yield path, api


async def code(stream: trio.abc.Stream) -> tuple[int, str]:
    status, headers, body = await answered(stream)
    assert (headers["content-type"], headers["connection"]) == ("application/json", "close")
    return status, json.loads(body)["error"]["code"]


@pytest.mark.trio
async def test_requests_follow_one_another_on_a_connection(tmp_path: Path) -> None:
    async with opened(tmp_path) as (path, api), await trio.open_unix_socket(str(path)) as stream:
        asked = http("GET", "/healthz", Connection="keep-alive")
        for _ in range(3):
            await stream.send_all(asked)
            await read_until(stream, b"ok\n")
        await stream.send_all(asked * 3)  # all at once
        found = b""
        while found.count(b"ok\n") < 3:
            found += await read_until(stream, b"ok\n")
        assert (api.metrics()["requests_total"], api.metrics()["connections_total"]) == (6, 1)


@pytest.mark.trio
async def test_head_has_no_body(tmp_path: Path) -> None:
    async with opened(tmp_path) as (path, _), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(http("HEAD", "/v1/status"))
        status, headers, body = await answered(stream)
        assert (status, body) == (200, b"")
        assert int(headers["content-length"]) > 100


@pytest.mark.trio
@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"GARBAGE\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, 431, "headers_too_large"),
        (
            b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\n",
            400,
            "bad_request",
        ),
        (b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "bad_request"),
    ],
)
async def test_what_is_no_request_is_answered_and_ends_the_connection(
    tmp_path: Path, sent: bytes, status: int, said: str
) -> None:
    async with opened(tmp_path) as (path, api), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(sent)
        assert await code(stream) == (status, said)
        assert api.metrics()["malformed_total"] == 1


@pytest.mark.trio
async def test_bodies_have_a_limit_however_they_are_sent(tmp_path: Path) -> None:
    double = Double()
    async with opened(tmp_path, double, limits=SOON, guard=GuardLimits(body_bytes=100, pushed_bytes=1000)) as (path, _):
        for target, size in (("POST /v1/drain", 101), ("PUT /v1/sources/pushed", 1001)):
            head = f"{target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            announced = f"{head}Content-Length: {size}\r\n\r\n".encode()
            chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n".encode() + b" " * size
            for sent in (announced, chunked):
                async with await trio.open_unix_socket(str(path)) as stream:
                    await stream.send_all(sent)
                    assert await code(stream) == (413, "too_large")
    assert double.done == []


@pytest.mark.trio
async def test_who_says_nothing_more_is_let_go(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=SOON) as (path, _):
        for sent in (b"", b"GET /v1/status HT", http("GET", "/healthz", Connection="keep-alive")):
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(sent)
                with trio.fail_after(3):
                    while await stream.receive_some():
                        pass
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(
                b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
            )
            assert await code(stream) == (408, "too_slow")


@pytest.mark.trio
async def test_what_takes_too_long_is_given_up(tmp_path: Path) -> None:
    double = Double(stuck=True)
    async with opened(tmp_path, double, guard=GuardLimits(seconds=0.1, at_once=1)) as (path, _):
        async with await trio.open_unix_socket(str(path)) as stream, await trio.open_unix_socket(str(path)) as other:
            await stream.send_all(http("GET", "/v1/status"))
            await wait_all_tasks_blocked(0.01)
            await other.send_all(http("GET", "/v1/status"))
            status, headers, body = await answered(other)
            assert (status, headers["retry-after"], json.loads(body)["error"]["code"]) == (503, "1", "busy")
            status, _, body = await answered(stream)
            assert (status, json.loads(body)["error"]["code"]) == (503, "too_long")
        double.stuck = False
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(http("GET", "/v1/status"))
            assert (await answered(stream))[0] == 200


@pytest.mark.trio
async def test_connections_have_a_limit(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=ServerLimits(connections=3)) as (path, api):
        streams = [await trio.open_unix_socket(str(path)) for _ in range(3)]
        await wait_all_tasks_blocked(0.01)
        assert api.metrics()["connections_open"] == 3
        async with await trio.open_unix_socket(str(path)) as beyond:
            with trio.fail_after(5):
                assert await beyond.receive_some() == b""
        assert api.metrics()["refused_connections_total"] == 1
        await streams.pop().aclose()
        await wait_all_tasks_blocked(0.01)
        async with await trio.open_unix_socket(str(path)) as again:
            await again.send_all(http("GET", "/healthz"))
            assert (await answered(again))[0] == 200
        for stream in streams:
            await stream.aclose()


@pytest.mark.trio
async def test_a_client_that_takes_nothing_is_cut_and_counted(tmp_path: Path) -> None:
    big = observation()
    big = observation(desired=type(big.desired)(conflicts=("x" * 8_000_000,)))  # type: ignore[arg-type]
    async with opened(tmp_path, Double(big), limits=SOON) as (path, api), await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(http("GET", "/v1/backends"))
        await until(lambda: api.metrics()["slow_readers_total"] and not api.metrics()["connections_open"])


@pytest.mark.trio
async def test_the_end_does_not_wait_for_a_client_that_takes_nothing(tmp_path: Path) -> None:
    big = observation(cluster="x" * 8_000_000)
    limits = ServerLimits(send_seconds=3600, end_seconds=0.2)
    with trio.fail_after(5):
        async with opened(tmp_path, Double(big), limits=limits) as (path, api):
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(http("GET", "/v1/status"))
            await read_until(stream, b"200")
            idle = await trio.open_unix_socket(str(path))
        assert api.metrics()["cut_total"] == 1
        await stream.aclose()
        await idle.aclose()


@pytest.mark.trio
async def test_an_error_of_the_application_is_not_the_end_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        if scope["path"] == "/silent":
            return
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        raise RuntimeError("a secret")

    server = HttpServer(app)
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        await nursery.start(lambda *, task_status: server.serve([(listener, lambda: None)], task_status=task_status))
        for path in ("/silent", "/early", "/late"):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(http("GET", path))
                if path == "/late":
                    assert b"secret" not in await read_until(stream, b"\r\n\r\n")
                else:
                    assert await code(stream) == (500, "internal")
        server.closing.set()
    assert server.counters["failures"] == 2
    assert "a secret" in caplog.text


@pytest.mark.trio
async def test_a_body_may_wait_to_be_asked_for(tmp_path: Path) -> None:
    double = Double()
    async with opened(tmp_path, double) as (path, _), await trio.open_unix_socket(str(path)) as stream:
        body = json.dumps({"node": "two"}).encode()
        head = "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        await stream.send_all(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        await read_until(stream, b"HTTP/1.1 100 \r\n\r\n")
        await stream.send_all(body)
        assert (await answered(stream))[0] == 200
    assert len(double.done) == 1


@pytest.mark.trio
async def test_an_answer_before_the_end_of_a_body_is_not_lost(tmp_path: Path) -> None:
    async with opened(tmp_path, limits=ServerLimits(linger_seconds=0.2)) as (path, _):
        head = (
            b"PUT /v1/sources/unknown HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500000\r\n\r\n"
        )
        for rest in (b" " * 500_000, b" " * 10):
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(head)
                await read_until(stream, b"no_such_source")
                await stream.send_all(rest)  # to a connection that was closed already this would fail
                with trio.fail_after(5):
                    while await stream.receive_some():
                        pass


@pytest.mark.trio
async def test_who_leaves_in_the_middle_is_the_clients_affair(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tmp_path) as (path, api):
        for sent in (
            b"GET / HT",
            b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
            http("GET", "/v1/events", Connection="keep-alive"),
            http("GET", "/v1/events", Connection="keep-alive") * 2,
        ):
            stream = await trio.open_unix_socket(str(path))
            await stream.send_all(sent)
            await wait_all_tasks_blocked(0.01)
            await stream.aclose()
        assert api.metrics()["streams_open"] <= 1  # of two requests at once the end is noticed when something is sent
    assert api.metrics()["failures_total"] == 0
    assert caplog.text == ""


@pytest.mark.trio
async def test_an_error_beside_the_api_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with opened(tmp_path):
            raise KeyError("mine")
    assert not (tmp_path / "api.sock").exists()


@pytest.mark.trio
async def test_what_cannot_be_opened_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "api.sock").mkdir()
    with pytest.raises(ConfigurationError, match="no socket"):
        async with opened(tmp_path):
            raise AssertionError


@pytest.mark.trio
async def test_a_trouble_with_a_peer_is_not_the_end_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as (path, api):
        for error in (OSError(107, "Transport endpoint is not connected"), RuntimeError("a bug")):

            def unknown(_: object, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr("pyminuteman.daemon.api.http_server.peer_of", unknown)
            async with await trio.open_unix_socket(str(path)) as stream:
                with trio.fail_after(5):
                    assert await stream.receive_some() == b""
            monkeypatch.undo()
        assert api.metrics()["failures_total"] == 1
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(http("GET", "/healthz"))
            assert (await answered(stream))[0] == 200
    assert "a bug" in caplog.text


@pytest.mark.trio
async def test_messages_that_are_none() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.push"})

    server = HttpServer(app)
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        await nursery.start(lambda *, task_status: server.serve([(listener, lambda: None)], task_status=task_status))
        async with await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]) as stream:
            await stream.send_all(http("HEAD", "/"))
            assert (await answered(stream))[0] == 500
        server.closing.set()


NOISE = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda method, target, name, value, body: (
            b"%b %b HTTP/1.1\r\nHost: x\r\n%b: %b\r\n\r\n%b" % (method, target, name, value, body)
        ),
        st.sampled_from([b"GET", b"PUT", b"POST", b"BREW", b"get", b"CONNECT", b"OPTIONS"]),
        st.sampled_from(
            [b"/", b"*", b"/v1/status", b"/v1/sources/%ff", b"//v1", b"/v1/drain", b"http://x/v1", b"/web/..", b"/%00", b"x:1"]
        ),
        st.sampled_from(
            [b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade", b"Connection", b"If-None-Match", b"X"]
        ),
        st.sampled_from(
            [b"0", b"-1", b"5", b"chunked", b"100-continue", b"h2c", b"websocket", b"\xff", b'W/"', b"99999999999999999999"]
        ),
        st.binary(max_size=20),
    ),
)


@given(st.lists(NOISE, max_size=4))
def test_no_bytes_get_at_the_server(sent: list[bytes]) -> None:
    """Whatever is sent is no error of ours, and the next client is served."""

    async def talk() -> None:
        double = Double()
        with tempfile.TemporaryDirectory() as directory:
            async with opened(Path(directory), double, limits=SOON) as (path, api):
                async with await trio.open_unix_socket(str(path)) as stream:
                    found = b""
                    with suppress(trio.BrokenResourceError), trio.fail_after(5):
                        for piece in sent:
                            await stream.send_all(piece)
                        await stream.send_eof()
                        while more := await stream.receive_some():
                            found += more
                async with await trio.open_unix_socket(str(path)) as stream:
                    await stream.send_all(http("GET", "/healthz"))
                    assert (await answered(stream))[0] == 200
                assert api.metrics()["failures_total"] == 0
                assert not re.search(rb"(?m)^HTTP/1\.1 500", found), found
                assert double.done == []

    trio.run(talk)
