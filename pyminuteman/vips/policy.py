"""Which claims count: who may claim what, who was first, and what nobody may.

Pure. Invariants:

1. The verdict depends on the policy and on the set of claims, not on the order in which they were heard, nor on any clock: it is the
   same on every node that has heard the same.
2. A place belongs to one claimant (source and principal) at a time. Others who claim it are kept waiting (*quarantined*), and one of
   them has it when every claim of the first is gone. A named VIP's place is its DNS name, with all its ports; that of any other VIP is
   its key.
3. What is denied to all is denied whatever the rules say, and a claim that is refused owns nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final

from pyminuteman.addresses import IPV4, IPV6, parse_address, parse_network
from pyminuteman.errors import MinutemanError
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.model import Backend, BackendKey, InvalidVIPError, VIPKey, VIPName
from pyminuteman.vips.names import dns_name

__all__ = [
    "ANYBODY",
    "GUARDED_PORTS",
    "NEVER",
    "InvalidPolicyError",
    "Judgement",
    "Networks",
    "Policy",
    "Refusal",
    "RefusalReason",
    "Rule",
    "place_of",
]

ANYBODY: Final = "*"
"""In a rule: any source, or any principal."""
_PORT_MAX: Final = 65535
_BITS: Final = {IPV4: 32, IPV6: 128}


class InvalidPolicyError(MinutemanError, ValueError):
    """A policy that says what cannot be. Nothing was changed; the text says what is accepted."""


class Networks:
    """A set of addresses, described by networks: ``11.0.0.0/8``, ``fd00::/8``; an address alone is itself.

    Raises:
        InvalidPolicyError: One is not a network, or has bits set beyond its prefix.
    """

    __slots__ = ("_by_family", "texts")

    def __init__(self, *texts: str) -> None:
        self.texts: Final = texts
        try:
            parsed = sorted({parse_network(text) for text in texts})
        except ValueError as error:
            raise InvalidPolicyError(str(error)) from None
        self._by_family: Final = {
            of: tuple((size - prefix, bits) for family, bits, prefix in parsed if family == of) for of, size in _BITS.items()
        }

    def __contains__(self, address: str) -> bool:
        """Whether the address is in one of them."""
        family, value = _number(address)
        return any(value >> shift == bits for shift, bits in self._by_family[family])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and self._by_family == other._by_family

    def __hash__(self) -> int:
        return hash(tuple(self._by_family.values()))

    def __repr__(self) -> str:
        """As it is written."""
        return f"Networks({', '.join(map(repr, self.texts))})"


_NOWHERE: Final = Networks()
NEVER: Final = (
    ("the address of a cloud's metadata", Networks("169.254.169.254", "fd00:ec2::254")),
    ("loopback", Networks("127.0.0.0/8", "::1")),
    ("link-local", Networks("169.254.0.0/16", "fe80::/10")),
    ("multicast", Networks("224.0.0.0/4", "ff00::/8")),
    ("unspecified", Networks("0.0.0.0/8", "::")),
    ("broadcast", Networks("255.255.255.255")),
    ("an IPv4 address written as an IPv6 one", Networks("::ffff:0:0/96")),
)
"""What neither a VIP nor a backend may be at, and in what words."""
GUARDED_PORTS: Final = frozenset({22, 61420})
"""Ports of hosts that no VIP leads to, unless said otherwise: SSH, and the gossip of the members."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What some claimants may claim. The first rule that fits a claimant is the one that counts for it.

    Raises:
        InvalidPolicyError: A port or range of ports that is none.
    """

    source: str = ANYBODY
    """The source's name, or :data:`ANYBODY`."""
    principal: str = ANYBODY
    """The principal, or :data:`ANYBODY`. Empty fits claims that a source makes for itself."""
    vip_networks: Networks = _NOWHERE
    """Where VIPs may be that are addresses and not names. None by default: who may claim any address may claim another's. The ranges
    that names take their addresses from belong in here for nobody: a VIP there makes the name that had the address move on."""
    names: bool = True
    """Whether named VIPs may be claimed."""
    ports: tuple[tuple[int, int], ...] = ((1, _PORT_MAX),)
    """Ports of VIPs: from, to and with."""
    backend_networks: Networks = _NOWHERE
    """Where backends may be, besides at the addresses that the source vouches for."""

    def __post_init__(self) -> None:
        """Validate."""
        for low, high in self.ports:
            if not 0 < low <= high <= _PORT_MAX:
                msg = f"{low}-{high} is no range of ports (1 to {_PORT_MAX}, the lower one first)"
                raise InvalidPolicyError(msg)

    def fits(self, claim: Claim) -> bool:
        """Whether it is about this claimant."""
        return self.source in {ANYBODY, claim.source} and self.principal in {ANYBODY, claim.vip.principal}


