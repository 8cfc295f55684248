"""Hashes that find what differs between two tables: of one row, of a bucket of rows, of all. Kept up to date with each row that changes.

Pure. A bucket's hash is the exclusive or of its rows' hashes, so a row is exchanged in constant time and no order matters.
"""

from __future__ import annotations

from hashlib import blake2b

from pyminuteman.kv.messages import BUCKETS, HASH_BYTES

__all__ = ["BucketHashes", "bucket_of", "hash_of"]


def hash_of(data: bytes) -> bytes:
    """``HASH_BYTES`` bytes of hash."""
    return blake2b(data, digest_size=HASH_BYTES).digest()


def bucket_of(hashed: bytes) -> int:
    """The bucket (0 to 63) of whatever has this hash or is as good as random, as node ids are."""
    return hashed[0] * BUCKETS >> 8


class BucketHashes:
    """The hashes of a table whose rows come and go."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS

    def toggle(self, bucket: int, row: bytes) -> None:
        """Add a row, or take it away again, by its hash."""
        self._buckets[bucket] ^= int.from_bytes(row, "big")

    @property
    def root(self) -> bytes:
        """One hash over all."""
        return hash_of(b"".join(bucket.to_bytes(HASH_BYTES, "big") for bucket in self._buckets))

    @property
    def summary(self) -> bytes:
        """The first four bytes of each bucket's."""
        return b"".join((bucket >> 32).to_bytes(4, "big") for bucket in self._buckets)

    def differing(self, summary: bytes) -> tuple[int, ...]:
        """The buckets in which another's :attr:`summary` differs."""
        mine = self.summary
        return tuple(
            bucket for bucket in range(BUCKETS) if mine[4 * bucket : 4 * bucket + 4] != summary[4 * bucket : 4 * bucket + 4]
        )
