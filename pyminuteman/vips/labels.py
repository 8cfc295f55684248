"""What a label says: which port, of which task, answers at which VIP.

Pure. Invariants:

1. A label that cannot be understood costs that label, and no other.
2. What a label asks for depends on the label alone: not on its neighbours, their order or what was said before.

Two generations of rules are kept, so that a cluster that moves keeps its labels. The current ones are dcos-net's (2018 to 2020). The
*legacy* ones are Minuteman's (2016 to 2018), for those whose labels only it would read; they know no IPv6. Where neither says what it
means for certain, a label is refused with a reason, and not guessed at: ``docs/labels.md`` has the table of differences.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from socket import inet_aton
from typing import Final

from pyminuteman.addresses import format_address, parse_address
from pyminuteman.errors import MinutemanError
from pyminuteman.ipvs.service import Protocol
from pyminuteman.vips.model import VIPKey, VIPName
from pyminuteman.vips.names import dns_name

__all__ = [
    "InvalidLabelError",
    "LabelProblem",
    "LabelVIP",
    "NetworkScope",
    "PortLabels",
    "TaskLabels",
    "TaskVIP",
    "parse_port_value",
    "parse_protocol",
    "parse_task_value",
    "port_key",
    "read_port_labels",
    "read_task_labels",
    "task_key",
]

_PORT_MAX: Final = 65535
_INDEX_MAX: Final = 65535
"""A task has no more ports than there are."""
_TASK_KEY: Final = "vip_port"
_SHOWN: Final = 80
"""How much of a value is shown in an error: labels may hold whole documents."""
_PROTOCOLS: Final = {"tcp": Protocol.TCP, "udp": Protocol.UDP}


class InvalidLabelError(MinutemanError, ValueError):
    """A label was meant for a VIP and says none. Nothing comes of it; the text says what is accepted."""


class NetworkScope(Enum):
    """Whose port a port's number is (label ``network-scope``)."""

    HOST = "host"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True)
class LabelVIP:
    """A VIP as its label has it.

    Attributes:
        host: An address in its canonical text, or a name exactly as written: ``/foo``.
        port: 1 to 65535.
        named: Whether ``host`` is a name.
        warning: What was understood but should be written otherwise; empty when nothing is to be said.
    """

    host: str
    port: int
    named: bool = False
    warning: str = ""

    def key(self, protocol: Protocol, framework: str) -> VIPKey:
        """The VIP that is meant when a task of that framework says it.

        Raises:
            InvalidVIPError: The name or the framework is too long, not printable, or nothing of it is left for DNS.
        """
        if not self.named:
            return VIPKey(protocol, self.host, self.port)
        name = VIPName(self.host, framework)
        dns_name(name)  # raises when there is none
        return VIPKey(protocol, name, self.port)


@dataclass(frozen=True, slots=True)
class LabelProblem:
    """A label of which nothing comes, or (``warning``) something that should be written otherwise."""

    key: str
    reason: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class PortLabels:
    """What the labels of one port say."""

    vips: tuple[LabelVIP, ...] = ()
    scope: NetworkScope | None = None
    problems: tuple[LabelProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskVIP:
    """What a task label says: the ``index``-th (from 0) of the task's resource ports answers at the VIP."""

    index: int
    protocol: Protocol
    vip: LabelVIP


@dataclass(frozen=True, slots=True)
class TaskLabels:
    """What the labels of one task say."""

    vips: tuple[TaskVIP, ...] = ()
    problems: tuple[LabelProblem, ...] = ()


# -- keys --------------------------------------------------------------------------------------------------------------


def port_key(key: str, *, legacy: bool = False) -> bool:
    """Whether a port's label of that key holds a VIP: it begins with ``VIP`` or ``vip`` (``Vip`` does not).

    Legacy: it contains either anywhere.
    """
    return "VIP" in key or "vip" in key if legacy else key.startswith(("VIP", "vip"))


def task_key(key: str) -> int | None:
    """The number of the port that a task's label of that key is about: ``vip_PORT0`` in any case; None for other keys.

    Raises:
        InvalidLabelError: It begins so, and goes on without a number, or with one above 65535.
    """
    lowered = key.lower()
    if not lowered.startswith(_TASK_KEY):
        return None
    digits = lowered[len(_TASK_KEY) :]
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= _INDEX_MAX):  # noqa: PLR2004 - 65535
        msg = f"{_shown(key)} is no key for a VIP: expected {_TASK_KEY}N with the number of a port (0 to {_INDEX_MAX})"
        raise InvalidLabelError(msg)
    return int(digits)


# -- values ------------------------------------------------------------------------------------------------------------


def parse_port_value(value: str, *, legacy: bool = False) -> LabelVIP:
    """Read ``HOST:PORT`` with an IPv4 address, an IPv6 address (in brackets, or bare with a warning) or a name.

    The last colon divides them. Legacy: the first, so there is no IPv6; and an address may be short, octal or hexadecimal, as
    ``inet_aton`` has it: ``10.1`` is 10.0.0.1.

    Raises:
        InvalidLabelError: Something else.
    """
    if "://" in value:
        msg = f"{_shown(value)} has a scheme; the protocol is the port's, and the label says only HOST:PORT"
        raise InvalidLabelError(msg)
    return _parse(value, legacy=legacy)


