"""One TCP connection between two nodes: a handshake of one hello each way, then sealed frames. Bytes in, bytes out.

Pure but for the entropy, which is handed in by default. The driver moves bytes, and closes the connection when this raises:

1. The client sends its hello: 16 random bytes, sealed like a datagram but as a kind of its own, and opened once.
2. Only then the server answers: its boot id, 16 random bytes, and a tag that only a holder of the key can make. Whoever sends
   anything else gets no byte back.
3. Frames: four bytes of length, then sealed bytes, under keys made of both sides' random bytes, one for each direction. A frame
   recorded on another connection therefore does not open, nor does one that is repeated, left out or swapped.

=========  ==================  =========================================  ====================
 role       state               takes                                      becomes
=========  ==================  =========================================  ====================
 server     awaiting hello      a client's hello                           open; answers
 client     awaiting hello      the server's hello                         open
 either     open                frames                                     open
 either     any                 anything else                              failed: close
=========  ==================  =========================================  ====================
"""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag

from pyminuteman.membership.codec import STREAM_MAX_BYTES
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.membership.keyring import Cipher, Ring
from pyminuteman.membership.sealing import BOOT_BYTES

__all__ = ["FrameReader", "StreamSession"]

_RANDOM_BYTES: Final = 16
_LENGTH: Final = Struct(">I")
_NONCE: Final = Struct(">4xQ")
_FRAMES_MAX: Final = 1 << 32


class FrameReader:
    """Cuts what was received into frames, without trusting their lengths.

    Holds the bytes of one frame, and what came with its end, and no more; a length above the cap is refused as soon as it is read,
    before anything is set aside for it.
    """

    __slots__ = ("_least", "_most", "_received")

    def __init__(self, *, least: int, most: int) -> None:
        """Take frames of ``least`` to ``most`` bytes, the length not counted."""
        self._received = bytearray()
        self._least: Final = least
        self._most: Final = most

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        self._received += data

    def next(self) -> bytes | None:
        """The next whole frame, or None until more is fed.

        Raises:
            RemoteProtocolError: Its length is out of range.
        """
        if len(self._received) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._received)
        if not self._least <= size <= self._most:
            raise RemoteProtocolError(f"a frame of {size} bytes")
        end = _LENGTH.size + size
        if len(self._received) < end:
            return None
        frame = bytes(memoryview(self._received)[_LENGTH.size : end])
        del self._received[:end]
        return frame


class StreamSession:
    """One end of a connection.

    Attributes:
        peer_boot: Names the process at the other end, as its datagrams do; None until its hello has been opened.
    """

    def __init__(self, ring: Ring, *, server: bool, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """Take a side: the client is who connected."""
        self._ring: Final = ring
        self._server: Final = server
        self._random: Final = entropy(_RANDOM_BYTES)
        self._key_id = b""
        self._hello = bytearray()
        self._hello_size: Final = (
            ring.hello_overhead + _RANDOM_BYTES if server else BOOT_BYTES + _RANDOM_BYTES + ring.stream_tag_bytes
        )
        self._frames: Final = FrameReader(least=ring.stream_tag_bytes + 1, most=STREAM_MAX_BYTES + ring.stream_tag_bytes)
        self._sealing: Cipher | None = None
        self._opening: Cipher | None = None
        self._sealed = self._opened = 0
        self._failed = False
        self.peer_boot: bytes | None = None

    @property
    def ready(self) -> bool:
        """Whether both hellos are through, so that frames can be sealed."""
        return self._sealing is not None and not self._failed

    def client_hello(self) -> bytes:
        """What a client sends first, once."""
        if self._server or self._key_id or self._failed:
            raise LocalProtocolError("a client says hello, and says it once")
        self._key_id, hello = self._ring.seal_hello(self._random)
        return hello

    def feed(self, data: bytes) -> bytes:
        """Take what was received; then call :meth:`next` until it gives None.

        Returns:
            What to send back now: the server's hello, once, and else nothing.

        Raises:
            RemoteProtocolError: It is not what the other end must send now. Close, and send nothing.
        """
        try:
            return self._feed(data)
        except RemoteProtocolError:
            self._failed = True
            raise

    def next(self) -> bytes | None:
        """The next payload, or None until more is fed.

        Raises:
            RemoteProtocolError: A frame is out of range or does not open. Close.
        """
        if self._opening is None or self._failed:
            return None
        try:
            frame = self._frames.next()
            if frame is None:
                return None
            self._opened += 1
            return self._opening.decrypt(_NONCE.pack(self._opened), frame, None)
        except InvalidTag:
            self._failed = True
            raise RemoteProtocolError("a frame that does not open") from None
        except RemoteProtocolError:
            self._failed = True
            raise

    def seal_frame(self, plain: bytes) -> bytes:
        """A payload as it is sent.

        Raises:
            LocalProtocolError: The hellos are not through, it is empty or above 16 MiB, or it is one too many for one connection.
        """
        if self._sealing is None or self._failed:
            raise LocalProtocolError("no frames before both hellos, nor after a failure")
        if not 0 < len(plain) <= STREAM_MAX_BYTES or self._sealed >= _FRAMES_MAX:
            raise LocalProtocolError(f"a frame of {len(plain)} bytes, after {self._sealed} others")
        self._sealed += 1
        sealed = self._sealing.encrypt(_NONCE.pack(self._sealed), plain, None)
        return _LENGTH.pack(len(sealed)) + sealed

    def _feed(self, data: bytes) -> bytes:
        if self._failed or not (self._server or self._key_id):
            raise RemoteProtocolError("bytes after a failure, or before the hello that they would answer")
        if self._opening is not None:
            self._frames.feed(data)
            return b""
        missing = self._hello_size - len(self._hello)
        if self._server and len(data) > missing:
            raise RemoteProtocolError("more than a hello, before it was answered")
        self._hello += data[:missing]
        if len(self._hello) < self._hello_size:
            return b""
        if self._server:
            return self._answer()
        self._meet()
        self._frames.feed(data[missing:])
        return b""

    def _answer(self) -> bytes:
        opened = self._ring.open_hello(self._hello)
        if opened is None:
            raise RemoteProtocolError("a hello that does not open")
        self.peer_boot = opened.boot
        self._opening, sealing = self._ring.stream_ciphers(opened.key_id, opened.plain + self._random)
        self._sealing = sealing
        # Frame 0: its tag shows that we hold the key, and have read the client's random bytes.
        return self._ring.boot + self._random + sealing.encrypt(_NONCE.pack(0), b"", self._ring.boot)

    def _meet(self) -> None:
        boot, random, tag = (
            bytes(self._hello[:BOOT_BYTES]),
            bytes(self._hello[BOOT_BYTES : BOOT_BYTES + _RANDOM_BYTES]),
            bytes(self._hello[BOOT_BYTES + _RANDOM_BYTES :]),
        )
        sealing, opening = self._ring.stream_ciphers(self._key_id, self._random + random)
        try:
            opening.decrypt(_NONCE.pack(0), tag, boot)
        except InvalidTag:
            raise RemoteProtocolError("the server does not hold the key, or was altered on the way") from None
        self._sealing, self._opening, self.peer_boot = sealing, opening, boot
