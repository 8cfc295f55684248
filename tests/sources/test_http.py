"""VIPs from a URL, over real connections to a server with bad days."""

# ruff: noqa: S311 - dice that a seed replays
from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from random import Random

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.http_client import HttpOptions
from pyminuteman.sources import http as module
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.http import HttpSource
from tests.sources.support import keys, reading, until
from tests.support.web_server import CUT, Answer, Request, WebServer, json_answer, web_server


def document(*addresses: str) -> str:
    return json.dumps({"vip": [{"listen": f"tcp://{address}:80"} for address in addresses]})


def source_of(server: WebServer, path: str = "/vips.json", **settings: float) -> HttpSource:
    return HttpSource(
        server.url + path,
        HttpOptions(timeout_seconds=settings.pop("timeout_seconds", 5.0)),
        interval_seconds=0.01,
        backoff=Backoff(0.01, 0.02),
        random=Random(1),
        **settings,
    )


def in_turn(*answers: Answer) -> Callable[[Request], Answer]:
    left = list(answers)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.trio
async def test_a_document_is_read_and_read_again() -> None:
    async with web_server(in_turn(json_answer(document("11.0.0.1")), json_answer(document("11.0.0.2")))) as server:
        source = source_of(server, "/a%20b/vips.json?team=7&key=secret")
        assert source.name == server.url + "/a%20b/vips.json"
        async with reading(source) as states:
            assert keys(await anext(states)) == ["11.0.0.1:80"]
            assert keys(await anext(states)) == ["11.0.0.2:80"]
            await until(lambda: len(server.requests) > 5)
        assert {request.target for request in server.requests} == {"/a%20b/vips.json?team=7&key=secret"}
        assert server.connections == 1
        assert source.status.counters["states"] == 2
        assert source.status.reason == ""


@pytest.mark.trio
async def test_what_has_not_changed_is_not_sent_again() -> None:
    tags = ['"one"', 'W/"two"']

    def answer(request: Request) -> Answer:
        if request.headers.get("if-none-match") == tags[0]:
            return Answer(304, {"etag": tags[0]})
        return json_answer(document(f"11.0.0.{len(tags)}"), etag=tags[0])

    async with web_server(answer) as server:
        source = source_of(server)
        async with reading(source) as states:
            assert keys(await anext(states)) == ["11.0.0.2:80"]
            await until(lambda: source.status.counters["not_modified"] > 3)
            tags.pop(0)
            assert keys(await anext(states)) == ["11.0.0.1:80"]
            before = source.status.counters["bytes"]
            await until(lambda: source.status.counters["not_modified"] > 8)
        assert source.status.counters["bytes"] == before == 2 * len(document("11.0.0.1"))
        assert source.status.failures == 0


@pytest.mark.trio
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Answer(500, {}, [b"out of\x1b[31m order\n\n"]), "answered 500: out of"),
        (Answer(200, {}, [b"<html>"]), "line 1, column 1: Expecting value"),
        (Answer(200, {}, [b""]), "line 1, column 1"),
        (Answer(200, {}, [b'{"vip": ', CUT]), "RemoteProtocolError"),
        (Answer(200, {"content-length": "1000"}, [b"{}", CUT]), "RemoteProtocolError"),
        (Answer(200, {}, [b"[]"]), "it is a list; expected a table"),
        (Answer(200, {}, [b'{"vips": []}']), "vips: unknown key 'vips'; did you mean 'vip'?"),
        (Answer(200, {}, [b'{"vip": [], "vip": []}']), "the key 'vip' is there twice"),
        (Answer(200, {}, [b"\xff"]), "not UTF-8"),
        (Answer(200, {}, [b"[" * 1990]), "nested too deeply"),
        (Answer(204), "line 1, column 1"),
        (Answer(304), "answered 304"),
        (
            Answer(302, {"location": "http://other/x?token=s3cret"}),
            "it has moved to http://other/x: redirects are not followed",
        ),
        (Answer(200, {}, [b"x" * 3000]), "more than 2000 bytes"),
        (Answer(200, {"content-encoding": "gzip"}, [gzip.compress(b"{}")]), "is in encoding 'gzip', which was not asked for"),
    ],
)
async def test_an_answer_that_is_no_good_changes_nothing(monkeypatch: pytest.MonkeyPatch, bad: Answer, said: str) -> None:
    monkeypatch.setattr(module, "DOCUMENT_MAX_BYTES", 2000)
    async with web_server(json_answer(document("11.0.0.1"))) as server:
        source = source_of(server)
        async with reading(source) as states:
            assert keys(await anext(states)) == ["11.0.0.1:80"]
            server.answer = lambda _request: bad
            await until(lambda: source.status.failures > 1)
            reason = source.status.reason
            assert said in reason
            assert reason.startswith(server.url + "/vips.json: ")
            assert reason.isprintable()
            assert "s3cret" not in reason
            server.answer = lambda _request: json_answer(document("11.0.0.2"))
            assert keys(await anext(states)) == ["11.0.0.2:80"]
            await until(lambda: source.status.reason == "")
        assert source.status.counters["states"] == 2


