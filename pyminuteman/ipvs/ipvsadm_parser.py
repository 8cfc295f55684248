"""Reading the text format of ``ipvsadm -S`` and ``ipvsadm -R``.

Pure. Lines mean what they mean to ``ipvsadm -R``, long and short options alike; but where ipvsadm prints a complaint and goes
on (or stops half way), a line that cannot be carried out is an error that names it, and nothing comes of the file.
Comments and blank lines are passed over (``ipvsadm -R`` stops at a comment).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from socket import getservbyname
from typing import Final, NoReturn

from pyminuteman.addresses import IPV4, IPV6, parse_endpoint
from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs.destination import Destination, ForwardingMethod, Tunnel, TunnelFlags, TunnelType
from pyminuteman.ipvs.errors import IPVSError
from pyminuteman.ipvs.service import Persistence, Protocol, Service, ServiceFlags, ServiceKey

__all__ = ["parse_table"]

# name, and whether it takes a value: "" no, "=" yes, "?" perhaps (one that does not begin with "-").
_LONG: Final = {
    "add-service": "",
    "add-server": "",
    "tcp-service": "=",
    "udp-service": "=",
    "sctp-service": "=",
    "fwmark-service": "=",
    "scheduler": "=",
    "persistent": "?",
    "netmask": "=",
    "pe": "=",
    "ops": "",
    "sched-flags": "?",  # ipvsadm prints an empty one for flags it has no name for
    "ipv6": "",
    "real-server": "=",
    "gatewaying": "",
    "ipip": "",
    "masquerading": "",
    "weight": "=",
    "u-threshold": "=",
    "l-threshold": "=",
    "tun-type": "=",
    "tun-port": "=",
    "tun-nocsum": "",
    "tun-csum": "",
    "tun-remcsum": "",
}
_SHORT: Final = {
    "A": "add-service",
    "a": "add-server",
    "t": "tcp-service",
    "u": "udp-service",
    "f": "fwmark-service",
    "s": "scheduler",
    "p": "persistent",
    "M": "netmask",
    "o": "ops",
    "O": "ops",
    "b": "sched-flags",
    "6": "ipv6",
    "r": "real-server",
    "g": "gatewaying",
    "i": "ipip",
    "m": "masquerading",
    "w": "weight",
    "x": "u-threshold",
    "y": "l-threshold",
}
_SERVICE_OPTIONS: Final = {"scheduler", "persistent", "netmask", "pe", "ops", "sched-flags"}
_DESTINATION_OPTIONS: Final = {
    "real-server",
    "gatewaying",
    "ipip",
    "masquerading",
    "weight",
    "u-threshold",
    "l-threshold",
    "tun-type",
    "tun-port",
    "tun-nocsum",
    "tun-csum",
    "tun-remcsum",
}
_KEYS: Final = {"tcp-service": Protocol.TCP, "udp-service": Protocol.UDP, "sctp-service": Protocol.SCTP}
_FLAGS: Final = {
    "flag-1": ServiceFlags.SCHEDULER_1,
    "flag-2": ServiceFlags.SCHEDULER_2,
    "flag-3": ServiceFlags.SCHEDULER_3,
    "sh-fallback": ServiceFlags.SH_FALLBACK,
    "sh-port": ServiceFlags.SH_PORT,
    "mh-fallback": ServiceFlags.MH_FALLBACK,
    "mh-port": ServiceFlags.MH_PORT,
}

_QUOTING: Final = frozenset("\"'\\#")
"""Characters that mean something to :mod:`shlex`."""

PortByName = Callable[[str, str], int]


def parse_table(
    text: str, *, path: Path | str | None = None, port_by_name: PortByName = getservbyname
) -> dict[Service, list[Destination]]:
    """Read a rules file into what :meth:`IPVSTable.converge` takes.

    Args:
        text: Its lines.
        path: Where they came from, for errors.
        port_by_name: Finds the number of ``http`` in ``10.0.0.1:http`` (``ipvsadm -S`` without ``-n`` writes such).

    Raises:
        ConfigurationError: For the first line that cannot be carried out; ``key`` is ``"line N"``.
    """
    services: dict[ServiceKey, Service] = {}
    table: dict[ServiceKey, dict[bytes, Destination]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = _words(line)
            if not words:
                continue
            options = _options(words[1:] if words[0] == "ipvsadm" else words)
            key = _key(options, port_by_name)
            if "add-service" in options:
                if key in services:
                    _refuse(f"{key} is there already")
                services[key] = _service(key, options)
                table[key] = {}
            else:
                if key not in services:
                    _refuse(f"{key} has not been added (-A) above")
                destination = _destination(key, options, port_by_name)
                if destination.key in table[key]:
                    _refuse(f"{key} has destination {destination} already")
                table[key][destination.key] = destination
        except (ValueError, IPVSError) as error:
            raise ConfigurationError(path, f"line {number}", str(error)) from None
    return {service: list(table[key].values()) for key, service in services.items()}


def _words(line: str) -> list[str]:
    """As a shell would split it. Lines without quotes and comments, which is what ipvsadm writes, take a short cut."""
    if line.isascii() and _QUOTING.isdisjoint(line):
        return line.split()
    return shlex.split(line, comments=True)


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


def _options(words: list[str]) -> dict[str, str]:
    """Options to their values; exactly one of ``add-service`` and ``add-server`` is among them."""
    options: dict[str, str] = {}
    rest = words[::-1]
    while rest:
        word = rest.pop()
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            _take(options, word, name, value if equals else None, rest)
        elif word.startswith("-") and len(word) > 1:
            _take_letters(options, word[1:], rest)
        else:
            _refuse(f"{word!r} belongs to no option")
    if ("add-service" in options) == ("add-server" in options):
        _refuse("expected -A (a service) or -a (a destination)")
    foreign = _DESTINATION_OPTIONS if "add-service" in options else _SERVICE_OPTIONS
    for name in sorted(foreign & options.keys()):
        _refuse(f"--{name} does not go with {'-A' if 'add-service' in options else '-a'}")
    return options


def _take_letters(options: dict[str, str], letters: str, rest: list[str]) -> None:
    """Short options in one word, ``-mw7``: the first that takes a value has the remainder for it, or the next word."""
    for at, letter in enumerate(letters, 1):
        name, remainder = _SHORT.get(letter, ""), letters[at:]
        if name and _LONG[name] and remainder:
            _take(options, f"-{letter}", name, remainder.removeprefix("="), rest)
            return
        _take(options, f"-{letter}", name, None, rest)


def _take(options: dict[str, str], word: str, name: str, value: str | None, rest: list[str]) -> None:
    """Note one option. ``rest`` holds the words not yet read, the next one last."""
    if name not in _LONG:
        _refuse(f"{word}: a rules file has only -A and -a and what goes with them")
    if name in options:
        _refuse(f"--{name} is given twice")
    wants = _LONG[name]
    if value is not None and not wants:
        _refuse(f"--{name} takes no value")
    if value is None and wants == "=" and not rest:
        _refuse(f"--{name} needs a value")
    if value is None and rest and (wants == "=" or (wants == "?" and not rest[-1].startswith("-"))):
        value = rest.pop()
    options[name] = value or ""


def _number(options: dict[str, str], name: str, default: int) -> int:
    value = options.get(name, str(default))
    if not (value.isascii() and value.isdigit()):
        _refuse(f"--{name} {value!r} is not a number")
    return int(value)


def _endpoint(text: str, protocol: str, port_by_name: PortByName) -> tuple[str, int | None]:
    """An address, and a port if there is one, by number or by name."""
    head, colon, port = text.rpartition(":")
    if colon and port and not port.isdigit() and (head.endswith("]") or ":" not in head) and not text.endswith("]"):
        try:
            text = f"{head}:{port_by_name(port, protocol)}"
        except OSError:
            _refuse(f"{text!r}: no such port or service name: {port!r}")
    try:
        return parse_endpoint(text)
    except ValueError as error:
        msg = f"{error} (names of hosts are not looked up: save the table with ipvsadm -Sn)"
        raise ValueError(msg) from None


def _key(options: dict[str, str], port_by_name: PortByName) -> ServiceKey:
    given = [name for name in (*_KEYS, "fwmark-service") if name in options]
    if len(given) != 1:
        _refuse("expected exactly one of -t, -u, --sctp-service and -f")
    name = given[0]
    if name == "fwmark-service":
        mark = options[name]
        if not (mark.isascii() and mark.removeprefix("-").isdigit()):
            _refuse(f"firewall mark {mark!r} is not a number")
        # ipvsadm prints marks above 2**31 - 1 as negative ones.
        return ServiceKey.fwmark(int(mark) % 2**32, IPV6 if "ipv6" in options else IPV4)
    protocol = _KEYS[name]
    address, port = _endpoint(options[name], protocol.name.lower(), port_by_name)
    if port is None:
        _refuse(f"{options[name]!r} has no port")
    return ServiceKey(protocol, address, port or 0)


def _service(key: ServiceKey, options: dict[str, str]) -> Service:
    persistence = None
    if "persistent" in options:
        persistence = Persistence(
            _number(options, "persistent", 0) if options["persistent"] else 360, _netmask(key, options.get("netmask", ""))
        )
    flags = ServiceFlags.ONE_PACKET if "ops" in options else ServiceFlags.NONE
    for name in filter(None, options.get("sched-flags", "").split(",")):
        if name not in _FLAGS:
            _refuse(f"scheduler flag {name!r} is none of {' '.join(_FLAGS)}")
        flags |= _FLAGS[name]
    return Service(key, options.get("scheduler", "wlc"), flags, persistence, options.get("pe", ""))


def _netmask(key: ServiceKey, text: str) -> str:
    if text and key.family == IPV4 and "." not in text:
        # ipvsadm reads "24" as the mask 0.0.0.24: surely not what was meant, so it is not guessed at.
        _refuse(f"-M {text}: write the mask out, as 255.255.255.0")
    return text


def _destination(key: ServiceKey, options: dict[str, str], port_by_name: PortByName) -> Destination:
    if "real-server" not in options:
        _refuse("expected -r ADDRESS[:PORT]")
    protocol = key.protocol.name.lower() if key.protocol else "tcp"
    address, port = _endpoint(options["real-server"], protocol, port_by_name)
    methods = [name for name in ("gatewaying", "ipip", "masquerading") if name in options]
    if len(methods) > 1:
        _refuse("expected at most one of -g, -i and -m")
    forward = {
        "masquerading": ForwardingMethod.MASQUERADE,
        "ipip": ForwardingMethod.TUNNEL,
        "gatewaying": ForwardingMethod.ROUTE,
    }[methods[0] if methods else "gatewaying"]
    if port is None or (forward != ForwardingMethod.MASQUERADE and not key.mark):
        port = key.port  # as ipvsadm does: only NAT can change the port
    return Destination(
        address,
        port,
        _number(options, "weight", 1),
        forward,
        _number(options, "u-threshold", 0),
        _number(options, "l-threshold", 0),
        _tunnel(options) if forward == ForwardingMethod.TUNNEL else None,
    )


def _tunnel(options: dict[str, str]) -> Tunnel:
    name = options.get("tun-type", "ipip")
    if name.upper() not in TunnelType.__members__:
        _refuse(f"--tun-type {name!r} is none of ipip, gue, gre")
    flags = TunnelFlags.NONE
    if "tun-csum" in options:
        flags |= TunnelFlags.CHECKSUM
    if "tun-remcsum" in options:
        flags |= TunnelFlags.REMOTE_CHECKSUM
    return Tunnel(TunnelType[name.upper()], _number(options, "tun-port", 0), flags)
