"""Which services are ours to touch. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from pyminuteman.addresses import IPV4, parse_network
from pyminuteman.ipvs.service import ServiceKey

__all__ = ["Scope"]


class Scope:
    """A set of service keys. What is in scope and not desired is removed; what is not in scope is never touched.

    There is no default: the caller names what is theirs. Scopes combine: ``a | b`` covers what either covers, ``a - b`` what
    ``a`` covers and ``b`` does not, ``in`` asks.
    """

    __slots__ = ("_contains", "_text", "is_everything")

    def __init__(self, contains: Callable[[ServiceKey], bool], text: str) -> None:
        """Any rule at all, with words for it. The named constructors serve most."""
        self._contains: Final = contains
        self._text: Final = text
        self.is_everything = False

    @classmethod
    def everything(cls) -> Scope:
        """The whole table: nobody else uses IPVS in this network namespace."""
        scope = cls(lambda _key: True, "everything")
        scope.is_everything = True
        return scope

    @classmethod
    def networks(cls, *networks: str) -> Scope:
        """Services whose address lies in one of these (``"11.0.0.0/8"``, ``"fd00::/8"``). No firewall marks.

        Raises:
            ValueError: One is not a network, or none was given.
        """
        if not networks:
            msg = "name at least one network; Scope.everything() is the whole table"
            raise ValueError(msg)
        parsed = [parse_network(network) for network in networks]

        def contains(key: ServiceKey) -> bool:
            if key.mark:
                return False
            size = 4 if key.family == IPV4 else 16
            value = int.from_bytes(key.packed[4 : 4 + size], "big")
            return any(family == key.family and value >> (size * 8 - prefix) == bits for family, bits, prefix in parsed)

        return cls(contains, " ".join(networks))

    @classmethod
    def fwmarks(cls, *marks: int | range) -> Scope:
        """Firewall marks, singly or as ranges, of both families."""
        wanted = [mark if isinstance(mark, range) else range(mark, mark + 1) for mark in marks]
        text = " ".join(f"fwmark {r.start}" + (f"-{r.stop - 1}" if len(r) > 1 else "") for r in wanted)
        return cls(lambda key: key.mark > 0 and any(key.mark in marks for marks in wanted), text)

    @classmethod
    def services(cls, keys: Iterable[ServiceKey]) -> Scope:
        """Just these: an ownership ledger, for instance."""
        listed = frozenset(keys)
        return cls(listed.__contains__, f"{len(listed)} listed services")

    def __contains__(self, key: ServiceKey) -> bool:
        """Whether the service is ours."""
        return self._contains(key)

    def __or__(self, other: Scope) -> Scope:
        """What either covers."""
        return Scope(lambda key: key in self or key in other, f"{self._text} or {other._text}")

    def __sub__(self, other: Scope) -> Scope:
        """What this covers and the other does not."""
        return Scope(lambda key: key in self and key not in other, f"{self._text} without {other._text}")

    def __str__(self) -> str:
        """In words."""
        return self._text

    def __repr__(self) -> str:
        """Short."""
        return f"<Scope {self._text}>"