def parse_task_value(value: str, *, legacy: bool = False) -> tuple[Protocol, LabelVIP]:
    """Read ``tcp://HOST:PORT`` or ``udp://HOST:PORT``. Legacy: the host is an IPv4 address.

    Raises:
        InvalidLabelError: Something else.
    """
    scheme, divider, rest = value.partition("://")
    if not divider or scheme.lower() not in _PROTOCOLS:
        msg = f"{_shown(value)} is not tcp://HOST:PORT or udp://HOST:PORT"
        raise InvalidLabelError(msg)
    vip = _parse(rest, legacy=legacy)
    if legacy and vip.named:
        msg = f"{_shown(value)}: by the legacy rules a task's label takes an IPv4 address, no name"
        raise InvalidLabelError(msg)
    return _PROTOCOLS[scheme.lower()], vip


def parse_protocol(text: str) -> Protocol:
    """``tcp`` or ``udp`` in any case; empty is TCP, as Mesos has it.

    Raises:
        InvalidLabelError: Something else.
    """
    protocol = _PROTOCOLS.get(text.lower() or "tcp")
    if protocol is None:
        msg = f"{_shown(text)} is not a protocol that is balanced (tcp or udp)"
        raise InvalidLabelError(msg)
    return protocol


def _parse(value: str, *, legacy: bool) -> LabelVIP:
    host, colon, digits = value.partition(":") if legacy else value.rpartition(":")
    if not colon or not host:
        msg = f"{_shown(value)} is not HOST:PORT"
        raise InvalidLabelError(msg)
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) <= _PORT_MAX):  # noqa: PLR2004
        msg = f"{_shown(value)}: {_shown(digits)} is not a port (1 to {_PORT_MAX})"
        raise InvalidLabelError(msg)
    port = int(digits)
    if legacy:
        address = _lenient_ipv4(host)
        return LabelVIP(host, port, named=True) if address is None else LabelVIP(address, port)
    return _current(value, host, port)


def _current(value: str, host: str, port: int) -> LabelVIP:
    bracketed = host.startswith("[") and host.endswith("]")
    text = host[1:-1] if bracketed else host
    try:
        address = format_address(parse_address(text)[1])
    except ValueError:
        if bracketed or ":" in host:
            msg = f"{_shown(value)}: {_shown(host)} is neither an IPv6 address nor a name (which has no colon or brackets)"
            raise InvalidLabelError(msg) from None
        return LabelVIP(host, port, named=True)
    if bracketed and ":" not in text:
        msg = f"{_shown(value)}: only an IPv6 address goes in brackets"
        raise InvalidLabelError(msg)
    if ":" in text and not bracketed:
        return LabelVIP(address, port, warning=f"{_shown(value)} is taken for [{address}]:{port}; write it with brackets")
    return LabelVIP(address, port)


def _lenient_ipv4(text: str) -> str | None:
    if not text.isascii() or not text.isprintable() or " " in text:
        return None  # inet_aton stops at a blank and takes what was before it
    try:
        return format_address(inet_aton(text))
    except OSError:
        return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


# -- labels ------------------------------------------------------------------------------------------------------------


def read_port_labels(labels: Iterable[tuple[str, str]], *, legacy: bool = False) -> PortLabels:
    """Everything that the labels of a port, keys and values, say. A VIP that two of them say counts once."""
    vips: dict[LabelVIP, None] = {}
    problems: list[LabelProblem] = []
    scope: NetworkScope | None = None
    for key, value in labels:
        if key == "network-scope":
            try:
                scope = NetworkScope(value)
            except ValueError:
                problems.append(LabelProblem(key, f"{_shown(value)} is not a scope (host or container)"))
        elif port_key(key, legacy=legacy):
            try:
                vip = parse_port_value(value, legacy=legacy)
            except InvalidLabelError as error:
                problems.append(LabelProblem(key, str(error)))
            else:
                vips[vip] = None
                if vip.warning:
                    problems.append(LabelProblem(key, vip.warning, warning=True))
    return PortLabels(tuple(vips), scope, tuple(problems))


def read_task_labels(labels: Iterable[tuple[str, str]], *, legacy: bool = False) -> TaskLabels:
    """Everything that the labels of a task, keys and values, say of its ports."""
    vips: dict[TaskVIP, None] = {}
    problems: list[LabelProblem] = []
    for key, value in labels:
        try:
            index = task_key(key)
            if index is None:
                continue
            protocol, vip = parse_task_value(value, legacy=legacy)
        except InvalidLabelError as error:
            problems.append(LabelProblem(key, str(error)))
            continue
        vips[TaskVIP(index, protocol, vip)] = None
        if vip.warning:
            problems.append(LabelProblem(key, vip.warning, warning=True))
    return TaskLabels(tuple(vips), tuple(problems))
