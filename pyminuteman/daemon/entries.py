"""Claims as entries of the store: what one node says, in pieces so small that a change of one backend moves tens of bytes.

Pure. A claim is a head, ``vip/ID``, and an entry for each backend, ``vip/ID/ADDRESS/PORT``; ID is 16 hexadecimal digits of a hash of the
VIP, the source and the principal, so that it is the same whoever makes it. Invariants:

1. What a :class:`ClaimTable` holds depends on the entries that are there now, not on the order in which they came: a backend that comes
   before its head waits for it, and one whose head goes is no claim any more.
2. Whatever another node writes, nothing is raised: what cannot be read is left out, counted, and named with its owner.
3. Each change names the places (:func:`pyminuteman.vips.policy.place_of`) that it bears on, so that nobody looks at the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgpack

from pyminuteman.addresses import NodeId
from pyminuteman.ipvs.destination import ForwardingMethod
from pyminuteman.ipvs.service import Persistence, Protocol, ServiceFlags
from pyminuteman.membership.records import MSGPACK_CAPS
from pyminuteman.packing import packb
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName, VIPSettings
from pyminuteman.vips.policy import place_of

__all__ = [
    "ENTRY_MAX_BYTES",
    "FAULTS_KEPT",
    "PREFIX",
    "ClaimTable",
    "Fault",
    "changes",
    "decode_backend",
    "decode_head",
    "encode",
    "head_of",
    "parse_key",
    "plain_key",
]

PREFIX: Final = "vip/"
FAULTS_KEPT: Final = 100
"""Entries that cannot be read and are named; beyond, they are only counted."""
ENTRY_MAX_BYTES: Final = 4096
"""Largest entry that is read, however much the store lets others say: more than twice the longest that :func:`encode` makes."""
_ID_DIGITS: Final = 16
_HEAD_FIELDS: Final = 7
_SETTINGS_FIELDS: Final = 6
_BACKEND_FIELDS: Final = 4
_ORDER_MAX: Final = 1 << 32
_SOURCE_MAX_BYTES: Final = 255
_DEFAULTS: Final = VIPSettings()


class _Head(NamedTuple):
    """What a claim says besides its backends."""

    key: VIPKey
    settings: VIPSettings
    principal: str
    source: str
    order: int


class _Row(NamedTuple):
    """A backend, and whether the source has its addresses from its own records."""

    backend: Backend
    vouched: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """An entry that cannot be read."""

    owner: NodeId
    key: str
    reason: str


# As entries


def encode(claims: Iterable[Claim]) -> dict[str, bytes]:
    """The entries of these claims. Of two claims of one source and principal on one VIP, the later one counts."""
    entries: dict[str, bytes] = {}
    for claim in claims:
        vip = claim.vip
        head = head_of(claim)
        entries[head] = packb(
            [*plain_key(vip.key), _plain_settings(vip.settings), vip.principal, claim.source, min(claim.order, _ORDER_MAX)]
        )
        for backend in vip.backends:
            local = None if backend.local is None else [backend.local.address, backend.local.port]
            vouched = _addresses(backend) <= claim.vouched
            entries[f"{head}/{backend.address}/{backend.port}"] = packb([backend.weight, backend.agent, local, vouched])
    return entries


def head_of(claim: Claim) -> str:
    """The key of its head."""
    return f"{PREFIX}{_identity(claim.vip.key, claim.source, claim.vip.principal)}"


def changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """What has to be written to make one of the other; None deletes."""
    written: dict[str, bytes | None] = {key: value for key, value in after.items() if before.get(key) != value}
    written.update(dict.fromkeys(before.keys() - after.keys()))
    return written


def _identity(key: VIPKey, source: str, principal: str) -> str:
    return blake2b(packb([*plain_key(key), source, principal]), digest_size=_ID_DIGITS // 2).hexdigest()


def plain_key(key: VIPKey) -> list[Any]:
    """A VIP's key as MessagePack takes it."""
    host = key.host if isinstance(key.host, str) else [key.host.label, key.host.framework]
    return [int(key.protocol), host, key.port]


