"""Names in DNS, as the daemon publishes them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import dns.message
import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.config import NamesConfig
from pyminuteman.daemon.names import open_names
from pyminuteman.vips.desired import DesiredState, NameRecord


async def _asked(name: str, port: int) -> list[str]:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, trio.fail_after(10):
        await client.sendto(dns.message.make_query(name, "A").to_wire(), ("127.0.0.1", port))
        answer = dns.message.from_wire(await client.recv(2000))
        return [str(row) for rows in answer.answer for row in rows]


@pytest.mark.trio
async def test_a_name_that_is_too_long_keeps_no_other_back_and_is_told_of_once() -> None:
    told: list[tuple[str, str]] = []

    def tell(kind: str, text: str, _data: Mapping[str, Any]) -> None:
        told.append((kind, text))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    long = ".".join(["x" * 60] * 4)
    config = NamesConfig(zone="l4lb.example", dns_bind=Endpoint("127.0.0.1", port))
    async with open_names(config, tell) as publish:
        assert publish is not None
        for _ in range(2):
            publish(DesiredState(names={"foo.marathon": NameRecord(("11.0.0.1",)), long: NameRecord(("11.0.0.2",))}))
        assert await _asked("foo.marathon.l4lb.example", port) == ["11.0.0.1"]
        assert told == [("refused", f"{long}.l4lb.example is longer than a DNS name may be: it cannot be asked for")]
        publish(DesiredState())
        publish(DesiredState(names={long: NameRecord(("11.0.0.2",))}))
        assert len(told) == 2


@pytest.mark.trio
async def test_where_names_are_asked_for_nowhere_nothing_is_published() -> None:
    async with open_names(NamesConfig(), lambda *_: None) as publish:
        assert publish is None
