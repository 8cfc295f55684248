"""HTTP by hand, for tests of what no honest client sends."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.testing import wait_all_tasks_blocked

__all__ = ["answered", "http", "read_until", "until"]


def http(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request; the connection is closed after it, unless ``Connection`` says otherwise."""
    headers = {"Host": "minuteman", "Connection": "close", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin1") + body


async def answered(stream: trio.abc.Stream) -> tuple[int, dict[str, str], bytes]:
    """All of one answer, until the other end closes. EOFError when there is none."""
    found = bytearray()
    with trio.fail_after(5):
        while piece := await stream.receive_some(65536):
            found += piece
    if not found:
        raise EOFError
    head, _, body = bytes(found).partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return int(first.split()[1]), headers, body


async def read_until(stream: trio.abc.Stream, end: bytes) -> bytes:
    """Read on until that was among it."""
    found = bytearray()
    with trio.fail_after(5):
        while end not in found:
            piece = await stream.receive_some(65536)
            if not piece:
                raise EOFError(bytes(found))
            found += piece
    return bytes(found)


async def until(holds: Callable[[], object]) -> None:
    """Return when it holds."""
    with trio.fail_after(5):
        while not holds():
            await wait_all_tasks_blocked(0.01)
