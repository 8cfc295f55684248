"""Events as a stream and as a list: nothing twice, nothing missed, a clean end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from pyminuteman.daemon.api import ApiOptions, open_api
from pyminuteman.daemon.api.http_server import ServerLimits
from pyminuteman.http_client import HttpError
from tests.daemon.api.double import Double, Log, unix_api
from tests.daemon.api.wire import http, read_until, until

LIFE = "00000000000000aa"


def frames(text: bytes) -> list[dict[str, str]]:
    """Of a stream in chunks: the fields of each event after the greeting; ids without the life that they all have."""
    body = b"".join(
        line for line in text.replace(b"\r\n", b"\n").splitlines(keepends=True) if not line.strip() or b":" in line
    ).decode()
    found = []
    for block in body.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if fields.get("event", "hello") != "hello":
            if "id" in fields:
                life, fields["id"] = fields["id"].split("-")
                assert life == LIFE
            found.append(fields)
    return found


class Reader:
    """A stream of events, and what was read of it beyond what was asked for."""

    def __init__(self, stream: trio.SocketStream, rest: bytes) -> None:
        self.stream, self.rest = stream, rest
        self.aclose = stream.aclose

    async def until(self, end: bytes) -> bytes:
        if end not in self.rest:
            self.rest += await read_until(self.stream, end)
        found, end, self.rest = self.rest.partition(end)
        return found + end


async def opened(path: Path, target: str = "/v1/events", **headers: str) -> Reader:
    stream = await trio.open_unix_socket(str(path))
    await stream.send_all(http("GET", target, Connection="keep-alive", **headers))
    head, mark, rest = (await read_until(stream, b"retry: 2000")).partition(b"retry: 2000")
    assert mark
    assert b"200" in head.splitlines()[0]
    assert b"text/event-stream" in head
    return Reader(stream, rest)


@pytest.mark.trio
async def test_what_happens_is_told_as_it_happens(tmp_path: Path) -> None:
    double = Double()
    double.events.add("member_up", "long ago")
    async with unix_api(tmp_path, double):
        stream = await opened(tmp_path / "api.sock")
        double.events.add("member_down", "two is down", node="two")
        double.events.add("sync", "ümlaut\nand a line")
        found = frames(await stream.until(b"and a line"))
        assert [(frame["id"], frame["event"]) for frame in found] == [("2", "member_down"), ("3", "sync")]
        assert json.loads(found[0]["data"]) == {
            "id": 2,
            "time": "2026-11-28T04:18:00.123Z",
            "kind": "member_down",
            "text": "two is down",
            "data": {"node": "two"},
        }
        await stream.aclose()


@pytest.mark.trio
async def test_who_comes_back_hears_what_was_missed(tmp_path: Path) -> None:
    double = Double(events=Log(keep=5))
    for number in range(1, 11):
        double.events.add("sync", f"number {number}")
    async with unix_api(tmp_path, double) as (client, api):
        path = tmp_path / "api.sock"
        stream = await opened(path, Last_Event_ID="8")
        assert [frame["id"] for frame in frames(await stream.until(b'number 10"'))] == ["9", "10"]
        await stream.aclose()
        stream = await opened(path, "/v1/events?since=2")  # of which some are not kept any more
        found = frames(await stream.until(b'number 10"'))
        assert (found[0]["event"], json.loads(found[0]["data"])) == (
            "missed",
            {
                "id": 5,
                "time": "2026-11-28T04:18:00.123Z",
                "kind": "missed",
                "text": "events 3 to 5 are not kept any more",
                "data": {"from": 3, "to": 5},
            },
        )
        assert found[0]["id"] == "5"
        assert [frame["id"] for frame in found[1:]] == ["6", "7", "8", "9", "10"]
        await stream.aclose()
        stream = await opened(path, Last_Event_ID="99")  # of an earlier life of the daemon
        assert len(frames(await stream.until(b'number 10"'))) == 5
        await stream.aclose()
        assert api.metrics()["events_missed_total"] == 3
        listed = await client.json("GET", "/v1/events?format=json&since=9")
        assert (listed["oldest"], listed["newest"], [event["id"] for event in listed["events"]]) == (6, 10, [10])
        assert listed["life"] == LIFE


@pytest.mark.trio
async def test_a_place_is_of_one_life_of_the_daemon(tmp_path: Path) -> None:
    double = Double()
    for number in range(1, 4):
        double.events.add("sync", f"number {number}")
    other = "f" * 16
    async with unix_api(tmp_path, double) as (client, _):
        path = tmp_path / "api.sock"
        for target, headers, ids in (
            ("/v1/events", {"Last_Event_ID": f"{LIFE}-2"}, ["3"]),
            ("/v1/events", {"Last_Event_ID": f"{other}-2"}, ["1", "2", "3"]),
            (f"/v1/events?since=2&life={LIFE}", {}, ["3"]),
            (f"/v1/events?since=2&life={other}", {}, ["1", "2", "3"]),
            (f"/v1/events?since=1&life={LIFE}", {"Last_Event_ID": f"{LIFE}-2"}, ["3"]),  # which the browser heard since
        ):
            stream = await opened(path, target, **headers)
            text = await stream.until(b'number 3"')
            assert [frame["id"] for frame in frames(text)] == ids, (target, headers)
            assert b'event: hello\r\ndata: {"life":"' + LIFE.encode() in text.replace(b"\n", b"\r\n").replace(b"\r\r", b"\r")
            assert b'"oldest":1,"newest":3}' in text
            await stream.aclose()
        stream = await opened(path)
        assert f"id: {LIFE}-3\nevent: hello" in (await stream.until(b"newest")).decode()
        await stream.aclose()
        for life, ids in ((LIFE, [3]), (other, [1, 2, 3])):
            listed = await client.json("GET", f"/v1/events?format=json&since=2&life={life}")
            assert [event["id"] for event in listed["events"]] == ids


@pytest.mark.trio
@pytest.mark.parametrize("query", ["since=-1", "since=x", "since=99999999999999999999", "since=²", "format=xml", "life=1"])
async def test_numbers_that_are_none(tmp_path: Path, query: str) -> None:
    async with unix_api(tmp_path, Double()) as (client, _):
        with pytest.raises(HttpError) as caught:
            await client.json("GET", f"/v1/events?{query}")
        assert caught.value.status == 400


@pytest.mark.trio
async def test_at_the_end_they_say_goodbye(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with trio.fail_after(5):
        async with open_api(Double(), ApiOptions(socket=path)) as api:
            streams = [await opened(path) for _ in range(3)]
            assert api.metrics()["streams_open"] == 3
        for stream in streams:
            rest = await stream.until(b"0\r\n\r\n")  # the last chunk: the answer is complete
            assert frames(rest) == [{"event": "bye", "data": "{}"}]
            assert await stream.stream.receive_some() == b""
            await stream.aclose()
        assert (api.metrics()["cut_total"], api.metrics()["streams_open"]) == (0, 0)


@pytest.mark.trio
async def test_there_may_be_so_many(tmp_path: Path) -> None:
    async with unix_api(tmp_path, Double(), streams=2) as (client, api):
        streams = [await opened(tmp_path / "api.sock") for _ in range(2)]
        with pytest.raises(HttpError) as caught:
            await client.json("GET", "/v1/events")
        assert (caught.value.status, caught.value.retry_after_seconds) == (503, 5)
        assert (await client.json("GET", "/v1/events?format=json"))["events"] == []  # a list is always to be had
        await streams.pop().aclose()
        await until(lambda: api.metrics()["streams_open"] < 2)
        streams.append(await opened(tmp_path / "api.sock"))
        for stream in streams:
            await stream.aclose()


@pytest.mark.trio
async def test_a_reader_that_takes_nothing_is_cut(tmp_path: Path) -> None:
    double = Double()
    async with unix_api(tmp_path, double, server_limits=ServerLimits(send_seconds=0.2)) as (_, api):
        stream = await opened(tmp_path / "api.sock")
        text: dict[str, Any] = {"text": "x" * 60_000}
        for _ in range(40):
            double.events.add("sync", **text)
        await until(lambda: api.metrics()["slow_readers_total"] and not api.metrics()["streams_open"])
        await stream.aclose()


@pytest.mark.trio
async def test_silence_is_broken_by_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyminuteman.daemon.api.event_stream._BREATH_SECONDS", 0.05)
    async with unix_api(tmp_path, Double()):
        stream = await opened(tmp_path / "api.sock")
        assert (await stream.until(b": still here")).count(b": still here") >= 1
        await stream.aclose()