class RefusalReason(StrEnum):
    """Why a claim, or a backend of it, does not count."""

    NO_RULE = "no rule of the policy is about this claimant"
    DENIED_ADDRESS = "nobody may claim this address"
    ADDRESS = "the claimant may not claim this address"
    NAME = "the claimant may not claim names"
    NO_NAME = "the name makes no DNS name"
    PORT = "the claimant may not claim this port"
    QUARANTINED = "the place belongs to another claimant"
    DENIED_BACKEND = "no backend may be at this address"
    GUARDED_PORT = "no VIP leads to this port of a host"
    BACKEND = "neither does the policy allow a backend at this address, nor does the source vouch for it"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A claim that does not count; or, with ``backend``, one that counts without that backend.

    Attributes:
        vip: What was claimed.
        claimant: Source and principal.
        node: The node that said so.
        reason: Why.
        detail: What is to be said besides: whose the place is, which kind of address it is. May be empty.
        backend: The backend that is left out; None when it is all of the claim.
    """

    vip: VIPKey
    claimant: tuple[str, str]
    node: str
    reason: RefusalReason
    detail: str = ""
    backend: BackendKey | None = None

    def __str__(self) -> str:
        """As a log has it."""
        source, principal = self.claimant
        what = f"{self.vip}" if self.backend is None else f"{self.vip}: backend {self.backend}"
        who = f"{principal or 'nobody in particular'} (source {source or '?'}, node {self.node or '?'})"
        return f"{what}, claimed by {who}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of claims.

    Attributes:
        accepted: Claims that count, without the backends that do not; in the order of their places and claimants.
        refusals: The rest, with reasons, in the same order.
    """

    accepted: tuple[Claim, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    def new_since(self, before: Judgement) -> tuple[Refusal, ...]:
        """Refusals that were not in an earlier judgement of the same places: each is an event, to be told once."""
        known = frozenset(before.refusals)
        return tuple(refusal for refusal in self.refusals if refusal not in known)


def place_of(key: VIPKey) -> str:
    """What belongs to somebody when a VIP does: the DNS name, with all its ports, of a named one; the key of any other."""
    if isinstance(key.host, str):
        return str(key)
    try:
        return dns_name(key.host)
    except InvalidVIPError:
        return str(key.host)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may claim what.

    The default lets everybody claim names, with backends that their source vouches for, and nobody claim addresses.
    """

    rules: tuple[Rule, ...] = (Rule(),)
    """The first that fits counts; a claimant that none fits is refused."""
    denied: Networks = _NOWHERE
    """Denied to all, VIPs and backends, besides :data:`NEVER`."""
    guarded_ports: frozenset[int] = GUARDED_PORTS
    """Ports of hosts that no VIP leads to."""

    def judge(self, claims: Iterable[Claim], hosts: Collection[str] = ()) -> Judgement:
        """What counts of these claims, which have to be all claims on their places (:func:`place_of`), or all there are.

        Args:
            claims: In any order.
            hosts: Addresses of this host and of every member, in canonical form: no VIP may be at one.
        """
        by_place: dict[str, list[Claim]] = {}
        for claim in claims:
            by_place.setdefault(place_of(claim.vip.key), []).append(claim)
        accepted: list[Claim] = []
        refusals: list[Refusal] = []
        for place in sorted(by_place):
            lawful: list[Claim] = []
            for claim in sorted(by_place[place], key=_precedence):
                refusal = self._refuse(claim, hosts)
                if refusal is None:
                    lawful.append(claim)
                else:
                    refusals.append(refusal)
            for claim in lawful:
                owner = lawful[0].claimant
                if claim.claimant == owner:
                    accepted.append(self._without_refused_backends(claim, hosts, refusals))
                else:
                    detail = f"{place} is {owner[1] or 'nobody in particular'}'s (source {owner[0] or '?'})"
                    refusals.append(_refusal(claim, RefusalReason.QUARANTINED, detail))
        return Judgement(tuple(accepted), tuple(refusals))

    def _rule(self, claim: Claim) -> Rule | None:
        return next((rule for rule in self.rules if rule.fits(claim)), None)

    def _refuse(self, claim: Claim, hosts: Collection[str]) -> Refusal | None:
        """Why the claim would not count even if it were the only one."""
        key, rule = claim.vip.key, self._rule(claim)
        if isinstance(key.host, str):
            kind = "the address of a host" if key.host in hosts else self._denied(key.host)
            if kind:
                return _refusal(claim, RefusalReason.DENIED_ADDRESS, kind)
        if rule is None:
            return _refusal(claim, RefusalReason.NO_RULE)
        verdict = _refuse_host(key.host, rule)
        if verdict is None and not any(low <= key.port <= high for low, high in rule.ports):
            ranges = " ".join(f"{low}-{high}" for low, high in rule.ports)
            verdict = RefusalReason.PORT, f"allowed: {ranges or 'none'}"
        return None if verdict is None else _refusal(claim, *verdict)

    def _without_refused_backends(self, claim: Claim, hosts: Collection[str], refusals: list[Refusal]) -> Claim:
        rule = self._rule(claim)
        kept: list[Backend] = []
        for backend in claim.vip.backends:
            verdict = self._refuse_backend(backend, claim, rule, hosts)
            if verdict is None:
                kept.append(backend)
            else:
                refusals.append(replace(_refusal(claim, *verdict), backend=backend.key))
        if len(kept) == len(claim.vip.backends):
            return claim
        return replace(claim, vip=claim.vip.with_backends(kept))

    def _refuse_backend(
        self, backend: Backend, claim: Claim, rule: Rule | None, hosts: Collection[str]
    ) -> tuple[RefusalReason, str] | None:
        """Why the backend does not count. Where this or that host reaches it is as much of it as its address is."""
        places = [backend.key] if backend.local is None else [backend.key, backend.local]
        for place in places:
            if kind := self._denied(place.address):
                return RefusalReason.DENIED_BACKEND, kind
            if place.port in self.guarded_ports and (place.address in hosts or place.address == backend.agent):
                return RefusalReason.GUARDED_PORT, f"port {place.port} of {place.address}"
            allowed = rule is not None and place.address in rule.backend_networks
            if not allowed and place.address not in claim.vouched:
                return RefusalReason.BACKEND, place.address
        return None

    def _denied(self, address: str) -> str:
        """What kind of address it is, if nobody may be there; else nothing."""
        return _never(address) or ("denied by the policy" if self.denied.texts and address in self.denied else "")


@lru_cache(maxsize=4096)
def _number(address: str) -> tuple[int, int]:
    """Its family, and its bits as a number. Kept, for many backends are on few hosts."""
    family, packed = parse_address(address)
    return family, int.from_bytes(packed, "big")


@lru_cache(maxsize=4096)
def _never(address: str) -> str:
    return next((kind for kind, networks in NEVER if address in networks), "")


def _refuse_host(host: str | VIPName, rule: Rule) -> tuple[RefusalReason, str] | None:
    if isinstance(host, str):
        allowed = " ".join(rule.vip_networks.texts) or "none"
        return None if host in rule.vip_networks else (RefusalReason.ADDRESS, f"allowed: {allowed}")
    if not rule.names:
        return RefusalReason.NAME, ""
    try:
        dns_name(host)
    except InvalidVIPError as error:
        return RefusalReason.NO_NAME, str(error)
    return None


def _precedence(claim: Claim) -> tuple[int, tuple[str, str], str, tuple[int, bool, tuple[str, ...], int]]:
    """Who is first at a place: the lesser order, then the lesser claimant; the rest only orders what is written of them."""
    return claim.order, claim.claimant, claim.node, claim.vip.key.sort_key


def _refusal(claim: Claim, reason: RefusalReason, detail: str = "") -> Refusal:
    return Refusal(claim.vip.key, claim.claimant, claim.node, reason, detail)
