"""Who changes what a source reads: writes a VIP into an etcd, or into a file that is watched or served. Context managers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Self

from benchmarks.sources.documents import compact, toml_text, vip_document
from pyminuteman.testing.etcd_server import EtcdCluster


class Changer(Protocol):
    """The VIPs that a source reads."""

    source: str
    """For ``--source``."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_error: object) -> None: ...

    def load(self, vips: list[dict[str, Any]]) -> None:
        """From nothing to these."""

    def change(self, vip: dict[str, Any]) -> tuple[float, float]:
        """Write the first of them anew: when that began, and when it was known to be written (``time.perf_counter``)."""


class Etcd:
    """Each VIP is a key. Over one connection, with nothing but a socket: so what is measured is the etcd and not a library."""

    def __init__(self, directory: Path) -> None:
        self._cluster = EtcdCluster(directory)
        self._stack = ExitStack()
        self.source = ""

    def __enter__(self) -> Self:
        self._stack.enter_context(self._cluster)
        self._socket = self._stack.enter_context(socket.create_connection(("127.0.0.1", self._cluster.members[0].client_port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.source = f"etcd:{self._cluster.urls[0]}/vips"
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def load(self, vips: list[dict[str, Any]]) -> None:
        for at, vip in enumerate(vips):
            self._put(at, vip)

    def change(self, vip: dict[str, Any]) -> tuple[float, float]:
        return self._put(0, vip)

    def _put(self, at: int, vip: dict[str, Any]) -> tuple[float, float]:
        body = {"key": b64encode(b"/vips/%d" % at).decode(), "value": b64encode(compact(vip)).decode()}
        content = json.dumps(body).encode()
        request = b"POST /v3/kv/put HTTP/1.1\r\nhost: etcd\r\ncontent-length: %d\r\n\r\n%b" % (len(content), content)
        began = time.perf_counter()
        self._socket.sendall(request)
        answer = self._socket.recv(1 << 16)
        ended = time.perf_counter()
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(answer.decode(errors="replace"))
        return began, ended


class File:
    """One TOML file a VIP, written beside its place and renamed into it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "vips.d"
        self._directory.mkdir()
        self.source = f"file:{self._directory}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def load(self, vips: list[dict[str, Any]]) -> None:
        for at, vip in enumerate(vips):
            replace_file(self._directory / f"{at}.toml", toml_text([vip]))

    def change(self, vip: dict[str, Any]) -> tuple[float, float]:
        return replace_file(self._directory / "0.toml", toml_text([vip]))


class Http:
    """One JSON document, served by Python's own server, and asked for every 0.1 s (which is as often as the source does)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._vips: list[dict[str, Any]] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.source = f"http://127.0.0.1:{self._port}/vips.json#interval=0.1"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(self._port)]
        self._server = subprocess.Popen(command, cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.kill()
        self._server.wait()

    def load(self, vips: list[dict[str, Any]]) -> None:
        self._vips = list(vips)
        self.change(vips[0])

    def change(self, vip: dict[str, Any]) -> tuple[float, float]:
        self._vips[0] = vip
        return replace_file(self._directory / "vips.json", json.dumps({"version": 1, "vip": self._vips}))


def replace_file(path: Path, text: str) -> tuple[float, float]:
    """As careful programs write. It begins when there is nothing left to do but to rename: as `mv` it is one system call."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    began = time.perf_counter()
    new.replace(path)
    return began, time.perf_counter()


CHANGERS: dict[str, type[Etcd | File | Http]] = {"etcd": Etcd, "file": File, "http": Http}


def documents(backends: int) -> list[dict[str, Any]]:
    """That many backends, ten to a VIP at most."""
    per = min(backends, 10)
    return [vip_document(service, per) for service in range(backends // per)]
