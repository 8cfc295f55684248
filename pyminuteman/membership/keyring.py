"""Sealing and opening what nodes send: datagrams and the hellos of streams, with keys or, where that is allowed, without.

Pure but for the entropy, which is handed in by default. Opening answers None for what is refused and counts the reason: a datagram
from nobody costs microseconds and leaves no object behind. What is refused and why, and what this does not protect from, is in
``docs/protocols/wire.md``.

Not to be shared between threads, nor carried on by both sides of a fork: both would use the same nonces.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.errors import KeyringError
from pyminuteman.membership.key_file import load_key_file as load_key_file
from pyminuteman.membership.key_file import save_key_file as save_key_file
from pyminuteman.membership.keys import Key as Key
from pyminuteman.membership.sealing import BOOT_BYTES, PLAIN_KEY_ID, TAG_BYTES, Buffer, Lane, PlainLane, SealedLane
from pyminuteman.membership.sealing import Opened as Opened

__all__ = ["KEYS_MAX", "REASONS", "Cipher", "Key", "Keyring", "Opened", "PlainRing", "Ring", "load_key_file", "save_key_file"]

KEYS_MAX: Final = 16
"""Most keys of a ring: a node's record has room for their ids."""
REASONS: Final = ("size", "format", "unknown_key", "cluster", "reflected", "counter", "replayed", "stale", "forged")
"""Why something is not opened: too short or too long; not ours to read (a keyring refuses what is not sealed, and the reverse);
sealed with a key that is not held; another cluster's (unsealed only); our own, come back; a counter out of range; seen before;
behind the window of what is remembered; altered, or sealed with another key or for another cluster."""

_SENDERS_MAX: Final = 32_768
_CLUSTER_MAX_BYTES: Final = 64


class Cipher(Protocol):
    """What seals the frames of one direction of a stream; an ``AESGCM`` is one."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Seal."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Open; raises ``cryptography.exceptions.InvalidTag``."""


class _Clear:
    """No cipher."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:  # noqa: ARG002 - the protocol's
        return data

    decrypt = encrypt


class _Ring:
    """What the two kinds of ring share."""

    stream_tag_bytes: ClassVar[int]
    """Bytes that sealing adds to a frame of a stream, its length not counted."""

    def __init__(
        self,
        cluster: str,
        boot: bytes | None,
        entropy: Callable[[int], bytes],
        lanes: Callable[[bytes, bytes, dict[str, int]], tuple[Lane, Lane]],
    ) -> None:
        name = cluster.encode()
        if not 0 < len(name) <= _CLUSTER_MAX_BYTES:
            raise ConfigurationError(None, "cluster", f"{cluster!r:.80} is not a name of 1 to {_CLUSTER_MAX_BYTES} bytes")
        self.boot: Final = entropy(BOOT_BYTES) if boot is None else boot
        """Names this process: 12 random bytes."""
        if len(self.boot) != BOOT_BYTES:
            raise KeyringError(f"a boot id has {BOOT_BYTES} bytes, not {len(self.boot)}")
        self.counters: Final = dict.fromkeys(("opened", *REASONS, "senders_forgotten"), 0)
        """How many were opened, how many refused for each of :data:`REASONS`, and how many senders' windows were forgotten."""
        self._cluster: Final = name
        self._keys: dict[bytes, Key] = {}
        self._datagrams, self._hellos = lanes(name, self.boot, self.counters)

    @property
    def overhead(self) -> int:
        """Bytes that sealing adds to a datagram."""
        return self._datagrams.overhead

    @property
    def hello_overhead(self) -> int:
        """Bytes that sealing adds to a hello."""
        return self._hellos.overhead

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """Ids of the keys that are held, the one that seals first."""
        return tuple(self._keys)

    @property
    def _primary(self) -> Key | None:
        return next(iter(self._keys.values()), None)

    def seal(self, plain: bytes) -> bytes:
        """Make a datagram of a payload.

        Raises:
            KeyringError: This process has sealed all that it may.
        """
        return self._datagrams.seal(self._primary, plain)

    def open(self, sealed: Buffer) -> Opened | None:
        """What a datagram holds; None when it is refused, and :attr:`counters` tells why. Each is opened once."""
        return self._datagrams.open(self._keys, sealed)

    def seal_hello(self, plain: bytes) -> tuple[bytes, bytes]:
        """The first bytes of a stream, which no datagram can be taken for, and the id of the key that they are sealed with."""
        key = self._primary
        return (PLAIN_KEY_ID if key is None else key.id), self._hellos.seal(key, plain)

    def open_hello(self, sealed: Buffer) -> Opened | None:
        """The reverse, at the other end; None as :meth:`open`."""
        return self._hellos.open(self._keys, sealed)


