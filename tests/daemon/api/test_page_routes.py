"""The page's document and files, with a page that is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pyminuteman.http_client import HttpError
from tests.daemon.api.double import Double, unix_api


class File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


class Page:
    files: Mapping[str, File] = {"app.js": File(b"1", "text/javascript; charset=utf-8", '"one"')}

    def render(self, **parts: Any) -> str:
        at = parts.pop("at")
        return f"{at:%H:%M} {parts['status']['node']['name']} {parts['events']['newest']} {sorted(parts)} \ud800"


@pytest.mark.trio
async def test_the_page_is_rendered_from_the_views(tmp_path: Path) -> None:
    double = Double()
    async with unix_api(tmp_path, double, page=Page()) as (client, _):
        for newest in (0, 1):
            async with client.stream("GET", "/") as response:
                assert response.headers["content-type"] == "text/html; charset=utf-8"
                assert "script-src 'self'" in response.headers["content-security-policy"]
                text = (await response.read()).decode()
            assert text == f"04:18 one {newest} ['backends', 'events', 'members', 'status', 'topology'] ?"
            double.events.add("sync")  # makes what was rendered old at once


@pytest.mark.trio
async def test_files_are_a_fixed_list(tmp_path: Path) -> None:
    async with unix_api(tmp_path, Double(), page=Page()) as (client, _):
        async with client.stream("GET", "/web/app.js") as response:
            assert (await response.read(), response.headers["etag"]) == (b"1", '"one"')
            assert response.headers["content-type"] == "text/javascript; charset=utf-8"
            assert response.headers["cache-control"] == "no-cache"
        for name in ("", "no.js", "../page.py", "%2e%2e/page.py", "app.js/", "/etc/passwd"):
            with pytest.raises(HttpError) as caught:
                await client.json("GET", f"/web/{name}")
            assert caught.value.status == 404
        with pytest.raises(HttpError) as caught:
            await client.json("GET", "/web/app.js", headers={"if-none-match": '"one"'})
        assert caught.value.status == 304


@pytest.mark.trio
async def test_without_a_page_there_is_the_api(tmp_path: Path) -> None:
    async with unix_api(tmp_path, Double()) as (client, _):
        with pytest.raises(HttpError) as caught:
            await client.json("GET", "/")
        assert caught.value.status == 404
        assert (await client.json("GET", "/v1/status"))["version"] == 1
