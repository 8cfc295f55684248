"""The inner end of the way to the nodes' web pages: what comes by the one channel goes to the daemons' sockets, and back."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from demo.streams import PIECE_BYTES, Frames, frame

_CONNECT_SECONDS: Final = 1.0
_READ_BYTES: Final = 1 << 16


class Relay:
    """A stream begins with a node's name, a space and a whole request; it ends when the daemon has answered, or does not run.

    Number 0 is said once, without a stream: from then on there is somebody who hears.
    """

    def __init__(self, descriptor: int, sockets: Mapping[str, Path]) -> None:
        """The channel's descriptor, read and written; and where each node's API is."""
        self._descriptor: Final = descriptor
        self._sockets: Final = sockets
        self._streams: Final[dict[int, socket.socket]] = {}
        self._frames: Final = Frames()
        self._selector: Final = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)

    def run(self) -> None:
        """Until the channel ends."""
        self._say(0, b"")
        while True:
            for key, _ in self._selector.select():
                if key.fd != self._descriptor:
                    self._pass_on(key.data)
                elif data := os.read(self._descriptor, _READ_BYTES):
                    for number, piece in self._frames.feed(data):
                        self._hear(number, piece)
                else:
                    return

    def _hear(self, number: int, piece: bytes) -> None:
        if number in self._streams:
            self._end(number)  # nothing but the end is ever said after the request
        elif piece:
            name, _, request = piece.partition(b" ")
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stream.settimeout(_CONNECT_SECONDS)
            try:
                stream.connect(str(self._sockets[name.decode()]))
                stream.sendall(request)
            except OSError:
                stream.close()
                self._say(number, b"")
                return
            self._streams[number] = stream
            self._selector.register(stream, selectors.EVENT_READ, number)

    def _pass_on(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:  # ended by what was heard in the same turn
            return
        try:
            data = stream.recv(PIECE_BYTES)
        except OSError:  # the daemon was killed
            data = b""
        self._say(number, data)
        if not data:
            self._end(number)

    def _end(self, number: int) -> None:
        stream = self._streams.pop(number)
        self._selector.unregister(stream)
        stream.close()

    def _say(self, number: int, data: bytes) -> None:
        left = memoryview(frame(number, data))
        while left:
            left = left[os.write(self._descriptor, left) :]