class Keyring(_Ring):
    """Keys of a cluster: the first seals, any opens."""

    stream_tag_bytes: ClassVar[int] = TAG_BYTES

    def __init__(
        self,
        keys: Sequence[Key],
        *,
        cluster: str,
        boot: bytes | None = None,
        next_counter: int = 1,
        senders_max: int = _SENDERS_MAX,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Take keys.

        Args:
            keys: One to 16, the one to seal with first.
            cluster: Name of the cluster (1 to 64 bytes of UTF-8): nodes of another with the same key are not understood.
            boot: Names this process; None for 12 random bytes. One used before repeats nonces, which gives the key away to whoever
                recorded both: only tests and simulations give it.
            next_counter: First counter to seal with.
            senders_max: Processes whose counters are remembered, against replays (10 MB at 32,768).
            entropy: Gives random bytes.

        Raises:
            KeyringError: No key, too many, or two with one id.
            ConfigurationError: The cluster's name is empty or too long.
        """

        def lanes(name: bytes, boot: bytes, counters: dict[str, int]) -> tuple[Lane, Lane]:
            common: dict[str, Any] = {"cluster": name, "boot": boot, "senders_max": senders_max, "counters": counters}
            return (
                SealedLane(0xA1, label=b"datagram", next_counter=next_counter, **common),
                SealedLane(0xA2, label=b"hello", next_counter=1, **common),
            )

        super().__init__(cluster, boot, entropy, lanes)
        if not keys:
            raise KeyringError("a keyring needs a key: `minuteman keys generate` makes one")
        for key in keys:
            if key.id in self._keys:
                raise KeyringError(f"the key {key} is there twice")
            self.install(key)

    def install(self, key: Key) -> None:
        """Hold one more, to open with. One that is held already stays as it is.

        Raises:
            KeyringError: There are 16, or the id is that of another key.
        """
        held = self._keys.get(key.id)
        if held is not None and held != key:
            raise KeyringError(f"another key has the id {key}: make a new one")
        if held is None and len(self._keys) >= KEYS_MAX:
            raise KeyringError(f"a keyring holds {KEYS_MAX} keys: remove one that nobody seals with")
        self._keys[key.id] = key

    def use(self, key_id: bytes) -> None:
        """Seal with this key from now on. All nodes must hold it by then.

        Raises:
            KeyringError: It is not held: install it first.
        """
        key = self._held(key_id)
        self._keys = {key_id: key} | self._keys

    def remove(self, key_id: bytes, *, used_elsewhere: Collection[bytes] = ()) -> None:
        """Hold a key no more.

        Args:
            key_id: Which.
            used_elsewhere: Ids of the keys that other nodes seal with, as their records have it.

        Raises:
            KeyringError: It is not held, or we or others seal with it: what they say would not be understood.
        """
        self._held(key_id)
        if key_id == self.key_ids[0]:
            raise KeyringError(f"the key {key_id.hex()} seals: use another one first")
        if key_id in used_elsewhere:
            raise KeyringError(f"other nodes still seal with the key {key_id.hex()}: use another one there first")
        del self._keys[key_id]
        self._datagrams.forget(key_id)
        self._hellos.forget(key_id)

    def replace(self, keys: Sequence[Key], *, used_elsewhere: Collection[bytes] = ()) -> tuple[bytes, ...]:
        """Hold these keys, the first of them sealing, in the order of a rotation: install, use, remove.

        Args:
            keys: What is to be held; one at least.
            used_elsewhere: Ids of the keys that other nodes seal with: these are not removed yet.

        Returns:
            Ids of the keys that are held on for the sake of others.

        Raises:
            KeyringError: No key, too many together with those that are held on, or one with the id of another. Nothing was changed.
        """
        if not keys:
            raise KeyringError("a keyring needs a key: `minuteman keys generate` makes one")
        wanted = {key.id for key in keys}
        kept = tuple(held for held in self._keys if held not in wanted and held in used_elsewhere)
        before = self._keys
        self._keys = {held: before[held] for held in before if held in wanted or held in kept}
        try:
            for key in keys:
                self.install(key)
        except KeyringError:
            self._keys = before
            raise
        self.use(keys[0].id)
        for gone in before.keys() - self._keys.keys():
            self._datagrams.forget(gone)
            self._hellos.forget(gone)
        return kept

    def stream_ciphers(self, key_id: bytes, salt: bytes) -> tuple[Cipher, Cipher]:
        """For the frames of one stream: from the client, and from the server. ``salt`` is both sides' random bytes.

        Raises:
            KeyringError: The key is not held any more.
        """
        key = self._held(key_id)
        return (
            key.derive(salt, b"pyminuteman stream from client\0" + self._cluster),
            key.derive(salt, b"pyminuteman stream from server\0" + self._cluster),
        )

    def _held(self, key_id: bytes) -> Key:
        try:
            return self._keys[key_id]
        except KeyError:
            raise KeyringError(f"no key {key_id.hex()} in this keyring") from None


class PlainRing(_Ring):
    """No key: for the loopback, for tests, and for whoever says ``insecure=True``. Nothing is secret and anybody can lie.

    The cluster's name is compared, and datagrams that come twice are taken once.
    """

    stream_tag_bytes: ClassVar[int] = 0

    def __init__(
        self,
        *,
        cluster: str,
        boot: bytes | None = None,
        next_counter: int = 1,
        senders_max: int = _SENDERS_MAX,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """As :class:`Keyring`, without keys."""

        def lanes(name: bytes, boot: bytes, counters: dict[str, int]) -> tuple[Lane, Lane]:
            common: dict[str, Any] = {"cluster": name, "boot": boot, "senders_max": senders_max, "counters": counters}
            return PlainLane(0xB1, next_counter=next_counter, **common), PlainLane(0xB2, next_counter=1, **common)

        super().__init__(cluster, boot, entropy, lanes)

    def install(self, key: Key) -> None:
        """Refused.

        Raises:
            KeyringError: Always: start the node with a key to have one.
        """
        raise KeyringError(f"this node runs without keys, so {key} is of no use: start it with a key file")

    def use(self, key_id: bytes) -> None:
        """Refused, as :meth:`install`."""
        raise KeyringError(f"no key {key_id.hex()}: this node runs without keys")

    def remove(self, key_id: bytes, *, used_elsewhere: Collection[bytes] = ()) -> None:  # noqa: ARG002 - as Keyring has it
        """Refused, as :meth:`install`."""
        self.use(key_id)

    def stream_ciphers(self, key_id: bytes, salt: bytes) -> tuple[Cipher, Cipher]:  # noqa: ARG002 - as Keyring has it
        """Ciphers that do nothing."""
        return _Clear(), _Clear()


Ring: TypeAlias = Keyring | PlainRing
"""What a driver seals and opens with."""
