"""What sources say and the data plane obeys: VIPs, their backends, and how connections are shared among them.

Pure. A VIP is known by its key (protocol, host, port); the host is an address, or a name that every node maps to the same addresses
(:mod:`pyminuteman.vips.allocation`). Nothing here knows who is in reach: that is decided in :mod:`pyminuteman.vips.desired`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Self

from pyminuteman.addresses import format_address, format_endpoint, parse_address, parse_endpoint
from pyminuteman.errors import MinutemanError
from pyminuteman.ipvs.destination import ForwardingMethod
from pyminuteman.ipvs.errors import InvalidServiceError
from pyminuteman.ipvs.service import Persistence, Protocol, Service, ServiceFlags, ServiceKey

__all__ = ["VIP", "WEIGHT_MAX", "Backend", "BackendKey", "InvalidVIPError", "VIPKey", "VIPName", "VIPSettings"]

WEIGHT_MAX: Final = 65535
"""Largest weight of a backend; the kernel takes more, and no scheduler makes use of it."""
_PORT_MAX: Final = 65535
_KEY_TEXT_MAX: Final = 1024  # a key prints as half of that at most
_TEXT_MAX_BYTES: Final = 255
"""Longest label, framework or principal, in UTF-8: what a DNS name has room for."""
_DRAIN_MAX_SECONDS: Final = 86400
_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - stand for the addresses that a name will have; nothing is bound


class InvalidVIPError(MinutemanError, ValueError):
    """A VIP or backend was described that cannot be. Nothing was changed; the text says what is accepted."""


def _check_text(what: str, text: str, *, empty: bool = False) -> None:
    # Printable first: half of a surrogate pair, which JSON can say, is not, and cannot be encoded.
    if not (text or empty) or not text.isprintable() or len(text.encode()) > _TEXT_MAX_BYTES:
        msg = f"{what} {text!r} is not 1 to {_TEXT_MAX_BYTES} bytes of printable text"
        raise InvalidVIPError(msg)


def _check_port(port: int) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port <= _PORT_MAX:
        msg = f"{port!r} is not a port (1 to {_PORT_MAX})"
        raise InvalidVIPError(msg)


def _canonical(address: str) -> str:
    try:
        return format_address(parse_address(address)[1])
    except ValueError as error:
        raise InvalidVIPError(str(error)) from None


@dataclass(frozen=True, slots=True, order=True)
class VIPName:
    """The name of a VIP, as its label writes it, and the framework that it is a name in: ``/foo`` of ``marathon``."""

    label: str
    framework: str

    def __post_init__(self) -> None:
        """Validate."""
        _check_text("label", self.label)
        _check_text("framework", self.framework)

    def __str__(self) -> str:
        """``/foo@marathon``: what it was called. The DNS name is in :mod:`pyminuteman.vips.names`."""
        return f"{self.label}@{self.framework}"


@dataclass(frozen=True, slots=True)
class VIPKey:
    """Where clients connect to: TCP or UDP (or SCTP), an address or a name, and a port (1 to 65535).

    Raises:
        InvalidVIPError: The protocol, the address or the port is none.
    """

    protocol: Protocol
    host: str | VIPName
    """An address in its canonical text, or a name."""
    port: int

    def __post_init__(self) -> None:
        """Validate; an address is brought into its canonical form."""
        _check_port(self.port)
        if self.protocol not in Protocol._value2member_map_:
            msg = f"{self.protocol!r} is not a protocol (6, 17 or 132: TCP, UDP, SCTP)"
            raise InvalidVIPError(msg)
        object.__setattr__(self, "protocol", Protocol(self.protocol))
        if isinstance(self.host, str):
            object.__setattr__(self, "host", _canonical(self.host))

    @classmethod
    def tcp(cls, host: str | VIPName, port: int) -> Self:
        """A TCP VIP."""
        return cls(Protocol.TCP, host, port)

    @classmethod
    def udp(cls, host: str | VIPName, port: int) -> Self:
        """A UDP VIP."""
        return cls(Protocol.UDP, host, port)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` prints. Of a name with more than one ``@``, the framework is what is behind the last.

        Raises:
            InvalidVIPError: It is no key.
        """
        scheme, separator, place = text.partition("://")
        protocol = Protocol.__members__.get(scheme.upper()) if scheme.islower() else None
        if protocol is None or not separator or len(text) > _KEY_TEXT_MAX:
            msg = f"{text!r:.80} is not a VIP: expected tcp://11.0.0.1:80, tcp://[fd00::1]:80 or tcp:///foo@marathon:80"
            raise InvalidVIPError(msg)
        host, _, digits = place.rpartition(":")
        label, named, framework = host.rpartition("@")
        if not named:
            try:
                address, number = parse_endpoint(place)
            except ValueError as error:
                raise InvalidVIPError(str(error)) from None
            return cls(protocol, address, number or 0)  # 0, which is refused: a VIP has a port
        port = int(digits) if digits.isascii() and digits.isdigit() else 0
        return cls(protocol, VIPName(label, framework), port)

    def __hash__(self) -> int:
        """Without the protocol: it tells few keys apart, and hashing an enumeration's member costs more than all the rest."""
        return hash((self.host, self.port))

    @property
    def sort_key(self) -> tuple[int, bool, tuple[str, ...], int]:
        """For an order that is the same on every node."""
        host = self.host
        named = isinstance(host, VIPName)
        return self.protocol, named, (host.label, host.framework) if isinstance(host, VIPName) else (host,), self.port

    def __str__(self) -> str:
        """``tcp://11.0.0.1:80``, ``tcp://[fd00::1]:80`` or ``tcp:///foo@marathon:80``."""
        host = self.host
        place = f"{host}:{self.port}" if isinstance(host, VIPName) else format_endpoint(host, self.port)
        return f"{self.protocol.name.lower()}://{place}"


