"""Keys of a cluster: 32 secret bytes, and an id that may be shown.

Pure but for the entropy, which is handed in by default.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pyminuteman.membership.errors import KeyringError

__all__ = ["KEY_ID_BYTES", "Key", "parse_key_id"]

KEY_ID_BYTES: Final = 4
"""Size of a key's id. Of 16 keys, two share one once in 36 million times, and then the second is refused."""
_SECRET_BYTES: Final = 32
_ID_LABEL: Final = b"pyminuteman key id"


class Key:
    """A secret that the nodes of a cluster share: 256 bits for AES-256-GCM.

    Neither ``str`` nor ``repr`` shows it.

    Attributes:
        id: 4 bytes that name it in datagrams and listings: the beginning of a keyed hash, which tells nothing of the key.
    """

    __slots__ = ("_secret", "id")

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes, which must come from a source of randomness.

        Raises:
            KeyringError: Another number of them.
        """
        if len(secret) != _SECRET_BYTES:
            raise KeyringError(f"a key has {_SECRET_BYTES} bytes, not {len(secret)}")
        self._secret: Final = bytes(secret)
        self.id: Final = hmac.digest(self._secret, _ID_LABEL, "sha256")[:KEY_ID_BYTES]

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes] = os.urandom) -> Self:
        """A new one; ``entropy`` gives that many random bytes."""
        return cls(entropy(_SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read base64, as :attr:`text` has it.

        Raises:
            KeyringError: Something else. What it was is not repeated: it may be a secret with a typing error.
        """
        try:
            return cls(b64decode(text.strip(), validate=True))
        except ValueError:
            raise KeyringError(
                "not a key: expected 32 bytes in base64 (44 characters), as `minuteman keys generate` makes"
            ) from None

    @property
    def text(self) -> str:
        """The secret in base64, for a key file. Never log it."""
        return b64encode(self._secret).decode()

    def derive(self, salt: bytes, info: bytes) -> AESGCM:
        """A cipher under a key of its own: HKDF-SHA256 (RFC 5869) of this one. Takes ten microseconds."""
        return AESGCM(HKDF(SHA256(), _SECRET_BYTES, salt, info).derive(self._secret))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id.hex()

    def __repr__(self) -> str:
        return f"Key({self})"


def parse_key_id(text: str) -> bytes:
    """Read a key's id as it is shown: eight hexadecimal digits.

    Raises:
        KeyringError: Something else.
    """
    try:
        id_ = bytes.fromhex(text)
    except ValueError:
        id_ = b""
    if len(id_) != KEY_ID_BYTES:
        raise KeyringError(f"{text!r} is not a key id (8 hexadecimal digits)")
    return id_
