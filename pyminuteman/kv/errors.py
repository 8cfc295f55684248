"""The store's branch of the errors. Each says who was wrong, whether anything changed, and what is accepted."""

from __future__ import annotations

from pyminuteman.errors import MinutemanError

__all__ = [
    "InvalidKeyError",
    "InvalidOperationError",
    "RemoteStoreError",
    "StoreClosed",
    "StoreDatabaseError",
    "StoreError",
    "StoreLimitError",
    "StoreUnavailable",
    "TooManyKeys",
    "ValueTooLarge",
]


class StoreError(MinutemanError):
    """Anything that goes wrong in the store."""


class InvalidKeyError(StoreError, ValueError):
    """You named a key that cannot be (empty, too long, unprintable). Nothing was changed."""


class InvalidOperationError(StoreError, ValueError):
    """You asked for a change that its kind of value does not know, or a number out of range. Nothing was changed."""


class StoreLimitError(StoreError, ValueError):
    """You asked for more than the store holds. Nothing was changed."""


class ValueTooLarge(StoreLimitError):
    """One value is above its limit. Nothing was changed."""


class TooManyKeys(StoreLimitError):
    """One key more than may be. Nothing was changed; delete some first."""


class StoreClosed(StoreError):
    """The store's block has ended, or this node has left. Nothing was changed."""


class StoreUnavailable(StoreError):
    """The engine cannot be reached, or does not answer in time. The change may or may not have been made: read, and ask again."""


class StoreDatabaseError(StoreError):
    """The database on disk cannot be used: written by a newer release, not a database, or the disk refuses. It was not changed."""


class RemoteStoreError(StoreError):
    """A peer sent what it must not. It was counted and dropped; nothing else changed."""
