"""Sealing and opening under one format byte: counter nonces, subkeys, replay windows.

Pure. A lane is one kind of sealed message (datagrams; hellos of streams), with a counter, a label and windows of its own, so that
nothing sealed for one is taken by the other. Layouts are described in ``docs/protocols/wire.md``.

Nonces (NIST SP 800-38D section 8.2.1, the deterministic construction): the key is derived for each process, from 12 random bytes
that it draws at its start, so the counter alone makes the nonce unique, and a restart cannot repeat one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from struct import Struct
from typing import ClassVar, Final, NamedTuple, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyminuteman.membership.errors import KeyringError
from pyminuteman.membership.keys import Key
from pyminuteman.membership.replay import ReplayWindows

__all__ = ["BOOT_BYTES", "COUNTER_MAX", "PLAIN_KEY_ID", "TAG_BYTES", "Buffer", "Lane", "Opened", "PlainLane", "SealedLane"]

BOOT_BYTES: Final = 12
"""Size of what names a process."""
TAG_BYTES: Final = 16
"""Size of AES-GCM's tag."""
COUNTER_MAX: Final = 1 << 48
"""Last counter that is sealed with or opened: at a million a second it takes nine years to get there. Below what any cipher here
could take; beyond, a process must restart."""
PLAIN_KEY_ID: Final = bytes(4)
"""Stands for a key's id where there is none."""
SEALED_MAX_BYTES: Final = 9216
"""Largest that is opened: the largest datagram that can be configured, and some."""

