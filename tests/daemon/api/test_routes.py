"""The API over a real unix socket: reads, writes, and how it says no."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.api.answers import dump
from pyminuteman.daemon.observed import Mark
from pyminuteman.daemon.views import status_view
from pyminuteman.http_client import HttpClient, HttpError
from pyminuteman.vips.model import BackendKey, VIPKey
from tests.daemon.api.double import DEAD, ME, NAMED, ONE, OTHER, WEB, Double, observation, record, unix_api
from tests.daemon.api.wire import answered, http


async def refused(client: HttpClient, method: str, path: str, **request: Any) -> tuple[int | None, dict[str, Any]]:
    with pytest.raises(HttpError) as caught:
        await client.json(method, path, **request)
    return caught.value.status, json.loads(caught.value.body)["error"]


@pytest.mark.trio
async def test_all_read_routes_answer(tmp_path: Path) -> None:
    async with unix_api(tmp_path, Double()) as (client, _):
        status = await client.json("GET", "/v1/status")
        assert (status["version"], status["state"], status["node"]["name"]) == (1, "degraded", "one")
        members = await client.json("GET", "/v1/members")
        assert [(row["name"], row["status"], row["me"]) for row in members["members"]] == [
            ("one", "alive", True),
            ("three", "down", False),
            ("two", "alive", False),
        ]
        topology = await client.json("GET", "/v1/topology")
        assert topology["links"] == [[str(ME), str(OTHER)]]
        backends = await client.json("GET", "/v1/backends")
        rows = backends["vips"][0]["backends"]
        assert [(row["state"], row["effective_weight"]) for row in rows] == [("in", 1), ("held", 0), ("out", 0)]
        assert rows[0]["connections"] == {"active": 5, "inactive": 6}
        legacy = await client.json("GET", "/v1/vips")
        assert [row["vip"] for row in legacy] == ["11.0.0.1:80", "foo.marathon.l4lb.minuteman:443"]
        statistics = await client.json("GET", "/v1/statistics")
        assert statistics["services"][0]["service"] == "tcp://11.0.0.1:80"
        assert (await client.json("GET", "/v1/config"))["config"] == {"node": {"name": "one"}}
        assert (await client.json("GET", "/v1/openapi.json"))["openapi"] == "3.1.0"
        async with client.stream("GET", "/healthz") as response:
            assert await response.read() == b"ok\n"


@pytest.mark.trio
async def test_an_etag_spares_the_body(tmp_path: Path) -> None:
    async with unix_api(tmp_path, Double()) as (client, _):
        for path in ("/v1/status", "/v1/backends", "/v1/vips"):
            async with client.stream("GET", path) as response:
                tag = response.headers["etag"]
                assert await response.read()
            with pytest.raises(HttpError) as caught:
                async with client.stream("GET", path, headers={"if-none-match": f'"other", W/{tag}'}):
                    pass
            assert (caught.value.status, caught.value.body) == (304, "")
            async with client.stream("GET", path, headers={"if-none-match": '"other"'}) as response:
                assert response.headers["etag"] == tag


@pytest.mark.trio
async def test_drains_name_who_did_it(tmp_path: Path) -> None:
    double = Double()
    async with unix_api(tmp_path, double) as (client, _):
        assert (await client.json("POST", "/v1/drain", body={"node": "two", "reason": "disk"}))["done"] is True
        await client.json("POST", "/v1/drain", body={"node": str(OTHER)})
        await client.json("POST", "/v1/drain", body={"backend": "10.0.0.1:8080", "vip": "tcp://11.0.0.1:80"})
        await client.json("POST", "/v1/undrain", body={"backend": "10.0.0.1:8080", "vip": None})
        await client.json(
            "POST", "/v1/weight", body={"backend": "10.0.0.1:9090", "vip": str(NAMED), "weight": 3, "reason": "ö"}
        )
        await client.json("POST", "/v1/weight", body={"backend": "10.0.0.1:8080", "weight": None})
        members = await client.json("GET", "/v1/members")
        reloaded = await client.json("POST", "/v1/reload")
        assert (reloaded["changes"], reloaded["restart"]) == (['log.level: "info" -> "debug"'], ['node.name: "" -> "x"'])
        assert reloaded["remarks"] == ["source: there is none"]
    assert double.done == [
        ("drain", OTHER, "root", "disk"),
        ("drain", OTHER, "root", ""),
        ("drain", (WEB, ONE), "root", ""),
        ("undrain", (None, ONE), "root", ""),
        ("weight", (NAMED, type(ONE)("10.0.0.1", 9090)), 3, "root", "ö"),
        ("clear", (None, ONE), "root", ""),
        ("reload",),
    ]
    assert [row["drain"] and row["drain"]["by"] for row in members["members"]] == [None, None, "root"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("/v1/drain", {}, 400, "bad_request", "either node or backend"),
        ("/v1/drain", [], 400, "bad_request", "expected a table"),
        ("/v1/drain", {"node": "two", "backend": "10.0.0.1:8080"}, 400, "bad_request", "either node or backend"),
        ("/v1/drain", {"node": 5}, 400, "bad_request", "not a string"),
        ("/v1/drain", {"node": "two", "vip": "x"}, 400, "bad_request", "vip goes with backend"),
        ("/v1/drain", {"nodes": "two"}, 400, "bad_request", "did you mean 'node'?"),
        ("/v1/drain", {"node": "two", "reason": "a\nb"}, 400, "bad_request", "control characters"),
        ("/v1/drain", {"node": "nobody"}, 404, "no_such_node", "no node"),
        ("/v1/drain", {"backend": "10.0.0.1"}, 400, "bad_request", "no port"),
        ("/v1/drain", {"backend": "host:1"}, 400, "bad_request", "not an IP address"),
        ("/v1/drain", {"backend": "10.9.9.9:1"}, 404, "no_such_backend", "behind any VIP"),
        ("/v1/drain", {"backend": "10.0.0.1:8080", "vip": "tcp://11.0.0.9:1"}, 404, "no_such_vip", "no VIP"),
        ("/v1/drain", {"backend": "10.0.0.1:9090", "vip": "tcp://11.0.0.1:80"}, 404, "no_such_backend", "tcp://11.0.0.1:80"),
        ("/v1/weight", {"backend": "10.0.0.1:8080"}, 400, "bad_request", "weight is missing"),
        ("/v1/weight", {"backend": "10.0.0.1:8080", "weight": 65536}, 400, "bad_request", "0 to 65535"),
        ("/v1/weight", {"backend": "10.0.0.1:8080", "weight": True}, 400, "bad_request", "0 to 65535"),
        ("/v1/reload", {"now": 1}, 400, "bad_request", "unknown key"),
        ("/v1/confirm", {"namespace": "x", "id": "0" * 16}, 404, "no_such_thing", "no namespace"),
        ("/v1/confirm", {"id": "0" * 16}, 409, "not_now", "nothing is held back"),
        ("/v1/confirm", {}, 400, "bad_request", "id is missing: say what you confirm"),
        ("/v1/confirm", {"id": "0" * 15}, 400, "bad_request", "16 hexadecimal digits"),
        ("/v1/confirm", {"id": 7}, 400, "bad_request", "id"),
    ],
)
@pytest.mark.trio
async def test_what_is_wrong_with_a_request_is_said(
    tmp_path: Path, *, path: str, body: object, status: int, code: str, said: str
) -> None:
    double = Double()
    async with unix_api(tmp_path, double) as (client, _):
        answered, error = await refused(client, "POST", path, body=body)
    assert (answered, error["code"]) == (status, code)
    assert said in error["message"]
    assert double.done == []


@pytest.mark.trio
async def test_errors_without_a_route_look_like_the_others(tmp_path: Path) -> None:
    async with unix_api(tmp_path, Double()) as (client, _):
        status, error = await refused(client, "GET", "/v1/nothing")
        assert (status, error["code"]) == (404, "not_found")
        status, error = await refused(client, "DELETE", "/v1/status", headers={"content-type": "application/json"})
        assert (status, error["code"], error["hint"]) == (405, "wrong_method", "use GET, HEAD")
        status, error = await refused(client, "POST", "/v1/drain", body={}, headers={"content-type": "text/plain"})
        assert (status, error["code"]) == (415, "not_json")
        status, error = await refused(client, "POST", "/v1/drain", body={"reason": "x" * 70_000})
        assert (status, error["code"]) == (413, "too_large")


@pytest.mark.trio
async def test_a_pushed_source_counts_as_a_whole_or_not(tmp_path: Path) -> None:
    double = Double()
    vip = {"listen": "tcp://11.0.0.1:80", "backend": [{"address": "10.0.0.5", "port": 8080}]}
    async with unix_api(tmp_path, double) as (client, _):
        said = await client.json("PUT", "/v1/sources/pushed", body={"version": 1, "vip": [vip]})
        assert (said["changed"], said["vips"]) == (True, 1)
        status, error = await refused(client, "PUT", "/v1/sources/pushed", body={"vip": [vip, {**vip, "listen": "11"}]})
        assert (status, error["code"]) == (422, "no_vips")
        assert "vip[1].listen" in error["message"]
        bad = [{**vip, "listen": f"tcp://11.0.0.{number}:0"} for number in range(1, 30)]
        status, error = await refused(client, "PUT", "/v1/sources/pushed", body={"vip": [vip, *bad]})
        assert status == 422
        assert error["message"].startswith("29 are wrong: ")
        assert all(f"vip[{number}].listen: " in error["message"] for number in range(1, 21))
        assert error["message"].endswith("; and 9 more")
        status, error = await refused(client, "PUT", "/v1/sources/other", body={})
        assert (status, error["code"], error["hint"][:17]) == (404, "no_such_source", "there are: pushed")
    assert [name for name, *_ in double.done] == ["push"]


@pytest.mark.trio
async def test_an_error_of_ours_is_one_of_the_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    double = Double()
    double.plain_config = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    async with unix_api(tmp_path, double) as (client, _):
        status, error = await refused(client, "GET", "/v1/config")
        assert (status, error["code"]) == (500, "internal")
        assert "ZeroDivisionError" not in json.dumps(error)
        assert (await client.json("GET", "/v1/status"))["version"] == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.trio
async def test_what_is_gone_can_still_be_set_free(tmp_path: Path) -> None:
    """Marks outlive what they are about."""
    gone, node = BackendKey("10.9.9.9", 1), NodeId(bytes(15) + b"\x63")
    mark, vip = Mark("root", 0.0), VIPKey.tcp("11.9.9.9", 9)
    seen = observation(node_drains={node: mark}, backend_drains={(vip, gone): mark}, weights={(None, gone): (1, mark)})
    double = Double(seen)
    async with unix_api(tmp_path, double) as (client, _):
        await client.json("POST", "/v1/undrain", body={"node": str(node)})
        await client.json("POST", "/v1/undrain", body={"backend": str(gone), "vip": str(vip)})
        await client.json("POST", "/v1/weight", body={"backend": str(gone), "weight": None})
    assert [target for _, target, *_ in double.done] == [node, (vip, gone), (None, gone)]


@pytest.mark.trio
async def test_a_vip_may_be_written_in_any_way_that_is_one(tmp_path: Path) -> None:
    six, backend = VIPKey.tcp("fd00::1", 80), BackendKey("10.9.9.9", 1)
    double = Double(observation(backend_drains={(six, backend): Mark("root", 0.0)}))
    async with unix_api(tmp_path, double) as (client, _):
        body = {"backend": str(backend), "vip": "tcp://[FD00:0::0:1]:80"}
        await client.json("POST", "/v1/undrain", body=body)
        assert double.done[0][1] == (six, backend)
        for text in ("tcp://[fd00::2]:80", "tcp://[fd00::1]", "fd00::1"):
            status, error = await refused(client, "POST", "/v1/undrain", body={**body, "vip": text})
            assert (status, error["code"]) == (404, "no_such_vip")


@pytest.mark.trio
async def test_two_nodes_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    seen = observation()
    twin = replace(seen.members[OTHER], record=record(DEAD, "two", "10.0.0.3"))
    async with unix_api(tmp_path, Double(observation(members={**seen.members, DEAD: twin}))) as (client, _):
        status, error = await refused(client, "POST", "/v1/drain", body={"node": "two"})
        assert (status, error["code"]) == (409, "ambiguous")
        await client.json("POST", "/v1/drain", body={"node": str(DEAD)})
        labels = {one["id"]: one["label"] for one in (await client.json("GET", "/v1/members"))["members"]}
        await client.json("POST", "/v1/drain", body={"node": labels[str(OTHER)]})


@pytest.mark.trio
async def test_a_node_cannot_take_another_ones_id_for_its_name(tmp_path: Path) -> None:
    seen = observation()
    liar = replace(seen.members[DEAD], record=record(DEAD, str(OTHER), "10.0.0.3"))
    double = Double(observation(members={**seen.members, DEAD: liar}))
    async with unix_api(tmp_path, double) as (client, _):
        await client.json("POST", "/v1/drain", body={"node": str(OTHER)})
    assert double.done[0][1] == OTHER


@pytest.mark.trio
@pytest.mark.parametrize("body", [b"\xff", b'{"node":"two","node":"one"}', b"[" * 50_000, b'{"reason":"\\ud800","node":"two"}'])
async def test_bodies_that_are_no_json(tmp_path: Path, body: bytes) -> None:
    double = Double()
    async with unix_api(tmp_path, double), await trio.open_unix_socket(str(tmp_path / "api.sock")) as stream:
        await stream.send_all(http("POST", "/v1/drain", body, Content_Type="application/json; charset=utf-8"))
        status, _, said = await answered(stream)
    assert (status, json.loads(said)["error"]["code"]) == (400, "bad_request")
    assert double.done == []


@pytest.mark.trio
async def test_a_document_as_a_whole_may_be_none(tmp_path: Path) -> None:
    async with unix_api(tmp_path, Double()) as (client, _):
        status, error = await refused(client, "PUT", "/v1/sources/pushed", body={"version": 2})
        assert (status, error["code"]) == (422, "no_vips")
        assert "version 2 is not known" in error["message"]
        async with client.stream("HEAD", "/v1/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
        seen = observation(cluster="\ud83d")
        assert json.loads(dump(status_view(seen)))["cluster"] == "\ud83d"  # half a character is escaped, not refused