def _plain_settings(settings: VIPSettings) -> list[Any] | None:
    if settings == _DEFAULTS:
        return None
    persistence = settings.persistence
    kept = (None, None) if persistence is None else (persistence.timeout_seconds, persistence.netmask)
    return [settings.scheduler, int(settings.flags), *kept, int(settings.forward), settings.drain_seconds]


def _addresses(backend: Backend) -> frozenset[str]:
    local = "" if backend.local is None else backend.local.address
    return frozenset(filter(None, (backend.address, backend.agent, local)))


# And back


def decode_head(value: bytes) -> _Head:
    """What a head says.

    Raises:
        ValueError: It is none.
    """
    fields = _unpack(value, _HEAD_FIELDS)
    protocol, host, port, settings, principal, source, order = fields
    if not isinstance(principal, str) or not isinstance(source, str) or isinstance(order, bool) or not isinstance(order, int):
        raise ValueError("a text or a number is none")  # noqa: TRY004 - whatever is wrong, it is a fault of the entry
    if not source.isprintable() or len(source.encode()) > _SOURCE_MAX_BYTES:
        raise ValueError(f"the source is not {_SOURCE_MAX_BYTES} bytes of printable text at most")
    if not 0 <= order <= _ORDER_MAX:
        raise ValueError(f"order {order} is not from 0 to {_ORDER_MAX}")
    head = _Head(parse_key(protocol, host, port), _settings(settings), principal, source, order)
    VIP(head.key, (), head.settings, head.principal)  # which checks that they go together
    return head


def decode_backend(key: str, value: bytes) -> _Row:
    """What the entry of a backend says.

    Raises:
        ValueError: It is none.
    """
    _, _, place = key.removeprefix(PREFIX).partition("/")
    address, _, port = place.rpartition("/")
    weight, agent, local, vouched = _unpack(value, _BACKEND_FIELDS)
    if not isinstance(agent, str) or not isinstance(vouched, bool) or not (port.isascii() and port.isdigit()):
        raise ValueError("a text, a number or a truth is none")
    inside = None
    if local is not None:
        at, inside_port = local
        inside = BackendKey(at, inside_port)
    backend = Backend(address, int(port), weight, agent, inside)
    if (backend.address, str(backend.port)) != (address, port):
        raise ValueError(f"{address} or {port} is not written as it is everywhere")  # or two keys would be one backend
    return _Row(backend, vouched)


def parse_key(protocol: Any, host: Any, port: Any) -> VIPKey:
    """The inverse of :func:`plain_key`, of its three fields.

    Raises:
        ValueError: They are no key.
        TypeError: Likewise.
    """
    if isinstance(host, list):
        label, framework = host
        if not isinstance(label, str) or not isinstance(framework, str):
            raise TypeError("a label or a framework is no text")
        host = VIPName(label, framework)
    elif not isinstance(host, str):
        raise TypeError("a host is neither an address nor a name")
    return VIPKey(Protocol(protocol), host, port)


def _settings(plain: object) -> VIPSettings:
    if plain is None:
        return _DEFAULTS
    if not isinstance(plain, list) or len(plain) != _SETTINGS_FIELDS:
        raise ValueError("settings that are none")
    scheduler, flags, timeout, netmask, forward, drain_seconds = plain
    if not isinstance(scheduler, str) or not isinstance(netmask, str | None):
        raise ValueError("a scheduler or a netmask is none")  # noqa: TRY004 - whatever is wrong, it is a fault of the entry
    persistence = None if timeout is None else Persistence(timeout, netmask or "")
    return VIPSettings(scheduler, ServiceFlags(flags), persistence, ForwardingMethod(forward), drain_seconds)


def _unpack(value: bytes, fields: int) -> list[Any]:
    if len(value) > ENTRY_MAX_BYTES:
        raise ValueError(f"{len(value)} bytes: {ENTRY_MAX_BYTES} are read at most")
    plain = msgpack.unpackb(value, max_array_len=fields, **MSGPACK_CAPS)
    if not isinstance(plain, list) or len(plain) != fields:
        raise ValueError(f"not {fields} fields")
    return plain