@pytest.mark.trio
async def test_a_tag_that_cannot_be_sent_back_is_not() -> None:
    async with web_server(json_answer(document("11.0.0.1"), etag='"\xe9"')) as server:
        source = source_of(server)
        async with reading(source):
            await until(lambda: len(server.requests) > 2)
        assert source.status.failures == 0
        assert all("if-none-match" not in request.headers for request in server.requests)


@pytest.mark.trio
async def test_a_vip_that_is_wrong_stays_as_it_was() -> None:
    async with web_server(json_answer(document("11.0.0.1", "11.0.0.2"))) as server:
        source = source_of(server)
        async with reading(source) as states:
            await anext(states)
            rows = [{"listen": "tcp://11.0.0.1:80", "drain": "soon"}, {"listen": "tcp://11.0.0.3:80"}]
            server.answer = lambda _request: json_answer(json.dumps({"vip": rows}))
            state = await anext(states)
            assert keys(state) == ["11.0.0.1:80", "11.0.0.3:80"]
            assert state.problems[0].where == f"{server.url}/vips.json: vip[0].drain"


@pytest.mark.trio
async def test_a_server_that_dribbles_has_one_deadline_for_all_of_its_answer() -> None:
    dribble = Answer(200, {}, [piece for _ in range(10_000) for piece in (b" ", 0.02)])
    async with web_server(dribble) as server:
        source = source_of(server, deadline_seconds=0.3)
        async with reading(source):
            await until(lambda: source.status.failures > 0)
            assert source.status.reason == f"{server.url}/vips.json: no whole answer within 0.3 seconds"


@pytest.mark.trio
async def test_a_server_that_is_silent_is_not_waited_for() -> None:
    async with web_server(Answer(silent_seconds=60)) as server:
        source = source_of(server, timeout_seconds=0.1)
        async with reading(source):
            await until(lambda: source.status.failures > 1)
            assert source.status.reason == f"{server.url}/vips.json: ReadTimeout"


@pytest.mark.trio
async def test_a_server_that_asks_to_be_left_alone_is_left_alone() -> None:
    async with web_server(Answer(503, {"retry-after": "1"})) as server:
        source = source_of(server)
        async with reading(source) as states:
            await until(lambda: source.status.failures == 1)
            server.answer = lambda _request: json_answer(document("11.0.0.1"))
            before = len(server.requests)
            await anext(states)
            assert len(server.requests) == before + 1
            waited = source.status.last_good_at
            assert waited is not None


@pytest.mark.trio
async def test_after_a_failure_the_connection_is_a_new_one_and_a_server_that_comes_back_is_found() -> None:
    async with web_server(json_answer(document("11.0.0.1"))) as server:
        source = source_of(server)
        async with reading(source) as states:
            await anext(states)
            server.answer = lambda _request: Answer(500)
            await until(lambda: source.status.failures > 2)
            assert server.connections > 2


@pytest.mark.trio
async def test_nobody_listens() -> None:
    async with web_server(Answer()) as server:
        url = server.url
    source = HttpSource(url + "/x?token=s3cret", backoff=Backoff(0.01, 0.02))
    async with reading(source):
        await until(lambda: source.status.failures > 1)
        assert source.status.reason.startswith(f"{url}/x: ConnectError")
        assert source.status.last_good_at is None


@pytest.mark.parametrize("url", ["ftp://x/y", "http://", "http:x", "https://[::1", "http://h:99999/"])
def test_what_is_no_url_is_said_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError):
        HttpSource(url)
