"""A wire that seals, with the real keyring: for what happens while keys are changed.

Streams are sealed under keys of their own, as the driver's are, but in one frame and without the hello.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

from pyminuteman.membership.effects import Received, Send
from pyminuteman.membership.errors import KeyringError
from pyminuteman.membership.keyring import Key, Keyring
from pyminuteman.testing.simulation.process import Parcel, Process
from pyminuteman.testing.simulation.wire import CodecWire

__all__ = ["CLUSTER", "SealedWire", "key_of", "ring_of"]

CLUSTER = "simulation"
_NONCE = bytes(12)
_KEY_ID_BYTES = 4
_SALT_BYTES = 16


def key_of(number: int) -> Key:
    """The simulated cluster's key of that number: everybody's secret."""
    return Key(blake2b(b"key %d of the simulation" % number, digest_size=32).digest())


def ring_of(numbers: Iterable[int], boot: bytes) -> Keyring:
    """A process's keyring with these keys, the one to seal with first."""
    return Keyring([key_of(number) for number in numbers], cluster=CLUSTER, boot=boot)


class SealedWire(CodecWire):
    """Messages become bytes, sealed bytes, bytes and messages again. What cannot be opened is counted in the process's keyring."""

    def pack(self, process: Process, send: Send, target: Process | None) -> Iterable[Parcel]:
        """What goes out for one effect."""
        return [parcel._replace(payload=_seal(process, parcel)) for parcel in super().pack(process, send, target)]

    def unpack(self, process: Process, parcel: Parcel) -> Received | None:
        """What a process gets; None when its keyring refuses it."""
        plain = _open(process, parcel)
        if plain is None:
            return None
        received = super().unpack(process, parcel._replace(payload=plain))
        return received and replace(received, boot=parcel.boot)


def _ring(process: Process) -> Keyring:
    if process.ring is None:
        raise KeyringError(f"{process.name} has no keys")
    return process.ring


def _seal(process: Process, parcel: Parcel) -> bytes:
    ring, plain = _ring(process), parcel.payload
    assert isinstance(plain, bytes)  # noqa: S101 - the wire below made it
    if parcel.stream is None:
        return ring.seal(plain)
    key = ring.key_ids[0]
    salt = blake2b(plain, digest_size=_SALT_BYTES, key=process.boot).digest()
    return key + salt + ring.stream_ciphers(key, salt)[0].encrypt(_NONCE, plain, None)


def _open(process: Process, parcel: Parcel) -> bytes | None:
    ring, sealed = _ring(process), parcel.payload
    assert isinstance(sealed, bytes)  # noqa: S101 - sealed above
    if parcel.stream is None:
        opened = ring.open(sealed)
        return opened and opened.plain
    key, salt = sealed[:_KEY_ID_BYTES], sealed[_KEY_ID_BYTES : _KEY_ID_BYTES + _SALT_BYTES]
    if key not in ring.key_ids:
        ring.counters["unknown_key"] += 1
        return None
    return ring.stream_ciphers(key, salt)[0].decrypt(_NONCE, sealed[_KEY_ID_BYTES + _SALT_BYTES :], None)
