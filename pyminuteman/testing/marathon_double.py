"""A double of Marathon: real HTTP on loopback, apps and their tasks, a stream of events, and the faults that a test asks for.

There is no Marathon to be had where these tests run: what it answers follows its documentation.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from pyminuteman.testing.mesos_double import Fault, HttpDouble, Reply, Request, open_http_double

__all__ = ["MarathonDouble", "open_marathon_double"]


class MarathonDouble:
    """One instance of Marathon.

    Attributes:
        apps: What ``/v2/apps`` answers: an object with ``apps``, or anything else to be wrong.
        leader: Where requests are redirected to; empty to answer them.
        faults: What goes wrong with the next answers of ``/v2/apps``, one each.
        events_faults: The same for ``/v2/events``.
        server: What it is served by.
    """

    server: HttpDouble

    def __init__(self, *apps: object) -> None:
        """Run those apps."""
        self.apps: object = {"apps": list(apps)}
        self.leader = ""
        self.faults: deque[Fault] = deque()
        self.events_faults: deque[Fault] = deque()
        self._listeners: set[trio.MemorySendChannel[bytes | None]] = set()

    @property
    def listeners(self) -> int:
        """Streams of events that are open."""
        return len(self._listeners)

    async def tell(self, kind: str, **fields: object) -> None:
        """An event to all who listen, with line ends as Marathon sends them."""
        data = json.dumps({"eventType": kind, **fields})
        await self.tell_bytes(f"event: {kind}\r\ndata: {data}\r\n\r\n".encode())

    async def tell_bytes(self, data: bytes | None) -> None:
        """Bytes as they are to all who listen; None ends their streams."""
        for listener in list(self._listeners):
            await listener.send(data)

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer as Marathon does."""
        faults = self.events_faults if request.path == "/v2/events" else self.faults
        fault = faults.popleft() if faults else Fault()
        if fault.hang:
            await trio.sleep_forever()
        if fault.status:
            await reply.send(fault.status, fault.body, fault.headers)
        elif self.leader:
            await reply.send(307, b"", {"location": self.leader + request.target})
        elif request.target == "/v2/apps?embed=apps.tasks":
            body = self.apps if isinstance(self.apps, bytes) else json.dumps(self.apps).encode()
            await reply.send(200, body, {"content-type": "application/json"}, fault)
        elif request.path == "/v2/events":
            if request.headers.get("accept") == "text/event-stream":
                await self._events(reply)
            else:
                await reply.send(406)
        else:
            await reply.send(404, b'{"message":"Not found"}')

    async def _events(self, reply: Reply) -> None:
        send, receive = trio.open_memory_channel[bytes | None](1000)
        await reply.begin(200, {"content-type": "text/event-stream"})
        self._listeners.add(send)
        try:
            await reply.write(b'event: event_stream_attached\r\ndata: {"eventType":"event_stream_attached"}\r\n\r\n')
            while (data := await receive.receive()) is not None:
                await reply.write(data)
            await reply.end()
        finally:
            self._listeners.discard(send)


@asynccontextmanager
async def open_marathon_double(double: MarathonDouble, *, port: int = 0) -> AsyncIterator[MarathonDouble]:
    """Serve the double on loopback while the block runs."""
    async with open_http_double(double.handle, port=port) as server:
        double.server = server
        yield double