# All of them

_Place = tuple[NodeId, str]
"""An owner and the id of a claim."""


class ClaimTable:
    """The claims of all nodes.

    Attributes:
        faults_total: How many entries could not be read since the start.
    """

    def __init__(self) -> None:
        """Nobody says anything."""
        self._heads: dict[_Place, _Head] = {}
        self._rows: dict[_Place, dict[str, _Row]] = {}
        self._by_place: dict[str, set[_Place]] = {}
        self._claims: dict[_Place, Claim] = {}
        self._touched: set[str] = set()
        self._faults: dict[tuple[NodeId, str], Fault] = {}
        self._unnamed: set[tuple[NodeId, str]] = set()
        self.faults_total = 0

    def __len__(self) -> int:
        return len(self._heads)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Entries that cannot be read, as they are now; :data:`FAULTS_KEPT` at most."""
        return tuple(self._faults.values())

    @property
    def faults_now(self) -> int:
        """How many entries there are that cannot be read."""
        return len(self._faults) + len(self._unnamed)

    def update(self, owner: NodeId, key: str, value: bytes | None) -> None:
        """The owner says this under that key, or no longer says anything (None). Keys that are no claims are passed over."""
        if not key.startswith(PREFIX):
            return
        identity, slash, _ = key.removeprefix(PREFIX).partition("/")
        place = (owner, identity)
        self._faults.pop((owner, key), None)
        self._unnamed.discard((owner, key))
        try:
            if slash:
                self._put_row(place, key, None if value is None else decode_backend(key, value))
            else:
                self._put_head(place, None if value is None else decode_head(value))
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            self.faults_total += 1
            if len(self._faults) < FAULTS_KEPT:
                self._faults[owner, key] = Fault(owner, key, str(error)[:200])
            else:
                self._unnamed.add((owner, key))
            if slash:
                self._put_row(place, key, None)
            else:
                self._put_head(place, None)

    def take_touched(self) -> set[str]:
        """The places that changes bear on since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def claims_at(self, place: str) -> list[Claim]:
        """All claims on a place, in the order of owner and id."""
        return [self._claim(one) for one in sorted(self._by_place.get(place, ()))]

    def claims(self, key: VIPKey) -> list[Claim]:
        """All claims on one VIP."""
        return [claim for claim in self.claims_at(place_of(key)) if claim.vip.key == key]

    def all(self) -> list[Claim]:
        """All there are."""
        return [self._claim(one) for one in sorted(self._heads)]

    def _put_head(self, place: _Place, head: _Head | None) -> None:
        before = self._heads.pop(place, None)
        if before is not None:
            at = place_of(before.key)
            self._touch(place, at)
            self._by_place[at].discard(place)
            if not self._by_place[at]:
                del self._by_place[at]
        if head is not None:
            self._heads[place] = head
            at = place_of(head.key)
            self._by_place.setdefault(at, set()).add(place)
            self._touch(place, at)

    def _put_row(self, place: _Place, key: str, row: _Row | None) -> None:
        rows = self._rows.setdefault(place, {})
        if row is None:
            rows.pop(key, None)
            if not rows:
                del self._rows[place]
        else:
            rows[key] = row
        head = self._heads.get(place)
        if head is not None:
            self._touch(place, place_of(head.key))

    def _touch(self, place: _Place, at: str) -> None:
        self._claims.pop(place, None)
        self._touched.add(at)

    def _claim(self, place: _Place) -> Claim:
        claim = self._claims.get(place)
        if claim is None:
            head, rows = self._heads[place], self._rows.get(place, {}).values()
            vip = VIP(head.key, tuple(row.backend for row in rows), head.settings, head.principal)
            vouched = frozenset(address for row in rows if row.vouched for address in _addresses(row.backend))
            claim = self._claims[place] = Claim(vip, head.source, str(place[0]), head.order, vouched)
        return claim