@dataclass(frozen=True, slots=True, order=True)
class BackendKey:
    """What tells the backends of one VIP apart."""

    address: str
    port: int

    def __str__(self) -> str:
        """``10.0.0.5:8080``."""
        return format_endpoint(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Backend:
    """Where connections of a VIP go to.

    Raises:
        InvalidVIPError: An address that is none, a port or weight out of its range.
    """

    address: str
    port: int
    weight: int = 1
    """Relative share, 0 to :data:`WEIGHT_MAX`; 0 takes no new connections and keeps those it has."""
    agent: str = ""
    """Address of the host it runs on: it is in reach when that member is. Empty: it is on no member, and always held in reach."""
    local: BackendKey | None = None
    """Where the same container is reached on its own host, past the host's port mapping; None where there is none. Connections that
    start on that host do not pass its port mapping a second time."""
    key: BackendKey = field(init=False, repr=False, compare=False)
    """Address and port."""

    def __post_init__(self) -> None:
        """Validate; addresses are brought into their canonical form."""
        object.__setattr__(self, "address", _canonical(self.address))
        object.__setattr__(self, "key", BackendKey(self.address, self.port))
        if self.agent:
            object.__setattr__(self, "agent", _canonical(self.agent))
        _check_port(self.port)
        if self.local is not None:
            _check_port(self.local.port)
            object.__setattr__(self, "local", BackendKey(_canonical(self.local.address), self.local.port))
        if isinstance(self.weight, bool) or not isinstance(self.weight, int) or not 0 <= self.weight <= WEIGHT_MAX:
            msg = f"{self.weight!r} is not a weight (0 to {WEIGHT_MAX})"
            raise InvalidVIPError(msg)


@dataclass(frozen=True, slots=True)
class VIPSettings:
    """How a VIP shares its connections. The defaults are what Minuteman did."""

    scheduler: str = "wlc"
    flags: ServiceFlags = ServiceFlags.NONE
    persistence: Persistence | None = None
    forward: ForwardingMethod = ForwardingMethod.MASQUERADE
    drain_seconds: float = 0.0
    """How long a backend that is taken away keeps its connections (weight 0) before it goes; 0 takes it away at once."""

    def __post_init__(self) -> None:
        """Validate what does not depend on the VIP."""
        seconds = self.drain_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _DRAIN_MAX_SECONDS:
            msg = f"{seconds!r} is not a time to drain (0 to {_DRAIN_MAX_SECONDS} seconds)"
            raise InvalidVIPError(msg)
        if self.forward not in ForwardingMethod._value2member_map_:
            msg = f"{self.forward!r} is not a way to forward packets"
            raise InvalidVIPError(msg)

    def service(self, key: ServiceKey) -> Service:
        """The service that a VIP with these settings is at that place.

        Raises:
            InvalidServiceError: The settings do not go with the place: a netmask of the other family, one-packet scheduling of TCP.
        """
        return Service(key, self.scheduler, self.flags, self.persistence)


_DEFAULTS: Final = VIPSettings()


@dataclass(frozen=True, slots=True)
class VIP:
    """A VIP with its backends, in the order of their keys.

    Raises:
        InvalidVIPError: Two backends have one address and port, or the kernel could hold no such VIP with these settings.
    """

    key: VIPKey
    backends: tuple[Backend, ...] = ()
    settings: VIPSettings = field(default_factory=VIPSettings)
    principal: str = ""
    """On whose behalf the source claims it, such as a Mesos framework; empty for the source itself. The policy goes by it."""

    def __post_init__(self) -> None:
        """Sort the backends, and validate."""
        _check_text("principal", self.principal, empty=True)
        backends = tuple(sorted(self.backends, key=lambda backend: backend.key))
        for one, other in pairwise(backends):
            if one.key == other.key:
                msg = f"{self.key} has two backends at {one.key}"
                raise InvalidVIPError(msg)
        object.__setattr__(self, "backends", backends)
        if self.settings != _DEFAULTS:
            self._check_settings()

    def _check_settings(self) -> None:
        """A named VIP has to be possible in one family at least; whether it is in the other is seen where it gets its address."""
        host, reason = self.key.host, ""
        for address in _ANYWHERE if isinstance(host, VIPName) else (host,):
            try:
                self.settings.service(ServiceKey(self.key.protocol, address, self.key.port))
            except InvalidServiceError as error:
                reason = reason or str(error)
            else:
                return
        msg = f"{self.key}: {reason}"
        raise InvalidVIPError(msg)

    def with_backends(self, backends: Iterable[Backend]) -> VIP:
        """The same VIP with other backends."""
        return VIP(self.key, tuple(backends), self.settings, self.principal)