_HEADER: Final = Struct(">B4s12sQ")
_NONCE: Final = Struct(">4xQ")
_PLAIN_HEADER: Final = Struct(">B8s12sQ")
_CIPHERS_MAX: Final = 64
"""Subkeys kept ready, of those heard last: each takes 3 KiB, and 4 us to be made again. A node hears a handful of neighbours all the time
and the others now and then; every life of a process is another one."""

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that are read only."""


class Opened(NamedTuple):
    """What was sealed.

    Attributes:
        boot: Names the process that sealed it, for as long as it runs.
        counter: Its number among all that this process sealed.
        plain: The content.
        key_id: Of the key it was sealed with.
    """

    boot: bytes
    counter: int
    plain: bytes
    key_id: bytes


class Lane(ABC):
    """One kind of sealed message: its counter, and the windows of those whose messages were opened."""

    overhead: ClassVar[int]
    """Bytes that sealing adds."""

    def __init__(self, form: int, *, boot: bytes, next_counter: int, senders_max: int, counters: dict[str, int]) -> None:
        self._form: Final = form
        self._boot: Final = boot
        self._next_counter = next_counter
        self._windows: Final = ReplayWindows(senders_max)
        self._counters: Final = counters

    def seal(self, key: Key | None, plain: bytes) -> bytes:
        """Seal under the next counter.

        Raises:
            KeyringError: The counter has run out.
        """
        counter = self._next_counter
        if counter > COUNTER_MAX:
            raise KeyringError(f"this process has sealed {COUNTER_MAX} messages, which is all that it may: restart it")
        self._next_counter = counter + 1
        return self._seal(key, counter, plain)

    def open(self, keys: Mapping[bytes, Key], sealed: Buffer) -> Opened | None:
        """Open what one of the keys sealed, once; else None. What is refused leaves nothing behind but a count of the reason."""
        opened = self._open(keys, sealed) if self.overhead <= len(sealed) <= SEALED_MAX_BYTES else "size"
        if isinstance(opened, str):
            self._counters[opened] += 1
            return None
        self._windows.add(opened.boot, opened.counter)
        self._counters["opened"] += 1
        self._counters["senders_forgotten"] = self._windows.forgotten
        return opened

    def forget(self, key_id: bytes) -> None:  # noqa: B027 - one kind has nothing to forget
        """A key is no longer held: neither are the subkeys made of it."""

    @abstractmethod
    def _seal(self, key: Key | None, counter: int, plain: bytes) -> bytes: ...

    @abstractmethod
    def _open(self, keys: Mapping[bytes, Key], sealed: Buffer) -> Opened | str: ...

    def _refusal(self, boot: bytes, counter: int) -> str | None:
        if boot == self._boot:
            return "reflected"
        if not 0 < counter <= COUNTER_MAX:
            return "counter"
        return self._windows.refusal(boot, counter)


class SealedLane(Lane):
    """AES-256-GCM under a subkey of the process that seals."""

    overhead: ClassVar[int] = _HEADER.size + TAG_BYTES

    def __init__(
        self,
        form: int,
        *,
        label: bytes,
        cluster: bytes,
        boot: bytes,
        next_counter: int,
        senders_max: int,
        counters: dict[str, int],
    ) -> None:
        super().__init__(form, boot=boot, next_counter=next_counter, senders_max=senders_max, counters=counters)
        self._info: Final = b"pyminuteman " + label + b"\0" + cluster
        self._cluster: Final = cluster
        self._own: dict[bytes, AESGCM] = {}
        self._ciphers: OrderedDict[tuple[bytes, bytes], AESGCM] = OrderedDict()

    def _seal(self, key: Key | None, counter: int, plain: bytes) -> bytes:
        assert key is not None  # noqa: S101 - a keyring is never empty
        cipher = self._own.get(key.id)
        if cipher is None:
            cipher = self._own[key.id] = key.derive(self._boot, self._info)
        header = _HEADER.pack(self._form, key.id, self._boot, counter)
        return header + cipher.encrypt(_NONCE.pack(counter), plain, header + self._cluster)

    def _open(self, keys: Mapping[bytes, Key], sealed: Buffer) -> Opened | str:
        form, key_id, boot, counter = _HEADER.unpack_from(sealed)
        if form != self._form:
            return "format"
        key = keys.get(key_id)
        if key is None:
            return "unknown_key"
        reason = self._refusal(boot, counter)
        if reason is not None:
            return reason
        known = self._ciphers.get((key_id, boot))
        cipher = key.derive(boot, self._info) if known is None else known
        try:
            plain = cipher.decrypt(_NONCE.pack(counter), sealed[_HEADER.size :], bytes(sealed[: _HEADER.size]) + self._cluster)
        except InvalidTag:
            return "forged"
        self._ciphers[key_id, boot] = cipher
        self._ciphers.move_to_end((key_id, boot))
        if len(self._ciphers) > _CIPHERS_MAX:
            self._ciphers.popitem(last=False)
        return Opened(boot, counter, plain, key_id)

    def forget(self, key_id: bytes) -> None:
        """A key is no longer held: neither are the subkeys made of it."""
        self._own.pop(key_id, None)
        for known in [known for known in self._ciphers if known[0] == key_id]:
            del self._ciphers[known]


class PlainLane(Lane):
    """No secret: anybody who reaches the port can say anything. The cluster's name only keeps neighbours' mistakes apart."""

    overhead: ClassVar[int] = _PLAIN_HEADER.size

    def __init__(
        self, form: int, *, cluster: bytes, boot: bytes, next_counter: int, senders_max: int, counters: dict[str, int]
    ) -> None:
        super().__init__(form, boot=boot, next_counter=next_counter, senders_max=senders_max, counters=counters)
        self._cluster: Final = blake2b(cluster, digest_size=8, person=b"pmm cluster").digest()

    def _seal(self, key: Key | None, counter: int, plain: bytes) -> bytes:  # noqa: ARG002 - there is no key
        return _PLAIN_HEADER.pack(self._form, self._cluster, self._boot, counter) + plain

    def _open(self, keys: Mapping[bytes, Key], sealed: Buffer) -> Opened | str:  # noqa: ARG002 - there are no keys
        form, cluster, boot, counter = _PLAIN_HEADER.unpack_from(sealed)
        if form != self._form:
            return "format"
        if cluster != self._cluster:
            return "cluster"
        plain = bytes(sealed[_PLAIN_HEADER.size :])
        return self._refusal(boot, counter) or Opened(boot, counter, plain, PLAIN_KEY_ID)
