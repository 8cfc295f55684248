"""VIPs from a rules file of ipvsadm (``ipvsadm -Sn``, ``/etc/ipvsadm.rules``).

Invariants:

1. What the rules say and a VIP cannot hold is a problem that is named, and that service is left out: nothing is bent to fit.
2. A line that ``ipvsadm -R`` could not carry out makes the file as a whole one that cannot be read; then what it said before stands.

The file is watched, and counts, as :mod:`pyminuteman.sources.file` says. For the whole table, firewall marks and all, on one machine
there is ``minuteman ipvs apply``.
"""

from __future__ import annotations

from pathlib import Path

from pyminuteman.ipvs.destination import Destination, ForwardingMethod, Tunnel
from pyminuteman.ipvs.ipvsadm_parser import parse_table
from pyminuteman.ipvs.service import Service
from pyminuteman.sources.base import SourceProblem
from pyminuteman.sources.file import FileReading, FileSource
from pyminuteman.vips.model import VIP, WEIGHT_MAX, Backend, InvalidVIPError, VIPKey, VIPSettings

__all__ = ["ipvsadm_rules_source", "read_rules"]


def ipvsadm_rules_source(path: Path | str) -> FileSource:
    """VIPs from that rules file; or from all ``*.rules`` of that directory."""
    absolute = Path(path).absolute()
    return FileSource(absolute, name=f"ipvsadm:{absolute}", interpret=read_rules, suffixes=(".rules",))


def read_rules(text: str, path: Path) -> FileReading:
    """What a rules file says.

    Raises:
        ConfigurationError: A line cannot be carried out; it is named.
    """
    vips: list[VIP] = []
    problems: list[SourceProblem] = []
    wrong: set[VIPKey | None] = set()
    for service, rows in parse_table(text, path=str(path)).items():
        key = None
        try:
            key = _key(service)
            vips.append(_vip(key, service, rows))
        except InvalidVIPError as error:
            problems.append(SourceProblem(f"{path}: {service.key}", str(error)))
            if key is not None:
                wrong.add(key)  # what can be no VIP by its very key never was one
    return FileReading(tuple(sorted(vips, key=lambda vip: vip.key.sort_key)), tuple(problems), frozenset(wrong))


def _key(service: Service) -> VIPKey:
    key = service.key
    if key.protocol is None:
        raise InvalidVIPError("a firewall mark is no VIP, which is an address and a port")
    if key.port == 0:
        raise InvalidVIPError("every port (0) is no VIP, which has one port")
    return VIPKey(key.protocol, key.address, key.port)


def _vip(key: VIPKey, service: Service, rows: list[Destination]) -> VIP:
    if service.persistence_engine:
        raise InvalidVIPError(f"a VIP has no persistence engine (--pe {service.persistence_engine})")
    methods = {row.forward for row in rows}
    if len(methods) > 1:
        raise InvalidVIPError("its destinations are reached in different ways; all of a VIP are reached in one (-m, -g or -i)")
    for row in rows:
        if row.family != service.key.family and row.forward is not ForwardingMethod.TUNNEL:
            raise InvalidVIPError(f"{row}, of the other address family, is reached only by a tunnel (-i)")
        if row.upper_threshold or row.lower_threshold:
            raise InvalidVIPError(f"{row} has thresholds (-x, -y), which a backend has not")
        if row.tunnel not in {None, Tunnel()}:
            raise InvalidVIPError(f"{row} is reached by a tunnel that is not plain ipip")
        if row.weight > WEIGHT_MAX:
            raise InvalidVIPError(f"{row} has weight {row.weight}; a backend has at most {WEIGHT_MAX}")
    forward = methods.pop() if methods else ForwardingMethod.MASQUERADE
    settings = VIPSettings(service.scheduler, service.flags, service.persistence, forward)
    return VIP(key, tuple(Backend(row.address, row.port, row.weight) for row in rows), settings)
