"""What a user may have a node say of itself, checked where it is given. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pyminuteman.addresses import Endpoint, NodeId, format_address, parse_address
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.records import NAME_MAX_BYTES, Record

__all__ = ["checked_addresses", "checked_name", "checked_tags", "own_record"]

_TAGS_MAX: Final = 64
_ADDRESSES_MAX: Final = 16


def own_record(
    node: NodeId,
    epoch: int,
    *,
    name: str,
    endpoint: Endpoint,
    tags: Mapping[str, str],
    tags_max_bytes: int,
    addresses: Iterable[str],
    keys: tuple[bytes, ...],
) -> Record:
    """The first record of a life.

    Raises:
        ConfigurationError: Something of it is not allowed; ``key`` names it.
    """
    return Record(
        id=node,
        epoch=epoch,
        version=1,
        name=checked_name(name),
        endpoint=endpoint,
        addresses=checked_addresses(addresses),
        tags=checked_tags(tags, tags_max_bytes),
        keys=keys,
    )


def checked_name(name: str) -> str:
    """The name, which is 1 to 64 bytes of printable text.

    Raises:
        ConfigurationError: It is not.
    """
    if not name or not name.isprintable() or len(name.encode(errors="replace")) > NAME_MAX_BYTES:
        raise ConfigurationError(None, "name", f"{name!r} is not 1 to {NAME_MAX_BYTES} bytes of printable text")
    return name


def checked_tags(tags: Mapping[str, str], most_bytes: int) -> tuple[tuple[str, str], ...]:
    """The tags in the order of their names.

    Raises:
        ConfigurationError: Too many, together too long, or without a name.
    """
    pairs = tuple(sorted(tags.items()))
    if len(pairs) > _TAGS_MAX:
        raise ConfigurationError(None, "tags", f"{len(pairs)} of them, and at most {_TAGS_MAX} are allowed")
    if any(not key or not (key + value).isprintable() for key, value in pairs):
        raise ConfigurationError(None, "tags", "each is NAME=VALUE in printable text, and the name is not empty")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in pairs)
    if size > most_bytes:
        raise ConfigurationError(None, "tags", f"{size} bytes together, and at most {most_bytes} are allowed (tags_max_bytes)")
    return pairs


def checked_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """The addresses in canonical form, each once.

    Raises:
        ConfigurationError: One is no IP address, or there are too many.
    """
    try:
        found = tuple(dict.fromkeys(format_address(parse_address(address)[1]) for address in addresses))
    except ValueError as error:
        raise ConfigurationError(None, "addresses", str(error)) from None
    if len(found) > _ADDRESSES_MAX:
        raise ConfigurationError(None, "addresses", f"{len(found)} of them, and at most {_ADDRESSES_MAX} are allowed")
    return found
