"""A dict that shares most of its content with others: what differs from a common base is its own."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, TypeVar

__all__ = ["Layered"]

K = TypeVar("K")
V = TypeVar("V")
_NONE: Any = object()


class Layered(dict[K, V]):
    """Behaves as a dict of the base's items with changes; the base is never touched.

    Args:
        base: What is shared. It must not change.
        own: What differs from it or is added.
        gone: Keys of the base that are not here.
        copy: Makes a value of the base our own when it is looked up, where values are changed in place.
    """

    __slots__ = ("_base", "_copy", "_gone", "_size")

    def __init__(
        self,
        base: Mapping[K, V],
        own: Mapping[K, V] | None = None,
        gone: Iterable[K] = (),
        *,
        copy: Callable[[V], V] | None = None,
    ) -> None:
        super().__init__(own or {})
        self._base = base
        self._gone = {key for key in gone if key in base}
        self._copy = copy
        self._size = len(base) - len(self._gone) + sum(1 for key in own or () if key not in base)

    @property
    def differing(self) -> list[K]:
        """Keys whose values may not be the base's, in an order that does not depend on hashes for those that are here."""
        return [*dict.keys(self), *sorted(self._gone, key=repr)]

    def __missing__(self, key: K) -> V:
        if key in self._gone:
            raise KeyError(key)
        value = self._base[key]
        if self._copy is not None:
            value = self._copy(value)
            super().__setitem__(key, value)
        return value

    def get(self, key: K, default: Any = None) -> Any:
        """As a dict's."""
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key in self._base and key not in self._gone)

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return self._size > 0

    def __setitem__(self, key: K, value: V) -> None:
        if key not in self:
            self._size += 1
            self._gone.discard(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        self.pop(key)

    def pop(self, key: K, default: Any = _NONE) -> Any:
        """As a dict's."""
        if key not in self:
            if default is _NONE:
                raise KeyError(key)
            return default
        value = self[key]
        super().pop(key, None)
        if key in self._base:
            self._gone.add(key)
        self._size -= 1
        return value

    def setdefault(self, key: K, default: V) -> V:
        """As a dict's."""
        if key not in self:
            self[key] = default
        return self[key]

    def __iter__(self) -> Iterator[K]:
        for key in self._base:
            if key not in self._gone:
                yield key
        for key in super().__iter__():
            if key not in self._base:
                yield key

    def keys(self) -> KeysView[K]:  # type: ignore[override]
        """Those of the base first."""
        return KeysView(self)

    def items(self) -> ItemsView[K, V]:  # type: ignore[override]
        """In the same order."""
        return ItemsView(self)

    def values(self) -> ValuesView[V]:  # type: ignore[override]
        """In the same order."""
        return ValuesView(self)
