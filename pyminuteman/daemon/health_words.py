"""What nodes say of the health of backends, and whose word counts. Pure.

1. A backend is checked by the host that it runs on, and that node's word counts for all. Another's does not: a node that is wrong, or lies,
   can take its own backends out of service and nobody else's.
2. It is on a node's host when it is at one of the node's addresses, or when the claims that count say so (their agent); then it is
   unhealthy behind those VIPs only, for an address of containers may be in use on several hosts.
3. A word of a backend that no VIP has is no fault: the claim may be on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from pyminuteman.addresses import NodeId
from pyminuteman.kv.store import Entry
from pyminuteman.vips.model import Backend, BackendKey, VIPKey
from pyminuteman.vips.resolution import Target

__all__ = ["PREFIX", "HealthWords", "read_words", "word_key"]

PREFIX: Final = "unhealthy/"
_NOT_ITS_HOST: Final = "it is not on a host of that node"
_NO_BACKEND: Final = "it names no backend"


class HealthWords(NamedTuple):
    """What counts, and what does not.

    Attributes:
        unhealthy: Backends that fail their checks, behind one VIP or (None) all.
        faults: Owner, key and reason of each word that does not count.
    """

    unhealthy: frozenset[Target] = frozenset()
    faults: tuple[tuple[NodeId, str, str], ...] = ()


def word_key(backend: BackendKey) -> str:
    """The key of the entry that says that this backend fails its checks."""
    return f"{PREFIX}{backend}"


def read_words(
    entries: Iterable[Entry],
    addresses_of: Callable[[NodeId], Collection[str]],
    placed: Callable[[BackendKey], Mapping[VIPKey, str]],
) -> HealthWords:
    """Sort them out; never raises, whatever others wrote.

    Args:
        entries: What is in the store under :data:`PREFIX`.
        addresses_of: The known addresses of a node's host.
        placed: The VIPs that have a backend, with the address of the host that it is said to run on.
    """
    unhealthy: set[Target] = set()
    faults: list[tuple[NodeId, str, str]] = []
    for entry in entries:
        backend = _backend_of(entry.key)
        if backend is None:
            faults.append((entry.owner, entry.key, _NO_BACKEND))
            continue
        own = addresses_of(entry.owner)
        if backend.address in own:
            unhealthy.add((None, backend))
            continue
        places = placed(backend)
        mine = [vip for vip, agent in places.items() if agent in own]
        unhealthy.update((vip, backend) for vip in mine)
        if places and not mine:
            faults.append((entry.owner, entry.key, _NOT_ITS_HOST))
    return HealthWords(frozenset(unhealthy), tuple(faults))


def _backend_of(key: str) -> BackendKey | None:
    address, _, port = key.removeprefix(PREFIX).rpartition(":")
    if not (port.isascii() and port.isdigit()):
        return None
    try:
        backend = Backend(address.strip("[]"), int(port)).key
    except ValueError:
        return None
    return backend if word_key(backend) == key else None  # or two keys would be of one backend
